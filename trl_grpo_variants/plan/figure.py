# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The picture of a plan: the map and the path that it predicts."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import theory
from ..runs.style import LIGHT, Sheet
from .prediction import HISTOGRAM_EDGES, Prediction


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINEAR_LIMITS = (-0.03, 1.03)
_BLUE, _GREY = LIGHT["blue"], LIGHT["grey"]


def draw(prediction: Prediction) -> "Figure":
    """
    Draw a prediction: for one prompt the cobweb (map, diagonal, path), for several the success before and after; and
    beside it the path over the iterations.
    """
    sheet = Sheet(545, LIGHT)
    title, across = "success after one iteration", "success before it"
    if not prediction.is_single:
        title, across = "prompts by success", "success of a prompt"
    left = sheet.add_panel(58, 106, 290, 290, title=title, across=across)
    title = "success" if prediction.is_single else "mean success"
    right = sheet.add_panel(442, 106, 290, 290, title=title, across="iteration (rollouts maximised over)")
    if prediction.is_single:
        _cobweb(left, prediction)
    else:
        _before_and_after(left, prediction)
    _path(right, prediction)
    sheet.add_legend(left, 2)
    sheet.add_legend(right, 1)
    sheet.add_heading("What the plan predicts", prediction.title)
    return sheet.figure


def _cobweb(axes: "Axes", prediction: Prediction) -> None:
    low, high = _use_scale(prediction, axes.set_xscale, axes.set_yscale)
    # Even in log-odds and in success, so that the ends are as smooth as the middle.
    rates = np.sort(np.concatenate([np.linspace(0.0, 1.0, 501), theory.sigmoid(np.linspace(-45.0, 45.0, 901))]))
    after = theory.success_step(rates, prediction.rates, **prediction.settings)
    axes.plot(rates, rates, color=_GREY, linewidth=1.0, linestyle="--", label="no change")
    axes.plot(rates, after, color=_GREY, linewidth=1.8, label="one exact iteration")
    path = prediction.exact
    across, up = np.repeat(path, 2)[:-1], np.concatenate([path[:1], np.repeat(path[1:], 2)])
    axes.plot(across, up, color=_BLUE, linewidth=1.1, label="path from p_ref")
    axes.plot(path[:1], path[:1], color=_BLUE, marker="s", linestyle="none", label="start")
    for stable, fill, label in ((True, _GREY, "stable fixed point"), (False, "white", "unstable fixed point")):
        points = [point.p for point in prediction.plan.fixed_points if point.stable == stable]
        points = [p for p in points if low <= p <= high]
        if points:
            axes.plot(points, points, "o", markersize=8, color=_GREY, markerfacecolor=fill, label=label)
    axes.set(xlim=(low, high), ylim=(low, high))


def _before_and_after(axes: "Axes", prediction: Prediction) -> None:
    before, after = prediction.histogram
    axes.stairs(before, HISTOGRAM_EDGES, color=_GREY, fill=True, alpha=0.35, label="reference")
    axes.stairs(after, HISTOGRAM_EDGES, color=_BLUE, linewidth=2.0, label="predicted at the end")
    axes.set_xlim(-0.03, 1.03)
    axes.locator_params(axis="y", integer=True)


def _use_scale(prediction: Prediction, *setters: Callable[[str], Any]) -> tuple[float, float]:
    """Set the scale in which one prompt's success can be read, linear or log-odds, and return its limits."""
    if not prediction.is_single:
        return _LINEAR_LIMITS
    shown = np.concatenate([*prediction.paths.values(), [prediction.target]])
    if 0.02 <= shown.min() and prediction.target <= 0.98:
        return _LINEAR_LIMITS
    for set_scale in setters:
        set_scale("logit")
    return float(shown.min() / 3.0), float(1.0 - max((1.0 - shown.max()) / 3.0, 1e-6))


def _path(axes: "Axes", prediction: Prediction) -> None:
    iterations = np.arange(len(prediction.exact))
    axes.axhline(prediction.target, color=_GREY, linewidth=1.0, linestyle="--", label=f"target {prediction.target}")
    if not prediction.is_single:
        low, high = np.quantile(prediction.exact, (0.1, 0.9), axis=1)
        axes.fill_between(iterations, low, high, color=_BLUE, alpha=0.15, linewidth=0, label="exact, 10 % to 90 %")
    for name, color, marker, label in (
        ("exact", "blue", "o", "exact iteration"),
        ("clipped", "orange", "^", f"with the clip of {prediction.clip_text}"),
        ("groups", "green", "x", f"groups of {prediction.group_size}, first order"),
    ):
        if name in prediction.paths:
            path = prediction.paths[name]
            axes.plot(iterations, path, color=LIGHT[color], marker=marker, markersize=4, label=label)
    axes.set_ylim(_use_scale(prediction, axes.set_yscale))
    axes.locator_params(axis="x", integer=True)
