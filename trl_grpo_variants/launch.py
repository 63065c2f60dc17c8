# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Runs TRL scripts that know nothing of this package with its classes:

    accelerate launch [...] -m trl_grpo_variants.launch SCRIPT [...]
"""

import runpy
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


_stock: dict[tuple[Any, str], type] = {}


def register() -> None:
    """
    Make `trl.GRPOTrainer` and `trl.GRPOConfig` the classes of this package, for imports that follow.

    With no variant set they are TRL's own in all that they do. Calling it again changes nothing; [`unregister`] takes
    it back. Names imported from `trl.trainer.grpo_trainer` and `trl.trainer.grpo_config` stay TRL's.
    """
    import trl
    import trl.trainer

    from . import GRPOVariantConfig, GRPOVariantTrainer

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


def run_script(script: str, arguments: Sequence[str]) -> None:
    """
    Run a script as `python SCRIPT ...` would, after [`register`].

    Args:
        script (`str`):
            Path of the script.
        arguments (`Sequence[str]`):
            Its arguments.
    """
    register()
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).resolve().parent)
    runpy.run_path(script, run_name="__main__")


def launch_grpo(arguments: Sequence[str]) -> None:
    """
    Run TRL's own `grpo` script under `accelerate launch`, as the command `trl grpo` does.

    Args:
        arguments (`Sequence[str]`):
            Arguments of `trl grpo`; those that its parser does not know go to `accelerate launch`.

    Raises:
        `ValueError`: If the configuration is wrong. Nothing has been launched then.
    """
    register()
    from accelerate.commands.launch import launch_command, launch_command_parser
    from trl.cli.accelerate_config import resolve_accelerate_config_argument
    from trl.scripts import grpo

    *_, from_config, from_command_line = grpo.make_parser(prog="trl-variants grpo").parse_args_and_config(
        list(arguments), return_remaining_strings=True, separate_remaining_strings=True
    )
    # The script refuses arguments that are the launcher's, but passes over such keys of its configuration file.
    script_arguments = []
    unknown = list(from_command_line)
    for argument in arguments:
        if unknown and argument == unknown[0]:
            del unknown[0]
        else:
            script_arguments.append(argument)
    launch_arguments = resolve_accelerate_config_argument(from_config + from_command_line)
    launch_command(
        launch_command_parser().parse_args(
            [*launch_arguments, "--module", "trl_grpo_variants.launch", grpo.__file__, *script_arguments]
        )
    )


def main(argv: Sequence[str] | None = None) -> int:
    """
    Command line of the launcher.

    Args:
        argv (`Sequence[str]`, *optional*):
            Path of a script and its arguments. If not given, those of the process.

    Returns:
        `int`:
            Exit code: 0, or 2 with one sentence on standard error if there is no script.
    """
    script, *arguments = (list(sys.argv[1:]) if argv is None else list(argv)) or [""]
    if not Path(script).is_file():
        print(f"There is no script {script!r}; give the path of one, then its arguments.", file=sys.stderr)  # noqa: T201
        return 2
    run_script(script, arguments)
    return 0


if __name__ == "__main__":
    sys.exit(main())
