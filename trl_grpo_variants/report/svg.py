# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
A drawing: axes, marks, and what a reader who cannot see it is told. Marks have classes and no colours, which the page
gives them, so that one drawing serves light, dark and paper.
"""

import math
from collections.abc import Iterable, Sequence
from typing import SupportsFloat
from xml.etree import ElementTree

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..runs.intervals import Array
from .numbers import MINUS, quantity


LETTER = 7.7  # pixels across a letter of 12 px, wider ones included
_HALF_BAR = 7
_BELOW = 36  # for the numbers of the horizontal axis and its name


class Plot:
    """
    Axes of a fixed size in pixels.

    Args:
        label (`str`):
            What the drawing is of and what it says.
        size (`tuple[int, int]`):
            Width and height.
        across (`tuple[float, float]`):
            Ends of the horizontal axis.
        up (`tuple[float, float]`):
            Ends of the vertical axis.
        name (`str`):
            What the horizontal axis is.
        values (`Iterable[str]`):
            Values behind the drawing, where there are few.
        right (`int`):
            Room at the right, for words at the ends of lines.
        percent (`bool`):
            Whether the vertical axis is one of shares.
        left (`int`, *optional*):
            Room at the left, if it is not to follow from the numbers there; then there are none.
    """

    def __init__(
        self,
        label: str,
        size: tuple[int, int],
        across: tuple[float, float],
        up: tuple[float, float],
        *,
        name: str = "",
        values: Iterable[str] = (),
        right: int = 8,
        percent: bool = False,
        left: int | None = None,
        magnitude: bool = False,
    ) -> None:
        self.width, self.height = size
        self._across, self._up = across, up
        written = {"viewBox": f"0 0 {size[0]} {size[1]}", "width": str(size[0]), "height": str(size[1])}
        self.root = ElementTree.Element("svg", {"class": "chart", "role": "img", "aria-label": label, **written})
        if told := "; ".join(values):
            ElementTree.SubElement(self.root, "desc").text = told
        marks = round_steps(*up) if left is None else np.zeros(0)
        signed = up[0] < 0 and not magnitude
        labels = [_tick(value, percent=percent, signed=signed, magnitude=magnitude) for value in marks]
        self.left = left if left is not None else round(10 + LETTER * max(map(len, labels), default=0))
        self.right, self.top, self.bottom = size[0] - right, 8, size[1] - _BELOW
        for value, text in zip(marks, labels, strict=True):
            y = self.y(value)
            self.line([self.left, self.right], [y, y], "axis" if value == 0 else "grid")
            self.text(self.left - 8, y + 4, text, "end")
        if name:
            self.text(self.right, self.height - 3, name, "end")

    def x(self, values: ArrayLike) -> NDArray[np.float64]:
        """Pixels across."""
        (low, high), values = self._across, np.asarray(values, dtype=np.float64)
        return self.left + (values - low) / (high - low) * (self.right - self.left)

    def y(self, values: ArrayLike) -> NDArray[np.float64]:
        """Pixels down; what lies beyond the axis is at its end."""
        (low, high), values = self._up, np.asarray(values, dtype=np.float64)
        return self.bottom - np.clip((values - low) / (high - low), 0.0, 1.0) * (self.bottom - self.top)

    def ticks_across(self, values: Sequence[float] | Array | None = None, labels: Sequence[str] | None = None) -> None:
        """Numbers of the horizontal axis."""
        values = round_steps(*self._across) if values is None else values
        for value, text in zip(values, labels or [_tick(value) for value in values], strict=True):
            x, half = float(self.x(value)), LETTER * len(text) / 2
            self.text(min(max(x, half), self.width - half), self.bottom + 17, text, "middle")

    def steps_across(self) -> None:
        """Numbers of an axis of optimizer steps, which are whole."""
        self.ticks_across([step for step in round_steps(*self._across) if step.is_integer()])

    def element(self, tag: str, kind: str, **attributes: str) -> ElementTree.Element:
        """Add an element of a class."""
        return ElementTree.SubElement(self.root, tag, {"class": kind, **attributes})

    def line(self, x: ArrayLike, y: ArrayLike, kind: str) -> None:
        """A line through points in pixels."""
        self.element("path", kind, d="M" + "L".join(_points(x, y)))

    def dots(self, x: ArrayLike, y: ArrayLike, kind: str) -> None:
        """Dots at points in pixels, all of one path: strokes of length zero with round ends."""
        if points := _points(x, y):
            self.element("path", kind, d="".join(f"M{point}h0" for point in points))

    def cloud(self, x: ArrayLike, y: ArrayLike) -> None:
        """Many small dots, each to the pixel."""
        self.dots(np.asarray(x).round(), np.asarray(y).round(), "dots")

    def bars(self, x: ArrayLike, low: ArrayLike, high: ArrayLike, kind: str) -> None:
        """Upright strokes between two heights in pixels."""
        ends = zip(np.atleast_1d(x), np.atleast_1d(low), np.atleast_1d(high), strict=True)
        strokes = [f"M{_short(at)} {_short(start)}V{_short(end)}" for at, start, end in ends]
        if strokes:
            self.element("path", kind, d="".join(strokes))

    def dashes(self, y: ArrayLike, low: ArrayLike, high: ArrayLike, kind: str) -> None:
        """Level strokes between two places in pixels."""
        ends = zip(np.atleast_1d(y), np.atleast_1d(low), np.atleast_1d(high), strict=True)
        strokes = [f"M{_short(start)} {_short(at)}H{_short(end)}" for at, start, end in ends]
        if strokes:
            self.element("path", kind, d="".join(strokes))

    def band(self, x: ArrayLike, low: ArrayLike, high: ArrayLike, kind: str) -> None:
        """The area between two lines in pixels; a bar where there is a single point."""
        across, below, above = (np.atleast_1d(np.asarray(values, dtype=np.float64)) for values in (x, low, high))
        if across.size == 1:
            across = np.clip(across + [-_HALF_BAR, _HALF_BAR], self.left, self.right)
            below, above = below.repeat(2), above.repeat(2)
        outline = _points(np.concatenate([across, across[::-1]]), np.concatenate([below, above[::-1]]))
        self.element("path", kind, d="M" + "L".join(outline) + "Z")

    def text(self, x: SupportsFloat, y: SupportsFloat, text: str, anchor: str = "start", kind: str = "") -> None:
        """Words at a point in pixels."""
        attributes = {"x": _short(x), "y": _short(y)} | ({} if anchor == "start" else {"text-anchor": anchor})
        ElementTree.SubElement(self.root, "text", attributes | ({"class": kind} if kind else {})).text = text

    def hint(self, top: float, height: float, words: str) -> None:
        """What is told of a row when a pointer rests on it."""
        box = {"x": "0", "y": _short(top), "width": str(self.width), "height": _short(height)}
        ElementTree.SubElement(self.element("rect", "hint", **box), "title").text = words

    @property
    def markup(self) -> str:
        """The drawing as part of a page; texts in it are escaped."""
        return ElementTree.tostring(self.root, encoding="unicode")


def round_steps(low: float, high: float, most: int = 5) -> Array:
    """The numbers that stand at an axis: at most so many multiples of 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    for step in (power * factor for factor in (1.0, 2.0, 2.5, 5.0, 10.0, 20.0)):
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        if last - first < most:
            break
    return np.arange(first, last + 1, dtype=np.float64) * step


def _tick(value: float, *, percent: bool = False, signed: bool = False, magnitude: bool = False) -> str:
    value = float(f"{abs(value) if magnitude else value:.6g}")
    if percent:
        return f"{100 * value:.6g}\N{NO-BREAK SPACE}%"
    small = value != 0 and abs(value) < 1e-4
    text = quantity(abs(value)) if small else f"{abs(value):,.10g}"
    return f"{MINUS if value < 0 else '+' if signed and value > 0 else ''}{text}"


def _points(x: ArrayLike, y: ArrayLike) -> list[str]:
    pairs = zip(np.atleast_1d(x), np.atleast_1d(y), strict=True)
    return [f"{_short(across)} {_short(down)}" for across, down in pairs]


def _short(pixels: SupportsFloat) -> str:
    return f"{float(pixels):.1f}".removesuffix(".0")
