# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The modules behind the curve, in their order: signal, distance, weights, completions, optimizer."""

import math

import numpy as np

from ..objective.divergences import ANCHORS
from ..objective.policies import POLICY_TERMS
from ..objective.policies.trajectory import TRAJECTORY
from ..objective.ratio import TRAJECTORY_METRICS
from ..runs.folder import Series
from .charts import RIGHT, WRONG, clip_chart, length_chart, lines_chart, silence_chart, trend
from .modules import Left, Module, Part, no_logs
from .numbers import SPACE, percent, quantity, success
from .sentences import CUT_OFF, NO_MONITOR
from .series import last, mean, means, worst_high, worst_low
from .statistics import silences
from .summary import Summary


# Beginnings of metrics with a slash that are of no policy term: TRL's, those of other modules, and of evaluations.
_NO_TERM = (
    *("clip_ratio/", "completions/", "rewards/", "prompts/", "rollout_end/", "sampling/", "tools/", "profiling/"),
    *("theory/", "trajectory/", "eval_"),
)
_MOST_TERM_METRICS = 8
_EFFECTIVE_SIZE, _, _SPREAD = TRAJECTORY_METRICS


def behind_the_curve(summary: Summary) -> list[Part]:
    """All of them, and why others are not there."""
    return [
        *(_signal(summary), *_chosen_prompts(summary), _best_of(summary)),
        *(_distance(summary, name) for name in ANCHORS),
        *(_effective_size(summary), _clipped(summary), _spread(summary), *_policy_term(summary)),
        *(_lengths(summary), *_cut_off(summary), _entropy(summary)),
        _gradient(summary),
    ]


def _signal(summary: Summary) -> Part:
    title = "Groups without signal"
    if summary.visits is None or summary.quarters is None:
        return Left(title, NO_MONITOR if summary.run.visits is None else "no rollout was recorded")
    parts = silences(summary.visits)
    first, end = (part.total for part in summary.quarters)
    label = f"Groups without signal: {percent(first)} in the first quarter, {percent(end)} in the last"
    subtitle = f"{percent(end)} in the last quarter: all rewards equal, no advantage."
    others = "equal otherwise" if summary.knows_why_silent else "equal otherwise, or not recorded"
    named = {"all_succeed": "all succeed", "none_succeeds": "none succeeds", "others": others}
    key = [(f"area {kind}", words) for kind, words in named.items() if any(getattr(part, kind) for part in parts)]
    if any(math.isfinite(part.predicted) for part in parts):
        key.append(("line predicted", "predicted"))
    return Module("signal", title, subtitle, {"all": silence_chart(label, parts, summary.last_step)}, key)


def _chosen_prompts(summary: Summary) -> list[Part]:
    """Of a run that chooses its prompts: how many of them have signal, and what was believed."""
    names = {"measured": "prompts/with_signal", "believed": "prompts/expected_signal"}
    lines = {words: series for words, name in names.items() if (series := summary.logs.series(name))[1].size}
    if "measured" not in lines:
        return []
    told = "; ".join(f"{words} {percent(means(series)[1][-1])} at the end" for words, series in lines.items())
    title = "Signal of the prompts that were chosen"
    drawing = lines_chart(f"{title}: {told}", lines, (0.0, summary.last_step), (0.0, 1.0), "optimizer step")
    return [Module("chosen", title, f"Share of generated groups with signal: {told}.", {"all": drawing})]


def _best_of(summary: Summary) -> Part:
    title = "Success of the best of k"
    names = {name for name in summary.logs.names() if name.startswith(("success@", "eval_success@"))}
    prefix = "eval_" if any(name.startswith("eval_") for name in names) else ""
    sizes = sorted(
        int(name.partition("@")[2]) for name in names if name.startswith(f"{prefix}success@") and name[-1].isdigit()
    )
    lines: dict[str, Series] = {}
    for size in sizes:
        series = summary.logs.series(f"{prefix}success@{size}")
        if series[1].size:
            lines[f"k = {size}"] = series
    if not lines:
        return Left(title, no_logs(summary, "the logs hold none; runs of a variant log it"))
    ends = {name: lines[name] for name in (list(lines)[0], list(lines)[-1])}
    over_run = {name: means(series)[1] for name, series in ends.items()}
    told = "; ".join(f"{name}: {success(values[0])} → {success(values[-1])}" for name, values in over_run.items())
    subtitle = f"Share of {'held-out' if prefix else 'training'} prompts that one completion of k solves. {told}."
    drawing = lines_chart(f"{title}: {told}", ends, (0.0, summary.last_step), (0.0, 1.0), "optimizer step")
    return Module("best-of", title, subtitle, {"all": drawing})


