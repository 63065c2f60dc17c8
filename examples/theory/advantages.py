# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Draws the signal of every advantage, and where it leads:

    python examples/theory/advantages.py

Left, Omega(p) = A(right) - A(wrong) over the success of a prompt; right, success over exact iterations with the same
coefficients for all. Advantages whose signals differ by a factor only share a line, that of the first. Writes
`advantages-light.svg`, `advantages-dark.svg` and `advantages.png` beside itself, or where `--output` says. Theory for
large groups in NumPy: nothing is trained.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from trl_grpo_variants import theory
from trl_grpo_variants.objective.advantages import ADVANTAGES
from trl_grpo_variants.runs.style import EDGE, LABEL, NOTE, Sheet, points, save


START, ITERATIONS = 0.1, 20
COEFFICIENTS = {"beta": 0.5, "mirror_beta": 2.0}
# Where another value than the default is of more interest.
SETTINGS = {"pass_at_k": {"k": 4}}
RATES = np.linspace(0.0, 1.0, 1001)
# Shapes that differ by less look the same.
ALIKE = 0.01
HIGHEST_SIGNAL = 5.0
HEIGHT = 388
# Left edge and width of the panels, in pixels, and what goes across.
PANELS = ((38, 280, "success p of the prompt"), (404, 210, "iteration"))


@dataclass(frozen=True)
class Look:
    """
    How a line is drawn.

    Parameters:
        label (`str`):
            Its name in the figure.
        color (`str`):
            Name of its color.
        place (`tuple[float, float]`):
            Where the name stands in the left panel.
    """

    label: str
    color: str
    place: tuple[float, float]


# By the first of the advantages that share a line.
LOOKS = {
    "mean_only": Look("mean", "grey", (0.58, 1.18)),
    "smoothed_std": Look("mean + std", "blue", (0.63, 3.6)),
    "risk_sensitive": Look("RS-GRPO", "green", (0.86, 0.76)),
    "maximum_likelihood": Look("MaxRL", "orange", (0.345, 4.15)),
    "pass_at_k": Look("pass@4", "plum", (0.33, 0.26)),
}


@dataclass(frozen=True)
class Line:
    """
    Advantages whose signals have one shape.

    Parameters:
        names (`list[str]`):
            Their names.
        signal (`np.ndarray`):
            Omega of the first at `RATES`.
        path (`np.ndarray`):
            Its success after 0, ..., `ITERATIONS` exact iterations.
    """

    names: list[str]
    signal: np.ndarray
    path: np.ndarray


def lines() -> tuple[list[Line], list[str]]:
    """All advantages by the shapes of their signals, and the names of those that have none."""
    found: list[Line] = []
    without = []
    middle = len(RATES) // 2
    # Those with a look first, so that they name their line.
    for name in [*LOOKS, *(name for name in ADVANTAGES if name not in LOOKS)]:
        settings = {"advantage": name, "advantage_kwargs": SETTINGS.get(name)}
        try:
            signal = theory.omega(RATES, **settings)
        except ValueError:
            without.append(name)
            continue
        inner = slice(10, -10)
        shape = signal[inner] / signal[middle]
        alike = [line for line in found if np.allclose(line.signal[inner] / line.signal[middle], shape, rtol=ALIKE)]
        if alike:
            alike[0].names.append(name)
        else:
            found.append(Line([name], signal, theory.success_path(START, ITERATIONS, **COEFFICIENTS, **settings)))
    return sorted(found, key=lambda line: -line.path[-1]), without


def label(name: str) -> str:
    """Name of an advantage with the settings that are not its defaults."""
    settings = ", ".join(f"{key}={value}" for key, value in SETTINGS.get(name, {}).items())
    return f"{name} ({settings})" if settings else name


def figure(drawn: list[Line], colors: dict[str, str]) -> Any:
    """
    Both panels.

    Args:
        drawn (`list[Line]`):
            Advantages by their signals.
        colors (`dict[str, str]`):
            Light or dark.

    Returns:
        [`~matplotlib.figure.Figure`]:
            The figure.
    """
    sheet = Sheet(HEIGHT, colors)
    left, right = (sheet.add_panel(x, 84, width, 230, across=across) for x, width, across in PANELS)
    ends = []
    for line in drawn:
        look = LOOKS[line.names[0]]
        words = {"color": colors[look.color], "fontsize": points(LABEL), "weight": "bold", "ha": "center"}
        left.plot(RATES, np.where(line.signal <= HIGHEST_SIGNAL, line.signal, np.nan), color=colors[look.color])
        left.text(*look.place, look.label, va="center", **words)
        right.plot(range(ITERATIONS + 1), line.path, color=colors[look.color], clip_on=False)
        ends.append((ITERATIONS, float(line.path[-1]), f"{look.label} {line.path[-1]:.2f}", look.color))
    left.set(xlim=(0.0, 1.0), ylim=(0.0, HIGHEST_SIGNAL), xticks=[0.0, 0.25, 0.5, 0.75, 1.0])
    right.set(xlim=(0.0, ITERATIONS), ylim=(0.0, 1.0), yticks=[0.0, 0.25, 0.5, 0.75, 1.0])
    sheet.name_ends(right, ends)
    sheet.add_heading("How hard a prompt is pushed", "signal Ω(p) = A(right) − A(wrong)")
    sheet.add_heading("Where it leads", f"success from {START:g}, exact iterations", PANELS[1][0] - 22)
    note = (
        f"Theory for large groups, not a training run: beta {COEFFICIENTS['beta']:g}, mirror_beta "
        f"{COEFFICIENTS['mirror_beta']:g} for all, so sizes differ as well as shapes."
    )
    sheet.write(EDGE, HEIGHT - 13, note, NOTE)
    return sheet.figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(""), help="Path without an ending.")
    args = parser.parse_args()
    drawn, without = lines()
    save(lambda colors: figure(drawn, colors), args.output)
    for line in drawn:
        names = ", ".join(map(label, line.names))
        print(f"{line.path[-1]:.2f} after {ITERATIONS} iterations: {names}")  # noqa: T201
    print(f"no function of a prompt's success, or none in large groups: {', '.join(without)}")  # noqa: T201


if __name__ == "__main__":
    main()
