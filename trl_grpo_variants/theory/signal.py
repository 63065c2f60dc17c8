# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
The learning signal Omega: how strongly an advantage (r - p) Omega(p) separates success from failure.

Omega is a function of the log-odds L of the success. Its slope dOmega/dL is odd in L, and for L > 0 it rises from 0 to
one peak and falls back to 0. (Its logarithmic derivative vanishes where a polynomial in the variance does, which has
exactly one root in range: derived below.) That is why a level is crossed twice or never, and why a map has at most
three interior fixed points.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np

from ..checks import check_choice, check_number
from . import checks
from .logodds import Array, bernoulli_variance, logit


TRL_STD_EPSILON = 1e-4


class Signal(ABC):
    """One normalisation of the advantages, as a function of log-odds."""

    @abstractmethod
    def scale(self, variance: Array) -> Array:
        """What r - mean is divided by where the rewards have this variance, same shape."""

    def omega(self, log_odds: Array) -> Array:
        """Omega at the given log-odds, same shape."""
        return np.asarray(1.0 / self.scale(bernoulli_variance(log_odds)))

    def of_group(self, successes: Array, num_generations: int) -> Array:
        """Omega that a group with this many successes computes from its own statistics."""
        rate = successes / num_generations
        return np.asarray(1.0 / self.scale(rate * (1.0 - rate)))

    @abstractmethod
    def slope(self, log_odds: Array) -> Array:
        """dOmega/dL at the given log-odds, same shape; 0 at -inf and inf."""

    @property
    @abstractmethod
    def peak(self) -> float:
        """The log-odds L > 0 at which the slope is largest."""

    @abstractmethod
    def beyond(self, level: float) -> float:
        """Log-odds behind the peak at which the slope is below the level."""

    @property
    def largest(self) -> float:
        """Supremum of Omega, reached at success 0 and 1."""
        return float(self.omega(np.asarray(math.inf)))

    def turning_points(self, level: float) -> tuple[float, float] | None:
        """The two log-odds L > 0 where the slope crosses a positive level; `None` if it stays below. Derived."""
        if float(self.slope(np.asarray(self.peak))) <= level:
            return None
        rising = bisect(lambda x: level - self.slope(x), np.asarray(0.0), np.asarray(self.peak))
        falling = bisect(lambda x: self.slope(x) - level, np.asarray(self.peak), np.asarray(self.beyond(level)))
        return float(rising), float(falling)

    def least_slope(self, low: Array, high: Array) -> Array:
        """Smallest slope on each interval [low, high] of log-odds."""
        at_ends = np.minimum(self.slope(low), self.slope(high))
        trough = -self.peak
        return np.where((low <= trough) & (trough <= high), self.slope(np.asarray(trough)), at_ends)


class MeanOnly(Signal):
    """A = r - mean."""

    def scale(self, variance: Array) -> Array:
        return np.ones_like(variance)

    def slope(self, log_odds: Array) -> Array:
        return np.zeros_like(log_odds)

    @property
    def peak(self) -> float:
        return 0.0

    def beyond(self, level: float) -> float:
        return 0.0


class SmoothedVariance(Signal):
    """A = (r - mean) / sqrt(var + epsilon), arXiv 2503.06639."""

    def __init__(self, epsilon: float) -> None:
        self.epsilon = epsilon

    def scale(self, variance: Array) -> Array:
        return np.asarray(np.sqrt(variance + self.epsilon))

    def slope(self, log_odds: Array) -> Array:
        variance = bernoulli_variance(log_odds)
        smoothed = variance + self.epsilon
        return np.asarray(0.5 * variance / smoothed * np.tanh(log_odds / 2.0) / np.sqrt(smoothed))

    @property
    def peak(self) -> float:
        # With v = p(1 - p) the slope is v sqrt(1 - 4v) / (2 (v + eps)^(3/2)); d log = 0 is -v + 2 eps - 12 v eps = 0.
        return _positive_log_odds(2.0 * self.epsilon / (1.0 + 12.0 * self.epsilon))

    def beyond(self, level: float) -> float:
        # v <= exp(-L) bounds the slope by exp(-L) eps^(-3/2) / 2.
        return max(self.peak, -math.log(2.0 * level) - 1.5 * math.log(self.epsilon)) + 1.0


