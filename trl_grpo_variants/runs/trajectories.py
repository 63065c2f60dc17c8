# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What became of each prompt, from counts that sampling alone would move."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .intervals import Array, Z


if TYPE_CHECKING:
    import pandas as pd

# A difference of two shares is clear beyond this many of its standard deviations. Single visits, which are looked for
# or hold few completions, take more.
_CLEAR, _CLEAR_VISITS = Z, 2.58

KINDS = {
    "amplified": "clearly more successful in the later half of the visits than in the earlier, or at the last than at the "
    "first",
    "stuck at 0": "without a success at any visit",
    "oscillating": "clearly up and down at least three times in turn, or one in halves and the other from first to last",
    "saturated": "without a failure at any visit",
    "worsened": "clearly less successful in the later half of the visits than in the earlier, or at the last than at the "
    "first",
    "unchanged": "none of these",
}


@dataclass(frozen=True)
class Trajectory:
    """
    The visits to one prompt.

    Parameters:
        prompt (`str`):
            Beginning of its text.
        steps (`np.ndarray`):
            Optimizer steps of the visits.
        successes (`np.ndarray`):
            Successful completions of each visit.
        completions (`np.ndarray`):
            Completions of each visit.
    """

    prompt: str
    steps: Array
    successes: Array
    completions: Array

    @property
    def success(self) -> Array:
        """Share of successes at each visit."""
        return self.successes / self.completions

    @property
    def halves(self) -> tuple[Array, Array]:
        """Successes and completions of the earlier and of the later half of the visits, of shape `(2,)` each."""
        return halves(self.successes, self.completions)

    @property
    def change(self) -> float:
        """Success in the later half of the visits minus that in the earlier."""
        successes, completions = self.halves
        earlier, later = successes / completions
        return float(later - earlier)


def halves(successes: Array, completions: Array) -> tuple[Array, Array]:
    """Sums over the earlier and the later half of at least two visits; a middle one belongs to neither."""
    half = len(successes) // 2
    earlier, later = (np.array([k[:half].sum(), k[-half:].sum()]) for k in (successes, completions))
    return earlier, later


def trajectories(visits: "pd.DataFrame") -> dict[str, list[Trajectory]]:
    """Those of the prompts that were visited at least twice, by which of `KINDS` they are of, those without any left out."""
    columns = ("step", "successes", "completions")
    steps, *counts = (visits[name].to_numpy(np.float64) for name in columns)
    prompts = visits["prompt"].fillna("").to_numpy()
    numbers = visits.groupby("prompt_id", sort=False).ngroup().to_numpy()
    order = np.argsort(numbers, kind="stable")
    by_kind: dict[str, list[Trajectory]] = {kind: [] for kind in KINDS}
    # Rows of one prompt after the other: as tables of their own, those of thousands take seconds.
    for rows in np.split(order, np.flatnonzero(np.diff(numbers[order])) + 1):
        if len(rows) > 1:
            successes, completions = (values[rows] for values in counts)
            member = Trajectory(prompts[rows[0]], steps[rows], successes, completions)
            by_kind[kind_of(successes, completions)].append(member)
    return {kind: members for kind, members in by_kind.items() if members}


def kind_of(successes: Array, completions: Array) -> str:
    """
    Which of `KINDS` a trajectory is of, the first that applies of: stuck, saturated, oscillating, amplified, worsened.

    A change counts if it is clear: larger than 1.96 standard deviations of the difference of two shares (2.58 between
    single visits: the first and the last, and for an oscillation one turning point and the next), each with the
    variance p(1 - p)/(n + 2) at p = (k + 1)/(n + 2), which is not 0 where k is 0 or n. A middle visit belongs to
    neither half. Successes k and completions n are those of the visits, in their order.
    """
    if not successes.any():
        return "stuck at 0"
    if (successes == completions).all():
        return "saturated"
    shares = _estimates(successes, completions)
    if _clear_moves(*shares) >= 3:
        return "oscillating"
    changes = {
        _direction(*_estimates(*halves(successes, completions)), 0, 1, _CLEAR),
        _direction(*shares, 0, -1, _CLEAR_VISITS),
    }
    if changes >= {1, -1}:
        return "oscillating"
    return "amplified" if 1 in changes else "worsened" if -1 in changes else "unchanged"


def _estimates(successes: Array, completions: Array) -> tuple[Array, Array]:
    """Shares of successes, and their variances."""
    shrunk = (successes + 1.0) / (completions + 2.0)
    return successes / completions, shrunk * (1.0 - shrunk) / (completions + 2.0)


def _clear_moves(share: Array, variance: Array) -> int:
    """How many times success has clearly moved up and down in turn."""
    moves, going = 0, 0
    highest = lowest = 0
    for visit in range(1, len(share)):
        # The turning point behind is the highest, respectively lowest, visit since the last clear move.
        rises = going <= 0 and _direction(share, variance, lowest, visit, _CLEAR_VISITS) > 0
        falls = going >= 0 and _direction(share, variance, highest, visit, _CLEAR_VISITS) < 0
        if rises or falls:
            moves, going = moves + 1, 1 if rises else -1
            highest = lowest = visit
        highest = visit if share[visit] > share[highest] else highest
        lowest = visit if share[visit] < share[lowest] else lowest
    return moves


def _direction(share: Array, variance: Array, earlier: int, later: int, clear: float) -> int:
    """Sign of the change between two visits, 0 where it is not clear."""
    difference = share[later] - share[earlier]
    is_clear = abs(difference) > clear * math.sqrt(variance[earlier] + variance[later])
    return int(math.copysign(is_clear, difference))
