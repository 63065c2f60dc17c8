# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The style of the figures in the README: 760 px wide, light and dark, the same marks in both."""

from collections.abc import Callable
from pathlib import Path
from typing import Any


WIDTH = 760
_PER_INCH = 100

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
TITLE, SUBTITLE, LABEL, NOTE = 16, 12.5, 12, 11.5


def pixels(size: float) -> float:
    """A size in pixels as matplotlib's points."""
    return size * 72 / _PER_INCH


def new_figure(height: int, colors: dict[str, str]) -> Any:
    """
    A figure as wide as all are.

    Args:
        height (`int`):
            Height in pixels.
        colors (`dict[str, str]`):
            `LIGHT` or `DARK`.

    Returns:
        [`~matplotlib.figure.Figure`]:
            One in whose fractions a pixel is `1 / WIDTH` by `1 / height`.
    """
    from matplotlib.figure import Figure

    return Figure(figsize=(WIDTH / _PER_INCH, height / _PER_INCH), dpi=_PER_INCH, facecolor=colors["ground"])


def style(axes: Any, colors: dict[str, str], grid: str) -> None:
    """A grid along one axis, no frame, and muted letters."""
    axes.set_facecolor(colors["ground"])
    axes.grid(axis=grid, color=colors["grid"], linewidth=pixels(1))
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=pixels(LABEL), labelcolor=colors["muted"])
    for side, spine in axes.spines.items():
        spine.set_visible(side == {"y": "bottom", "x": "left"}[grid])
        spine.set(color=colors["line"], linewidth=pixels(1))


def save(draw: Callable[[dict[str, str]], Any], path: Path) -> None:
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
        draw(LIGHT).savefig(path.with_suffix(".png"), dpi=2 * _PER_INCH)
