# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The page of a report: which figures there are, what stands beside them, and why others are left out."""

from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runs.folder import Run
from ..runs.trajectories import KINDS, Trajectory, trajectories
from .figures import length_figure, metrics_figure, prompts_figure, save, success_figure


if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).parents[1] / "templates" / "report.html"

_MOST_EXAMPLES = 3
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


def panels(run: Run, found: list[Trajectory]) -> list[Panel]:
    """
    Figures of a run.

    Args:
        run ([`Run`]):
            Run.
        found (`list[Trajectory]`):
            Its prompts with at least two visits.

    Returns:
        `list[Panel]`:
            All parts of the page, those without a figure among them.
    """
    visits = run.visits
    has_residual = run.series("theory/renyi_residual")[0].size > 0
    has_predictions = visits is not None and not np.isnan(visits["predicted"]).all()
    return [
        Panel(
            "success",
            "Predicted and measured success" if has_predictions else "Success",
            "Left: means over prompts, at most 40 points, with 95 % intervals: of the measured success from the "
            "sampling of completions, of the predicted one from what earlier groups leave open about the anchors. "
            "Right: visits by their prediction, in tenths; larger dots stand for more of them."
            if has_predictions
            else "Means over prompts, at most 40 points, with 95 % intervals from the sampling of completions.",
            None if visits is None else success_figure(visits),
            _NO_MONITOR if visits is None else "no rollout was recorded",
        ),
        Panel(
            "prompts",
            "Success of each prompt",
            "Prompts with at least two visits, by what became of them: "
            + "; ".join(f"{kind}, {meaning}" for kind, meaning in KINDS.items())
            + ". Clear is what the sampling of completions would rarely do by itself.",
            prompts_figure(found),
            _NO_MONITOR if visits is None else "no prompt was visited twice",
        ),
        Panel(
            "signal",
            "Groups without signal" + (", and the Rényi residual" if has_residual else ""),
            "Groups whose rewards are all equal have no advantage."
            + (" Expected are those that the predicted success makes." if has_predictions else "")
            + (" The Rényi residual of a dual run, in log-odds, is 0 under exact iteration." if has_residual else ""),
            metrics_figure(
                run,
                {
                    "Groups without signal": {
                        "theory/groups_without_signal": "counted",
                        "theory/expected_groups_without_signal": "expected",
                    },
                    "Rényi residual": {"theory/renyi_residual": ""},
                },
            ),
            _nothing_logged(run) or "the logs hold none",
        ),
        Panel(
            "divergence",
            "KL to the anchors",
            "Estimates per token, in nats, as the loss has them.",
            metrics_figure(
                run, {"KL to the reference": {"kl": ""}, "KL to the previous policy": {"mirror_kl": ""}}, lowest=0.0
            ),
            _nothing_logged(run) or "the logs hold no KL; there is one where `beta` or `mirror_beta` is not 0",
        ),
        Panel(
            "weights",
            "Weights of trajectories",
            "Importance weights of whole completions: their effective sample size as a share, the share that is "
            "clipped, by the sign of the advantage, and the spread of their logarithms. Per root of a token, that "
            "spread does not depend on the length: over T tokens it grows to about √T times as much.",
            metrics_figure(
                run,
                {
                    "Effective sample size": {"trajectory/ess": ""},
                    "Clipped share": {
                        "trajectory/clipped_positive": "A > 0",
                        "trajectory/clipped_negative": "A < 0",
                    },
                    "Spread of log-weights": {"trajectory/log_weight_std": ""},
                    "Spread per root of a token": {"trajectory/log_weight_std_per_sqrt_token": ""},
                },
                lowest=0.0,
            ),
            _nothing_logged(run) or "the logs hold none; weights are 1 where each rollout serves one optimizer step",
        ),
        Panel(
            "length",
            "Completions",
            "Length in tokens, and the share that reached the limit without an end.",
            length_figure(run),
            _nothing_logged(run) or "the logs hold no lengths",
        ),
    ]


def _nothing_logged(run: Run) -> str | None:
    if run.history:
        return None
    return ", ".join(run.unreadable) or "there are no logs; a run writes them with its checkpoints"


