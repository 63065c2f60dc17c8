# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Draws the signal of every advantage, and where it leads:

    python examples/theory/advantages.py

Left, Omega(p) = A(right) - A(wrong) over the success of a prompt; right, success over exact iterations with the same
coefficients for all. Advantages with the same signal share a line. Writes `advantages.png` beside itself, or where
`--output` says. Theory for large groups in NumPy: nothing is trained.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trl_grpo_variants import theory
from trl_grpo_variants.objective.advantages import ADVANTAGES


START, ITERATIONS = 0.1, 20
COEFFICIENTS = {"beta": 0.5, "mirror_beta": 2.0}
# Where another value than the default is of more interest.
SETTINGS = {"pass_at_k": {"k": 4}}
RATES = np.linspace(0.0, 1.0, 1001)
# Signals that differ by less look the same.
ALIKE = 0.01
HIGHEST_SIGNAL = 5.0
INK, MUTED, GRID = "#1B1F24", "#57606A", "#E9EDF1"
COLORS = ("#0B63B5", "#57606A", "#157A5A", "#9A6700", "#B4500B", "#8F2F74", "#2C7A8C", "#6E4FB0")


@dataclass(frozen=True)
class Line:
    """
    Advantages with one signal.

    Parameters:
        names (`list[str]`):
            Their names.
        signal (`np.ndarray`):
            Omega at `RATES`.
        path (`np.ndarray`):
            Success after 0, ..., `ITERATIONS` exact iterations.
    """

    names: list[str]
    signal: np.ndarray
    path: np.ndarray


def lines() -> tuple[list[Line], list[str]]:
    """All advantages by their signals, and the names of those that have none."""
    found: list[Line] = []
    without = []
    for name in ADVANTAGES:
        settings = {"advantage": name, "advantage_kwargs": SETTINGS.get(name)}
        try:
            signal = theory.omega(RATES, **settings)
        except ValueError:
            without.append(name)
            continue
        inner = slice(10, -10)
        alike = [line for line in found if np.allclose(line.signal[inner], signal[inner], rtol=ALIKE)]
        if alike:
            alike[0].names.append(name)
        else:
            found.append(Line([name], signal, theory.success_path(START, ITERATIONS, **COEFFICIENTS, **settings)))
    return sorted(found, key=lambda line: -line.path[-1]), without


def label(name: str) -> str:
    """Name of an advantage with the settings that are not its defaults."""
    settings = ", ".join(f"{key}={value}" for key, value in SETTINGS.get(name, {}).items())
    return f"{name} ({settings})" if settings else name


def spread(heights: list[float], least: float) -> list[float]:
    """Heights, moved apart so that neighbours differ by so much at least, in the same order."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    moved = list(heights)
    for _ in range(200):
        for lower, upper in zip(order, order[1:], strict=False):
            overlap = least - (moved[upper] - moved[lower])
            if overlap > 0.0:
                moved[lower] -= overlap / 2.0
                moved[upper] += overlap / 2.0
    return moved


def figure(drawn: list[Line], without: list[str]) -> Any:
    """
    Both panels, with a key of all names below.

    Args:
        drawn (`list[Line]`):
            Advantages by their signals.
        without (`list[str]`):
            Names of those without one.

    Returns:
        [`~matplotlib.figure.Figure`]:
            7.6 inches wide.
    """
    from matplotlib.figure import Figure

    rows = len(drawn) + 1
    height = 3.3 + 0.19 * rows
    drawing = Figure(figsize=(7.6, height), facecolor="white")
    bottom = (0.72 + 0.19 * rows) / height
    left, right = (drawing.add_axes((x, bottom, 0.315, 1.0 - bottom - 0.62 / height)) for x in (0.05, 0.435))
    least = 0.088
    ends = spread([float(line.path[-1]) for line in drawn], least)
    for index, (line, end) in enumerate(zip(drawn, ends, strict=True)):
        color = COLORS[index % len(COLORS)]
        shown = np.where(line.signal <= HIGHEST_SIGNAL, line.signal, np.nan)
        left.plot(RATES, shown, color=color, linewidth=2.0)
        right.plot(range(ITERATIONS + 1), line.path, color=color, linewidth=2.0)
        right.plot([ITERATIONS, ITERATIONS + 0.9], [line.path[-1], end], color=color, linewidth=0.8, clip_on=False)
        words = f"{label(line.names[0]).partition(' (')[0]} {line.path[-1]:.2f}"
        right.text(ITERATIONS + 1.2, end, words, color=color, fontsize=8.5, va="center", weight="bold")
        y = 1.0 - (height - 0.19 * (rows - index) - 0.02) / height
        drawing.text(0.05, y, "—", color=color, fontsize=11, weight="bold", va="center")
        drawing.text(0.085, y, ", ".join(label(name) for name in line.names), color=INK, fontsize=8.5, va="center")
    note = f"no function of a prompt's success, or none in large groups: {', '.join(without)}"
    drawing.text(0.05, (0.19 + 0.02) / height, note, color=MUTED, fontsize=8, va="center")
    left.set(xlim=(0.0, 1.0), ylim=(0.0, HIGHEST_SIGNAL), xlabel="success of the prompt")
    right.set(xlim=(0.0, ITERATIONS), ylim=(0.0, 1.02), xlabel="iteration")
    quarters = [0.0, 0.25, 0.5, 0.75, 1.0]
    left.set_xticks(quarters, [f"{tick:g}" for tick in quarters])
    right.set_yticks(quarters, [f"{tick:g}" for tick in quarters])
    titles = {
        left: ("How hard a prompt is pushed", "signal Ω(p) = A(right) − A(wrong)"),
        right: (
            "Where it leads",
            f"success from {START:g}, exact iteration, beta {COEFFICIENTS['beta']:g}, mirror_beta "
            f"{COEFFICIENTS['mirror_beta']:g}",
        ),
    }
    for axes, (title, subtitle) in titles.items():
        axes.text(0.0, 1.145, title, transform=axes.transAxes, fontsize=11.5, weight="bold", color=INK)
        axes.text(0.0, 1.055, subtitle, transform=axes.transAxes, fontsize=8.5, color=MUTED)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(length=0, labelsize=8.5, labelcolor=MUTED)
        axes.xaxis.label.set(color=MUTED, fontsize=8.5)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color("#D5DBE1")
    return drawing


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(".png"))
    args = parser.parse_args()
    drawn, without = lines()
    figure(drawn, without).savefig(args.output, dpi=160)
    for line in drawn:
        print(f"{line.path[-1]:.2f} after {ITERATIONS} iterations: {', '.join(map(label, line.names))}")  # noqa: T201
    print(f"without a signal: {', '.join(without)}")  # noqa: T201


if __name__ == "__main__":
    main()
