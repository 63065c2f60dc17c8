# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What happened, in words: each sentence is a template with a condition, and none says more than its rule."""

from collections.abc import Callable, Iterator

from ..runs.effort import duration
from ..runs.folder import Run, is_number
from .numbers import (
    SPACE,
    bare_percent,
    count,
    difference,
    ordinal,
    percent,
    plural,
    quantity,
    success,
)
from .statistics import Change, agrees_from
from .summary import Summary


NO_MONITOR = "the success of each prompt was not recorded; a run records it with `success_monitor: true`"
NEVER_PREDICTED = "that takes a second visit to a prompt, after rewards of 0 and 1"

# From where on a finding stands above the page. These are choices, which the page names.
CUT_OFF, EFFECTIVE_SIZE, CLIPPED, WORSE, STUCK, SILENT = 0.10, 0.3, 0.20, 0.10, 0.25, 0.70


def title(summary: Summary) -> str:
    """Title of the document."""
    name, quoted = summary.run.name, summary.held_out or summary.change
    return f"{name}: success {way(quoted)}" if quoted else name


def way(change: Change, write: Callable[[float], str] = success) -> str:
    """From one value to another."""
    return f"{write(change.first)} → {write(change.last)}"


def headline(summary: Summary) -> str:
    """What happened, and what that is to be compared with."""
    if summary.held_out is not None:
        return f"{_moved(summary, 'Held-out success', summary.held_out)}{_compared(summary)}"
    if summary.change is not None:
        return f"{_moved(summary, 'Success', summary.change)}{_compared(summary)}"
    if summary.visits is not None:
        mean, prompts = summary.visits["success"].mean(), len(summary.visits)
        each = "each " if prompts > 1 else ""
        return f"Mean success is {success(mean)} over {plural(prompts, 'prompt')}, {each}visited once."
    if summary.logged_change is None:
        return "No rollout was recorded."
    name, logged = summary.logged_change
    write = success if name == "success" else quantity
    if isinstance(logged, Change):
        return f"{_moved(summary, name.capitalize(), logged, write)}."
    return f"{name.capitalize()} is {write(float(logged[1].mean()))} in {plural(len(logged[1]), 'log')}."


def _moved(summary: Summary, what: str, change: Change, write: Callable[[float], str] = success) -> str:
    goes_on = summary.is_finished is False
    until = f" by step {count(summary.run.step)} of {count(summary.run.max_steps or 0)}" if goes_on else ""
    if change.change.holds_zero:
        return (
            f"{what} {'has not clearly changed' if goes_on else 'did not clearly change'}{until}: {way(change, write)}"
        )
    rises = change.change.mean > 0
    verb = ("has risen" if rises else "has fallen") if goes_on else ("rose" if rises else "fell")
    return f"{what} {verb} from {write(change.first)} to {write(change.last)}{until}"


def _compared(summary: Summary) -> str:
    """The second clause: the theory where it agrees, else where it ends, else what became of the prompts."""
    gaps, is_held_out = summary.gaps, summary.held_out is not None
    trained = "; on the training prompts it" if is_held_out else " and, on average,"
    agreeing = agrees_from(gaps)
    if agreeing is not None:
        since = "throughout" if agreeing.first_visit == 2 else f"from the {ordinal(agreeing.first_visit)} visit on"
        verb = "agrees, on average," if is_held_out else "agrees"
        return f"{trained} {verb} with the theory {since}."
    if gaps and not gaps[-1].value.holds_zero:
        off = gaps[-1].value.mean
        where = f"{abs(off):.2f} {'above' if off > 0 else 'below'} its prediction at the last visit."
        return f"; on the training prompts it is {where}" if is_held_out else f", {where}"
    if not summary.kinds:
        return "."
    worse = summary.kinds.get("worsened", 0)
    better = f"{count(summary.kinds.get('amplified', 0))} of {plural(summary.prompts, 'prompt')}"
    return f"; {better} got clearly better, {count(worse) if worse else 'none'} worse."


def context(summary: Summary) -> list[str]:
    """At most three sentences below the headline."""
    found = finding(summary)
    agreement = summary.agreement
    if agreement is None:
        sentences = [*_weights(summary), _unpredicted(summary)]
        return [*sentences[:-1], found] if found else sentences
    visit = ordinal(agreement.at_visit)
    where = (
        f"At the {visit} visit exact iteration would stand at {success(agreement.predicted)}; "
        f"the run stood at {success(agreement.measured)}."
    )
    verdict = "agree as far as sampling can tell" if agreement.is_sampling else "do not agree"
    apart = (
        f"Prompt by prompt the two {verdict}: a visit lies {success(agreement.distance.mean)} from its prediction, where "
        f"sampling alone would make {success(agreement.by_sampling)}"
    )
    if found:
        return [where, f"{apart}.", found]
    return [where, f"{apart}, and the intervals overlap at {percent(agreement.overlap)} of the visits."]


