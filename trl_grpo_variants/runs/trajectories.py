# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What became of each prompt, from counts that sampling alone would move."""

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
        success (`np.ndarray`):
            Shares of successes.
    """

    prompt: str
    steps: Array
    success: Array

    @property
    def change(self) -> float:
        """Success at the last visit minus that at the first."""
        return float(self.success[-1] - self.success[0])


def trajectories(visits: "pd.DataFrame") -> dict[str, list[Trajectory]]:
    """Those of the prompts that were visited at least twice, by which of `KINDS` they are of, those without any left out."""
    by_kind: dict[str, list[Trajectory]] = {kind: [] for kind in KINDS}
    for _, members in visits.groupby("prompt_id", sort=False):
        if len(members) > 1:
            steps, *counts = (members[name].to_numpy(np.float64) for name in ("step", "successes", "completions"))
            prompt = members["prompt"].fillna("").iloc[0]
            by_kind[kind_of(*counts)].append(Trajectory(prompt, steps, members["success"].to_numpy()))
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
    if _clear_moves(successes, completions) >= 3:
        return "oscillating"
    half = len(successes) // 2
    won, drawn = (np.array([values[:half].sum(), values[-half:].sum()]) for values in (successes, completions))
    changes = {_direction(won, drawn, 0, 1, _CLEAR), _direction(successes, completions, 0, -1, _CLEAR_VISITS)}
    if changes >= {1, -1}:
        return "oscillating"
    return "amplified" if 1 in changes else "worsened" if -1 in changes else "unchanged"


def _clear_moves(successes: Array, completions: Array) -> int:
    """How many times success has clearly moved up and down in turn."""
    share = successes / completions
    moves, going = 0, 0
    highest = lowest = 0
    for visit in range(1, len(share)):
        # The turning point behind is the highest, respectively lowest, visit since the last clear move.
        rises = going <= 0 and _direction(successes, completions, lowest, visit, _CLEAR_VISITS) > 0
        falls = going >= 0 and _direction(successes, completions, highest, visit, _CLEAR_VISITS) < 0
        if rises or falls:
            moves, going = moves + 1, 1 if rises else -1
            highest = lowest = visit
        highest = visit if share[visit] > share[highest] else highest
        lowest = visit if share[visit] < share[lowest] else lowest
    return moves


def _direction(successes: Array, completions: Array, earlier: int, later: int, clear: float) -> int:
    """Sign of the change between two visits, 0 where it is not clear."""
    share, shrunk = successes / completions, (successes + 1.0) / (completions + 2.0)
    variance = shrunk * (1.0 - shrunk) / (completions + 2.0)
    difference = share[later] - share[earlier]
    return int(np.sign(difference)) if abs(difference) > clear * np.sqrt(variance[earlier] + variance[later]) else 0
