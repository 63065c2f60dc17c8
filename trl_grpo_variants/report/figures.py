# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The figures of a report. A function returns `None` where there is nothing to draw."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..runs.columns import Columns


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ..runs.folder import Run
    from ..runs.trajectories import Trajectory

Array = NDArray[np.float64]

_MOST_POINTS = 40
# A band through so few would not show how many there are.
_FEW_POINTS = 12
_MOST_LINES = 25
_Z = 1.96
_TENTHS = np.linspace(0.0, 1.0, 11)
_MEASURED, _PREDICTED, _FIRST, _THIRD, _GREY = "#0072B2", "#D55E00", "#7F7F7F", "#009E73", "#999999"


def measured_success(successes: Array, completions: Array) -> tuple[float, float, float]:
    """
    Mean success over prompts, with its 95 % interval from the sampling of completions.

    The variance of each share is estimated without bias, k(n - k)/(n^2 (n - 1)), so that few completions of each prompt
    do not push the interval to one side, as the ends of its own interval would. Where all or none succeed, the interval
    ends where Wilson's for all completions does.

    Args:
        successes (`np.ndarray`):
            Successes k of each prompt, shape `(n,)`.
        completions (`np.ndarray`):
            Its completions n, at least 1.

    Returns:
        `tuple[float, float, float]`:
            Mean, lower and upper end; they may lie beyond 0 and 1.
    """
    failures = completions - successes
    spread = successes * failures / np.square(completions) / np.maximum(completions - 1.0, 1.0)
    # One completion says nothing about its own spread, which is at most this.
    variance = np.where(completions > 1.0, spread, 0.25).sum() / completions.size**2
    least = _Z**2 / (completions.sum() + _Z**2)
    mean, half = float((successes / completions).mean()), float(np.hypot(_Z * np.sqrt(variance), least))
    return mean, mean - half, mean + half


def mean_with_interval(values: Array, low: Array, high: Array) -> tuple[float, float, float]:
    """
    Mean of independent estimates, with the interval that theirs make: half the widths are added in squares.

    Args:
        values (`np.ndarray`):
            Estimates, shape `(n,)`.
        low (`np.ndarray`):
            Lower ends of their 95 % intervals.
        high (`np.ndarray`):
            Upper ends.

    Returns:
        `tuple[float, float, float]`:
            Mean, lower and upper end.
    """
    mean = float(values.mean())
    half = float(np.sqrt(np.square((high - low) / 2.0).sum()) / values.size)
    return mean, mean - half, mean + half


def success_figure(visits: Columns) -> "Figure | None":
    """
    Predicted and measured success over the rollouts, and against each other.

    Args:
        visits (`dict[str, np.ndarray]`):
            Visits by column.

    Returns:
        `matplotlib.figure.Figure` or `None`:
            One axes if nothing was predicted, and else two.
    """
    if visits["rollout"].size == 0:
        return None
    is_predicted = ~np.isnan(visits["predicted"])
    figure = _figure(11.0 if is_predicted.any() else 7.5, 4.6)
    if not is_predicted.any():
        over_steps = figure.subplots()
        _draw_over_steps(over_steps, visits, {"measured": (np.full(is_predicted.shape, True), "", _MEASURED, "o")})
    else:
        over_steps, against = figure.subplots(1, 2, width_ratios=(1.5, 1.0))
        parts = {
            "measured, first visits": (visits["visit"] == 1, "", _FIRST, "s"),
            "measured, later visits": (is_predicted, "", _MEASURED, "o"),
            "predicted for later visits": (is_predicted, "predicted", _PREDICTED, "^"),
        }
        _draw_over_steps(over_steps, visits, parts)
        _draw_against(against, {name: values[is_predicted] for name, values in visits.items()})
    over_steps.set(title="Success over the run", ylabel="mean success of prompts")
    _label_steps(over_steps)
    over_steps.set_ylim(-0.03, 1.03)
    return figure


