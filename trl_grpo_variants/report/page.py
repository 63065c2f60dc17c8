# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The page: one file that needs no other, no script and no network."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from ..runs.folder import Run, is_number
from ..runs.trajectories import KINDS
from . import sentences
from .behind import behind_the_curve
from .charts import sparkline
from .figures import key_figures
from .modules import (
    Left,
    Module,
    Part,
    against_theory,
    changed_most,
    cost,
    over_the_run,
    prompt_by_prompt,
)
from .numbers import beginning, percent, quantity, success
from .rows import KIND_WORDS
from .summary import Summary


TEMPLATES = Path(__file__).parents[1] / "templates"

_MOST_PROMPTS, _MOST_METRICS = 200, 60
_MOST_BYTES = 160  # of a text of the run


@dataclass(frozen=True)
class Section:
    """Modules that belong together."""

    title: str
    modules: list[Module]
    note: str = ""


def render(run: Run) -> tuple[str, dict[str, list[str]]]:
    """The page of a run as HTML, and the titles of what is left out of it, by the reason."""
    from jinja2 import Environment, FileSystemLoader

    summary = Summary(run)
    parts: dict[str, list[Part]] = {
        "": [over_the_run(summary)],
        "Against the theory": against_theory(summary),
        "Prompt by prompt": prompt_by_prompt(summary),
        "Behind the curve": behind_the_curve(summary),
        "What it cost": cost(summary),
    }
    notes = {"Behind the curve": "A dot is one rollout, a line the mean of about a twelfth of the run."}
    modules = {title: [part for part in found if isinstance(part, Module)] for title, found in parts.items()}
    left = [part for found in parts.values() for part in found if isinstance(part, Left)]
    left += [Left("Newer logs", why) for why in run.unreadable if run.logs.history]
    by_reason, metrics = _by_reason(left), _metrics(summary)
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["code"] = _code
    environment.filters["drawing"] = Markup
    page = environment.get_template("report.html").render(
        run=run,
        title=sentences.title(summary),
        headline=sentences.headline(summary),
        context=sentences.context(summary),
        facts=sentences.facts(summary),
        figures=key_figures(summary),
        sections=[Section(title, found, notes.get(title, "")) for title, found in modules.items() if found],
        changed=changed_most(summary),
        left=by_reason,
        reading=_reading(summary),
        settings=_settings(run),
        prompts=_prompts(run)[:_MOST_PROMPTS],
        more_prompts=max(0, summary.prompts - _MOST_PROMPTS),
        total_prompts=summary.prompts,
        metrics=metrics[:_MOST_METRICS],
        more_metrics=max(0, len(metrics) - _MOST_METRICS),
    )
    return page, by_reason


def _code(text: str) -> Markup:
    """Text in which what stands between backticks is code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _by_reason(left: list[Left]) -> dict[str, list[str]]:
    """Titles by why they are left out."""
    titles: dict[str, list[str]] = {}
    for part in left:
        titles.setdefault(part.because, []).append(part.title)
    return titles


def _reading(summary: Summary) -> list[str]:
    """How to read the page."""
    lines = [
        "A visit is what one rollout holds of a prompt. A completion succeeds if every reward function of positive weight "
        "that scored it gave at least 1.",
        "A prompt is clearly better or worse if the later half of its visits differs from the earlier by more than 1.96 "
        "standard deviations of sampling, or its last visit from its first by more than 2.58. By chance alone about 5\N{NO-BREAK SPACE}% of "
        f"prompts do, of {summary.prompts} about {0.05 * summary.prompts:.0f}.",
        "The kinds: " + "; ".join(f"{KIND_WORDS[kind]}, {meaning}" for kind, meaning in KINDS.items()) + ".",
        "Intervals hold 95 %. That of a line of success is over the sampling of completions, that of a difference over "
        "prompts, that of a prompt's half over its completions (Wilson), that of a KL over the groups of its step.",
        "Shares of tokens and trajectories are of those that were computed: with `skip_inert_rows` completions whose "
        "advantage is 0 are not among them.",
        "The sentences above name a finding from these thresholds on, which are choices: "
        f"{percent(sentences.CUT_OFF)} of a rollout cut off, an effective sample size below {sentences.EFFECTIVE_SIZE}, "
        f"{percent(sentences.CLIPPED)} clipped, {percent(sentences.WORSE)} of the prompts worse, "
        f"{percent(sentences.STUCK)} stuck at 0, {percent(sentences.SILENT)} of the groups without signal in the last "
        "quarter; and any value that is not finite.",
    ]
    if not summary.has_predictions or summary.visits is None:
        return lines
    first = summary.visits[summary.visits["visit"] == 1]
    return [
        *lines,
        "A prediction is what exact iteration would do (arXiv 2503.06639): the maximum of the objective over all "
        "policies, between two visits to a prompt, with the signal that its groups had. Practice takes a few clipped "
        "gradient steps, on other prompts too, so a gap is to be expected and its size is what there is to learn.",
        f"The reference's success is a prompt's success at its first visit. Of {len(first)} prompts, "
        f"{(first['step'] > 0).sum()} were first visited after the first update, when the policy was the reference no "
        "more.",
    ]


def _settings(run: Run) -> dict[str, Any]:
    """The formula with its legend, what was trained, and the settings by name; each empty where the run does not say."""
    told = run.settings
    subject, kept, legend = (told.get(name) for name in ("subject", "all", "legend"))
    plain = {
        name: value for name, value in told.items() if isinstance(value, str | int | float) and name != "objective"
    }
    return {
        "formula": str(told.get("objective") or ""),
        "legend": [str(line) for line in legend] if isinstance(legend, list) else [],
        "subject": subject if isinstance(subject, dict) else {},
        "all": kept if isinstance(kept, dict) else plain,
    }


def _prompts(run: Run) -> list[tuple[str, str, str, int, str]]:
    """Text, earlier and later half, visits and kind of each prompt, those that changed most first in each kind."""
    rows = []
    for kind, members in run.trajectories.items():
        for member in sorted(members, key=lambda member: -abs(member.change)):
            earlier, later = map(success, np.divide(*member.halves))
            rows.append((beginning(member.prompt, _MOST_BYTES), earlier, later, len(member.steps), KIND_WORDS[kind]))
    return rows


def _metrics(summary: Summary) -> list[tuple[str, Markup, list[str]]]:
    """Name, line, and first, last, lowest and highest value of everything that was logged."""
    rows = []
    for name in summary.logs.names():
        values = summary.logs.series(name)[1]
        if values.size:
            numbers = (values[0], values[-1], values.min(), values.max())
            rows.append(
                (
                    beginning(name, _MOST_BYTES),
                    Markup(sparkline(values)),
                    [quantity(number) for number in numbers if is_number(number)],
                )
            )
    return rows
