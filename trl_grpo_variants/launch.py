# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Runs TRL scripts that know nothing of this package with its classes:

    accelerate launch [...] -m trl_grpo_variants.launch SCRIPT [...]
"""

import argparse
import runpy
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from .recipe import check_fields, check_options, described, launcher_flags, normalized, read_recipe


_MODULE = "trl_grpo_variants.launch"

_stock: dict[tuple[Any, str], type] = {}


def register() -> None:
    """
    Make `trl.GRPOTrainer` and `trl.GRPOConfig` the classes of this package, for imports that follow.

    With no variant set they are TRL's own in all that they do. Calling it again changes nothing; [`unregister`] takes
    it back. Names imported from `trl.trainer.grpo_trainer` and `trl.trainer.grpo_config` stay TRL's.
    """
    import trl
    import trl.trainer

    # Refuses a TRL that is not supported before anything is missed in it.
    import_module(".compat", __package__)
    from .config import GRPOVariantConfig
    from .trainer import GRPOVariantTrainer

    for module in (trl, trl.trainer):
        for name, replacement in (("GRPOTrainer", GRPOVariantTrainer), ("GRPOConfig", GRPOVariantConfig)):
            if getattr(module, name) is not replacement:
                _stock[module, name] = getattr(module, name)
                setattr(module, name, replacement)


def unregister() -> None:
    """Give `trl` its own `GRPOTrainer` and `GRPOConfig` back."""
    for (module, name), original in _stock.items():
        setattr(module, name, original)
    _stock.clear()


def launch_grpo(arguments: Sequence[str]) -> int:
    """
    Run TRL's own `grpo` script under `accelerate launch`, as the command `trl grpo` does; the exit code of the run.

    Arguments that the script's parser does not know go to `accelerate launch`. A wrong configuration is a
    `ValueError`, and nothing has been launched then.
    """
    register()
    from accelerate.commands.launch import launch_command

    try:
        launch_command(launch_arguments(normalized(arguments)))
    except subprocess.CalledProcessError as error:
        # Its own process has told why; a signal has no words.
        print(f"trl-variants: the run ended with exit code {error.returncode}.", file=sys.stderr)  # noqa: T201
        return error.returncode if error.returncode > 0 else 128 - error.returncode
    return 0


def launch_arguments(arguments: list[str]) -> argparse.Namespace:
    """What `accelerate launch` is given to run TRL's script, of a command line that is right."""
    from accelerate.commands.launch import launch_command_parser
    from trl.cli.accelerate_config import resolve_accelerate_config_argument
    from trl.scripts import grpo

    parser, launcher = grpo.make_parser(prog="trl-variants grpo"), launch_command_parser()
    # A part of a name may stand for an option of either parser, or be a mistake; the usage of both has 400 lines.
    parser.allow_abbrev = parser.exit_on_error = launcher.exit_on_error = False
    from_config, from_command_line = _launcher_options(arguments, parser, launcher)
    # The script refuses arguments that are the launcher's, but passes over such keys of its configuration file.
    script_arguments = []
    unknown = list(from_command_line)
    for argument in arguments:
        if unknown and argument == unknown[0]:
            del unknown[0]
        else:
            script_arguments.append(argument)
    given = launcher_flags(from_config, launcher) + from_command_line
    command = ["--module", _MODULE, grpo.__file__, *script_arguments]
    try:
        launch = launcher.parse_args([*resolve_accelerate_config_argument(given), *command])
    except argparse.ArgumentError as error:
        raise ValueError(described(error)) from error
    if launch.training_script != _MODULE:
        raise ValueError(f"{launch.training_script!r} is neither an option nor the value of one.")
    if launch.config_file is not None and not Path(launch.config_file).is_file():
        raise ValueError(f"There is no accelerate configuration {launch.config_file!r}.")
    return launch


def _launcher_options(arguments: list[str], parser: Any, launcher: Any) -> tuple[list[str], list[str]]:
    """Options of the launcher in the configuration file and on the command line, both of which are checked."""
    fields, options = read_recipe(arguments)
    check_fields(fields, parser.dataclass_types, parser, launcher)
    try:
        _, unknown = parser.parse_known_args(options)
        check_options(unknown, parser, launcher)
        *_, from_config, from_command_line = parser.parse_args_and_config(
            arguments, return_remaining_strings=True, separate_remaining_strings=True
        )
    except ValueError:
        raise
    except argparse.ArgumentError as error:
        raise ValueError(described(error)) from error
    except Exception as error:
        # What TRL and transformers do not check: they compute with it.
        nulls = [name for name, value in fields.items() if value is None]
        doubt = f" (of the fields that are null: {', '.join(nulls)})" if nulls else ""
        raise ValueError(
            f"The configuration cannot be used{doubt}: {type(error).__name__}: {str(error).rstrip(' .')}."
        ) from error
    return from_config, from_command_line


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run a script as `python SCRIPT ...` would, after [`register`].

    The exit code is 0, or 2 with one sentence on standard error if there is no script.
    """
    script, *arguments = (list(sys.argv[1:]) if argv is None else list(argv)) or [""]
    if script in ("-h", "--help"):
        print("usage: trl-variants run SCRIPT [ARGUMENT ...]")  # noqa: T201
        return 0
    if not Path(script).is_file():
        obstacle = f"{script!r} is a folder" if script and Path(script).is_dir() else f"There is no script {script!r}"
        print(f"{obstacle}; give the path of a script, then its arguments.", file=sys.stderr)  # noqa: T201
        return 2
    register()
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).resolve().parent)
    runpy.run_path(script, run_name="__main__")
    return 0


if __name__ == "__main__":
    sys.exit(main())
