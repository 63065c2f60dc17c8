# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The figures that only a report shows. A function returns `None` where there is nothing to draw."""

from typing import TYPE_CHECKING

import numpy as np

from ..runs.figures import BLUE, FEW_POINTS, GREEN, RED, add_legend, label_steps, new_figure
from ..runs.folder import Run, Series
from ..runs.trajectories import Trajectory


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_LINES = 25


def prompts_figure(by_kind: dict[str, list[Trajectory]]) -> "Figure | None":
    """Success of each prompt over the run, one axes per kind of trajectory."""
    if not by_kind:
        return None
    across = {1: 1, 2: 2, 4: 2}.get(len(by_kind), 3)
    down = -(-len(by_kind) // across)
    figure = new_figure(3.9 * across, 2.9 * down + 0.3)
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(by_kind) :]:
        axes.set_axis_off()
    for place, (axes, (kind, members)) in enumerate(zip(grid.flat, by_kind.items(), strict=False)):
        # Spread over the members, so that which are shown does not depend on the order of the data.
        shown = [members[i] for i in np.unique(np.linspace(0, len(members) - 1, _MOST_LINES).astype(int))]
        opacity = 0.35 if len(shown) > 5 else 0.8
        for trajectory in shown:
            axes.plot(trajectory.steps, trajectory.success, color=BLUE, alpha=opacity, linewidth=1.0, marker=".")
        some = f", {len(shown)} shown" if len(shown) < len(members) else ""
        axes.set_title(f"{kind}: {len(members)} prompt{'' if len(members) == 1 else 's'}{some}", fontsize=10)
        axes.set_ylim(-0.05, 1.05)
        if place + across >= len(by_kind):
            label_steps(axes)
            axes.tick_params(labelbottom=True)
        if place % across == 0:
            axes.set_ylabel("success")
    return figure


def metrics_figure(run: Run, panels: dict[str, dict[str, str]], lowest: float | None = None) -> "Figure | None":
    """
    Metrics over the run, one axes per panel, side by side; those without any logged metric are left out.

    Panels are labels by metric, by title. The vertical axes begin at the lowest value, if one is given.
    """
    logged = {
        title: {label: series for name, label in metrics.items() if (series := run.series(name))[0].size}
        for title, metrics in panels.items()
    }
    logged = {title: lines for title, lines in logged.items() if lines}
    if not logged:
        return None
    across = len(logged) if len(logged) < 4 else 2
    down = -(-len(logged) // across)
    figure = new_figure(max(5.5, 3.9 * across), 3.5 * down)
    for axes, (title, lines) in zip(figure.subplots(down, across, squeeze=False).flat, logged.items(), strict=True):
        for (label, series), color, style in zip(lines.items(), (BLUE, RED, GREEN), ("-", "--", ":"), strict=False):
            _plot(axes, series, color, style, label)
        axes.set_title(title)
        if lowest is not None:
            axes.set_ylim(bottom=lowest)
        if len(lines) > 1 or next(iter(lines)):
            add_legend(axes, len(lines))
    return figure


def length_figure(run: Run) -> "Figure | None":
    """Length of the completions over the run, and how many were cut off."""
    mean, cut = run.series("completions/mean_length"), run.series("completions/clipped_ratio")
    if not mean[0].size:
        return None
    figure = new_figure(8.5 if cut[0].size else 5.5, 3.5)
    lengths, *others = figure.subplots(1, 2 if cut[0].size else 1, squeeze=False).flat
    (low_steps, low), (high_steps, high) = (run.series(f"completions/{end}_length") for end in ("min", "max"))
    if np.array_equal(low_steps, mean[0]) and np.array_equal(high_steps, mean[0]):
        lengths.fill_between(low_steps, low, high, color=BLUE, alpha=0.15, linewidth=0, label="shortest to longest")
    _plot(lengths, mean, BLUE, label="mean")
    lengths.set(title="Completion length", ylabel="tokens")
    lengths.set_ylim(bottom=0.0)
    add_legend(lengths, 2)
    for axes in others:
        _plot(axes, cut, RED)
        axes.set(title="Share cut off at the limit", ylim=(-0.03, 1.03))
    return figure


def _plot(axes: "Axes", series: Series, color: str, style: str = "-", label: str | None = None) -> None:
    steps, values = series
    marker = "o" if steps.size <= FEW_POINTS else None
    axes.plot(steps, values, color=color, linestyle=style, marker=marker, markersize=3.5, label=label)
    label_steps(axes)
