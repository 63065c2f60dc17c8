# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The figures: of one run, of several, of many, and by class of prompts."""

import statistics
from pathlib import Path

import matplotlib


matplotlib.use("Agg")

import matplotlib.pyplot as plt
from predict import Prediction
from results import CLASSES, Run, by_variant


# More curves than that are not told apart.
MANY = 8


def save_figure(runs: list[Run], path: Path) -> None:
    """
    Draw success, KL and length over the optimizer steps.

    Args:
        runs (`list[Run]`):
            Finished runs with the same number of steps. Runs of one variant are drawn as their mean, in a band from the
            lowest to the highest seed; a lone run, in a band of its 95 % interval over prompts.
        path (`Path`):
            Where to save.
    """
    figure, (success, kl, length) = plt.subplots(1, 3, figsize=(13, 4), width_ratios=(1.4, 1, 1), layout="constrained")
    for variant, members in by_variant(runs).items():
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


def save_ranking(runs: list[Run], baseline: str, path: Path) -> None:
    """
    Draw success at the end, a line per variant and a dot per seed, for more variants than curves can show.

    Args:
        runs (`list[Run]`):
            Finished runs.
        baseline (`str`):
            Variant whose range is shaded.
        path (`Path`):
            Where to save.
    """
    members = by_variant(runs)
    figure, axes = plt.subplots(figsize=(8, 1.2 + 0.22 * len(members)), layout="constrained")
    for place, (variant, its) in enumerate(members.items()):
        values = [run.curve[-1].success.mean for run in its]
        color = "tab:red" if variant == baseline else "tab:blue"
        axes.plot([min(values), max(values)], [place, place], color=color, alpha=0.4, linewidth=3)
        axes.plot(values, [place] * len(values), "o", color=color, markersize=4)
        if variant == baseline:
            axes.axvspan(min(values), max(values), color=color, alpha=0.1, linewidth=0)
    start = statistics.fmean(run.curve[0].success.mean for run in runs)
    axes.axvline(start, color="gray", linestyle=":")
    axes.annotate("start", (start, len(members) - 1), xytext=(4, 0), textcoords="offset points", color="gray")
    most = max(run.completions for run in runs)
    fewer = {name: its[0].completions for name, its in members.items() if its[0].completions < most}
    labels = [f"{name} ({fewer[name]:,} completions)" if name in fewer else name for name in members]
    axes.set_yticks(range(len(members)), labels, fontsize=8)
    axes.set_ylim(len(members) - 0.3, -0.7)
    axes.set_xlabel(f"success after {runs[0].curve[-1].step} steps (a dot per seed; shaded: the range of {baseline})")
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def save_classes(runs: list[Run], predictions: dict[str, Prediction | None], path: Path) -> None:
    """
    Draw pass@k over the optimizer steps, a column per class of prompts and a row per k.

    Args:
        runs (`list[Run]`):
            Finished runs of a task with classes. Runs of one variant are drawn as their mean, in a band from the lowest
            to the highest seed.
        predictions (`dict[str, Prediction]`):
            What is expected of open prompts, by variant.
        path (`Path`):
            Where to save.
    """
    ks = list(runs[0].curve[0].passed["open"])
    figure, grid = plt.subplots(
        len(ks), len(CLASSES), figsize=(14, 3.2 * len(ks)), sharex=True, sharey=True, layout="constrained"
    )
    steps = [point.step for point in runs[0].curve]
    for row, k in zip(grid, ks, strict=True):
        for axes, name in zip(row, CLASSES, strict=True):
            for variant, members in by_variant(runs).items():
                at_steps = [
                    [p.passed[name][k] for p in at] for at in zip(*(run.curve for run in members), strict=True)
                ]
                (line,) = axes.plot(steps, [statistics.fmean(values) for values in at_steps], label=variant)
                axes.fill_between(
                    steps,
                    [min(values) for values in at_steps],
                    [max(values) for values in at_steps],
                    color=line.get_color(),
                    alpha=0.15,
                    linewidth=0,
                )
                prediction = predictions[variant]
                if name == "open" and prediction is not None:
                    axes.axhline(prediction.passed[k], color=line.get_color(), linestyle=":", linewidth=1)
            axes.set_title(f"{name} prompts, {k}" + (" (dotted: predicted)" if name == "open" else ""), fontsize=10)
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
    for axes in grid[-1]:
        axes.set_xlabel("optimizer step")
    grid[0, 0].set_ylim(0, 1.02)
    figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(path, dpi=120)
    plt.close(figure)
