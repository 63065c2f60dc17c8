# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""95 % intervals of success from counts."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


Array = NDArray[np.float64]

Z = 1.96  # standard deviations that hold 95 % of a normal distribution


def wilson_interval(share: ArrayLike, observations: ArrayLike) -> tuple[Array, Array]:
    """Ends of the binomial intervals of shares in [0, 1], from their numbers of independent observations."""
    share, z2 = np.asarray(share), Z**2 / np.asarray(observations, dtype=np.float64)
    centre, half = share + z2 / 2, np.sqrt(z2 * (share * (1 - share) + z2 / 4))
    return np.maximum(0.0, (centre - half) / (1 + z2)), np.minimum(1.0, (centre + half) / (1 + z2))


def measured_success(successes: Array, completions: Array) -> tuple[float, float, float]:
    """
    Mean success over prompts, with its interval from the sampling of completions.

    The variance of each share is estimated without bias, k(n - k)/(n^2 (n - 1)), so that few completions of each prompt
    do not push the interval to one side, as the ends of its own interval would. Where all or none succeed, the interval
    ends where Wilson's for all completions does.

    Args:
        successes (`np.ndarray`):
            Successes k of each prompt.
        completions (`np.ndarray`):
            Its completions n, at least 1.

    Returns:
        `tuple[float, float, float]`:
            Mean, lower and upper end; they may lie beyond 0 and 1.
    """
    failures = completions - successes
    spread = successes * failures / np.square(completions) / np.maximum(completions - 1.0, 1.0)
    # One completion says nothing about its own spread, which is at most this.
    variance = np.where(completions > 1.0, spread, 0.25).sum() / completions.size**2
    least = Z**2 / (completions.sum() + Z**2)
    mean, half = float((successes / completions).mean()), float(np.hypot(Z * np.sqrt(variance), least))
    return mean, mean - half, mean + half


def mean_with_interval(values: Array, low: Array, high: Array) -> tuple[float, float, float]:
    """Mean of independent estimates of shape `(n,)`, with the interval that theirs make: half the widths are added in
    squares."""
    mean, half = float(values.mean()), float(np.linalg.norm((high - low) / 2.0) / values.size)
    return mean, mean - half, mean + half


def mean_over_prompts(values: Array) -> tuple[float, float, float]:
    """Mean of the values `(n,)` of prompts, at least two, with the interval that their own spread makes."""
    mean, half = float(values.mean()), float(Z * values.std(ddof=1) / np.sqrt(values.size))
    return mean, mean - half, mean + half


def change_of_share(before: Array, after: Array) -> tuple[float, float, float]:
    """Difference of two shares, each with its ends as `(share, low, high)`, with Newcombe's interval."""
    (p, p_low, p_high), (q, q_low, q_high) = before, after
    below, above = np.hypot(q - q_low, p_high - p), np.hypot(q_high - q, p - p_low)
    return float(q - p), float(q - p - below), float(q - p + above)
