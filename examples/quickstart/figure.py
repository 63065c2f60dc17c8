# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The figures: of one run, of several, of many, and by class of prompts."""

import functools
import itertools
import statistics
from collections.abc import Callable
from typing import Any

from predict import Prediction
from results import CLASSES, Point, Run, by_variant
from tables import standing

from trl_grpo_variants.runs.style import EDGE, LABEL, LINES, NOTE, WIDTH, Sheet, points


# More curves than that are not told apart.
MANY = len(LINES)
# The panel of the ranking, and the height of a row, in pixels.
LEFT, TOP, SPAN, ROW = 222, 96, 476, 16
SEEDS = "mean over seeds, in a band from the lowest to the highest"


def figure_of_runs(runs: list[Run], colors: dict[str, str]) -> Any:
    """
    Success, KL and length over the optimizer steps.

    Args:
        runs (`list[Run]`):
            Finished runs with the same number of steps, of `MANY` variants at most. Runs of one variant are drawn as
            their mean, in a band from the lowest to the highest seed; a lone run, in a band of its 95 % interval over
            prompts.
        colors (`dict[str, str]`):
            Light or dark.

    Returns:
        [`~matplotlib.figure.Figure`]:
            The figure.
    """
    sheet = Sheet(500, colors)
    is_alone = len(runs) == 1
    success = sheet.add_panel(44, 84, 656 if is_alone else 464, 210)
    kl = sheet.add_panel(44, 358, 332, 100, title="KL to the start, in nats per completion", across="optimizer step")
    length = sheet.add_panel(414, 358, 330, 100, title="tokens per completion", across="optimizer step")
    ends = []
    for variant, color in _colors_of(runs).items():
        members = [run for run in runs if run.variant == variant]
        end = _draw(success, members, lambda point: point.success.mean, colors[color])
        _draw(kl, members, lambda point: point.kl, colors[color])
        _draw(length, members, lambda point: point.length, colors[color])
        ends.append((runs[0].curve[-1].step, end, f"{end:.2f}" if is_alone else f"{variant} {end:.2f}", color))
    if is_alone:
        curve = runs[0].curve
        low, high = ([getattr(point.success, end) for point in curve] for end in ("low", "high"))
        success.fill_between([point.step for point in curve], low, high, color=colors["blue"], alpha=0.15, linewidth=0)
    success.set_ylim(top=1)
    kl.set_ylim(bottom=0)
    length.set_ylim(0, 1.1 * length.get_ylim()[1])
    for axes in (success, kl, length):
        axes.set_xlim(0, runs[0].curve[-1].step)
    sheet.name_ends(success, ends)
    start = statistics.fmean(run.curve[0].success.mean for run in runs)
    alone = f"{runs[0].variant}, from {start:.2f}; band: 95 % interval over prompts"
    sheet.add_heading("Success on held-out prompts", alone if is_alone else f"from {start:.2f}; {SEEDS}")
    return sheet.figure


def ranking(runs: list[Run], baseline: str, colors: dict[str, str]) -> Any:
    """
    Success at the end, a line per variant and a dot per seed, for more variants than curves can show.

    Args:
        runs (`list[Run]`):
            Finished runs.
        baseline (`str`):
            Variant whose range is shaded.
        colors (`dict[str, str]`):
            Light or dark.

    Returns:
        [`~matplotlib.figure.Figure`]:
            The figure.
    """
    ends = {name: [run.curve[-1].success.mean for run in its] for name, its in by_variant(runs).items()}
    held_to = ends.get(baseline, [])
    sheet = Sheet(TOP + ROW * len(ends) + 56, colors)
    axes = sheet.add_panel(LEFT, TOP, SPAN, ROW * len(ends), grid="x")
    axes.set(ylim=(len(ends) - 0.5, -0.5), yticks=[])
    axes.spines["left"].set_visible(False)
    # Lines along which a name is followed to its dots.
    for row in range(5, len(ends), 5):
        from_edge = (EDGE - LEFT) / SPAN, (WIDTH - EDGE - LEFT) / SPAN
        axes.axhline(row - 0.5, *from_edge, color=colors["line"], linewidth=points(1), clip_on=False, zorder=0)
    most = max(run.completions for run in runs)
    for row, (variant, values) in enumerate(ends.items()):
        differs = standing(values, held_to) in ("above", "below")
        color = "text" if variant == baseline else "blue" if differs else "grey"
        axes.plot([min(values), max(values)], [row, row], color=colors[color], alpha=0.5, linewidth=2)
        axes.plot(values, [row] * len(values), "o", color=colors[color], markersize=4, markeredgewidth=0)
        y, looks = TOP + ROW * (row + 0.75), {"color": "text", "weight": "bold" if variant == baseline else "normal"}
        sheet.write(EDGE, y, variant, **looks)
        sheet.write(WIDTH - EDGE, y, f"{statistics.fmean(values):.2f}", ha="right", **looks)
        completions = next(run.completions for run in runs if run.variant == variant)
        if completions < most:
            _say(axes, min(values), row, f"{completions:,} completions", colors["muted"], (-8, 0), ha="right")
    start = statistics.fmean(run.curve[0].success.mean for run in runs)
    axes.axvline(start, color=colors["muted"], linestyle=":", linewidth=1.2)
    _say(axes, start, -0.5, "start", colors["muted"], (0, 9))
    sheet.write(WIDTH - EDGE, TOP - 9, "mean", ha="right")
    sheet.add_heading(f"Success after {runs[0].curve[-1].step} steps", "a dot per seed, the highest mean on top")
    if held_to:
        axes.axvspan(min(held_to), max(held_to), color=colors["grid"], linewidth=0, zorder=0)
        _say(axes, statistics.fmean(held_to), -0.5, baseline, colors["text"], (0, 9), weight="bold")
        note = f"Grey zone: the range of {baseline}. Blue: variants whose range does not meet it."
        sheet.write(EDGE, sheet.height - 14, note, NOTE)
    return sheet.figure


