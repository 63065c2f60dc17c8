# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""A run, with what its files say in numbers: what sentences and drawings are made from."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from ..runs.effort import Effort, effort, successes
from ..runs.folder import Run, Series, is_number
from ..runs.intervals import change_of_share
from ..runs.success import evaluations, share_with_interval
from . import statistics
from .series import Logs, worst_low
from .statistics import Agreement, Change, Gap, Interval, Silence


if TYPE_CHECKING:
    import pandas as pd

_CLIPPED = ("trajectory/clipped_positive", "trajectory/clipped_negative")
_SIGNS = ("trajectory/positive", "trajectory/negative")
_CLIPPED_TOKENS = ("clip_ratio/high_mean", "clip_ratio/low_mean")


@dataclass(frozen=True)
class Clipping:
    """
    What was clipped, as shares of all trajectories or tokens (`of`), by the sign of the advantage, step by step; and over
    the whole run as shares of those of that sign (`of_sign`), where these are known.
    """

    of: str
    names: tuple[str, str]
    positive: Series
    negative: Series
    of_sign: tuple[float, float] | None = None

    @property
    def means(self) -> tuple[float, float]:
        """Shares over the whole run."""
        return float(self.positive[1].mean()), float(self.negative[1].mean())

    @property
    def most(self) -> float:
        """The largest share of both signs in one step."""
        both = [values for _, values in (self.positive, self.negative)]
        return float(np.max(np.add(*both)) if both[0].shape == both[1].shape else max(map(np.max, both)))


@dataclass(frozen=True)
class Summary:
    """What is known of a run; what its files do not say is `None` or empty."""

    run: Run

    @cached_property
    def logs(self) -> Logs:
        """What was logged, by rollout."""
        return Logs(self.run)

    @cached_property
    def visits(self) -> "pd.DataFrame | None":
        """The visits, if there are any."""
        return self.run.visits if self.run.visits is not None and len(self.run.visits) else None

    @property
    def last_step(self) -> float:
        """Where the axis of optimizer steps ends."""
        return float(max(1, self.run.step))

    @property
    def is_finished(self) -> bool | None:
        """Whether all steps were taken; `None` where no file says how many these are."""
        return None if self.run.max_steps is None else self.run.step >= self.run.max_steps

    @cached_property
    def has_predictions(self) -> bool:
        """Whether the theory has predicted any visit."""
        return self.visits is not None and bool(self.visits["predicted"].notna().any())

    @cached_property
    def kinds(self) -> dict[str, int]:
        """How many prompts, of those that were visited twice, are of each kind."""
        return {kind: len(members) for kind, members in self.run.trajectories.items()}

    @property
    def prompts(self) -> int:
        """Prompts that were visited twice."""
        return sum(self.kinds.values())

    @cached_property
    def change(self) -> Change | None:
        """Success from the first to the last visit."""
        return statistics.change(member for members in self.run.trajectories.values() for member in members)

    @cached_property
    def held_out(self) -> Change | None:
        """Success in the first and the last evaluation, where there are two with intervals."""
        for entries in evaluations(self.run.logs.history).values():
            ends = [share_with_interval(entry) for entry in (entries[0], entries[-1])]
            if len(entries) > 1 and all(is_number(value) for end in ends for value in end):
                first, last = (np.array(end, dtype=np.float64) for end in ends)
                prompts = entries[-1].get("eval_success_prompts") or 0
                return Change(first[0], last[0], Interval(*change_of_share(first, last)), int(prompts))
        return None

    @cached_property
    def evaluated(self) -> Series | None:
        """Steps and success of the evaluations of which the first is quoted."""
        return next((series for name, series in self.successes.items() if name != "training rollouts"), None)

    @cached_property
    def successes(self) -> dict[str, Series]:
        """Steps and success, by what it was measured on."""
        return successes(self.run)

    @cached_property
    def logged_change(self) -> tuple[str, Change | Series] | None:
        """The logged success, else the logged reward: how it changed, or where it is too short for that its values."""
        for name in ("success", "reward"):
            series = self.logs.series(name)
            if series[1].size:
                return name, statistics.change_of_series(series[1]) or series
        return None

    @cached_property
    def gaps(self) -> list[Gap]:
        """Measured - predicted by the number of the visit."""
        return [] if self.visits is None else statistics.gaps(self.visits)

    @cached_property
    def agreement(self) -> Agreement | None:
        """How far visits lie from their predictions."""
        return None if self.visits is None else statistics.agreement(self.visits)

    @cached_property
    def quarters(self) -> tuple[Silence, Silence] | None:
        """Groups without signal in the first and the last quarter."""
        return None if self.visits is None else statistics.silent_quarters(self.visits)

    @cached_property
    def knows_why_silent(self) -> bool:
        """Whether the visits tell of each group without signal why; those of earlier versions do of one per visit only."""
        return self.visits is not None and not self.visits["silent_all_succeed"].isna().any()

    @cached_property
    def uses_weights(self) -> bool:
        """Whether the loss weighs whole trajectories."""
        return any(name in entry for entry in self.run.logs.history for name in _CLIPPED)

    @cached_property
    def effective_size(self) -> Series:
        """Effective sample size of the weights of trajectories, at each step or at the ends of rollouts."""
        name = "trajectory/ess"
        return self.logs.series(name) if self.logs.is_each_step else self.logs.by_rollout(name, worst_low)

    @cached_property
    def clipping(self) -> Clipping | None:
        """What was clipped: trajectories where the loss clips those, else tokens."""
        names, of = (_CLIPPED, "trajectories") if self.uses_weights else (_CLIPPED_TOKENS, "tokens")
        positive, negative = (self.logs.series(name) for name in names)
        if not positive[0].size or not negative[0].size:
            return None
        of_sign = None
        up, down = (self.logs.series(name)[1] for name in _SIGNS)
        if self.uses_weights and up.any() and down.any():
            of_sign = (float(positive[1].mean() / up.mean()), float(negative[1].mean() / down.mean()))
        return Clipping(of, names, positive, negative, of_sign)

    @cached_property
    def cut_off(self) -> float | None:
        """The largest share of the completions of a rollout that reached the limit."""
        shares = self.logs.series("completions/clipped_ratio")[1]
        return float(shares.max()) if shares.size else None

    @cached_property
    def effort(self) -> Effort | None:
        """Tokens and time."""
        return effort(self.run)

    @property
    def limit(self) -> float | None:
        """The most tokens that a completion may have."""
        value = self.run.settings.get("max_completion_length")
        return float(value) if is_number(value) else None
