# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The figures of what a run has reached and spent. A function returns `None` where there is nothing to draw."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from ..runs.effort import Effort, effort, successes, time_unit
from ..runs.figures import BLUE, FEW_POINTS, GREEN, GREY, RED, add_legend, label_steps, new_figure
from ..runs.folder import Run


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def price_figure(run: Run) -> "Figure | None":
    """Success against generated tokens and against time."""
    spent, measured = effort(run), successes(run)
    if spent is None or not measured:
        return None
    from matplotlib.ticker import EngFormatter

    figure = new_figure(9.5, 3.8)
    against_tokens, against_time = figure.subplots(1, 2, sharey=True)
    size, unit = time_unit(spent.time[-1])
    for (source, (steps, shares)), color in zip(measured.items(), _colors(measured), strict=True):
        tokens, seconds = spent.until(steps)
        marker = "o" if steps.size <= FEW_POINTS else None
        for axes, across in ((against_tokens, tokens), (against_time, seconds / size)):
            axes.plot(across, shares, color=color, marker=marker, markersize=3.5, label=source.replace("`", ""))
    against_tokens.set(xlabel="generated tokens", ylabel="success", ylim=(-0.03, 1.03))
    against_tokens.xaxis.set_major_formatter(EngFormatter())
    against_tokens.locator_params(axis="x", nbins=5)
    against_time.set_xlabel(f"time of optimizer steps, {unit}")
    for axes in (against_tokens, against_time):
        add_legend(axes, len(measured))
    return figure


def best_of_figure(run: Run) -> "Figure | None":
    """success@k over the run, one line per k, of evaluations or else of the rollouts of training."""
    for prefix in ("eval_", ""):
        names = {name for entry in run.logs.history for name in entry if name.startswith(f"{prefix}success@")}
        lines = {int(name.partition("@")[2]): run.series(name) for name in names}
        lines = {k: series for k, series in sorted(lines.items()) if series[0].size}
        if lines:
            break
    else:
        return None
    from matplotlib import colormaps

    figure = new_figure(6.5, 3.8)
    axes = figure.subplots()
    for (k, (steps, shares)), depth in zip(lines.items(), np.linspace(0.35, 1.0, len(lines)), strict=True):
        marker = "o" if steps.size <= FEW_POINTS else None
        axes.plot(steps, shares, color=colormaps["Blues"](depth), marker=marker, markersize=3.5, label=f"k = {k}")
    axes.set(title="Evaluations" if prefix else "Training rollouts", ylabel="success@k", ylim=(-0.03, 1.03))
    label_steps(axes)
    add_legend(axes, len(lines))
    return figure


def time_figure(run: Run) -> "Figure | None":
    """Seconds of a step by what they went to, and the shares."""
    spent = effort(run)
    if spent is None:
        return None
    figure = new_figure(9.5, 3.8)
    seconds, shares = figure.subplots(1, 2)
    _stack(seconds, spent, is_share=False)
    _stack(shares, spent, is_share=True)
    seconds.set(title="Seconds of a step")
    shares.set(title="Shares", ylim=(0.0, 1.0))
    return figure


def _stack(axes: "Axes", spent: Effort, *, is_share: bool) -> None:
    edges = np.concatenate([[0.0], spent.steps])
    whole = np.diff(spent.time, prepend=0.0) if is_share else np.diff(edges)
    below = np.zeros(spent.steps.size)
    for (name, until), color in zip(spent.seconds.items(), (BLUE, RED, GREEN), strict=True):
        above = below + np.diff(until, prepend=0.0) / whole
        axes.stairs(above, edges, baseline=below, fill=True, color=color, alpha=0.75, label=name)
        below = above
    label_steps(axes)
    add_legend(axes, len(spent.seconds))


def _colors(lines: Iterable[str]) -> list[str]:
    """Those of evaluations as they come, grey for what the policy is trained with."""
    return [GREY if name == "training rollouts" else (BLUE, RED, GREEN)[i % 3] for i, name in enumerate(lines)]
