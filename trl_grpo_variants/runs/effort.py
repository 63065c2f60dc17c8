# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What a run has spent, in generated tokens and in time, and what it has reached with that."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from .folder import Run, Series, is_number
from .intervals import Array
from .success import evaluations, training_logs


# Means over optimizer steps, in seconds, by what they are the time of.
TIMES = {"generation": "generation_time", "rewards": "rewards_time", "update": "update_time"}

_MOST_ROWS = 6


@dataclass(frozen=True)
class Effort:
    """
    What a run has spent until each of its logs.

    Parameters:
        steps (`np.ndarray`):
            Optimizer steps of the logs, of shape `(n,)`.
        tokens (`np.ndarray`):
            Tokens of all completions that were generated until then, of shape `(n,)`.
        seconds (`dict[str, np.ndarray]`):
            Time of all steps until then, by the names of `TIMES`, of shape `(n,)` each. Evaluations and saving are no
            part of a step.
    """

    steps: Array
    tokens: Array
    seconds: dict[str, Array]

    @property
    def time(self) -> Array:
        """Seconds of all steps until each log, of shape `(n,)`."""
        return np.sum(list(self.seconds.values()), axis=0)

    @property
    def shares(self) -> dict[str, float]:
        """What each part has of the time of all steps."""
        return {name: float(seconds[-1] / self.time[-1]) for name, seconds in self.seconds.items()}

    def until(self, steps: Array) -> tuple[Array, Array]:
        """Tokens and seconds until these optimizer steps; in between two logs as if they had been spent evenly."""
        known = np.concatenate([[0.0], self.steps])
        tokens, seconds = (
            np.interp(steps, known, np.concatenate([[0.0], spent])) for spent in (self.tokens, self.time)
        )
        return tokens, seconds


def effort(run: Run) -> Effort | None:
    """What a run has spent; `None` where its logs do not tell, as those of stock TRL."""
    columns = ("step", "generated_tokens", *TIMES.values())
    logged = [[entry.get(name) for name in columns] for entry in training_logs(run.logs.history)]
    logged = [row for row in logged if all(map(is_number, row))]
    if not logged:
        return None
    steps, tokens, *times = np.array(logged, dtype=np.float64).T
    taken = np.diff(steps, prepend=0.0)
    return Effort(steps, tokens, {name: (taken * mean).cumsum() for name, mean in zip(TIMES, times, strict=True)})


def successes(run: Run) -> dict[str, Series]:
    """Optimizer steps and success, by what it was measured on: evaluations, and the rollouts of training."""
    measured = {source: _column(entries, "eval_success") for source, entries in evaluations(run.logs.history).items()}
    rollouts = [entry for entry in training_logs(run.logs.history) if is_number(entry.get("success"))]
    return measured | ({"training rollouts": _column(rollouts, "success")} if rollouts else {})


def _column(entries: list[dict[str, Any]], name: str) -> Series:
    steps, values = np.array([(entry["step"], entry[name]) for entry in entries], dtype=np.float64).T
    return steps, values


@dataclass(frozen=True)
class Price:
    """
    What success has cost, written out.

    Parameters:
        source (`str`):
            What the success was measured on.
        rows (`list[tuple[str, str, str, str]]`):
            Optimizer step, success, generated tokens and time until then, of a few measurements among them the last.
        shares (`dict[str, str]`):
            What each part has of the time of all steps.
    """

    source: str
    rows: list[tuple[str, str, str, str]]
    shares: dict[str, str]


def price(run: Run) -> Price | None:
    """What the success of a run has cost; `None` where its logs do not tell."""
    spent, measured = effort(run), successes(run)
    if spent is None or not measured:
        return None
    source, (steps, shares) = next(iter(measured.items()))
    chosen = np.unique(np.linspace(0, steps.size - 1, _MOST_ROWS).round().astype(int))
    columns = (steps[chosen], shares[chosen], *spent.until(steps[chosen]))
    rows = [
        (f"{step:.0f}", f"{share:.3f}", f"{tokens:,.0f}", duration(seconds))
        for step, share, tokens, seconds in zip(*columns, strict=True)
    ]
    return Price(source, rows, {name: f"{share:.0%}" for name, share in spent.shares.items()})


def duration(seconds: float) -> str:
    """A time in the unit that fits it."""
    size, unit = time_unit(seconds)
    return f"{seconds / size:.1f} {unit}"


def time_unit(seconds: float) -> tuple[float, str]:
    """The unit for times of about that size: its seconds, and its name."""
    if seconds >= 7200.0:
        return 3600.0, "h"
    return (60.0, "min") if seconds >= 120.0 else (1.0, "s")
