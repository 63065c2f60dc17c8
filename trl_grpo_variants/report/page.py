# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The page of a report: which figures there are, what stands beside them, and why others are left out."""

from base64 import b64encode
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from ..objective.divergences import ANCHORS
from ..objective.policies import POLICY_TERMS
from ..objective.ratio import TRAJECTORY_METRICS
from ..runs.effort import duration, effort
from ..runs.figures import save, success_figure
from ..runs.folder import Run
from ..runs.trajectories import KINDS
from .effort import best_of_figure, price_figure, time_figure
from .figures import length_figure, metrics_figure, prompts_figure


if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).parents[1] / "templates" / "report.html"

_MOST_EXAMPLES = 3
# Beginnings of metrics with a slash that are of no policy term: TRL's, those of other panels, and of evaluations.
_NO_TERM = (
    *("clip_ratio/", "completions/", "rewards/", "sampling/", "tools/", "profiling/"),
    *("theory/", "trajectory/", "eval_"),
)
_NO_MONITOR = "the success of each prompt was not recorded; a run records it with `success_monitor: true`"


@dataclass(frozen=True)
class Panel:
    """
    One part of the page.

    Parameters:
        name (`str`):
            Name of the figure's file, without its ending.
        title (`str`):
            Heading.
        text (`str`):
            What the figure shows.
        figure (`matplotlib.figure.Figure` or `None`):
            Figure, `None` where there is nothing to draw.
        missing (`str`):
            Why there is none.
    """

    name: str
    title: str
    text: str
    figure: "Figure | None"
    missing: str

    @property
    def width(self) -> int:
        """Width on the page in pixels, so that letters are of one size in all figures."""
        assert self.figure is not None
        return round(92 * self.figure.get_figwidth())

    @cached_property
    def png(self) -> bytes:
        """The figure as a file."""
        assert self.figure is not None
        file = BytesIO()
        save(self.figure, file)
        return file.getvalue()


def panels(run: Run) -> list[Panel]:
    """Parts of the page in their order, those without a figure among them."""
    has_predictions = run.visits is not None and bool(run.visits["predicted"].notna().any())
    return [*_visit_panels(run, has_predictions), *_effort_panels(run), *_logged_panels(run, has_predictions)]


def _visit_panels(run: Run, has_predictions: bool) -> list[Panel]:
    return [
        Panel(
            "success",
            "Predicted and measured success" if has_predictions else "Success",
            "Left: means over prompts, at most 40 points, with 95 % intervals: of the measured success from the "
            "sampling of completions, of the predicted one from what earlier groups leave open about the anchors. "
            "Right: visits by their prediction, in tenths; larger dots stand for more of them."
            if has_predictions
            else "Means over prompts, at most 40 points, with 95 % intervals from the sampling of completions.",
            None if run.visits is None else success_figure(run.visits),
            _NO_MONITOR if run.visits is None else "no rollout was recorded",
        ),
        Panel(
            "prompts",
            "Success of each prompt",
            "Prompts with at least two visits, by what became of them: "
            + "; ".join(f"{kind}, {meaning}" for kind, meaning in KINDS.items())
            + ". Clear is what the sampling of completions would rarely do by itself.",
            prompts_figure(run.trajectories),
            _NO_MONITOR if run.visits is None else "no prompt was visited twice",
        ),
    ]


def _effort_panels(run: Run) -> list[Panel]:
    missing = "the logs hold none; runs of a variant log them"
    return [
        Panel(
            "best_of",
            "Success of the best of k",
            "Share of prompts of which one completion of k succeeds, estimated without bias from the groups.",
            best_of_figure(run),
            missing,
        ),
        Panel(
            "price",
            "Success against what it cost",
            "Tokens of all completions that training has generated, and the time of its optimizer steps, without "
            "evaluations. Training rollouts are means since the last log.",
            price_figure(run),
            missing,
        ),
        Panel(
            "time",
            "Where the time of a step goes",
            "Generation with the transfer of weights before it, reward functions, and the update, which is all else.",
            time_figure(run),
            missing,
        ),
    ]


def _logged_panels(run: Run, has_predictions: bool) -> list[Panel]:
    has_residual = run.series("theory/renyi_residual")[0].size > 0
    signal = {
        "Groups without signal": {
            "theory/groups_without_signal": "counted",
            "theory/expected_groups_without_signal": "expected",
        },
        "Rényi residual": {"theory/renyi_residual": ""},
    }
    divergence = {f"KL to {anchor.meaning}": {anchor.metric: ""} for anchor in ANCHORS.values()}
    coefficients = " or ".join(f"`{anchor.coefficient}`" for anchor in ANCHORS.values())
    weights = {title: {name: ""} for name, title in TRAJECTORY_METRICS.items()}
    shown = [
        Panel(
            "signal",
            "Groups without signal" + (", and the Rényi residual" if has_residual else ""),
            "Groups whose rewards are all equal have no advantage."
            + (" Expected are those that the predicted success makes." if has_predictions else "")
            + (" The Rényi residual of a dual run, in log-odds, is 0 under exact iteration." if has_residual else ""),
            metrics_figure(run, signal),
            "the logs hold none",
        ),
        Panel(
            "divergence",
            "KL to the anchors",
            "Estimates per token, in nats, as the loss has them.",
            metrics_figure(run, divergence, lowest=0.0),
            f"the logs hold no KL; there is one where {coefficients} is not 0",
        ),
        Panel(
            "weights",
            "Weights of trajectories",
            "Importance weights of whole completions: their effective sample size as a share, and the spread of their "
            "logarithms. Per root of a token, that spread does not depend on the length: over T tokens it grows to about "
            "√T times as much.",
            metrics_figure(run, weights, lowest=0.0),
            "the logs hold none; weights are 1 where each rollout serves one optimizer step",
        ),
        _term_panel(run),
        Panel(
            "length",
            "Completions",
            "Length in tokens, and the share that reached the limit without an end.",
            length_figure(run),
            "the logs hold no lengths",
        ),
    ]
    if run.logs.history:
        return shown
    missing = ", ".join(run.unreadable) or "there are no logs; a run writes them with its checkpoints"
    return [replace(panel, missing=missing) for panel in shown]


