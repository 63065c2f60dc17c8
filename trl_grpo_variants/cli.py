# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The `trl-variants` command."""

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from .variants import Variant, get_variant, list_variants


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command line.

    Args:
        argv (`Sequence[str]`, *optional*):
            Arguments without the program's name. If not given, those of the process.

    Returns:
        `int`:
            Exit code: 0, or 2 with one sentence on standard error if the input is wrong.
    """
    parser = argparse.ArgumentParser(prog="trl-variants", description="GRPO variants for TRL.")
    commands = parser.add_subparsers(dest="command", required=True)
    listing = commands.add_parser("list", help="List the variants with their parts.")
    listing.add_argument("--json", action="store_true", help="Print JSON instead of a table.")
    showing = commands.add_parser("show", help="Show one variant: parts, formula, paper, and when it is inert.")
    showing.add_argument("name", help="Name of the variant.")
    commands.add_parser(
        "grpo",
        add_help=False,
        help="Run TRL's grpo script; takes the arguments of `trl grpo`, `--variant` among them.",
    )
    commands.add_parser("run", add_help=False, help="Run a script that imports GRPOTrainer and GRPOConfig from trl.")
    commands.add_parser("plan", add_help=False, help="Choose KL coefficients for a target success; see `plan --help`.")
    commands.add_parser("report", add_help=False, help="Make a page and figures of a run; see `report --help`.")
    given = list(sys.argv[1:] if argv is None else argv)
    arguments, unknown = parser.parse_known_args(given)
    try:
        if arguments.command == "grpo":
            return _grpo(given[1:])
        if arguments.command == "run":
            return _run(given[1:])
        if arguments.command == "plan":
            return _plan(given[1:])
        if arguments.command == "report":
            return _report(given[1:])
        if unknown:
            parser.error(f"unrecognized arguments: {' '.join(unknown)}")
        if arguments.command == "list":
            return _list(as_json=arguments.json)
        return _show(arguments.name)
    except ValueError as error:
        print(f"trl-variants: {error}", file=sys.stderr)  # noqa: T201
        return 2


def _list(*, as_json: bool) -> int:
    variants = [get_variant(name) for name in list_variants()]
    if as_json:
        print(json.dumps([_as_dict(variant) for variant in variants], indent=2))  # noqa: T201
    else:
        Console().print(_list_table(variants))
    return 0


def _show(name: str) -> int:
    Console().print(_show_table(get_variant(name)))
    return 0


# Both import TRL, which takes seconds.
def _grpo(arguments: list[str]) -> int:
    from .launch import launch_grpo

    launch_grpo(arguments)
    return 0


def _run(arguments: list[str]) -> int:
    from .launch import main as run

    return run(arguments)


# Imports NumPy, which the other commands do without.
def _plan(arguments: list[str]) -> int:
    from .plan.command import main as plan

    return plan(arguments)


# Imports pyarrow and matplotlib.
def _report(arguments: list[str]) -> int:
    from .report.command import main as report

    return report(arguments)


def _as_dict(variant: Variant) -> dict[str, Any]:
    return {
        "name": variant.name,
        "summary": variant.summary,
        "formula": variant.formula,
        "paper": f"https://arxiv.org/abs/{variant.paper.id}",
        "inert_when": variant.inert_when,
        "settings": variant.settings,
    }


def _parts(variant: Variant) -> dict[str, str]:
    return {
        "advantage": str(variant.advantage),
        "ratio and clip": str(variant.ratio),
        "KL": str(variant.divergence),
        "loss_type": variant.loss_type or "TRL's",
        "schedule": str(variant.schedule),
    }


def _list_table(variants: list[Variant]) -> Table:
    table = Table(title="GRPO variants", show_lines=True)
    table.add_column("variant", style="bold", no_wrap=True)
    for part in _parts(variants[0]):
        table.add_column(part)
    table.add_column("arXiv", no_wrap=True)
    for variant in variants:
        table.add_row(variant.name, *_parts(variant).values(), variant.paper.id)
    return table


def _show_table(variant: Variant) -> Table:
    table = Table(title=variant.name, caption=variant.summary, show_header=False, show_lines=True)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for part, written in _parts(variant).items():
        table.add_row(part, written)
    table.add_row("objective", variant.formula)
    table.add_row("sets", "\n".join(f"{name}: {value}" for name, value in variant.settings.items()) or "nothing")
    table.add_row("inert when", variant.inert_when)
    table.add_row("paper", f"{variant.paper.title}\nhttps://arxiv.org/abs/{variant.paper.id}")
    return table
