# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Parts of a run, over which means are taken."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def parts_of_run(rollouts: ArrayLike, most: int) -> NDArray[np.intp]:
    """Number, from 0, of the part that each rollout is in: at most so many parts, of equally many rollouts each."""
    rollouts = np.asarray(rollouts)
    distinct = np.unique(rollouts)
    if distinct.size == 0:
        return np.zeros(0, dtype=np.intp)
    starts = [members[0] for members in np.array_split(distinct, max(1, min(most, distinct.size)))]
    return np.searchsorted(starts, rollouts, side="right") - 1


def even_parts(number: int, most: int) -> int:
    """Into how many parts, at most so many, a number of things can be divided so that each has as many, give or take one."""
    return math.ceil(number / max(1, math.ceil(number / most)))
