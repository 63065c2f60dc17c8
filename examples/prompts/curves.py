# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Held-out success against generated tokens and against optimizer steps, for each kind of data."""

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np


matplotlib.use("Agg")

import matplotlib.pyplot as plt


if TYPE_CHECKING:
    from compare import Run


def save_figure(runs: list["Run"], path: Path) -> None:
    """
    Draw one row per kind of data.

    Args:
        runs (`list[Run]`):
            Finished runs; those of one method are drawn as their mean, in a band from the lowest to the highest seed, as
            far as all of them go.
        path (`Path`):
            Where to save.
    """
    kinds = list(dict.fromkeys(run.data for run in runs))
    figure, rows = plt.subplots(len(kinds), 2, figsize=(11, 4 * len(kinds)), squeeze=False, layout="constrained")
    for data, axes in zip(kinds, rows, strict=True):
        for method in dict.fromkeys(run.method for run in runs):
            members = [run for run in runs if (run.data, run.method) == (data, method)]
            for panel, name in zip(axes, ("tokens", "step"), strict=True):
                if members:
                    _draw(panel, members, name, method)
        axes[0].set_xlabel("generated tokens")
        axes[1].set_xlabel("optimizer step")
        for panel in axes:
            panel.set_title(f"{data}: success on held-out prompts")
            panel.set_xlim(left=0)
            panel.grid(alpha=0.3)
            panel.spines[["top", "right"]].set_visible(False)
    rows[0][1].legend(loc="lower right", frameon=False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _draw(panel: plt.Axes, members: list["Run"], name: str, label: str) -> None:
    end = min(getattr(run.curve[-1], name) for run in members)
    places = np.linspace(0, end, 60)
    curves = [
        np.interp(places, [getattr(point, name) for point in run.curve], [point.success for point in run.curve])
        for run in members
    ]
    (line,) = panel.plot(places, np.mean(curves, axis=0), label=label, linewidth=2)
    panel.fill_between(
        places, np.min(curves, axis=0), np.max(curves, axis=0), color=line.get_color(), alpha=0.15, linewidth=0
    )