class StandardDeviation(Signal):
    """A = (r - mean) / (std + 1e-4), TRL's; the std is the sample's, with n - 1."""

    def scale(self, variance: Array) -> Array:
        return np.asarray(np.sqrt(variance) + TRL_STD_EPSILON)

    def slope(self, log_odds: Array) -> Array:
        deviation = np.sqrt(bernoulli_variance(log_odds))
        return np.asarray(0.5 * deviation * np.tanh(log_odds / 2.0) / (deviation + TRL_STD_EPSILON) ** 2)

    def of_group(self, successes: Array, num_generations: int) -> Array:
        rate = successes / num_generations
        return np.asarray(1.0 / self.scale(rate * (1.0 - rate) * num_generations / (num_generations - 1)))

    @property
    def peak(self) -> float:
        # With s = sqrt(v), d = 1e-4 the slope is s sqrt(1 - 4s^2) / (2 (s + d)^2); d log = 0 is 8 d s^2 + s - d = 0.
        d = TRL_STD_EPSILON
        return _positive_log_odds((2.0 * d / (1.0 + math.sqrt(1.0 + 32.0 * d * d))) ** 2)

    def beyond(self, level: float) -> float:
        # s <= exp(-L/2) bounds the slope by exp(-L/2) / (2 d^2).
        return max(self.peak, -2.0 * math.log(2.0 * level * TRL_STD_EPSILON**2)) + 1.0


NORMALIZATIONS = ("mean_std", "mean", "trl_std")


def make_signal(normalization: Any, variance_epsilon: Any) -> Signal:
    """The signal of a normalisation; its name and epsilon are checked here."""
    check_choice("normalization", normalization, NORMALIZATIONS)
    epsilon = check_number("variance_epsilon", variance_epsilon, greater_than=0.0)
    if normalization == "mean":
        return MeanOnly()
    return SmoothedVariance(epsilon) if normalization == "mean_std" else StandardDeviation()


def omega(p: Any, *, normalization: str = "mean_std", variance_epsilon: float = 1e-5) -> Array:
    """
    Signal strength Omega(p) of a normalisation: the advantages are (1 - p) Omega on success and -p Omega on failure.

    `"mean_std"` is 1/sqrt(p(1 - p) + epsilon) and `"mean"` is 1, both from
    [Mroueh](https://huggingface.co/papers/2503.06639), GRPO's effective loss. `"trl_std"` is TRL's own
    1/(sqrt(p(1 - p)) + 1e-4), in the limit of large groups (derived).

    Args:
        p (array-like):
            Success rates of any shape.
        normalization (`str`, *optional*, defaults to `"mean_std"`):
            `"mean_std"`, `"mean"` or `"trl_std"`.
        variance_epsilon (`float`, *optional*, defaults to `1e-5`):
            Smoothing epsilon of `"mean_std"`, in squared reward units; greater than 0. The others do not use it.

    Returns:
        `np.ndarray`:
            Omega, of the shape of `p`; at most 1/sqrt(epsilon), at p = 0 and p = 1.

    Raises:
        `ValueError`: If an argument is out of range.
    """
    return make_signal(normalization, variance_epsilon).omega(logit(checks.probabilities("p", p)))


def bisect(function: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Zeros, to the last digit, of functions that act entry by entry, and are positive at `low` and not at `high`."""
    low, high = (np.array(end, dtype=np.float64) for end in np.broadcast_arrays(low, high))
    while True:
        middle = low + (high - low) / 2.0
        if np.all((middle <= low) | (middle >= high)):
            return high
        positive = function(middle) > 0.0
        low = np.where(positive, middle, low)
        high = np.where(positive, high, middle)


def _positive_log_odds(variance: float) -> float:
    return 2.0 * math.log((1.0 + math.sqrt(max(0.0, 1.0 - 4.0 * variance))) / 2.0) - math.log(variance)
