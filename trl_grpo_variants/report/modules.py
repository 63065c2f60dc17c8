# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The modules of the page about success, theory, prompts and cost: a title, what is drawn, and why another is left out."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from ..runs.effort import time_unit
from .charts import (
    MODULE,
    SuccessLines,
    gap_chart,
    lines_chart,
    prediction_chart,
    stack_chart,
    success_chart,
    trend,
)
from .numbers import SPACE, beginning, count, percent, plural, quantity, success
from .rows import CLASSES, KIND_WORDS, MOST_COLUMNS, MOST_ROWS, change_chart, map_chart
from .sentences import NEVER_PREDICTED, NO_MONITOR, signed_way, way
from .series import means
from .statistics import (
    Change,
    Interval,
    Point,
    Rows,
    by_prediction,
    measured_points,
    predicted_points,
    rows_by_kind,
)
from .summary import Summary


MIDDLE = (730, 280)
_SIZES = {"wide": (1120, 300), "middle": MIDDLE, "narrow": (MODULE[0], 250)}
_MOST_BYTES = 200


@dataclass(frozen=True)
class Module:
    """
    A part of the page with a drawing.

    Parameters:
        id (`str`):
            Its anchor.
        title (`str`):
            What it is about.
        subtitle (`str`):
            Unit and reading, with the numbers that matter.
        drawings (`dict[str, str]`):
            Drawings by the windows that they are for.
        key (`list[tuple[str, str]]`):
            Marks by their classes, with what they are.
        counts (`list[tuple[str, str]]`):
            Numbers and names that small windows have in place of words in the drawing.
        span (`int`):
            Modules across.
    """

    id: str
    title: str
    subtitle: str
    drawings: dict[str, str]
    key: list[tuple[str, str]] = field(default_factory=list)
    counts: list[tuple[str, str]] = field(default_factory=list)
    span: int = 1


@dataclass(frozen=True)
class Left:
    """What is not on the page, and why."""

    title: str
    because: str


Part = Module | Left


def no_logs(summary: Summary, otherwise: str) -> str:
    """Why something that is logged is not there."""
    if summary.run.logs.history:
        return otherwise
    return ", ".join(summary.run.unreadable) or "there are no logs; a run writes them with its checkpoints"


def over_the_run(summary: Summary) -> Part:
    """Success, three modules wide: from the visits, else as it was logged, else the reward."""
    visits = summary.visits
    if visits is not None:
        by_rollout = visits.groupby("rollout").agg({"step": "first", "success": "mean"})
        rollouts = (by_rollout["step"].to_numpy(np.float64), by_rollout["success"].to_numpy(np.float64))
        lines = SuccessLines(measured_points(visits), predicted_points(visits), rollouts, summary.evaluated)
        subtitle = "Share of completions that succeed, mean over prompts. The prompts are those of training."
        return _success(summary, lines, subtitle, ", 95 % interval")
    if summary.run.visits is not None:
        return Left("Success over the run", "no rollout was recorded")
    if summary.logged_change is None:
        return Left("Success over the run", no_logs(summary, "the logs hold neither success nor reward"))
    name, logged = summary.logged_change
    series = summary.logs.series(name)
    write = success if name == "success" else quantity
    reading = way(logged, write) if isinstance(logged, Change) else write(float(series[1].mean()))
    subtitle = f"As it was logged: means of the first and the last tenth {reading}. The prompts are those of training."
    if name == "success":
        measured = [Point(step, Interval(mean, mean, mean), 0) for step, mean in zip(*means(series), strict=True)]
        return _success(summary, SuccessLines(measured, [], series, summary.evaluated), subtitle)
    label = f"Reward over the run: {reading}"
    drawings = {window: trend(label, series, summary.last_step, size=size) for window, size in _SIZES.items()}
    key = [("line measured", "mean of a twelfth of the run"), ("dots", "one log")]
    return Module("success", "Reward over the run", subtitle, drawings, key, span=3)


