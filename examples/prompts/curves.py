# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Held-out success against generated tokens and against optimizer steps, for each kind of data."""

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from trl_grpo_variants.runs.style import LABEL, LINES, Sheet, points


if TYPE_CHECKING:
    from compare import Run

ACROSS = {"tokens": "generated tokens", "step": "optimizer step"}
SEEDS = "mean over seeds, in a band from the lowest to the highest"
# Height of a row, in pixels.
ROW = 250


def figure(runs: list["Run"], colors: dict[str, str]) -> Any:
    """
    One row per kind of data.

    Args:
        runs (`list[Run]`):
            Finished runs; those of one method are drawn as their mean, in a band from the lowest to the highest seed, as
            far as all of them go.
        colors (`dict[str, str]`):
            Light or dark.

    Returns:
        [`~matplotlib.figure.Figure`]:
            The figure.
    """
    kinds = dict.fromkeys(run.data for run in runs)
    colors_of = dict(zip(dict.fromkeys(run.method for run in runs), LINES, strict=False))
    sheet = Sheet(86 + ROW * len(kinds), colors)
    for (row, data), (column, name) in itertools.product(enumerate(kinds), enumerate(ACROSS)):
        panel = sheet.add_panel(44 + 312 * column, 98 + ROW * row, 264, ROW - 70, title=data, across=ACROSS[name])
        ends = []
        for method, color in colors_of.items():
            members = [run for run in runs if (run.data, run.method) == (data, method)]
            if members:
                ends.append((*_draw(panel, members, name, colors[color]), method, color))
        last = max(end for end, *_ in ends)
        panel.set(xlim=(0, last), ylim=(0.4, 1.0))
        panel.xaxis.set_major_formatter("{x:,.0f}")
        panel.locator_params(axis="x", nbins=5)
        if name == "step":
            # A line that ends where others go on has its name above it.
            sheet.name_ends(panel, [end for end in ends if end[0] > 0.9 * last])
            for step, success, method, color in ends:
                if step <= 0.9 * last:
                    looks = {"color": colors[color], "weight": "bold", "fontsize": points(LABEL), "ha": "center"}
                    panel.text(step, success + 0.025, method, **looks)
    sheet.add_heading("Success on held-out prompts, by how prompts are chosen", SEEDS)
    return sheet.figure


def _draw(panel: Any, members: list["Run"], name: str, color: str) -> tuple[float, float]:
    """A mean in its band, and where it ends."""
    end = min(getattr(run.curve[-1], name) for run in members)
    places = np.linspace(0, end, 60)
    curves = [
        np.interp(places, [getattr(point, name) for point in run.curve], [point.success for point in run.curve])
        for run in members
    ]
    mean = np.mean(curves, axis=0)
    panel.plot(places, mean, color=color, clip_on=False)
    panel.fill_between(places, np.min(curves, axis=0), np.max(curves, axis=0), color=color, alpha=0.15, linewidth=0)
    return end, float(mean[-1])
