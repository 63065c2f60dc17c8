# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The key figures: few numbers, each with what it is made of."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from .numbers import SPACE, bare_percent, count, difference, interval, ordinal, percent, plural, quantity, success
from .rows import KIND_WORDS
from .sentences import signed_way, way, why_silent
from .series import last, quarter
from .statistics import Gap
from .summary import Summary


@dataclass(frozen=True)
class Figure:
    """
    A key figure.

    Parameters:
        label (`str`):
            What it is.
        value (`str`):
            Its value.
        unit (`str`):
            What stands smaller beside it.
        note (`str`):
            What it is made of.
        link (`str`):
            Id of the module that it is about.
        bar (`list[tuple[str, float]]`):
            Kinds of prompts, with their shares, if it is about those.
    """

    label: str
    value: str
    note: str
    link: str
    unit: str = ""
    bar: list[tuple[str, float]] = field(default_factory=list)


def key_figures(summary: Summary) -> list[Figure]:
    """At most five; each only where its numbers are known."""
    return [
        *_success(summary),
        *_theory_or_weights(summary),
        *_prompts(summary),
        *_signal(summary),
        *_distance(summary),
    ]


def _success(summary: Summary) -> Iterator[Figure]:
    if summary.held_out is not None:
        moved, prompts = summary.held_out.change, summary.held_out.prompts
        over = f" over {plural(prompts, 'prompt')}" if prompts else ""
        note = f"{difference(moved.mean)} {interval(moved.low, moved.high)}{over}"
        yield Figure("Held-out success, first → last", way(summary.held_out), note, "success")
    elif summary.change is not None:
        moved = summary.change.change
        note = f"{difference(moved.mean)} {interval(moved.low, moved.high)} over {plural(summary.change.prompts, 'prompt')}"
        yield Figure("Success, first → last visit", way(summary.change), note, "success")
    elif summary.visits is not None:
        mean = summary.visits["success"].mean()
        yield Figure("Success", success(mean), "mean of the only visits", "success")
    elif summary.logged_change is not None:
        name, logged = summary.logged_change
        write = success if name == "success" else quantity
        if isinstance(logged, tuple):
            yield Figure(name.capitalize(), write(float(logged[1].mean())), "mean of the logs", "success")
        else:
            note = "means of the first and the last tenth of the logs"
            yield Figure(f"{name.capitalize()}, first → last tenth", way(logged, write), note, "success")


def _theory_or_weights(summary: Summary) -> Iterator[Figure]:
    steps, sizes = summary.effective_size
    if summary.gaps and summary.agreement is not None:
        first, end = summary.gaps[0], summary.gaps[-1]
        off = f"a single visit is {success(summary.agreement.distance.mean)} off"
        value, when = signed_way(first.value.mean, end.value.mean), f"{_visits_of(first)} → last visit"
        if first is end:
            value, when = difference(first.value.mean), f"{_visits_of(first)} visit"
        note = f"mean, {when}; {off}"
        yield Figure("Measured − predicted", value, note, "gap")
    elif summary.uses_weights and sizes.size:
        at = count(steps[sizes.argmin()] + 1)
        note = f"at step {at}; 1 is best, median {np.median(sizes):.3f}"
        yield Figure("Worst effective sample size", success(sizes.min()), note, "ess")


def _visits_of(gap: Gap) -> str:
    """Which visits a difference is over, in words."""
    numbers = dict.fromkeys((gap.first_visit, gap.last_visit))
    return " to ".join(map(ordinal, numbers))


def _prompts(summary: Summary) -> Iterator[Figure]:
    if not summary.kinds:
        return
    numbers = summary.kinds
    others = {"worsened": numbers.get("worsened", 0), **numbers}
    note = " · ".join(f"{count(number)} {KIND_WORDS[kind]}" for kind, number in others.items() if kind != "amplified")
    order = ("amplified", "saturated", "oscillating", "unchanged", "worsened", "stuck at 0")
    bar = [(kind, numbers[kind] / summary.prompts) for kind in order if kind in numbers]
    better = count(numbers.get("amplified", 0))
    yield Figure("Prompts clearly better", better, note, "map", f"of {count(summary.prompts)}", bar)


def _signal(summary: Summary) -> Iterator[Figure]:
    if summary.quarters is None:
        return
    first, end = summary.quarters
    note = f"last quarter; {percent(first.total)} in the first"
    if end.total > 0:
        why = why_silent(summary)
        note += f"; {why}"
    yield Figure("Groups without signal", bare_percent(end.total) + f"{SPACE}%", note, "signal")


def _distance(summary: Summary) -> Iterator[Figure]:
    series = summary.logs.by_rollout("kl", last)
    clipped = summary.clipping
    if series[1].size:
        note = f"mean of the last quarter; largest {quantity(series[1].max())}"
        yield Figure("KL to the reference", quantity(quarter(series, -1)), note, "kl", "nats/token")
    elif clipped is not None:
        value = f"{' · '.join(map(bare_percent, clipped.means))}{SPACE}%"
        of = "step" if summary.logs.is_each_step else "log"
        note = f"of the {clipped.of}; at most {percent(clipped.most)} in a {of}"
        yield Figure("Clipped, A > 0 and A < 0", value, note, "clipped")