def _success(summary: Summary, lines: SuccessLines, subtitle: str, interval: str = "") -> Module:
    ends = [point.value.mean for point in (lines.measured[0], lines.measured[-1])]
    label = f"Success over the run: {success(ends[0])} at first, {success(ends[-1])} at last."
    key = [("line measured", f"measured, mean of a twelfth of the run{interval}")]
    if lines.predicted:
        label += f" Predicted: {success(lines.predicted[-1].value.mean)} at last."
        key.append(("line predicted", f"predicted for the same visits{interval}"))
    if lines.held_out is not None:
        key.append(("diamond", "held-out success"))
    key.append(("dots", "one rollout" if interval else "one log"))
    drawings = {window: success_chart(label, size, lines, summary.last_step) for window, size in _SIZES.items()}
    return Module("success", "Success over the run", subtitle, drawings, key, span=3)


def against_theory(summary: Summary) -> list[Part]:
    """Where practice and theory agree, and where they do not."""
    if not summary.has_predictions:
        reason = NEVER_PREDICTED
        if summary.run.visits is None:
            reason = NO_MONITOR
        elif told := summary.run.settings.get("not_predicted_because"):
            reason = told
        return [Left("Prediction and gap", reason)]
    return [_gap(summary), _by_prediction(summary), _residual(summary)]


def _gap(summary: Summary) -> Part:
    if not summary.gaps:
        return Left("Measured − predicted", "fewer than four visits have a prediction")
    way_ = signed_way(summary.gaps[0].value.mean, summary.gaps[-1].value.mean)
    label = f"Measured minus predicted success by visit: {way_}"
    subtitle = "Mean over prompts, by visit. Filled: the interval holds 0."
    return Module("gap", "Measured − predicted", subtitle, {"all": gap_chart(label, summary.gaps)})


def _by_prediction(summary: Summary) -> Part:
    points = by_prediction(summary.visits)
    label = "Measured success by size of the prediction: " + ", ".join(
        f"{success(point.value.mean)} where {success(point.at)} was predicted" for point in (points[0], points[-1])
    )
    subtitle = "Measured success of the visits in each tenth of it. Bars: how many visits."
    return Module("by-prediction", "By size of the prediction", subtitle, {"all": prediction_chart(label, points)})


def _residual(summary: Summary) -> Part:
    series = summary.logs.series("theory/renyi_residual")
    if not series[1].size:
        return Left("Rényi residual", no_logs(summary, "it is known of runs with both KL terms"))
    subtitle = f"Distance from the exact path, in log-odds; 0 is exact. Mean {quantity(series[1].mean())}."
    label = f"Rényi residual over the run: mean {quantity(series[1].mean())}"
    drawing = trend(label, series, summary.last_step, size=(MODULE[0], 230))
    return Module("residual", "Rényi residual", subtitle, {"all": drawing})


def prompt_by_prompt(summary: Summary) -> list[Part]:
    """The map of prompts, and what changed between the halves of their visits."""
    if not summary.kinds:
        reason = NO_MONITOR if summary.run.visits is None else "no prompt was visited twice"
        return [Left("Each prompt over the run", reason)]
    rows = rows_by_kind(summary.run.trajectories, MOST_ROWS)
    return [_map(summary, rows), _changes(summary, rows)]


