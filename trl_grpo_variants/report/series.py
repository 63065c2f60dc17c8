# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What was logged, rollout by rollout. Steps are those taken before, as for visits: logs count from 1."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..objective.divergences import STANDARD_ERROR
from ..objective.ratio import ROLLOUT_END
from ..runs.folder import Run, Series
from ..runs.intervals import Array
from ..runs.parts import even_parts, parts_of_run
from ..runs.success import training_logs
from .statistics import TWELFTHS


# Logged once for each rollout, by every GRPO trainer.
_ROLLOUT = "completions/mean_length"


@dataclass(frozen=True)
class Logs:
    """The logs of a run, in order of its rollouts."""

    run: Run

    @cached_property
    def is_each_step(self) -> bool:
        """Whether each optimizer step was logged by itself, so that its place within a rollout is known."""
        steps = [entry["step"] for entry in training_logs(self.run.logs.history)]
        return bool(steps) and bool((np.diff([0, *steps]) == 1).all())

    @cached_property
    def _starts(self) -> Array:
        """Steps at which rollouts were made."""
        visits = self.run.visits
        if visits is not None and len(visits):
            return np.unique(visits["step"]).astype(np.float64)
        return self.series(_ROLLOUT)[0]

    def series(self, name: str) -> Series:
        """Steps and values of a metric; an evaluation is of the policy after the step at which it was logged."""
        steps, values = self.run.series(name)
        return (steps if name.startswith("eval_") else steps - 1.0), values

    def by_rollout(self, name: str, reduce: Callable[[Array], float]) -> Series:
        """One value for each rollout, at its last step that has one; else what was logged of its last step, or of all."""
        if not self.is_each_step:
            return self.series(f"{ROLLOUT_END}{name}" if self.tells_end(name) else name)
        steps, values = self.series(name)
        if not self._starts.size or not steps.size:
            return steps, values
        rollouts = np.searchsorted(self._starts, steps, side="right")
        cuts = np.flatnonzero(np.diff(rollouts)) + 1
        members = zip(np.split(steps, cuts), np.split(values, cuts), strict=True)
        ends, reduced = np.array([(at[-1], reduce(part)) for at, part in members]).T
        return ends, reduced

    def tells_end(self, name: str) -> bool:
        """Whether it is known what a metric was at the last step of a rollout."""
        return self.is_each_step or bool(self.series(f"{ROLLOUT_END}{name}")[0].size)

    def standard_errors(self, name: str) -> Series:
        """How well a mean over the last step of each rollout is known; empty where it was not logged."""
        names = (f"{prefix}{name}{STANDARD_ERROR}" for prefix in (ROLLOUT_END, ""))
        return max(map(self.series, names), key=lambda series: series[0].size)

    def first_not_finite(self) -> tuple[int, str] | None:
        """Step and name of the first metric that was infinite or not a number."""
        for entry in self.run.logs.history:
            for name, value in entry.items():
                # A mean over nothing is logged as none.
                if isinstance(value, float) and not math.isfinite(value):
                    return int(entry["step"]), name
        return None

    def names(self) -> list[str]:
        """Metrics of training with a finite value, in the order of their names."""
        entries: list[dict[str, Any]] = self.run.logs.history
        return sorted({name for entry in entries for name in entry if name not in ("step", "epoch")})


def means(series: Series, most: int = TWELFTHS) -> Series:
    """Means of equal parts of a run, at the means of their steps."""
    return _means(series, _parts(series[0], most))


def errors_of_means(series: Series, errors: Series) -> Array:
    """Standard errors of [`means`] from those of their entries, at the same steps; NaN where one is not known."""
    known = dict(zip(*errors, strict=True))
    squares = np.square([known.get(step, math.nan) for step in series[0]])
    parts = _parts(series[0])
    return np.sqrt(np.bincount(parts, squares)) / np.bincount(parts)


def quarter(series: Series, which: int) -> float:
    """Mean of the first, `0`, or of the last quarter, `-1`."""
    return float(_means(series, parts_of_run(series[0], 4))[1][which])


def _parts(steps: Array, most: int = TWELFTHS) -> NDArray[np.intp]:
    return parts_of_run(steps, even_parts(len(np.unique(steps)), most))


def _means(series: Series, parts: NDArray[np.intp]) -> Series:
    steps, values = series
    count = np.maximum(np.bincount(parts), 1)
    return np.bincount(parts, steps) / count, np.bincount(parts, values) / count


def last(values: Array) -> float:
    """The value at the end of a rollout."""
    return float(values[-1])


def worst_low(values: Array) -> float:
    """The lowest of a rollout."""
    return float(values.min())


def worst_high(values: Array) -> float:
    """The highest of a rollout."""
    return float(values.max())


def mean(values: Array) -> float:
    """The mean of a rollout."""
    return float(values.mean())
