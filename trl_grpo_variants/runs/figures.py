# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""How figures are set up, and the one of success, which the card shows. matplotlib is imported when one is drawn."""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .intervals import mean_with_interval, measured_success
from .parts import parts_of_run


if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, RED, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"
# A line through so few points, or a band, would not show how many there are.
_FEW_POINTS = 12
_MOST_POINTS = 40
_TENTHS = np.linspace(0.0, 1.0, 11)


def new_figure(width: float, height: float) -> "Figure":
    """A figure of that many inches, not attached to any window; a `ValueError` without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ValueError("A figure needs matplotlib, which is not installed: `pip install matplotlib`.") from error
    return Figure(figsize=(width, height), layout="constrained")


def add_legend(axes: "Axes", columns: int, *, below: float = 0.17, marker_scale: float = 1.0) -> None:
    """A legend below the axes, where no data can be."""
    axes.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -below),
        ncols=min(columns, 3),
        frameon=False,
        fontsize=9,
        markerscale=marker_scale,
    )


def label_steps(axes: "Axes") -> None:
    """Optimizer steps, across."""
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("optimizer step")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def save(figure: "Figure", path: Path | BytesIO, *, software: str | None = None) -> None:
    """Write a figure as PNG, with the name of what made it."""
    figure.savefig(path, format="png", dpi=150, metadata={"Software": software})


def success_figure(visits: "pd.DataFrame") -> "Figure | None":
    """Predicted and measured success over the rollouts, and against each other if anything was predicted."""
    if visits.empty:
        return None
    visits = visits.assign(point=parts_of_run(visits["rollout"], _MOST_POINTS))
    predicted = visits.dropna(subset="predicted")
    figure = new_figure(7.5 if predicted.empty else 11.0, 4.6)
    if predicted.empty:
        over_steps = figure.subplots()
        _draw_means(over_steps, visits, "", "measured", BLUE, "o")
        add_legend(over_steps, 1)
    else:
        over_steps, against = figure.subplots(1, 2, width_ratios=(1.5, 1.0))
        _draw_means(over_steps, visits[visits["visit"] == 1], "", "measured, first visits", "#7F7F7F", "s")
        _draw_means(over_steps, predicted, "", "measured, later visits", BLUE, "o")
        _draw_means(over_steps, predicted, "predicted", "predicted for later visits", RED, "^")
        add_legend(over_steps, 3)
        _draw_against(against, predicted)
    over_steps.set(title="Success over the run", ylabel="mean success of prompts", ylim=(-0.03, 1.03))
    label_steps(over_steps)
    return figure


def _draw_means(axes: "Axes", visits: "pd.DataFrame", kind: str, label: str, color: str, marker: str) -> None:
    """Means of a kind of success, with their intervals, over the points that the visits belong to."""
    points = [(members["step"].mean(), *_mean(members, kind)) for _, members in visits.groupby("point")]
    if not points:
        return
    steps, mean, low, high = np.array(points).T
    if steps.size <= _FEW_POINTS:
        axes.errorbar(steps, mean, yerr=[mean - low, high - mean], color=color, fmt="none", capsize=3.0)
    else:
        axes.fill_between(steps, low, high, color=color, alpha=0.18, linewidth=0)
    axes.plot(steps, mean, color=color, marker=marker, markersize=4.5, linewidth=1.5, label=label)


def _draw_against(axes: "Axes", visits: "pd.DataFrame") -> None:
    axes.plot([0.0, 1.0], [0.0, 1.0], color=GREY, linestyle="--", linewidth=1.0, label="as predicted")
    tenths = visits.groupby(np.clip(np.digitize(visits["predicted"], _TENTHS) - 1, 0, 9))
    points = [(members["predicted"].mean(), *_mean(members, ""), len(members)) for _, members in tenths]
    predicted, mean, low, high, counts = np.array(points).T
    ends = np.maximum([mean - low, high - mean], 0.0)
    axes.errorbar(predicted, mean, yerr=ends, color=BLUE, fmt="none", elinewidth=1.2, capsize=3.0)
    axes.scatter(predicted, mean, s=25.0 + 150.0 * counts / counts.max(), color=BLUE, label="mean of a tenth")
    axes.set(title="Measured against predicted", xlabel="predicted success", ylabel="measured success")
    axes.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.05), box_aspect=1.0)
    add_legend(axes, 2, marker_scale=0.5)


def _mean(visits: "pd.DataFrame", kind: str) -> tuple[float, float, float]:
    """Mean of a kind of success, measured if none is named, and the ends of its interval."""
    columns = (kind, f"{kind}_low", f"{kind}_high") if kind else ("successes", "completions")
    summary = mean_with_interval if kind else measured_success
    mean, low, high = summary(*(visits[name].to_numpy(np.float64) for name in columns))
    return mean, max(0.0, low), min(1.0, high)