def _map(summary: Summary, rows: list[Rows]) -> Module:
    visits = summary.visits
    assert visits is not None
    members = [member for kind in summary.run.trajectories.values() for member in kind]
    columns = int(min(MOST_COLUMNS, max(1, np.median([len(member.steps) for member in members]))))
    rollouts = visits["rollout"].nunique() / columns
    column = plural(int(rollouts), "rollout") if rollouts == int(rollouts) else f"about {rollouts:.1f} rollouts"
    counts = [(count(kind.total), KIND_WORDS[kind.kind]) for kind in rows]
    label = "Success of each prompt over the run: " + ", ".join(f"{number} {name}" for number, name in counts)
    shown = sum(len(kind.shown) for kind in rows)
    some = f" {count(shown)} of {count(len(members))} prompts are shown." if shown < len(members) else ""
    subtitle = f"One row per prompt, grouped by what became of it; one column is {column}.{some}"
    drawings = {
        window: map_chart(label, rows, columns, summary.last_step, width=width)
        for window, width in (("large", MIDDLE[0]), ("narrow", MODULE[0]))
    }
    key = [(f"cell class-{number}", words) for number, words in enumerate(CLASSES)] + [("cell", "no visit")]
    return Module("map", "Each prompt over the run", subtitle, drawings, key, counts, span=2)


def _changes(summary: Summary, rows: list[Rows]) -> Module:
    subtitle = f"The same rows. Bar: 95{SPACE}% interval of the later half."
    better = summary.kinds.get("amplified", 0)
    label = f"Success in the earlier and the later half of the visits: {count(better)} of {count(summary.prompts)} prompts clearly better"
    key = [("ring", "earlier half of the visits"), ("point", "later half")]
    return Module("changes", "Earlier half → later half", subtitle, {"all": change_chart(label, rows)}, key)


def changed_most(summary: Summary) -> list[tuple[str, str]]:
    """The three prompts whose halves differ most, with how."""
    members = [member for kind in summary.run.trajectories.values() for member in kind]
    chosen = sorted(members, key=lambda member: -abs(member.change))[:3]
    return [
        (beginning(member.prompt, _MOST_BYTES), " → ".join(map(success, np.divide(*member.halves))))
        for member in chosen
        if member.change
    ]


def cost(summary: Summary) -> list[Part]:
    """What success has cost, and where the time went."""
    spent = summary.effort
    if spent is None:
        return [Left("What success cost", no_logs(summary, "the logs hold no times; runs of a variant log them"))]
    size, unit = time_unit(spent.time[-1])
    parts = list(_reached(summary, size, unit))
    seconds = [np.diff(until, prepend=0.0) for until in spent.seconds.values()]
    taken = np.diff(spent.steps, prepend=0.0)
    steps = [means((spent.steps - 1, part / taken)) for part in seconds]
    shares = " · ".join(f"{name} {percent(share)}" for name, share in spent.shares.items())
    label = f"Seconds of a step: {shares}"
    drawing = stack_chart(label, steps[0][0], [values for _, values in steps], summary.last_step)
    key = [(f"area part-{number}", name) for number, name in enumerate(spent.seconds)]
    subtitle = f"Seconds of a step. Of all time: {shares}."
    return [*parts, Module("time", "Where the time goes", subtitle, {"all": drawing}, key)]


def _reached(summary: Summary, size: float, unit: str) -> Iterator[Part]:
    """Success against tokens and against time."""
    spent = summary.effort
    assert spent is not None
    if not summary.successes:
        yield Left("Success against its cost", "the logs hold no success")
        return
    source, (steps, shares) = next(iter(summary.successes.items()))
    tokens, seconds = spent.until(steps)
    what = source.replace("`", "")
    seconds = seconds / size
    reached = success(means((steps, shares))[1][-1])
    for name, across, spent_by_then, axis in (
        ("tokens", tokens, f"{count(tokens[-1])}{SPACE}tokens", "generated tokens"),
        ("time", seconds, f"{quantity(seconds[-1])}{SPACE}{unit}", f"time of optimizer steps, {unit}"),
    ):
        title, reading = f"Success against {name}", f"{reached} after {spent_by_then}"
        ends = (0.0, max(float(across[-1]), 1e-6))
        drawing = lines_chart(f"{title}: {reading}", {what: (across, shares)}, ends, (0.0, 1.0), axis)
        yield Module(f"success-{name}", title, f"Success in {what}. {reading}.", {"all": drawing})
