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

from .objective.formula import advantage_text, divergence_texts, penalty_text
from .suggest import did_you_mean
from .variants import Variant, get_variant, list_variants
from .version import __version__


# What takes the rest of the command line. TRL, NumPy and matplotlib are only imported where they are needed.
_FORWARDED = {
    "grpo": (".launch", "launch_grpo"),
    "run": (".launch", "main"),
    "plan": (".plan.command", "main"),
    "report": (".report.command", "main"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the command line; the exit code.

    0, or 2 with one sentence on standard error if the input is wrong or something is not installed; that of the run or
    the script for `grpo` and `run`.
    """
    parser = argparse.ArgumentParser(prog="trl-variants", description="GRPO variants for TRL.")
    parser.add_argument("--version", action="version", version=_versions())
    commands = parser.add_subparsers(dest="command")
    listing = commands.add_parser("list", help="List the variants with their parts.")
    form = listing.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="Print JSON instead of a table.")
    form.add_argument("--markdown", action="store_true", help="Print the table as Markdown.")
    showing = commands.add_parser("show", help="Show one variant: parts, formula, paper, and when it is inert.")
    showing.add_argument("name", help="Name of the variant.")
    commands.add_parser(
        "grpo", help="Run TRL's grpo script; takes the arguments of `trl grpo`, `--variant` among them."
    )
    commands.add_parser("run", help="Run a script that imports GRPOTrainer and GRPOConfig from trl.")
    commands.add_parser("plan", help="Choose KL coefficients for a target success; see `plan --help`.")
    commands.add_parser("report", help="Make a page and figures of a run; see `report --help`.")
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
        Console().print(_list_table(variants))
    return 0


def _forwarded(command: str, arguments: list[str]) -> int:
    module, function = _FORWARDED[command]
    return getattr(import_module(module, __package__), function)(arguments)


def _as_dict(variant: Variant) -> dict[str, Any]:
    return {
        "name": variant.name,
        "summary": variant.summary,
        "formula": variant.formula,
        "paper": f"https://arxiv.org/abs/{variant.paper.id}",
        "inert_when": variant.inert_when,
        "settings": dict(variant.settings),
    }


def _columns(variant: Variant) -> dict[str, str]:
    """What is particular to a variant, in its own words; TRL's where it says nothing."""
    settings, parts = variant.settings, variant.parts
    penalty = penalty_text(settings)
    kl = " + ".join([*divergence_texts(settings), *([f"{penalty} in the reward"] if penalty else [])])
    says_policy = parts.policy.function is not None or "importance_sampling_level" in settings
    policy = parts.policy.text(settings) if says_policy else "TRL's"
    if settings.get("no_is_gradient") == "frozen":
        policy += " at pi_old"
    schedule = {
        "num_iterations": lambda passes: f"{passes} pass{'es' if passes > 1 else ''}",
        "inner_steps": lambda steps: f"{steps} steps per rollout",
        "group_preserving_split": lambda _: "whole groups",
    }
    return {
        "policy term": policy,
        "advantage": advantage_text(parts, settings) or "TRL's",
        "KL": kl or ("none" if "beta" in settings else "TRL's"),
        "loss_type": settings.get("loss_type", "TRL's"),
        "schedule": ", ".join(text(settings[name]) for name, text in schedule.items() if settings.get(name))
        or "TRL's",
    }


def _markdown(variants: list[Variant]) -> str:
    """The table of the README."""
    rows = [["variant", *_columns(variants[0]), "source"], ["---"] * (len(_columns(variants[0])) + 2)]
    for variant in variants:
        cells = [f"`{cell}`" if set(cell) & set("()+=") else cell for cell in _columns(variant).values()]
        rows.append([f"`{variant.name}`", *cells, f"[{variant.paper.id}](https://arxiv.org/abs/{variant.paper.id})"])
    # A bar would end a cell.
    lines = [" | ".join(cell.replace("|", r"\|") for cell in row) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def _list_table(variants: list[Variant]) -> Table:
    table = Table(title="GRPO variants", show_lines=True)
    table.add_column("variant", style="bold", no_wrap=True)
    for part in _columns(variants[0]):
        table.add_column(part)
    table.add_column("arXiv", no_wrap=True)
    for variant in variants:
        table.add_row(variant.name, *_columns(variant).values(), variant.paper.id)
    return table


def _show_table(variant: Variant) -> Table:
    table = Table(title=variant.name, caption=variant.summary, show_header=False, show_lines=True)
    table.add_column(style="bold", no_wrap=True)
    table.add_column()
    for part, written in _columns(variant).items():
        table.add_row(part, written)
    table.add_row("objective", variant.formula)
    table.add_row("sets", "\n".join(f"{name}: {value}" for name, value in variant.settings.items()) or "nothing")
    table.add_row("inert when", variant.inert_when)
    table.add_row("paper", f"{variant.paper.title}\nhttps://arxiv.org/abs/{variant.paper.id}")
    return table
