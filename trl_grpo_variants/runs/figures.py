# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The figure of success, which the card shows."""

from typing import TYPE_CHECKING

import numpy as np

from .intervals import mean_with_interval, measured_success
from .parts import parts_of_run
from .style import LIGHT, Sheet


if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# A line through so few points, or a band, would not show how many there are.
_FEW_POINTS = 12
_MOST_POINTS = 40
_TENTHS = np.linspace(0.0, 1.0, 11)


def success_figure(visits: "pd.DataFrame") -> "Figure | None":
    """Predicted and measured success over the rollouts, and against each other if anything was predicted."""
    if visits.empty:
        return None
    visits = visits.assign(point=parts_of_run(visits["rollout"], _MOST_POINTS))
    predicted = visits.dropna(subset="predicted")
    sheet = Sheet(350 if predicted.empty else 408, LIGHT)
    if predicted.empty:
        over_steps = sheet.add_panel(44, 84, 700, 210, across="optimizer step")
        _draw_means(over_steps, visits, "", "measured", "blue", "o")
    else:
        over_steps = sheet.add_panel(44, 106, 400, 210, title="over the run", across="optimizer step")
        _draw_means(over_steps, visits[visits["visit"] == 1], "", "measured, first visits", "grey", "s")
        _draw_means(over_steps, predicted, "", "measured, later visits", "blue", "o")
        _draw_means(over_steps, predicted, "predicted", "predicted for later visits", "orange", "^")
        sheet.add_legend(over_steps, 2)
        against = sheet.add_panel(514, 106, 210, 210, title="measured against predicted", across="predicted success")
        _draw_against(against, predicted)
        sheet.add_legend(against, 1)
    over_steps.set_ylim(-0.03, 1.03)
    over_steps.locator_params(axis="x", nbins=6, integer=True)
    sheet.add_heading("Success over the run", "mean success of prompts, with 95 % intervals")
    return sheet.figure


def _draw_means(axes: "Axes", visits: "pd.DataFrame", kind: str, label: str, color: str, marker: str) -> None:
    """Means of a kind of success, with their intervals, over the points that the visits belong to."""
    points = [(members["step"].mean(), *_mean(members, kind)) for _, members in visits.groupby("point")]
    if not points:
        return
    steps, mean, low, high = np.array(points).T
    if steps.size <= _FEW_POINTS:
        axes.errorbar(steps, mean, yerr=[mean - low, high - mean], color=LIGHT[color], fmt="none", capsize=3.0)
    else:
        axes.fill_between(steps, low, high, color=LIGHT[color], alpha=0.15, linewidth=0)
    axes.plot(steps, mean, color=LIGHT[color], marker=marker, markersize=4, label=label)


def _draw_against(axes: "Axes", visits: "pd.DataFrame") -> None:
    axes.plot([0.0, 1.0], [0.0, 1.0], color=LIGHT["grey"], linestyle="--", linewidth=1.0, label="as predicted")
    tenths = visits.groupby(np.clip(np.digitize(visits["predicted"], _TENTHS) - 1, 0, 9))
    points = [(members["predicted"].mean(), *_mean(members, ""), len(members)) for _, members in tenths]
    predicted, mean, low, high, counts = np.array(points).T
    ends = np.maximum([mean - low, high - mean], 0.0)
    axes.errorbar(predicted, mean, yerr=ends, color=LIGHT["blue"], fmt="none", elinewidth=1.2, capsize=3.0)
    axes.scatter(predicted, mean, s=20.0 + 60.0 * counts / counts.max(), color=LIGHT["blue"], label="mean of a tenth")
    axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))


def _mean(visits: "pd.DataFrame", kind: str) -> tuple[float, float, float]:
    """Mean of a kind of success, measured if none is named, and the ends of its interval."""
    columns = (kind, f"{kind}_low", f"{kind}_high") if kind else ("successes", "completions")
    summary = mean_with_interval if kind else measured_success
    mean, low, high = summary(*(visits[name].to_numpy(np.float64) for name in columns))
    return mean, max(0.0, low), min(1.0, high)
