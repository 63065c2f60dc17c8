# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""`trl-variants doctor`: what this machine can run."""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from rich.console import Console
from rich.table import Table

from ..parser import Parser
from .machine import Finding, base_findings, deepspeed, findings, summary


# What is tried without a recipe.
_DEFAULT = {"variant": "tic_grpo"}


def main(argv: list[str]) -> int:
    """
    Run the command with these arguments: 0, or 1 if something is missing that is needed; a `ValueError` of one sentence
    if the arguments or the recipe are wrong.
    """
    arguments = _parser().parse_args(argv)
    found = base_findings()
    if not any(finding.is_error for finding in found):
        found += _trained(["--config", arguments.config] if arguments.config else [])
    _show(found)
    return int(any(finding.is_error for finding in found))


def _parser() -> Parser:
    parser = Parser(
        prog="trl-variants doctor",
        description="Say what this machine can run, and train three steps of a tiny model.",
    )
    parser.add_argument(
        "--config",
        metavar="RECIPE",
        help="YAML file of `trl-variants grpo` whose needs are looked for and whose settings are tried.",
    )
    return parser


def _trained(command_line: list[str]) -> list[Finding]:
    """What can only be looked for, or tried, where TRL can be imported."""
    from ..launch import launch_arguments, register, unregister
    from ..recipe import read_recipe

    recipe, _ = read_recipe(command_line)
    if recipe.get("deepspeed") and (lacking := deepspeed(is_needed=True)).is_error:
        # Without it such a recipe cannot even be read.
        return [lacking]
    with _silence():
        register()
        try:
            launch = launch_arguments(command_line + _on_cpu())
            found = list(findings(recipe, _uses_deepspeed(recipe, launch)))
            return [*found, _rehearsed(recipe or _DEFAULT, {finding.name: finding for finding in found})]
        finally:
            unregister()


def _on_cpu() -> list[str]:
    """Options without which a recipe for a GPU is refused here; that there is none is a finding of its own."""
    import torch

    from .rehearsal import ON_CPU

    if torch.cuda.is_available():
        return []
    return [part for name, value in ON_CPU.items() for part in (f"--{name}", str(value))]


def _uses_deepspeed(recipe: Mapping[str, Any], launch: Any) -> bool:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.utils import DistributedType

    if recipe.get("deepspeed") or launch.use_deepspeed:
        return True
    path = launch.config_file
    return path is not None and load_config_from_file(path).distributed_type == DistributedType.DEEPSPEED


def _rehearsed(recipe: Mapping[str, Any], found: Mapping[str, Finding]) -> Finding:
    from .rehearsal import STEPS, rehearse

    name = f"{STEPS} steps of a tiny model"
    try:
        # What a recipe does not need may lack something, such as a plugin for 4-bit bases.
        run = rehearse(recipe, not found["bitsandbytes"].is_error, not found["vllm"].is_error)
    except Exception as error:
        # Whatever goes wrong in a run is what the command is there to tell.
        return Finding(name, summary(error), "Change what the sentence names, or report it with the recipe.")
    without = f", without {' and '.join(run.without)}" if run.without else ""
    if run.obstacle:
        return Finding(name, f"{run.obstacle}{without}", "Report it with the recipe.")
    method = recipe.get("variant") or "no variant"
    norms = ", ".join(f"{norm:.2g}" for norm in run.gradients)
    return Finding(name, f"{method}: gradient norms {norms}; {run.seconds_per_step:.2g} s each{without}")


@contextmanager
def _silence() -> Iterator[None]:
    """Without what libraries print, warnings among it: what counts is in the table."""
    logging.disable(logging.WARNING)
    try:
        # Engines ask a stream for its descriptor, which one in memory does not have.
        with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            yield
    finally:
        logging.disable(logging.NOTSET)


def _show(found: list[Finding]) -> None:
    table = Table(show_lines=False)
    for header in ("", "", "found", "what to do"):
        table.add_column(header, overflow="fold")
    for finding in found:
        mark, style = ("missing", "bold red") if finding.is_error else ("-", "dim") if finding.remedy else ("ok", "")
        table.add_row(mark, finding.name, finding.found, finding.remedy, style=style)
    errors = sum(finding.is_error for finding in found)
    table.caption = f"{errors} missing that is needed" if errors else "Nothing that is needed is missing."
    Console(markup=False).print(table)
