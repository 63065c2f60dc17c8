# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The configuration file and the command line of `trl-variants grpo`: what is wrong with them, in one sentence."""

import argparse
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from numbers import Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from .suggest import did_you_mean


# Both take a path or a name, and TRL looks for them as words of their own.
_PATHS = ("--config", "--accelerate_config")
# Lists for which TRL takes a text too, such as `all-linear`.
_LISTS_OR_TEXTS = ("lora_target_modules", "lora_target_parameters")


def normalized(arguments: Iterable[str]) -> list[str]:
    """A command line in which the two paths of TRL's command stand as words of their own, not as `--config=PATH`."""
    parts: list[str] = []
    for argument in arguments:
        name, separator, value = argument.partition("=")
        parts += [name, value] if separator and name in _PATHS else [argument]
    return parts


def read_recipe(arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """
    Fields of the configuration file that a command line names, empty without one, and the command line without it.

    Raises a `ValueError` if there is no such file, or it is not a YAML mapping.
    """
    rest = list(arguments)
    if "--config" not in rest:
        return {}, rest
    if rest.count("--config") > 1:
        raise ValueError("`--config` is given twice; give one configuration file.")
    position = rest.index("--config")
    if position + 1 == len(rest):
        raise ValueError("`--config` needs the path of a configuration file after it.")
    path = rest[position + 1]
    del rest[position : position + 2]
    if Path(path).exists() and not Path(path).is_file():
        raise ValueError(
            f"The configuration {path!r} is no file, but a folder or a pipe; give the path of a YAML file."
        )
    try:
        text = Path(path).read_text(encoding="utf-8")
        fields = yaml.safe_load(text)
    except OSError as error:
        raise ValueError(f"The configuration file {path!r} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"The configuration file {path!r} is not UTF-8 text.") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" in line {mark.line + 1}"
        what = getattr(error, "problem", None) or getattr(error, "reason", "unreadable")
        raise ValueError(f"The configuration file {path!r} is no valid YAML{where}: {what}.") from error
    if not isinstance(fields, dict):
        content = "is empty" if fields is None else f"holds a {type(fields).__name__}"
        raise ValueError(f"The configuration file {path!r} {content}; it must hold one `field: value` per line.")
    lines: dict[str, int] = {}
    # Of the fields that are given twice YAML keeps the last.
    for key, _ in yaml.compose(text).value:
        line = key.start_mark.line + 1
        if lines.setdefault(key.value, line) != line:
            raise ValueError(f"`{key.value}` is given twice in {path!r}, in lines {lines[key.value]} and {line}.")
    return fields, rest


def check_fields(fields: dict[str, Any], dataclasses: Iterable[type], parser: Any, launcher: Any) -> None:
    """
    Refuse, with a `ValueError`, fields of a configuration file that are unknown or not of the type of their dataclass.

    Those that the script's parser does not know go to `accelerate launch`.
    """
    hints: dict[str, Any] = {}
    for dataclass in dataclasses:
        hints |= get_type_hints(dataclass)
    known = _names(parser) | {"env", "accelerate_config"}
    launchers = launcher._option_string_actions.keys() - {"--help"}
    for name, value in fields.items():
        if not isinstance(name, str) or (name not in known and f"--{name}" not in launchers):
            raise ValueError(_unknown_field(str(name), known, launcher))
        if value is None or name not in hints:
            continue
        kinds = _kinds(hints[name])
        # A text that stands for another value is the parser's to read, but of a list it would make its letters.
        is_read = isinstance(value, str) and (kinds.keys() != {"a list"} or name in _LISTS_OR_TEXTS)
        if kinds and not is_read and not any(fits(value) for fits in kinds.values()):
            is_quotable = "text" in kinds and not hasattr(value, "__len__")
            remedy = "; quote it if it is meant as text" if is_quotable else ""
            remedy = f"; put it into brackets: [{value}]" if isinstance(value, str) else remedy
            raise ValueError(f"`{name}` must be {' or '.join(kinds)}; got {value!r}{remedy}.")


def check_options(unknown: Iterable[str], parser: Any, launcher: Any) -> None:
    """Refuse, with a `ValueError`, what the script's parser has left over and the launcher's does not know."""
    for argument in unknown:
        option = argument.partition("=")[0]
        if option.startswith("-") and option not in {*launcher._option_string_actions, "--accelerate_config"}:
            raise ValueError(_unknown_field(option.lstrip("-"), _names(parser), launcher))


def launcher_flags(from_file: Sequence[str], launcher: Any) -> list[str]:
    """
    Options of the launcher that a configuration file holds, names and values in turn, as they are on a command line.

    A flag that is on has no value there; one that is neither on nor off is a `ValueError`.
    """
    arguments: list[str] = []
    for option, value in zip(from_file[::2], from_file[1::2], strict=True):
        action = launcher._option_string_actions.get(option)
        if action is None or action.nargs != 0:
            arguments += [option, value]
        elif value not in ("True", "False"):
            raise ValueError(f"`{option.removeprefix('--')}` must be true or false; got {value!r}.")
        elif value == "True":
            arguments.append(option)
    return arguments


def described(error: argparse.ArgumentError) -> str:
    """One sentence, which names the field, for what a parser refuses."""
    name = (error.argument_name or "").split("/")[0].lstrip("-")
    return f"`{name}`: {error.message.rstrip('.')}."


def _names(parser: Any) -> set[str]:
    return {action.dest for action in parser._actions} - {"help"}


def _unknown_field(name: str, known: Iterable[str], launcher: Any) -> str:
    launchers = {option.removeprefix("--") for option in launcher._option_string_actions if "-" not in option[2:]}
    return f"Unknown field `{name}`{did_you_mean(name, {*known, *launchers}, quote='`')}"


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


# What a value of a type is called, and how it is told; the first type that fits counts.
_KINDS: tuple[tuple[type, str, Callable[[Any], bool]], ...] = (
    # 0 and 1 are what argparse takes for them as well.
    (bool, "true or false", lambda value: isinstance(value, bool) or value in (0, 1)),
    (int, "a whole number", lambda value: _is_number(value) and value % 1 == 0),
    (float, "a number", _is_number),
    # TRL and transformers take a truth value for some texts: `scale_rewards`, `fsdp`.
    (str, "text", lambda value: isinstance(value, str | bool)),
    (Enum, "text", lambda value: isinstance(value, str)),
    (dict, "a mapping", lambda value: isinstance(value, dict)),
)


def _kinds(hint: Any) -> dict[str, Callable[[Any], bool]]:
    """What values of a type hint are called, and how they are told; empty if it may be anything."""
    if get_origin(hint) in (Union, UnionType):
        kinds: dict[str, Callable[[Any], bool]] = {}
        for part in get_args(hint):
            of_part = _kinds(part)
            if not of_part and part is not NoneType:
                return {}
            kinds |= of_part
        return kinds
    if get_origin(hint) is Literal:
        return {" or ".join(map(repr, get_args(hint))): lambda value: value in get_args(hint)}
    origin = get_origin(hint) or hint
    if not isinstance(origin, type):
        return {}
    if issubclass(origin, list):
        items = [fits for item in get_args(hint) for fits in _kinds(item).values()]
        return {
            "a list": lambda value: (
                isinstance(value, list) and (not items or all(any(fits(item) for fits in items) for item in value))
            )
        }
    return next(({called: fits} for kind, called, fits in _KINDS if issubclass(origin, kind)), {})