def prompts_figure(found: "Sequence[Trajectory]") -> "Figure | None":
    """
    Success of each prompt over the run, by what became of it.

    Args:
        found (`Sequence[Trajectory]`):
            Prompts with at least two visits.

    Returns:
        `matplotlib.figure.Figure` or `None`:
            One axes per kind that occurs.
    """
    from ..runs.trajectories import KINDS

    kinds = [kind for kind in KINDS if any(trajectory.kind == kind for trajectory in found)]
    if not kinds:
        return None
    across = {1: 1, 2: 2, 4: 2}.get(len(kinds), 3)
    down = -(-len(kinds) // across)
    figure = _figure(3.9 * across, 2.9 * down + 0.3)
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(kinds) :]:
        axes.set_axis_off()
    for place, (axes, kind) in enumerate(zip(grid.flat, kinds, strict=False)):
        members = [trajectory for trajectory in found if trajectory.kind == kind]
        # Spread over the members, so that which are shown does not depend on the order of the data.
        shown = [members[i] for i in np.unique(np.linspace(0, len(members) - 1, _MOST_LINES).astype(int))]
        opacity = 0.35 if len(shown) > 5 else 0.8
        for trajectory in shown:
            axes.plot(trajectory.steps, trajectory.success, color=_MEASURED, alpha=opacity, linewidth=1.0, marker=".")
        some = f", {len(shown)} shown" if len(shown) < len(members) else ""
        axes.set_title(f"{kind}: {len(members)} prompt{'' if len(members) == 1 else 's'}{some}", fontsize=10)
        axes.set_ylim(-0.05, 1.05)
        if place + across >= len(kinds):
            _label_steps(axes)
            axes.tick_params(labelbottom=True)
        if place % across == 0:
            axes.set_ylabel("success")
    return figure


