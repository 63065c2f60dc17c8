# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The prompts as rows: what each did over the run, and from the earlier to the later half of its visits."""

from dataclasses import dataclass

import numpy as np

from .numbers import beginning, count, nth, success
from .statistics import Rows, cells, later_interval
from .svg import Plot


# What became of prompts, in the words of the page.
KIND_WORDS = {
    "amplified": "better",
    "stuck at 0": "stuck at 0",
    "oscillating": "up and down",
    "saturated": "always succeeds",
    "worsened": "worse",
    "unchanged": "no clear change",
}
# Success in a cell: 0 and 1 are classes of their own, since there is no signal.
CLASSES = ("0", "to ⅓", "to ⅔", "below 1", "1")
MOST_ROWS, MOST_COLUMNS = 60, 16

_ROW, _CELL = 10, 9
_BETWEEN = 10  # groups
_LINE = 15  # of words
_AXIS = 36
_NAMES = 156
_MOST_BYTES = 80


@dataclass(frozen=True)
class _Placed:
    """Rows of a kind, with where they begin."""

    rows: Rows
    top: float

    @property
    def lines(self) -> list[str]:
        """What is said of them at the left."""
        sampled = len(self.rows.shown) < self.rows.total
        every = f"every {nth(round(self.rows.total / len(self.rows.shown)))} shown"
        return [KIND_WORDS[self.rows.kind], *([every] if sampled else [])]

    @property
    def height(self) -> float:
        return max(_ROW * len(self.rows.shown), _LINE * len(self.lines) - 4)


def _placed(rows: list[Rows]) -> tuple[list[_Placed], int]:
    """Where each kind begins, and the height of all."""
    placed, top = [], 8.0
    for kind in rows:
        placed.append(_Placed(kind, top))
        top += placed[-1].height + _BETWEEN
    return placed, round(top - _BETWEEN + 4 + _AXIS)


def map_chart(label: str, rows: list[Rows], columns: int, last_step: float, *, width: int) -> str:
    """A cell for each part of the run; from two modules on, with the names of the kinds at the left."""
    is_wide = width > 352
    placed, height = _placed(rows)
    left = _NAMES if is_wide else 0
    across = (0.0, max(1.0, last_step))
    plot = Plot(label, (width, height), across, (0.0, 1.0), name="optimizer step", left=left, right=1)
    plot.steps_across()
    edges = np.linspace(plot.left, plot.right, columns + 1)
    strokes: list[list[str]] = [[] for _ in CLASSES]
    for kind in placed:
        if is_wide:
            _label(plot, kind)
        for number, trajectory in enumerate(kind.rows.shown):
            y = kind.top + _ROW * number + _CELL / 2
            for column, share in enumerate(cells(trajectory, columns, last_step)):
                if not np.isnan(share):
                    strokes[class_of(share)].append(f"M{edges[column]:.1f} {y:g}H{edges[column + 1]:.1f}")
    for number, drawn in enumerate(strokes):
        if drawn:
            plot.element("path", f"cell class-{number}", d="".join(drawn))
    if is_wide:
        _hints(plot, placed)
    return plot.markup


def _label(plot: Plot, kind: _Placed) -> None:
    first, *others = kind.lines
    plot.text(0, kind.top + 9, first, kind="kind")
    plot.text(plot.left - 10, kind.top + 9, count(kind.rows.total), "end")
    for line in others:
        plot.text(0, kind.top + 9 + _LINE, line)


def change_chart(label: str, rows: list[Rows]) -> str:
    """Of the same rows at the same heights: a ring for the earlier half, a dot with its interval for the later."""
    placed, height = _placed(rows)
    plot = Plot(label, (352, height), (0.0, 1.0), (0.0, 1.0), name="success", left=6, right=6)
    quarters = [0.0, 0.25, 0.5, 0.75, 1.0]
    plot.ticks_across(quarters)
    plot.bars(plot.x(quarters), [plot.top] * 5, [plot.bottom] * 5, "grid")
    shown = [(kind.top + _ROW * i + _CELL / 2, t) for kind in placed for i, t in enumerate(kind.rows.shown)]
    y = np.array([height for height, _ in shown])
    shares = np.array([np.divide(*t.halves) for _, t in shown])
    earlier, later = plot.x(shares.T)
    low, high = plot.x(np.array([later_interval(t) for _, t in shown]).T)
    plot.dashes(y, low, high, "interval pale")
    plot.dashes(y, earlier, later, "way")
    plot.dots(earlier, y, "ring")
    plot.dots(earlier, y, "hole small")
    plot.dots(later, y, "small point measured")
    _hints(plot, placed)
    return plot.markup


def _hints(plot: Plot, placed: list[_Placed]) -> None:
    for kind in placed:
        for number, trajectory in enumerate(kind.rows.shown):
            successes, completions = trajectory.halves
            way = " → ".join(map(success, successes / completions))
            words = f"{beginning(trajectory.prompt, _MOST_BYTES)}: {way}"
            plot.hint(kind.top + _ROW * number, _ROW, words)


def class_of(share: float) -> int:
    """Number of the class in [`CLASSES`]."""
    if share in (0.0, 1.0):
        return 4 * int(share)
    return 1 + int(share > 1 / 3) + int(share > 2 / 3)