def _weights(summary: Summary) -> Iterator[str]:
    """Weights and clipping, where the loss uses weights."""
    if not summary.uses_weights:
        return
    clipped, sizes = summary.clipping, summary.effective_size[1]
    parts = []
    if sizes.size:
        of = "step" if summary.logs.is_each_step else "log"
        parts.append(f"no {of} had an effective sample size below {success(sizes.min())}")
    if clipped is not None:
        up, down = clipped.means
        parts.append(f"of the {clipped.of} {percent(up)} were clipped with A > 0 and {percent(down)} with A < 0")
    if parts:
        text = "; ".join(parts)
        yield f"{text[0].upper()}{text[1:]}."


def _unpredicted(summary: Summary) -> str:
    reason = summary.run.settings.get("not_predicted_because")
    if reason:
        return f"The theory predicts nothing for this run: {reason}."
    if summary.run.visits is None:
        return f"{NO_MONITOR[0].upper()}{NO_MONITOR[1:]}."
    return f"Nothing was predicted: {NEVER_PREDICTED}."


def finding(summary: Summary) -> str | None:
    """The first thing that a reader should know before the rest; `None` where there is none."""
    return next(_findings(summary), None)


def _findings(summary: Summary) -> Iterator[str]:
    if (broken := summary.logs.first_not_finite()) is not None:
        yield f"At step {count(broken[0])} `{broken[1]}` was not finite."
    if summary.cut_off is not None and summary.cut_off >= CUT_OFF:
        limit = f" of {count(summary.limit)} tokens" if summary.limit else ""
        yield f"Up to {percent(summary.cut_off)} of a rollout's completions were cut off at the limit{limit}."
    steps, sizes = summary.effective_size
    if summary.uses_weights and sizes.size and sizes.min() < EFFECTIVE_SIZE:
        at = steps[sizes.argmin()] + 1
        yield f"At step {count(at)} the effective sample size of the weights fell to {success(sizes.min())}."
    if summary.clipping is not None and sum(summary.clipping.means) >= CLIPPED:
        yield f"Of the {summary.clipping.of} {percent(sum(summary.clipping.means))} were clipped."
    for kind, least, what in (("worsened", WORSE, "got clearly worse"), ("stuck at 0", STUCK, "never succeeded")):
        number = summary.kinds.get(kind, 0)
        if number and number >= least * summary.prompts:
            yield f"{count(number)} of {plural(summary.prompts, 'prompt')} {what}."
    if summary.quarters is not None and summary.quarters[1].total >= SILENT:
        yield f"In the last quarter {percent(summary.quarters[1].total)} of the groups had no signal."


def facts(summary: Summary) -> list[list[str]]:
    """Two lines: what was done, and with which coefficients."""
    settings, spent = summary.run.settings, summary.effort
    done = [f"`{settings['variant']}`"] if settings.get("variant") else []
    done.append(_state(summary))
    if summary.visits is not None:
        visits = summary.visits
        done += [plural(visits["prompt_id"].nunique(), "prompt") + f", {plural(len(visits), 'visit')}"]
        done.append(plural(int(visits["completions"].sum()), "completion"))
    if spent is not None:
        done += [plural(int(spent.tokens[-1]), "token"), f"{duration(spent.time[-1]).replace(' ', SPACE)} of steps"]
    return [done, list(_coefficients(summary.run))]


def _state(summary: Summary) -> str:
    run = summary.run
    if summary.is_finished is None:
        return f"at least {plural(run.step, 'optimizer step')}"
    if summary.is_finished:
        return f"{plural(run.step, 'optimizer step')}, finished"
    return f"step {count(run.step)} of {count(run.max_steps or 0)}"


def _coefficients(run: Run) -> Iterator[str]:
    settings, used = run.settings, run.settings.get("all")
    for name in ("beta", "mirror_beta", "epsilon", "epsilon_high"):
        is_idle = name.startswith("epsilon") and not (
            isinstance(used, dict) and used.get(name, "not used") != "not used"
        )
        if name == "epsilon_high" and settings.get(name) == settings.get("epsilon"):
            continue
        if is_number(settings.get(name)) and settings[name] and not is_idle:
            yield f"`{name}`{SPACE}{settings[name]:g}"
    written = {
        "num_generations": lambda value: plural(int(value), "completion") + " per prompt",
        "learning_rate": lambda value: f"learning rate {quantity(value)}",
        "max_completion_length": lambda value: f"at most {plural(int(value), 'token')}",
    }
    for name, write in written.items():
        if is_number(settings.get(name)):
            yield write(settings[name])


def why_silent(summary: Summary) -> str:
    """Why groups of the last quarter had no signal."""
    assert summary.quarters is not None
    part = summary.quarters[1]
    otherwise = "rewards are equal otherwise" if summary.knows_why_silent else "the reason is another, or not recorded"
    shares = {
        "every completion succeeds": part.all_succeed,
        "none succeeds": part.none_succeeds,
        otherwise: part.others,
    }
    shares = {why: share for why, share in shares.items() if share > 0}
    if len(shares) == 1:
        return f"in all of them {next(iter(shares))}"
    return " · ".join(f"{bare_percent(share)}{SPACE}% {why}" for why, share in shares.items())


def signed_way(first: float, last: float) -> str:
    """From one difference to another."""
    return f"{difference(first)} → {difference(last)}"
