# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Drawings over the run: a mean is a line, a rollout a dot, 95 % a band."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from ..runs.folder import Series
from ..runs.intervals import Array, Z
from .numbers import count, difference, percent, quantity, success
from .series import errors_of_means, means
from .statistics import Gap, Point, Silence
from .svg import LETTER, Plot, round_steps


MODULE, TALL = (352, 190), (352, 230)
_STEP = "optimizer step"
_MOST_DOTS = 400
_MOST_LENGTHS = 48
_MOST_BARS = 100
_LABEL = 15  # pixels from one line of words to the next
_SHARES = (0.0, 1.0)
RIGHT, WRONG = "right", "wrong"


@dataclass(frozen=True)
class SuccessLines:
    """
    What the drawing of success shows.

    Parameters:
        measured (`list[Point]`), predicted (`list[Point]`):
            Means of parts of the run.
        rollouts (`tuple[np.ndarray, np.ndarray]`):
            Steps and success of single rollouts.
        held_out (`tuple[np.ndarray, np.ndarray]`, *optional*):
            Steps and success of evaluations.
    """

    measured: list[Point]
    predicted: list[Point]
    rollouts: Series
    held_out: Series | None = None

    @property
    def ends(self) -> dict[str, float]:
        """The lines by name, with the heights of their ends."""
        named = {"measured": self.measured, "predicted": self.predicted}
        ends = {name: points[-1].value.mean for name, points in named.items() if points}
        return ends | ({} if self.held_out is None else {"held-out": float(self.held_out[1][-1])})


def over_run(label: str, size: tuple[int, int], last_step: float, up: tuple[float, float], **options: object) -> Plot:
    """Axes over the optimizer steps from 0 to the last, the same in all drawings."""
    plot = Plot(label, size, (0.0, max(1.0, last_step)), up, name=_STEP, **options)  # type: ignore[arg-type]
    plot.steps_across()
    return plot


def success_chart(label: str, size: tuple[int, int], lines: SuccessLines, last_step: float) -> str:
    """Success over the run; from two modules on, with the names of the lines at their ends."""
    is_wide = size[0] > MODULE[0]
    values = [f"step {point.at:.0f}: {success(point.value.mean)}" for point in lines.measured]
    plot = over_run(label, size, last_step, _SHARES, values=values, right=72 if is_wide else 8)
    for points, kind in ((lines.predicted, "predicted"), (lines.measured, "measured")):
        _line_of_points(plot, points, kind)
    steps, values_ = thinned(lines.rollouts)
    plot.cloud(plot.x(steps), plot.y(values_))
    if lines.held_out is not None:
        steps, shares = lines.held_out
        plot.line(plot.x(steps), plot.y(shares), "line held-out")
        for x, y in zip(plot.x(steps), plot.y(shares), strict=True):
            plot.element("path", "diamond", d=f"M{x:.1f} {y - 5:.1f}l5 5l-5 5l-5-5z")
    if is_wide:
        heights = {name: float(plot.y(end)) for name, end in lines.ends.items()}
        for name, y in _apart(heights).items():
            plot.text(plot.right + 6, y + 4, name, kind=f"name {name}")
    return plot.markup


def _line_of_points(plot: Plot, points: list[Point], kind: str) -> None:
    if not points:
        return
    x = plot.x([point.at for point in points])
    mean, low, high = (plot.y(ends) for ends in np.array([point.value for point in points]).T)
    plot.band(x, low, high, f"band {kind}")
    plot.line(x, mean, f"line {kind}")
    plot.dots(x, mean, f"means {kind}")


def _apart(heights: dict[str, float]) -> dict[str, float]:
    """Heights of words that do not lie over each other, in the order of the ends that they name."""
    placed: dict[str, float] = {}
    lowest = -np.inf
    for name, y in sorted(heights.items(), key=lambda item: item[1]):
        lowest = placed[name] = max(y, lowest + _LABEL)
    return placed


def gap_chart(label: str, gaps: list[Gap]) -> str:
    """Measured - predicted by the number of the visit: a filled dot where the interval holds 0, else a ring."""
    most = max(0.05, *(abs(end) for gap in gaps for end in gap.value)) * 1.08
    values = [
        f"visit {_visits(gap)}: {difference(gap.value.mean, 3)} "
        f"[{difference(gap.value.low, 3)}, {difference(gap.value.high, 3)}]"
        for gap in gaps
    ]
    across = (-0.6, len(gaps) - 0.4)
    plot = Plot(label, TALL, across, (-most, most), name="visit to the prompt", values=values)
    places = np.arange(len(gaps), dtype=np.float64)
    plot.ticks_across(places, [_visits(gap) for gap in gaps])
    x = plot.x(places)
    mean, low, high = (plot.y(ends) for ends in np.array([gap.value for gap in gaps]).T)
    plot.bars(x, low, high, "interval measured")
    holds = np.array([gap.value.holds_zero for gap in gaps])
    plot.dots(x[holds], mean[holds], "point measured")
    _rings(plot, x[~holds], mean[~holds], "measured")
    plot.text(plot.left + 6, float(plot.y(0.0)) - 6, "as predicted")
    return plot.markup


