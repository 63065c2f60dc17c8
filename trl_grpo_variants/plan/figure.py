# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The picture of a plan: the map and the path that it predicts."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import theory
from ..runs.figures import BLUE, GREEN, GREY, RED, add_legend, new_figure
from .prediction import HISTOGRAM_EDGES, Prediction


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINEAR_LIMITS = (-0.03, 1.03)
_MAP = "#555555"


def draw(prediction: Prediction) -> "Figure":
    """
    Draw a prediction: for one prompt the cobweb (map, diagonal, path), for several the success before and after; and
    beside it the path over the iterations.
    """
    figure = new_figure(11.0, 5.6)
    left, right = figure.subplots(1, 2)
    if prediction.is_single:
        _cobweb(left, prediction)
    else:
        _before_and_after(left, prediction)
    _path(right, prediction)
    for axes in (left, right):
        add_legend(axes, 2, below=0.13)
    figure.suptitle(prediction.title)
    return figure


def _cobweb(axes: "Axes", prediction: Prediction) -> None:
    low, high = _use_scale(prediction, axes.set_xscale, axes.set_yscale)
    # Even in log-odds and in success, so that the ends are as smooth as the middle.
    rates = np.sort(np.concatenate([np.linspace(0.0, 1.0, 501), theory.sigmoid(np.linspace(-45.0, 45.0, 901))]))
    after = theory.success_step(rates, prediction.rates, **prediction.settings)
    axes.plot(rates, rates, color=GREY, linewidth=1.0, linestyle="--", label="no change")
    axes.plot(rates, after, color=_MAP, linewidth=1.8, label="one exact iteration")
    path = prediction.exact
    across, up = np.repeat(path, 2)[:-1], np.concatenate([path[:1], np.repeat(path[1:], 2)])
    axes.plot(across, up, color=BLUE, linewidth=1.1, label="path from p_ref")
    axes.plot(path[:1], path[:1], color=BLUE, marker="s", linestyle="none", label="start")
    for stable, fill, label in ((True, _MAP, "stable fixed point"), (False, "white", "unstable fixed point")):
        points = [point.p for point in prediction.plan.fixed_points if point.stable == stable]
        points = [p for p in points if low <= p <= high]
        if points:
            axes.plot(points, points, "o", markersize=8, color=_MAP, markerfacecolor=fill, label=label)
    axes.set(title="Map and path", xlabel="success before the iteration", ylabel="success after the iteration")
    axes.set(xlim=(low, high), ylim=(low, high), box_aspect=1.0)


def _before_and_after(axes: "Axes", prediction: Prediction) -> None:
    before, after = prediction.histogram
    axes.stairs(before, HISTOGRAM_EDGES, color=_MAP, fill=True, alpha=0.35, label="reference")
    axes.stairs(after, HISTOGRAM_EDGES, color=BLUE, linewidth=2.0, label="predicted at the end")
    axes.set(title="Prompts by success", xlabel="success of a prompt", ylabel="prompts", xlim=(-0.03, 1.03))


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
    from matplotlib.ticker import MaxNLocator

    iterations = np.arange(len(prediction.exact))
    axes.axhline(prediction.target, color=GREY, linewidth=1.0, linestyle="--", label=f"target {prediction.target}")
    if not prediction.is_single:
        low, high = np.quantile(prediction.exact, (0.1, 0.9), axis=1)
        axes.fill_between(iterations, low, high, color=BLUE, alpha=0.15, linewidth=0, label="exact, 10 % to 90 %")
    for name, color, marker, label in (
        ("exact", BLUE, "o", "exact iteration"),
        ("clipped", RED, "^", f"with the clip of {prediction.clip_text}"),
        ("groups", GREEN, "x", f"groups of {prediction.group_size}, first order"),
    ):
        if name not in prediction.paths:
            continue
        axes.plot(
            iterations, prediction.paths[name], color=color, marker=marker, markersize=5, linewidth=1.4, label=label
        )
    axes.set(
        title="Path" if prediction.is_single else "Path of the mean",
        xlabel="iteration (rollouts maximised over)",
        ylabel="success",
        ylim=_use_scale(prediction, axes.set_yscale),
    )
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
