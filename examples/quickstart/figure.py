# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The figure of one run or of several."""

from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib


matplotlib.use("Agg")

import matplotlib.pyplot as plt


if TYPE_CHECKING:
    from experiment import Run


def save_figure(runs: list["Run"], path: Path) -> None:
    """
    Draw success, KL and length over the optimizer steps.

    Args:
        runs (`list[Run]`):
            Finished runs with the same number of steps. Runs of one variant are drawn as their mean, in a band from the
            lowest to the highest seed; a lone run, in a band of its 95 % interval over prompts.
        path (`Path`):
            Where to save.
    """
    by_variant: dict[str, list[Run]] = defaultdict(list)
    for run in runs:
        by_variant[run.variant].append(run)

    figure, (success, kl, length) = plt.subplots(1, 3, figsize=(13, 4), width_ratios=(1.4, 1, 1), layout="constrained")
    for variant, members in by_variant.items():
        steps = [point.step for point in members[0].curve]
        points = list(zip(*(run.curve for run in members), strict=True))
        for axes, values in (
            (success, [[p.success.mean for p in at_step] for at_step in points]),
            (kl, [[p.kl for p in at_step] for at_step in points]),
            (length, [[p.length for p in at_step] for at_step in points]),
        ):
            (line,) = axes.plot(steps, [sum(v) / len(v) for v in values], label=variant, linewidth=2)
            axes.fill_between(
                steps,
                [min(v) for v in values],
                [max(v) for v in values],
                color=line.get_color(),
                alpha=0.15,
                linewidth=0,
            )

    if len(runs) == 1:
        curve = runs[0].curve
        steps = [point.step for point in curve]
        success.fill_between(
            steps, [p.success.low for p in curve], [p.success.high for p in curve], alpha=0.2, linewidth=0
        )
        for point, offset in ((curve[0], (8, -4)), (curve[-1], (-4, -16))):
            success.annotate(
                f"{point.success.mean:.2f}",
                (point.step, point.success.mean),
                xytext=offset,
                textcoords="offset points",
                ha="left" if point is curve[0] else "right",
                weight="bold",
            )
        success.set_title("success (band: 95 % interval over prompts)")
    else:
        figure.legend(*success.get_legend_handles_labels(), loc="outside right center", frameon=False)
        success.set_title("success (mean, lowest and highest seed)")
    kl.set_title("KL to the start (nats per completion)")
    length.set_title("completion length (tokens)")
    success.set_ylim(top=1)
    kl.set_ylim(bottom=0)
    length.set_ylim(0, 1.1 * length.get_ylim()[1])
    for axes in (success, kl, length):
        axes.set_xlabel("optimizer step")
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