def _distance(summary: Summary, name: str) -> Part:
    anchor = ANCHORS[name]
    title = f"KL to {anchor.meaning.removesuffix(' policy') if name == 'reference' else anchor.meaning}"
    series = summary.logs.by_rollout(anchor.metric, last)
    if not series[1].size:
        told = summary.run.settings.get(anchor.coefficient)
        because = (
            f"`{anchor.coefficient}` is 0"
            if told == 0
            else f"the logs hold none; there is one where `{anchor.coefficient}` is not 0"
        )
        return Left(title, no_logs(summary, because))
    when = "end of each rollout" if summary.logs.tells_end(anchor.metric) else "means between two logs"
    reading = f"Largest {quantity(series[1].max())}, last {quantity(series[1][-1])}."
    errors = summary.logs.standard_errors(anchor.metric)
    band = f"; band: 95{SPACE}% over groups" if errors[0].size else ""
    drawing = trend(f"{title}: {reading}", series, summary.last_step, errors=errors)
    subtitle = f"Nats per token, {when}{band}. {reading}"
    return Module(anchor.metric.replace("_", "-"), title, subtitle, {"all": drawing})


def _worst(summary: Summary, name: str) -> str:
    if summary.logs.is_each_step:
        return "worst step of each rollout"
    return "last step of each rollout" if summary.logs.tells_end(name) else "means between two logs"


def _effective_size(summary: Summary) -> Part:
    title = TRAJECTORY_METRICS[_EFFECTIVE_SIZE]
    steps, values = summary.effective_size
    if not values.size:
        return Left(
            title, no_logs(summary, "the logs hold none; weights are 1 where each rollout serves one optimizer step")
        )
    at = steps[values.argmin()] + 1
    unused = "" if summary.uses_weights else " The loss does not use these weights."
    reading = f"Lowest {success(values.min())} at step {at:.0f}."
    # From the lowest, so that what is near 1 can be told apart: the one axis that does not begin at 0.
    lowest = min(0.95, math.floor(values.min() / 0.05) * 0.05)
    series = summary.logs.by_rollout(_EFFECTIVE_SIZE, worst_low)
    drawing = trend(f"{title}: {reading}", series, summary.last_step, up=(lowest, 1.0))
    subtitle = f"{_worst(summary, _EFFECTIVE_SIZE).capitalize()}, as a share. {reading}{unused}"
    return Module("ess", title, subtitle, {"all": drawing})


def _clipped(summary: Summary) -> Part:
    title, clipped = "Clipped, by sign", summary.clipping
    if clipped is None:
        return Left(title, no_logs(summary, "the logs hold no clipped shares by sign"))
    positive, negative = (summary.logs.by_rollout(name, mean) for name in clipped.names)
    up, down = clipped.means
    reading = f"Whole run: {percent(up)} with A > 0, {percent(down)} with A < 0."
    if clipped.of_sign is not None:
        reading += f" Of those of that sign {' and '.join(map(percent, clipped.of_sign))}."
    drawing = clip_chart(f"{title}: {reading}", positive, negative, summary.last_step)
    return Module("clipped", title, f"Share of {clipped.of}, mean of a rollout. {reading}", {"all": drawing})


def _spread(summary: Summary) -> Part:
    title = TRAJECTORY_METRICS["trajectory/log_weight_std"]
    series = summary.logs.by_rollout(_SPREAD, worst_high)
    if not series[1].size:
        return Left(
            title, no_logs(summary, "the logs hold none; weights are 1 where each rollout serves one optimizer step")
        )
    reading = f"Largest {quantity(series[1].max())}."
    drawing = trend(f"{title}: {reading}", series, summary.last_step)
    return Module("spread", title, f"Per √token, {_worst(summary, _SPREAD)}. {reading}", {"all": drawing})


