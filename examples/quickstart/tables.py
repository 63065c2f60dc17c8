# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The tables of a comparison."""

import math
import statistics
from dataclasses import dataclass

from predict import Prediction
from results import CLASSES, Run, by_variant


@dataclass(frozen=True)
class Table:
    """
    A table as text.

    Parameters:
        title (`str`):
            What the numbers are.
        headers (`list[str]`):
            Names of the columns.
        rows (`list[list[str]]`):
            Cells.
    """

    title: str
    headers: list[str]
    rows: list[list[str]]

    @property
    def markdown(self) -> str:
        """The table for a README."""
        rows = [[f"`{name}`", *cells] for name, *cells in self.rows]
        lines = [self.headers, ["---"] * len(self.headers), *rows]
        return f"{self.title}\n\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def table_of_success(runs: list[Run], baseline: str) -> Table:
    """
    Success of each variant, the best first.

    Args:
        runs (`list[Run]`):
            Finished runs.
        baseline (`str`):
            Variant to which the others are held.

    Returns:
        [`Table`]:
            Success at equal optimizer steps and, where the variants differ in that, at equal completions.
    """
    members = by_variant(runs)
    ends = {name: [run.curve[-1].success.mean for run in its] for name, its in members.items()}
    least = min(run.completions for run in runs)
    differ = any(run.completions != least for run in runs)
    steps = runs[0].curve[-1].step
    headers = ["variant", f"after {steps} steps", f"against {baseline}", "completions"]
    if differ:
        headers.insert(1, f"after {least:,} completions")
    rows = []
    for name, its in members.items():
        row = [
            name,
            spread(ends[name]),
            "" if name == baseline or baseline not in ends else standing(ends[name], ends[baseline]),
            f"{its[0].completions:,}",
        ]
        if differ:
            row.insert(1, spread([run.after(least).success.mean for run in its]))
        rows.append(row)
    start = spread([run.curve[0].success.mean for run in runs])
    return Table(f"Success on held-out prompts, from {start}: mean (lowest-highest) over seeds", headers, rows)


def tables_of_classes(runs: list[Run], predictions: dict[str, Prediction | None]) -> list[Table]:
    """
    pass@k of each variant by class of prompts, one table for each k.

    Args:
        runs (`list[Run]`):
            Finished runs of a task with classes.
        predictions (`dict[str, Prediction]`):
            What is expected, by variant.

    Returns:
        `list[Table]`:
            Rows in the order of success, the starting policy first.
    """
    tables = []
    steps = runs[0].curve[-1].step
    early = runs[0].at(steps / 4).step
    for k in runs[0].curve[0].passed["open"]:
        headers = ["variant", "easy", "middle", f"hard, step {early}", "hard", "open", "open, predicted"]
        start = [run.curve[0].passed for run in runs]
        rows = [
            ["(start)", *(spread([passed[name][k] for passed in start]) for name in (*CLASSES[:3], *CLASSES[2:])), ""]
        ]
        for variant, its in by_variant(runs).items():
            ends = {name: spread([run.curve[-1].passed[name][k] for run in its]) for name in CLASSES}
            hard_early = spread([run.at(early).passed["hard"][k] for run in its])
            prediction = predictions[variant]
            expected = "" if prediction is None else f"{prediction.passed[k]:.2f}"
            rows.append([variant, ends["easy"], ends["middle"], hard_early, ends["hard"], ends["open"], expected])
        tables.append(Table(f"{k} on held-out prompts: mean (lowest-highest) over seeds", headers, rows))
    return tables


def table_of_predictions(predictions: dict[str, Prediction | None]) -> Table:
    """What the advantages alone say, for the variants whose advantage is a function of success."""
    headers = ["variant", "weight of a hard prompt", "favoured answer on open prompts"]
    rows = [[name, f"{p.weight:.1f}", f"{p.favoured:.2f}"] for name, p in predictions.items() if p is not None]
    return Table("Predicted from the advantage alone", headers, rows)


def standing(values: list[float], baseline: list[float]) -> str:
    """
    `"above"` or `"below"` the baseline where the ranges over seeds have nothing in common, else `"tie"`; nothing where a
    seed stands alone.
    """
    if min(len(values), len(baseline)) < 2:
        return ""
    return "above" if min(values) > max(baseline) else "below" if max(values) < min(baseline) else "tie"


def caution(runs: list[Run], baseline: str) -> str:
    """What the column with the baseline means, and how often it errs."""
    members = by_variant(runs)
    sentence = "Where the ranges of two variants overlap, this comparison does not tell them apart."
    seeds = min(map(len, members.values()))
    if seeds < 2:
        return "One seed does not tell two variants apart."
    if baseline not in members or len(members) < 2:
        return sentence
    chance = 2 / math.comb(2 * seeds, seeds)
    return (
        f"{sentence} Ranges of {seeds} seeds of one and the same method miss each other with probability {chance:.2g}, so "
        f"that of these {len(members) - 1} comparisons with {baseline} about {chance * (len(members) - 1):.1f} would show "
        "a difference where there is none."
    )


def spread(values: list[float]) -> str:
    """Mean, lowest and highest."""
    return f"{statistics.fmean(values):.2f} ({min(values):.2f}-{max(values):.2f})"