def _visits(gap: Gap) -> str:
    return str(gap.first_visit) if gap.first_visit == gap.last_visit else f"{gap.first_visit}–{gap.last_visit}"


def _rings(plot: Plot, x: Array, y: Array, kind: str) -> None:
    plot.dots(x, y, f"point {kind}")
    plot.dots(x, y, "hole")


def prediction_chart(label: str, points: list[Point]) -> str:
    """Measured success against predicted, with how many visits there are as bars at the bottom."""
    values = [f"{success(point.at)}: {success(point.value.mean)} at {count(point.visits)} visits" for point in points]
    plot = Plot(label, TALL, _SHARES, _SHARES, name="predicted", values=values, right=14)
    plot.ticks_across([0.0, 0.25, 0.5, 0.75, 1.0])
    tenth = (plot.right - plot.left) / 10
    most = max(point.visits for point in points)
    for point in points:
        left = plot.left + min(9, int(10 * point.at)) * tenth
        height = 28.0 * point.visits / most
        box = {"x": f"{left + 1:.1f}", "y": f"{plot.bottom - height:.1f}", "height": f"{height:.1f}"}
        plot.element("rect", "count", width=f"{tenth - 2:.1f}", **box)
    plot.line([plot.left, plot.right], [plot.bottom, plot.top], "line predicted thin")
    plot.text(plot.x(0.52), float(plot.y(0.4)), "as predicted")
    x = plot.x([point.at for point in points])
    mean, low, high = (plot.y(ends) for ends in np.array([point.value for point in points]).T)
    plot.bars(x, low, high, "interval measured")
    plot.dots(x, mean, "point measured")
    return plot.markup


def trend(
    label: str,
    series: Series,
    last_step: float,
    *,
    up: tuple[float, float] | None = None,
    size: tuple[int, int] = MODULE,
    percent: bool = False,
    errors: Series | None = None,
) -> str:
    """
    Single values as dots, with the means of twelfths of the run as a line, in a band where their standard errors are
    known; from 0 where no axis is given.
    """
    steps, values = series
    at, mean = means(series)
    half = np.full(at.shape, np.nan) if errors is None else Z * errors_of_means(series, errors)
    known = np.isfinite(half)
    low, high = up or from_zero(np.concatenate([values, (mean + half)[known]]))
    told = [f"step {step:.0f}: {quantity(value)}" for step, value in zip(at, mean, strict=True)]
    plot = over_run(label, size, last_step, (low, high), values=told, percent=percent)
    if known.any():
        plot.band(plot.x(at[known]), plot.y((mean - half)[known]), plot.y((mean + half)[known]), "band measured")
    few, shown = thinned((steps, values))
    plot.cloud(plot.x(few), plot.y(shown))
    plot.line(plot.x(at), plot.y(mean), "line measured")
    if at.size == 1:
        plot.dots(plot.x(at), plot.y(mean), "means measured")
    return plot.markup


def from_zero(values: Array) -> tuple[float, float]:
    """Ends of an axis for these values: 0 is among them."""
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    if low == high:
        return 0.0, 1.0
    return low * 1.05, high * 1.05


def silence_chart(label: str, parts: list[Silence], last_step: float) -> str:
    """Groups without signal, by why, one on the other; predicted as a line."""
    values = [f"step {part.step:.0f}: {percent(part.total)}" for part in parts]
    plot = over_run(label, MODULE, last_step, _SHARES, values=values, percent=True)
    x = plot.x([part.step for part in parts])
    below = np.zeros(len(parts))
    for kind in ("all_succeed", "none_succeeds", "others"):
        above = below + [getattr(part, kind) for part in parts]
        if (above > below).any():
            plot.band(x, plot.y(below), plot.y(above), f"area {kind}")
        below = above
    plot.line(x, plot.y(below), "line measured")
    predicted = np.array([part.predicted for part in parts])
    known = np.isfinite(predicted)
    if known.any():
        plot.line(x[known], plot.y(predicted[known]), "line predicted")
    return plot.markup