def _term_panel(run: Run) -> Panel:
    """Metrics of the run's own policy term: what descriptions say of them, and by their names alone those of others."""
    kept = run.settings.get("metrics")
    declared = dict(kept) if isinstance(kept, dict) else {}
    declared |= {name: meaning for part in POLICY_TERMS.values() for name, meaning in part.metrics.items()}
    logged = dict.fromkeys(name for entry in run.logs.history for name in entry if "/" in name)
    names = [name for name in logged if name in declared or not name.startswith(_NO_TERM)]
    told = "; ".join(f"{name}, {declared[name]}" for name in names if name in declared)
    return Panel(
        "term",
        "Policy term",
        f"Means over the tokens or completions of a step{f': {told}' if told else ''}.",
        metrics_figure(run, {name: {name: ""} for name in names}),
        "the logs hold no metric of one",
    )


def render(run: Run, shown: list[Panel]) -> str:
    """The page of these parts as HTML, one file that needs no other and no network."""
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        run=run,
        facts=facts(run),
        panels=[(panel, b64encode(panel.png).decode()) for panel in shown if panel.figure is not None],
        missing=[panel for panel in shown if panel.figure is None],
        kinds={
            kind: (len(members), sorted(members, key=lambda t: -abs(t.change))[:_MOST_EXAMPLES])
            for kind, members in run.trajectories.items()
        },
        notes=_notes(run),
    )


def facts(run: Run) -> dict[str, str]:
    """The run in numbers: values by name, written out."""
    names = ("variant", "beta", "mirror_beta", "num_generations", "learning_rate")
    written = {name: str(run.settings[name]) for name in names if run.settings.get(name) is not None}
    if run.logs.step is not None:
        written["logs until step"] = str(run.logs.step)
    spent = effort(run)
    if spent is not None:
        written |= {"generated tokens": f"{spent.tokens[-1]:,.0f}", "time of steps": duration(spent.time[-1])}
        written |= {f"share of {name}": f"{share:.0%}" for name, share in spent.shares.items()}
    visits = run.visits
    if visits is None or visits.empty:
        return written
    by_prompt = visits.groupby("prompt_id", sort=False)
    written |= {
        "rollouts": str(visits["rollout"].nunique()),
        "prompts": str(by_prompt.ngroups),
        "visits": str(len(visits)),
        "success at first visits": f"{visits['success'][visits['visit'] == 1].mean():.3f}",
        "success at last visits": f"{by_prompt['success'].last().mean():.3f}",
    }
    predicted = visits.dropna(subset="predicted")
    if predicted.empty:
        return written
    overlap = (predicted["low"] <= predicted["predicted_high"]) & (predicted["predicted_low"] <= predicted["high"])
    return written | {
        "visits with a prediction": str(len(predicted)),
        "predicted success": f"{predicted['predicted'].mean():.3f}",
        "measured success": f"{predicted['success'].mean():.3f}",
        "mean gap": f"{predicted['gap'].mean():+.3f}",
        "mean absolute gap": f"{predicted['gap'].abs().mean():.3f}",
        "visits whose intervals overlap": f"{overlap.mean():.1%}",
    }


def _notes(run: Run) -> list[str]:
    notes = [f"Left out: {', '.join(run.unreadable)}."] if run.unreadable else []
    if run.visits is None or run.visits.empty:
        return notes
    reason = run.settings.get("not_predicted_because")
    if reason is not None:
        return [*notes, f"The theory predicts nothing for this run: {reason.replace('`', '')}."]
    if run.visits["predicted"].isna().all():
        return [*notes, "Nothing was predicted: that takes a second visit to a prompt, after rewards of 0 and 1."]
    first = run.visits[run.visits["visit"] == 1]
    return [
        *notes,
        "A prediction is what exact iteration would do (arXiv 2503.06639): the maximum of the objective over all "
        "policies, between two visits to a prompt, with the signal that its groups had. Practice takes a few clipped "
        "gradient steps, on other prompts too, so a gap is to be expected and its size is what there is to learn.",
        f"The reference's success is a prompt's success at its first visit. Of {len(first)} prompts, "
        f"{(first['step'] > 0).sum()} were first visited after the first update, when the policy was the reference no "
        "more.",
    ]