def _policy_term(summary: Summary) -> list[Part]:
    """Metrics of the run's own policy term: what descriptions say of them, and by their names alone those of others."""
    kept = summary.run.settings.get("metrics")
    declared = dict(kept) if isinstance(kept, dict) else {}
    declared |= {name: meaning for part in POLICY_TERMS.values() for name, meaning in part.metrics.items()}
    # Those have a module of their own.
    shown = TRAJECTORY.metrics if summary.uses_weights else {}
    logged = dict.fromkeys(name for entry in summary.run.logs.history for name in entry if "/" in name)
    parts: list[Part] = []
    for name in logged:
        if name in shown or not (name in declared or not name.startswith(_NO_TERM)):
            continue
        series = summary.logs.by_rollout(name, mean)
        if series[1].size:
            meaning = f"{declared[name]}. " if name in declared else ""
            reading = f"Last {quantity(series[1][-1])}."
            drawing = trend(f"{name}: {reading}", series, summary.last_step)
            subtitle = f"Mean of a rollout{f' of {meaning}' if meaning else '. '}{reading}"
            parts.append(Module(f"term-{len(parts)}", name, subtitle, {"all": drawing}))
    left = [
        Left(module.title, "there are too many of its kind; it is among all that was logged")
        for module in parts[_MOST_TERM_METRICS:]
        if isinstance(module, Module)
    ]
    return [*parts[:_MOST_TERM_METRICS], *left]


def _lengths(summary: Summary) -> Part:
    def lengths(what: str) -> Series:
        return summary.logs.series(f"completions/{what}_length")

    mean = lengths("mean")
    if not mean[1].size:
        return Left("Completion length", no_logs(summary, "the logs hold no lengths"))
    lines = {RIGHT: lengths("mean_successful"), WRONG: lengths("mean_failed")}
    lines = {words: series for words, series in lines.items() if series[1].size} or {"mean": mean}
    what, low, high = "band: the middle half", lengths("lower_quartile"), lengths("upper_quartile")
    if not low[0].size:
        what, low, high = "band: from the shortest to the longest", lengths("min"), lengths("max")
    are_known = low[0].size and np.array_equal(low[0], high[0])
    told = ", ".join(f"{words} {quantity(values[0])} → {quantity(values[-1])}" for words, (_, values) in lines.items())
    cut = f"; at most {percent(summary.cut_off)} of a rollout cut off" if summary.cut_off is not None else ""
    reading = f"{told[0].upper()}{told[1:]}{cut}."
    label = f"Completion length in tokens: {reading}"
    drawing = length_chart(label, lines, (low, high) if are_known else None, summary.limit, summary.last_step)
    subtitle = f"Tokens{f'; {what}' if are_known else ''}. {reading}"
    return Module("length", "Completion length", subtitle, {"all": drawing})


def _cut_off(summary: Summary) -> list[Part]:
    title, most = "Share cut off at the limit", summary.cut_off
    if most is None:
        return []
    if most < CUT_OFF:
        return [
            Left(title, f"at most {percent(most)} of a rollout reached it; it is drawn from {percent(CUT_OFF)} on")
        ]
    series = summary.logs.series("completions/clipped_ratio")
    reading = f"Largest {percent(most)}, last {percent(series[1][-1])}."
    drawing = trend(f"{title}: {reading}", series, summary.last_step, percent=True)
    return [Module("cut-off", title, f"Completions without an end. {reading}", {"all": drawing})]


def _entropy(summary: Summary) -> Part:
    series = summary.logs.by_rollout("entropy", mean)
    if not series[1].size:
        return Left("Entropy", no_logs(summary, "the logs hold none"))
    reading = f"{quantity(series[1][0])} → {quantity(series[1][-1])}."
    drawing = trend(f"Entropy: {reading}", series, summary.last_step)
    return Module("entropy", "Entropy", f"Nats per token. {reading}", {"all": drawing})


def _gradient(summary: Summary) -> Part:
    series = summary.logs.series("grad_norm")
    if not series[1].size:
        return Left("Gradient norm", no_logs(summary, "the logs hold none"))
    reading = f"Median {quantity(float(np.median(series[1])))}, largest {quantity(series[1].max())}."
    # One outlier would press the others to the ground.
    up = (0.0, 1.05 * float(np.quantile(series[1], 0.99)) or 1.0)
    drawing = trend(f"Gradient norm: {reading}", series, summary.last_step, up=up)
    return Module("gradient", "Gradient norm", f"Every logged step, before clipping. {reading}", {"all": drawing})