def clip_chart(label: str, positive: Series, negative: Series, last_step: float) -> str:
    """Shares that were clipped, up where A > 0 and down where A < 0."""
    most = max(0.001, positive[1].max(), negative[1].max()) * 1.15
    plot = over_run(label, MODULE, last_step, (-most, most), percent=True, magnitude=True)
    for (steps, shares), sign, kind in ((positive, 1, "measured"), (negative, -1, "negative")):
        steps, shares = means((steps, shares), _MOST_BARS)
        plot.bars(
            plot.x(steps)[shares > 0],
            plot.y(0.0 * shares)[shares > 0],
            plot.y(sign * shares)[shares > 0],
            f"bar {kind}",
        )
    plot.text(plot.right, plot.top + 8, "A > 0", "end", "name measured")
    plot.text(plot.right, plot.bottom - 4, "A < 0", "end", "name negative")
    return plot.markup


def length_chart(
    label: str, lines: dict[str, Series], ends: tuple[Series, Series] | None, limit: float | None, last_step: float
) -> str:
    """Lengths between two ends as a band, with means as lines, named where there are two, and the limit."""
    highest = max(limit or 1.0, *(float(values.max()) for _, values in (*lines.values(), *(ends or ()))))
    plot = over_run(label, MODULE, last_step, (0.0, 1.12 * highest), right=_room(lines, 8))
    if ends is not None:
        (steps, low), (_, high) = (means(series, _MOST_LENGTHS) for series in ends)
        plot.band(plot.x(steps), plot.y(low), plot.y(high), "band measured")
    heights, kinds = {}, {words: "negative" if words == WRONG else "measured" for words in lines}
    for words, series in lines.items():
        steps, values = means(series, _MOST_LENGTHS)
        plot.line(plot.x(steps), plot.y(values), f"line {kinds[words]}")
        heights[words] = float(plot.y(values[-1]))
    _name_ends(plot, heights, kinds)
    if limit is not None:
        at = float(plot.y(limit))
        plot.line([plot.left, plot.right], [at, at], "line limit")
        plot.text(plot.right, at - 5, f"limit {count(limit)}", "end")
    return plot.markup


def lines_chart(
    label: str, lines: dict[str, Series], across: tuple[float, float], up: tuple[float, float], name: str
) -> str:
    """Lines through all points, with words at their ends where there are two."""
    plot = Plot(label, MODULE, across, up, name=name, right=_room(lines, 14))
    plot.ticks_across(round_steps(*across, most=4))
    heights = {}
    for (words, series), kind in zip(lines.items(), ("measured", "quiet"), strict=False):
        x, y = means(series)
        few, shown = thinned(series)
        plot.cloud(plot.x(few), plot.y(shown))
        plot.line(plot.x(x), plot.y(y), f"line {kind}")
        heights[words] = float(plot.y(y[-1]))
    _name_ends(plot, heights, {})
    return plot.markup


def _room(names: Iterable[str], without: int) -> int:
    """Pixels at the right for words at the ends of lines, of which one alone needs none."""
    names = list(names)
    return round(10 + LETTER * max(map(len, names))) if len(names) > 1 else without


def _name_ends(plot: Plot, heights: dict[str, float], kinds: dict[str, str]) -> None:
    if len(heights) > 1:
        for words, height in _apart(heights).items():
            plot.text(plot.right + 6, height + 4, words, kind=f"name {kinds.get(words, '')}".strip())


def stack_chart(label: str, steps: Array, parts: Sequence[Array], last_step: float) -> str:
    """Parts of a whole, one on the other."""
    whole = np.sum(parts, axis=0)
    plot = over_run(label, MODULE, last_step, from_zero(whole))
    below = np.zeros(whole.shape)
    for number, part in enumerate(parts):
        plot.band(plot.x(steps), plot.y(below), plot.y(below + part), f"area part-{number}")
        below = below + part
    return plot.markup


def sparkline(values: Array) -> str:
    """A line of 120 x 24 pixels, whose numbers stand beside it."""
    shown = thinned((np.arange(len(values), dtype=np.float64), values), 40)
    low, high = float(values.min()), float(values.max())
    spread = high - low or 1.0
    plot = Plot("", (120, 24), (0.0, max(1.0, len(values) - 1.0)), (low, low + spread), left=2, right=2)
    plot.top, plot.bottom = 3, 21
    plot.root.attrib = {
        "class": "sparkline",
        "aria-hidden": "true",
        "width": "120",
        "height": "24",
        "viewBox": "0 0 120 24",
    }
    plot.line(np.round(plot.x(shown[0])), plot.y(shown[1]), "line measured thin")
    return plot.markup


def thinned(series: Series, most: int = _MOST_DOTS) -> Series:
    """Every n-th point, so that there are at most so many."""
    every = -(-len(series[0]) // most) or 1
    return series[0][::every], series[1][::every]
