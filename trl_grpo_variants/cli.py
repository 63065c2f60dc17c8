# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The `trl-variants` command."""

import argparse
import json
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .objective.choice import AXES
from .objective.formula import advantage_text, divergence_texts, penalty_text, policy_text
from .objective.terms import Part
from .presets.variant import STOCK
from .suggest import did_you_mean
from .variants import Variant, get_variant, list_variants
from .version import __version__


# What takes the rest of the command line. TRL, NumPy and matplotlib are only imported where they are needed.
_FORWARDED = {
    "grpo": (".launch", "launch_grpo"),
    "run": (".launch", "main"),
    "plan": (".plan.command", "main"),
    "report": (".report.command", "main"),
    "doctor": (".doctor.command", "main"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command line; the exit code.

    0, or 2 with one sentence on standard error if the input is wrong or something is not installed; that of the run or
    the script for `grpo` and `run`, and 1 for `doctor` if something is missing.
    """
    parser = argparse.ArgumentParser(prog="trl-variants", description="GRPO variants for TRL.")
    parser.add_argument("--version", action="version", version=_versions())
    commands = parser.add_subparsers(dest="command")
    listing = commands.add_parser("list", help="List the variants by what makes them.")
    form = listing.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="Print JSON instead of text.")
    form.add_argument("--markdown", action="store_true", help="Print the tables of the documentation.")
    showing = commands.add_parser("show", help="Show one variant: parts, formula, paper, and when it is inert.")
    showing.add_argument("name", help="Name of the variant.")
    commands.add_parser(
        "grpo", help="Run TRL's grpo script; takes the arguments of `trl grpo`, `--variant` among them."
    )
    commands.add_parser("run", help="Run a script that imports GRPOTrainer and GRPOConfig from trl.")
    commands.add_parser("plan", help="Choose KL coefficients for a target success; see `plan --help`.")
    commands.add_parser("report", help="Make a page of a run; see `report --help`.")
    commands.add_parser("doctor", help="Say what this machine can run, and train three steps of a tiny model.")
    given = list(sys.argv[1:] if argv is None else argv)
    if not given:
        parser.print_help()
        return 0
    name, *rest = given
    if name == "run":
        # A script's errors are its own.
        return _forwarded(name, rest)
    try:
        if name in _FORWARDED:
            return _forwarded(name, rest)
        if not name.startswith("-") and name not in commands.choices:
            near = did_you_mean(name, commands.choices)
            raise ValueError(f"unknown command {name!r}; the commands are {', '.join(commands.choices)}{near}")
        arguments = parser.parse_args(given)
        if arguments.command == "list":
            return _list(as_json=arguments.json, as_markdown=arguments.markdown)
        Console().print(_show_table(get_variant(arguments.name)))
        return 0
    except (ValueError, ImportError) as error:
        print(f"trl-variants: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        return 2


def _versions() -> str:
    try:
        trl = f"TRL {version('trl')}"
    except PackageNotFoundError:
        trl = "TRL is not installed"
    return f"trl_grpo_variants {__version__}, {trl}"


def _list(*, as_json: bool, as_markdown: bool) -> int:
    variants = [get_variant(name) for name in list_variants()]
    if as_json:
        print(json.dumps([_as_dict(variant) for variant in variants], indent=2))  # noqa: T201
    elif as_markdown:
        print(_markdown(variants))  # noqa: T201
    else:
        _print_list(variants)
    return 0


def _forwarded(command: str, arguments: list[str]) -> int:
    module, function = _FORWARDED[command]
    return getattr(import_module(module, __package__), function)(arguments)


def _as_dict(variant: Variant) -> dict[str, Any]:
    return {
        "name": variant.name,
        "summary": variant.summary,
        "axis": variant.axis,
        "stock": variant.is_stock,
        "formula": variant.formula,
        "paper": f"https://arxiv.org/abs/{variant.paper.id}",
        "inert_when": variant.inert_when,
        "settings": dict(variant.settings),
    }


def _grouped(variants: list[Variant]) -> dict[str, list[Variant]]:
    """Variants by their axis, in the order in which a step of training comes to them, and those of TRL last."""
    axes = dict.fromkeys([*(kind.axis for kind in Part.__subclasses__()), STOCK])
    groups = {axis: [variant for variant in variants if variant.axis == axis] for axis in axes}
    return {axis: members for axis, members in groups.items() if members}


# What the columns tell of a variant in words or in a formula.
_TOLD = {"loss_type", "beta", "mirror_beta", "kl_estimator", "top_entropy_quantile", "off_policy_mask_threshold"}
_TOLD |= {"num_iterations", "inner_steps", "group_preserving_split"}
for _axis, (_parts, _) in AXES.items():
    _TOLD |= {_axis, f"{_axis}_kwargs"}
    _TOLD |= {name for part in _parts.values() for name in (*(part.fields or {}), *(s.name for s in part.settings))}
_TOLD_PREFIXES = ("sapo_", "vespo_", "vllm_")


def _columns(variant: Variant) -> dict[str, str]:
    """What is particular to a variant, in its own words; TRL's where it says nothing."""
    settings, parts = variant.settings, variant.parts
    penalty = penalty_text(settings)
    kl = " + ".join([*divergence_texts(settings), *([f"{penalty} in the reward"] if penalty else [])])
    policy = policy_text(parts, settings)
    says_policy = parts.policy.function is not None or {"importance_sampling_level", "epsilon"} & settings.keys()
    if not says_policy and policy == parts.policy.text(settings):
        policy = "TRL's"
    if settings.get("no_is_gradient") == "frozen":
        policy += " at pi_old"
    schedule = {
        "num_iterations": lambda passes: f"{passes} pass{'es' if passes > 1 else ''}",
        "inner_steps": lambda steps: f"{steps} times the completions",
        "group_preserving_split": lambda _: "whole groups",
    }
    return {
        "policy term": policy,
        "advantage": advantage_text(parts, settings) or "TRL's",
        "KL": kl or ("none" if "beta" in settings else "TRL's"),
        "loss_type": settings.get("loss_type", "TRL's"),
        "schedule": ", ".join(text(settings[name]) for name, text in schedule.items() if settings.get(name))
        or "TRL's",
        "steps per rollout": str(settings.get("inner_steps", 1) * settings.get("num_iterations", 1)),
        "besides": ", ".join(
            f"{name}: {value}"
            for name, value in settings.items()
            if name not in _TOLD and not name.startswith(_TOLD_PREFIXES)
        ),
    }


def _markdown(variants: list[Variant]) -> str:
    """The tables of the documentation, one per axis; what all of an axis have in common stands above its table."""
    blocks = []
    for axis, members in _grouped(variants).items():
        columns = [_columns(variant) for variant in members]
        common = {name: text for name, text in columns[0].items() if all(other[name] == text for other in columns)}
        common = common if len(members) > 1 else {name: text for name, text in common.items() if not text}
        shared = ", ".join(f"{name} {_code(text)}" for name, text in common.items() if text)
        names = [name for name in columns[0] if name not in common]
        rows = [["variant", *names, "source"], ["---"] * (len(names) + 2)]
        for variant, texts in zip(members, columns, strict=True):
            source = f"[{variant.paper.id}](https://arxiv.org/abs/{variant.paper.id})"
            rows.append([f"`{variant.name}`", *(_code(texts[name]) for name in names), source])
        # A bar would end a cell.
        lines = [" | ".join(cell.replace("|", r"\|") for cell in row) for row in rows]
        title = f"**{axis[0].upper()}{axis[1:]}**{f' ({shared})' if shared else ''}"
        blocks.append("\n".join([title, "", *(f"| {line} |" for line in lines)]))
    return "\n\n".join(blocks)


def _code(text: str) -> str:
    return f"`{text}`" if set(text) & set("()+=:") else text


def _print_list(variants: list[Variant]) -> None:
    """One line per variant, cut at the width of the terminal, under the name of its axis."""
    console = Console(highlight=False, markup=False)
    for axis, members in _grouped(variants).items():
        console.print(axis, style="bold")
        width = max(len(variant.name) for variant in members)
        for variant in members:
            console.print(f"  {variant.name:{width}}  {variant.summary}", no_wrap=True, overflow="ellipsis")
        console.print()
    console.print("`trl-variants show NAME` tells what a variant sets, its formula and its paper.")


def _show_table(variant: Variant) -> Table:
    table = Table(title=variant.name, caption=variant.summary, show_header=False, show_lines=True)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for part, written in {"axis": variant.axis, **_columns(variant), "objective": variant.formula}.items():
        if written:
            # A bracket of a formula is no markup.
            table.add_row(part, Text(written))
    table.add_row("sets", "\n".join(f"{name}: {value}" for name, value in variant.settings.items()) or "nothing")
    table.add_row("inert when", variant.inert_when)
    table.add_row("paper", f"{variant.paper.title}\nhttps://arxiv.org/abs/{variant.paper.id}")
    return table
