# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Draws what an update costs beside stock TRL:

    python examples/benchmarks/cost.py

Every value is read from the tables of the README beside this file, which `update_speed.py` has printed. Writes
`cost-light.svg`, `cost-dark.svg` and `cost.png` beside itself, or where `--output` says.
"""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trl_grpo_variants.runs.style import EDGE, LABEL, NOTE, Sheet, points, save


README = Path(__file__).with_name("README.md")
HEIGHT, BARS, LEFT, SPAN = 443, 282, 262, 442
SCALE = 1.1
# Heights of the two bars of a row, whose rows are one high.
TIME, MEMORY = 0.38, 0.17


@dataclass(frozen=True)
class Row:
    """
    A rollout, or the heading of several where there are no values.

    Parameters:
        label (`str`):
            What it is called in the figure.
        is_inner (`bool`):
            Whether it belongs to the heading above.
        time (`float`, *optional*):
            Share of stock TRL's time.
        memory (`float`, *optional*):
            Share of stock TRL's peak memory.
    """

    label: str
    is_inner: bool = False
    time: float | None = None
    memory: float | None = None


def tables(text: str) -> list[dict[str, list[str]]]:
    """Tables of a Markdown text, each as the cells behind the first of every row by that one, without emphasis."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        rows = [[cell.strip(" *") for cell in line.strip("|\n").split("|")] for line in block.splitlines()]
        found.append({first: rest for first, *rest in rows})
    return found


def rows(text: str) -> tuple[list[Row], tuple[float, float], tuple[float, float]]:
    """
    What is drawn, from the text of the benchmarks' README.

    Args:
        text (`str`):
            The text.

    Returns:
        `tuple[list[Row], tuple[float, float], tuple[float, float]]`:
            The rows, the range that the machine cannot tell from 1, and the time and memory of `share_prompt` where it
            does not pay.
    """
    update = next(table for table in tables(text) if "the quickstart's own (one micro-batch of 64)" in table)
    options = next(table for table in tables(text) if "`share_prompt`" in table.get("rollout", ()))

    def plain(name: str, label: str, is_inner: bool = False) -> Row:
        time, memory = map(float, update[name][:2])
        return Row(label, is_inner, time, memory)

    def of(rollout: str, contender: str) -> tuple[float, float]:
        cell = options[rollout][options["rollout"].index(contender)]
        time, memory = map(float, cell.split("/"))
        return time, memory

    noise = re.search(r"repetitions of the ratio of time range from ([\d.]+\d) to ([\d.]+\d)", " ".join(text.split()))
    if noise is None:
        raise ValueError(f"{README} does not say how well the machine can tell.")
    drawn = [
        Row("Long-tailed lengths"),
        plain("long tail, 60 % without", "60 % of groups without signal", True),
        plain("long tail, 30 % of the groups without", "30 % of groups without signal", True),
        plain("long tail, every group with signal", "every group with signal", True),
        plain("the quickstart's own (one micro-batch of 64)", "The quickstart's own rollout"),
        Row("Prompts 8 × as long as answers", False, *of("8 times", "default")),
        Row("the same, with share_prompt", True, *of("8 times", "`share_prompt`")),
        plain("rows of one length: nothing to save", "Rows of one length: no saving"),
    ]
    short = of("rows of one length, prompts a quarter of them", "`share_prompt`")
    return drawn, (float(noise[1]), float(noise[2])), short


def figure(text: str, colors: dict[str, str]) -> Any:
    """
    Two bars per rollout, from 0, beside a line for stock TRL.

    Args:
        text (`str`):
            The text of the benchmarks' README.
        colors (`dict[str, str]`):
            Light or dark.

    Returns:
        [`~matplotlib.figure.Figure`]:
            The figure.
    """
    drawn, noise, short = rows(text)
    sheet = Sheet(HEIGHT, colors)
    axes = sheet.add_panel(LEFT, 86, SPAN, BARS, grid="x")
    axes.set(xlim=(0.0, SCALE), ylim=(len(drawn) - 0.45, -0.45), yticks=[], xticks=[0.0, 0.25, 0.5, 0.75, 1.0])
    axes.axvspan(*noise, color=colors["grid"], zorder=0)
    axes.axvline(1.0, color=colors["text"], linewidth=points(1.5), zorder=3)
    small = {"fontsize": points(LABEL), "va": "center"}
    for y, row in enumerate(drawn):
        left, weight = (34, "normal") if row.is_inner else (16, "bold")
        across = {"transform": axes.get_yaxis_transform(), "color": colors["text"]}
        axes.text((left - LEFT) / SPAN, y, row.label, weight=weight, **across, **small)
        if row.time is None or row.memory is None:
            continue
        axes.barh(y - 0.13, row.time, height=TIME, color=colors["blue"], zorder=2)
        axes.barh(y + 0.2, row.memory, height=MEMORY, color=colors["pale"], zorder=2)
        # Where the word would lie on the line of stock TRL it stands within the bar.
        inside = row.time > 0.85
        at, side = (row.time - 0.015, "right") if inside else (row.time + 0.015, "left")
        color = colors["ground" if inside else "text"]
        axes.text(at, y - 0.13, f"{row.time:.2f}", ha=side, weight="bold", color=color, zorder=4, **small)
        axes.text(row.memory + 0.015, y + 0.24, f"{row.memory:.2f}", color=colors["muted"], **small)
    _write(sheet, short)
    return sheet.figure


def _write(sheet: Sheet, short: tuple[float, float]) -> None:
    """The words above and below the bars."""
    sheet.add_heading(
        "What an update costs beside stock TRL",
        "time and peak memory of one optimizer step as a share of stock TRL's; the same gradient",
    )
    notes = (
        "Grey: what this machine cannot tell from 1. Two CPU cores, 1.1 M parameters, TRL 1.16; not measured on a GPU.",
        f"share_prompt is an option: where prompts are a quarter of the rows it costs time ({short[0]:.2f}) and saves memory "
        f"({short[1]:.2f}).",
    )
    for line, note in enumerate(notes):
        sheet.write(EDGE, HEIGHT - 28 + 17 * line, note, NOTE)
    for x, color, word in ((LEFT, "blue", "time"), (LEFT + 70, "pale", "peak memory")):
        sheet.write(x, 80, "■", color=color)
        sheet.write(x + 17, 80, word)
    sheet.write(LEFT + SPAN / SCALE, 80, "stock TRL", color="text", weight="bold", ha="center")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path(__file__).with_suffix(""), help="Path without an ending.")
    args = parser.parse_args()
    text = README.read_text()
    save(lambda colors: figure(text, colors), args.output)


if __name__ == "__main__":
    main()
