# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Probabilities as log-odds, in which success near 0 and 1 keeps its digits."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray


Array: TypeAlias = NDArray[np.float64]


def logit(p: Any) -> Array:
    """
    Log-odds log(p / (1 - p)); derived.

    Args:
        p (array-like):
            Probabilities of any shape.

    Returns:
        `np.ndarray`:
            Log-odds of the same shape, in nats; -inf at 0 and inf at 1.
    """
    p = np.asarray(p, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return np.asarray(np.log(p) - np.log1p(-p))


def sigmoid(log_odds: Any) -> Array:
    """
    Inverse of [`logit`]; derived. Log-odds beyond 37 round to 1, below -745 to 0.

    Args:
        log_odds (array-like):
            Log-odds of any shape, in nats.

    Returns:
        `np.ndarray`:
            Probabilities of the same shape.
    """
    return probabilities(np.asarray(log_odds, dtype=np.float64))[0]


def probabilities(log_odds: Array) -> tuple[Array, Array]:
    """Success and failure with these log-odds, same shape; derived. Neither is a difference, so that none cancels."""
    smaller_odds = np.exp(-np.abs(log_odds))
    larger, smaller = 1.0 / (1.0 + smaller_odds), smaller_odds / (1.0 + smaller_odds)
    is_likely = log_odds >= 0.0
    return np.where(is_likely, larger, smaller), np.where(is_likely, smaller, larger)