def metrics_figure(run: "Run", panels: dict[str, dict[str, str]], lowest: float | None = None) -> "Figure | None":
    """
    Metrics over the run, one axes per panel; those without any logged metric are left out.

    Args:
        run ([`Run`]):
            Run.
        panels (`dict[str, dict[str, str]]`):
            Labels by metric, by title.
        lowest (`float`, *optional*):
            Lower end of the vertical axes, if they have one.

    Returns:
        `matplotlib.figure.Figure` or `None`:
            Figure with the panels side by side.
    """
    logged = {
        title: {label: run.series(name) for name, label in metrics.items() if run.series(name)[0].size}
        for title, metrics in panels.items()
    }
    logged = {title: lines for title, lines in logged.items() if lines}
    if not logged:
        return None
    across = len(logged) if len(logged) < 4 else 2
    down = -(-len(logged) // across)
    figure = _figure(max(5.5, 3.9 * across), 3.5 * down)
    for axes, (title, lines) in zip(figure.subplots(down, across, squeeze=False).flat, logged.items(), strict=True):
        marks = zip(lines.items(), (_MEASURED, _PREDICTED, _THIRD), ("-", "--", ":"), strict=False)
        for (label, (steps, values)), color, style in marks:
            marker = "o" if steps.size <= _FEW_POINTS else None
            axes.plot(steps, values, color=color, linestyle=style, marker=marker, markersize=3.5, label=label)
        axes.set_title(title)
        _label_steps(axes)
        if lowest is not None:
            axes.set_ylim(bottom=lowest)
        if len(lines) > 1 or next(iter(lines)):
            _add_legend(axes, len(lines))
    return figure


def length_figure(run: "Run") -> "Figure | None":
    """
    Length of the completions over the run, and how many were cut off.

    Args:
        run ([`Run`]):
            Run.

    Returns:
        `matplotlib.figure.Figure` or `None`:
            Figure of one or two axes.
    """
    steps, mean = run.series("completions/mean_length")
    if not steps.size:
        return None
    cut_steps, cut = run.series("completions/clipped_ratio")
    figure = _figure(8.5 if cut_steps.size else 5.5, 3.5)
    axes = figure.subplots(1, 2 if cut_steps.size else 1, squeeze=False).flat
    (low_steps, low), (high_steps, high) = (run.series(f"completions/{end}_length") for end in ("min", "max"))
    if np.array_equal(low_steps, steps) and np.array_equal(high_steps, steps):
        axes[0].fill_between(steps, low, high, color=_MEASURED, alpha=0.15, linewidth=0, label="shortest to longest")
    axes[0].plot(
        steps, mean, color=_MEASURED, marker="o" if steps.size <= _FEW_POINTS else None, markersize=3.5, label="mean"
    )
    axes[0].set(title="Completion length", ylabel="tokens")
    _label_steps(axes[0])
    axes[0].set_ylim(bottom=0.0)
    _add_legend(axes[0], 2)
    if cut_steps.size:
        axes[1].plot(
            cut_steps, cut, color=_PREDICTED, marker="o" if cut_steps.size <= _FEW_POINTS else None, markersize=3.5
        )
        axes[1].set_title("Share cut off at the limit")
        _label_steps(axes[1])
        axes[1].set_ylim(-0.03, 1.03)
    return figure


def save(figure: "Figure", path: Path | BytesIO, *, software: str | None = None) -> None:
    """
    Write a figure as PNG.

    Args:
        figure (`matplotlib.figure.Figure`):
            Figure.
        path (`Path` or `BytesIO`):
            Where to.
        software (`str`, *optional*):
            What made it, kept in the file.
    """
    figure.savefig(path, format="png", dpi=150, metadata={"Software": software})


def _figure(width: float, height: float) -> "Figure":
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("A figure needs matplotlib, which is not installed: `pip install matplotlib`.") from error
    return Figure(figsize=(width, height), layout="constrained")


def _label_steps(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _draw_over_steps(axes: "Axes", visits: Columns, parts: dict[str, tuple[Array, str, str, str]]) -> None:
    """Means with intervals over runs of rollouts; a part is a choice of visits, a kind of success, colour, marker."""
    rollouts = np.unique(visits["rollout"])
    bins = np.array_split(rollouts, min(_MOST_POINTS, rollouts.size))
    for label, (chosen, kind, color, marker) in parts.items():
        points = []
        for members in bins:
            rows = chosen & (visits["rollout"] >= members[0]) & (visits["rollout"] <= members[-1])
            if rows.any():
                points.append((visits["step"][rows].mean(), *_mean(visits, rows, kind)))
        if points:
            steps, mean, low, high = np.array(points).T
            if steps.size <= _FEW_POINTS:
                axes.errorbar(steps, mean, yerr=[mean - low, high - mean], color=color, fmt="none", capsize=3.0)
            else:
                axes.fill_between(steps, low, high, color=color, alpha=0.18, linewidth=0)
            axes.plot(steps, mean, color=color, marker=marker, markersize=4.5, linewidth=1.5, label=label)
    _add_legend(axes, len(parts))


def _draw_against(axes: "Axes", visits: Columns) -> None:
    axes.plot([0.0, 1.0], [0.0, 1.0], color=_GREY, linestyle="--", linewidth=1.0, label="as predicted")
    tenth = np.clip(np.digitize(visits["predicted"], _TENTHS) - 1, 0, 9)
    points = []
    for index in np.unique(tenth):
        rows = tenth == index
        points.append((visits["predicted"][rows].mean(), *_mean(visits, rows, ""), rows.sum()))
    predicted, mean, low, high, counts = np.array(points).T
    ends = np.maximum([mean - low, high - mean], 0.0)
    axes.errorbar(predicted, mean, yerr=ends, color=_MEASURED, fmt="none", elinewidth=1.2, capsize=3.0)
    axes.scatter(predicted, mean, s=25.0 + 150.0 * counts / counts.max(), color=_MEASURED, label="mean of a tenth")
    axes.set(title="Measured against predicted", xlabel="predicted success", ylabel="measured success")
    axes.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.05), box_aspect=1.0)
    _add_legend(axes, 2, marker_scale=0.5)


def _mean(visits: Columns, rows: Array, kind: str) -> tuple[float, float, float]:
    if kind:
        mean, low, high = mean_with_interval(*(visits[name][rows] for name in (kind, f"{kind}_low", f"{kind}_high")))
    else:
        mean, low, high = measured_success(visits["successes"][rows], visits["completions"][rows])
    return mean, max(0.0, low), min(1.0, high)


def _add_legend(axes: "Axes", entries: int, marker_scale: float = 1.0) -> None:
    # Below the axes, where no data can be.
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.17),
        ncols=min(entries, 3),
        frameon=False,
        fontsize=9,
        markerscale=marker_scale,
    )