def figure_of_classes(runs: list[Run], predictions: dict[str, Prediction | None], colors: dict[str, str]) -> Any:
    """
    pass@k over the optimizer steps, a column per class of prompts and a row per k.

    Args:
        runs (`list[Run]`):
            Finished runs of a task with classes, of `MANY` variants at most. Runs of one variant are drawn as their
            mean, in a band from the lowest to the highest seed.
        predictions (`dict[str, Prediction]`):
            What is expected of open prompts, by variant.
        colors (`dict[str, str]`):
            Light or dark.

    Returns:
        [`~matplotlib.figure.Figure`]:
            The figure.
    """
    ks, steps = list(runs[0].curve[0].passed["open"]), runs[0].curve[-1].step
    sheet = Sheet(116 + 222 * len(ks), colors)
    for (row, k), (column, name) in itertools.product(enumerate(ks), enumerate(CLASSES)):
        axes = sheet.add_panel(
            44 + 154 * column, 96 + 222 * row, 128, 170,
            title=f"{name}, {k}", across="optimizer step" if row == len(ks) - 1 else "",
        )  # fmt: skip
        axes.set(xlim=(0, steps), ylim=(0, 1.02), yticks=[0, 0.25, 0.5, 0.75, 1])
        axes.tick_params(labelleft=column == 0)
        ends = []
        for variant, color in _colors_of(runs).items():
            members = [run for run in runs if run.variant == variant]
            value = functools.partial(_passed, name=name, k=k)
            ends.append((steps, _draw(axes, members, value, colors[color]), variant, color))
            prediction = predictions[variant]
            if name == "open" and prediction is not None:
                axes.axhline(prediction.passed[k], color=colors[color], linestyle=":", linewidth=1)
        if name == CLASSES[-1]:
            sheet.name_ends(axes, ends)
    sheet.add_heading("Success by how hard a prompt is", f"{SEEDS}; dotted: predicted of open prompts")
    return sheet.figure


def _colors_of(runs: list[Run]) -> dict[str, str]:
    """Names of colors by variant, in the order in which variants were asked for; a variant alone is no baseline."""
    variants = list(dict.fromkeys(run.variant for run in runs))
    return dict(zip(variants, LINES if len(variants) > 1 else LINES[1:], strict=False))


def _passed(point: Point, name: str, k: str) -> float:
    return point.passed[name][k]


def _draw(axes: Any, members: list[Run], value: Callable[[Point], float], color: str) -> float:
    """The mean of runs of one variant in a band from the lowest to the highest; its last value."""
    steps = [point.step for point in members[0].curve]
    at_steps = [[value(point) for point in at] for at in zip(*(run.curve for run in members), strict=True)]
    means = [statistics.fmean(values) for values in at_steps]
    axes.plot(steps, means, color=color, clip_on=False)
    axes.fill_between(steps, [*map(min, at_steps)], [*map(max, at_steps)], color=color, alpha=0.15, linewidth=0)
    return means[-1]


def _say(axes: Any, x: float, y: float, words: str, color: str, offset: tuple[int, int], **looks: Any) -> None:
    """Words so many points away from a place in data."""
    looks = {"ha": "center", "va": "center", "fontsize": points(LABEL), "annotation_clip": False} | looks
    axes.annotate(words, (x, y), xytext=offset, textcoords="offset points", color=color, **looks)
