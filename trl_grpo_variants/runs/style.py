# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The style of every figure: 760 px wide, light or dark, placed in pixels. matplotlib is imported when one is drawn."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np


if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 760
_PER_INCH = 100
# Of bitmaps, which are twice as large as they are shown.
DPI = 2 * _PER_INCH

LIGHT = {
    "ground": "#FFFFFF",
    "text": "#1B1F24",
    "muted": "#57606A",
    "line": "#D5DBE1",
    "grid": "#E9EDF1",
    "blue": "#0B63B5",
    "pale": "#9CC3E8",
    "orange": "#B4500B",
    "plum": "#8F2F74",
    "green": "#157A5A",
    "grey": "#57606A",
}
DARK = {
    "ground": "#0D1117",
    "text": "#E6EBF1",
    "muted": "#9DA9B6",
    "line": "#333B45",
    "grid": "#212831",
    "blue": "#6CB4FF",
    "pale": "#2F6DAA",
    "orange": "#F2A25C",
    "plum": "#EE8AC7",
    "green": "#5FD3A4",
    "grey": "#C3CCD6",
}
# Of lines, in the order in which they are drawn.
LINES = ("grey", "blue", "green", "orange", "plum")
TITLE, SUBTITLE, LABEL, NOTE = 16, 12.5, 12, 11.5
# Left edge of the words, and the height of a line of names.
EDGE, _LINE_OF_NAMES = 16, 15


def points(pixels: float) -> float:
    """A size in pixels as matplotlib's points."""
    return pixels * 72 / _PER_INCH


class Sheet:
    """
    A figure in which everything is placed in pixels from its upper left corner.

    Parameters:
        height (`int`):
            Height in pixels.
        colors (`dict[str, str]`):
            `LIGHT` or `DARK`.
    """

    def __init__(self, height: int, colors: dict[str, str]):
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ValueError("A figure needs matplotlib, which is not installed: `pip install matplotlib`.") from error
        self.height = height
        self.colors = colors
        size = (WIDTH / _PER_INCH, height / _PER_INCH)
        # Attached to no window.
        self.figure: Figure = Figure(figsize=size, dpi=_PER_INCH, facecolor=colors["ground"])

    def write(self, x: float, y: float, words: str, size: float = LABEL, color: str = "muted", **looks: Any) -> None:
        """Words whose baseline begins at a place."""
        color = self.colors[color]
        self.figure.text(x / WIDTH, 1 - y / self.height, words, fontsize=points(size), color=color, **looks)

    def add_heading(self, title: str, subtitle: str, x: float = EDGE) -> None:
        """The title of the figure, or of a part of it."""
        self.write(x, 32, title, TITLE, "text", weight="bold")
        self.write(x, 54, subtitle, SUBTITLE)

    def add_panel(
        self,
        left: float,
        top: float,
        width: float,
        height: float,
        *,
        title: str = "",
        across: str = "",
        grid: Literal["x", "y"] = "y",
    ) -> "Axes":
        """Axes with a grid along one axis and without a frame; `title` says what goes up, `across` what goes across."""
        colors = self.colors
        place = (left / WIDTH, 1 - (top + height) / self.height, width / WIDTH, height / self.height)
        axes = self.figure.add_axes(place, facecolor=colors["ground"])
        axes.grid(axis=grid, color=colors["grid"], linewidth=points(1))
        axes.set_axisbelow(True)
        axes.tick_params(which="both", length=0, labelsize=points(LABEL), labelcolor=colors["muted"])
        for side, spine in axes.spines.items():
            spine.set_visible(side == {"y": "bottom", "x": "left"}[grid])
            spine.set(color=colors["line"], linewidth=points(1))
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter("{x:g}")
        axes.set_title(title, loc="left", fontsize=points(LABEL), color=colors["text"], pad=points(10))
        axes.set_xlabel(across, loc="right", fontsize=points(LABEL), color=colors["muted"], labelpad=points(5))
        return axes

    def name_ends(self, axes: "Axes", ends: list[tuple[float, float, str, str]]) -> None:
        """
        Write names beside the right ends of lines, moved apart where they would lie on each other.

        Args:
            axes (`Axes`):
                Axes whose limits are final.
            ends (`list[tuple[float, float, str, str]]`):
                Place of an end in data, name, and name of the color.
        """
        heights = axes.transData.transform([end[:2] for end in ends])[:, 1]
        for (x, y, name, color), height, free in zip(ends, heights, _moved_apart(heights), strict=True):
            axes.annotate(
                name,
                (x, y),
                xytext=(points(12), points(free - height)),
                textcoords="offset points",
                va="center",
                fontsize=points(LABEL),
                weight="bold",
                color=self.colors[color],
                annotation_clip=False,
                arrowprops={
                    "arrowstyle": "-",
                    "color": self.colors[color],
                    "linewidth": 0.8,
                    "shrinkA": 0,
                    "shrinkB": 0,
                    "relpos": (0.0, 0.5),
                },
            )

    def add_legend(self, axes: "Axes", columns: int) -> None:
        """A legend below the axes, where no data can be, for what cannot be named where it is."""
        axes.legend(
            loc="upper left",
            bbox_to_anchor=(0.0, -46 / axes.bbox.height),
            borderaxespad=0.0,
            ncols=columns,
            frameon=False,
            fontsize=points(LABEL),
            labelcolor=self.colors["muted"],
        )


def _moved_apart(heights: np.ndarray) -> np.ndarray:
    """Heights of names that do not overlap, in the same order and as near as can be."""
    order, moved = np.argsort(heights, kind="stable"), heights.astype(np.float64)
    for _ in range(200):
        for lower, upper in pairwise(order):
            overlap = _LINE_OF_NAMES - (moved[upper] - moved[lower])
            if overlap > 0.0:
                moved[[lower, upper]] += (-overlap / 2.0, overlap / 2.0)
    return moved


def save_png(figure: "Figure", path: Path, *, software: str | None = None) -> None:
    """Write a figure at twice its size, with the name of what made it."""
    figure.savefig(path, format="png", dpi=DPI, metadata={"Software": software})


def save(draw: Callable[[dict[str, str]], "Figure"], path: Path) -> None:
    """
    Write a figure as SVG, light and dark, and as PNG for pages that show no SVG.

    Args:
        draw (`Callable`):
            `draw(colors)` gives the figure in `LIGHT` or `DARK`.
        path (`Path`):
            Where, without an ending.
    """
    import matplotlib

    # Letters stay letters, and the same figure is the same file.
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "", "font.family": "sans-serif"}):
        for name, colors in (("light", LIGHT), ("dark", DARK)):
            draw(colors).savefig(path.with_name(f"{path.name}-{name}.svg"), metadata={"Date": None})
        save_png(draw(LIGHT), path.with_suffix(".png"))