def render(run: Run, shown: list[Panel], found: list[Trajectory]) -> str:
    """
    Render the page: one file that needs no other and no network.

    Args:
        run ([`Run`]):
            Run.
        shown (`list[Panel]`):
            Parts of the page.
        found (`list[Trajectory]`):
            Prompts with at least two visits.

    Returns:
        `str`:
            HTML.
    """
    from jinja2 import Environment

    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    kinds = {kind: [trajectory for trajectory in found if trajectory.kind == kind] for kind in KINDS}
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        run=run,
        facts=facts(run),
        panels=[(panel, b64encode(panel.png).decode()) for panel in shown if panel.figure is not None],
        missing=[panel for panel in shown if panel.figure is None],
        kinds={
            kind: (len(members), sorted(members, key=lambda t: -abs(t.change))[:_MOST_EXAMPLES])
            for kind, members in kinds.items()
            if members
        },
        notes=_notes(run),
    )


def facts(run: Run) -> dict[str, str]:
    """
    The run in numbers.

    Args:
        run ([`Run`]):
            Run.

    Returns:
        `dict[str, str]`:
            Values by name.
    """
    found: dict[str, str] = {}
    names: dict[str, Callable[[Any], str]] = {
        "variant": str,
        "beta": str,
        "mirror_beta": str,
        "num_generations": str,
        "learning_rate": str,
    }
    for name, write in names.items():
        if run.settings.get(name) is not None:
            found[name] = write(run.settings[name])
    if run.logged_until is not None:
        found["logs until step"] = str(run.logged_until)
    visits = run.visits
    if visits is None or visits["rollout"].size == 0:
        return found
    found["rollouts"] = str(np.unique(visits["rollout"]).size)
    found["prompts"] = str(np.unique(visits["prompt_id"]).size)
    found["visits"] = str(visits["visit"].size)
    found["success at first visits"] = f"{visits['success'][visits['visit'] == 1].mean():.3f}"
    last = list({prompt: index for index, prompt in enumerate(visits["prompt_id"])}.values())
    found["success at last visits"] = f"{visits['success'][last].mean():.3f}"
    predicted = ~np.isnan(visits["predicted"])
    if predicted.any():
        gap = visits["gap"][predicted]
        overlap = (visits["low"] <= visits["predicted_high"]) & (visits["predicted_low"] <= visits["high"])
        found["visits with a prediction"] = str(int(predicted.sum()))
        found["predicted success"] = f"{visits['predicted'][predicted].mean():.3f}"
        found["measured success"] = f"{visits['success'][predicted].mean():.3f}"
        found["mean gap"] = f"{gap.mean():+.3f}"
        found["mean absolute gap"] = f"{np.abs(gap).mean():.3f}"
        found["visits whose intervals overlap"] = f"{overlap[predicted].mean():.1%}"
    return found


def _notes(run: Run) -> list[str]:
    notes = []
    if run.unreadable:
        notes.append(f"Left out: {', '.join(run.unreadable)}.")
    if run.visits is None or run.visits["rollout"].size == 0:
        return notes
    reason = run.settings.get("not_predicted_because")
    if reason is not None:
        return [*notes, f"The theory predicts nothing for this run: {reason.replace('`', '')}."]
    if np.isnan(run.visits["predicted"]).all():
        return [*notes, "Nothing was predicted: that takes a second visit to a prompt, after rewards of 0 and 1."]
    first = run.visits["visit"] == 1
    late = int((run.visits["step"][first] > 0).sum())
    notes += [
        "A prediction is what exact iteration would do (arXiv 2503.06639): the maximum of the objective over all "
        "policies, between two visits to a prompt, with the signal that its groups had. Practice takes a few clipped "
        "gradient steps, on other prompts too, so a gap is to be expected and its size is what there is to learn.",
        f"The reference's success is a prompt's success at its first visit. Of {int(first.sum())} prompts, {late} were "
        "first visited after the first update, when the policy was the reference no more.",
    ]
    return notes


def visited_again(run: Run) -> list[Trajectory]:
    """
    The prompts whose trajectories can be shown.

    Args:
        run ([`Run`]):
            Run.

    Returns:
        `list[Trajectory]`:
            Those with at least two visits.
    """
    return [] if run.visits is None else trajectories(run.visits)
