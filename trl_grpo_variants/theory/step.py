# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""One exact iteration, as a map of log-odds."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ..checks import check_whole_number
from . import checks
from .groups import group_omega_at
from .logodds import Array, logit, sigmoid
from .signal import Signal, bisect, make_signal


# A root search ends here instead of overflowing; success is 1 to the last digit long before.
_HIGHEST_LOG_ODDS = 1e300
# From here on failure is 0 in floating point, and Omega what it is at success 1.
_SURE = 800.0


@dataclass(frozen=True)
class Step:
    """One iteration as a map of log-odds: coefficients that were checked, and a signal."""

    beta: float
    mirror_beta: float
    signal: Signal

    @classmethod
    def checked(cls, beta: Any, mirror_beta: Any, advantage: Any, advantage_kwargs: Any) -> "Step":
        return cls(*checks.coefficients(beta, mirror_beta), make_signal(advantage, advantage_kwargs))

    def anchor(self, previous: Array, reference: Array) -> Array:
        """Log-odds of the normalised geometric mean of the anchors: NaN if they have no policy in common."""
        weight = self.beta / (self.beta + self.mirror_beta)
        # A weight of 0 removes an infinite log-odds, which a product would turn into NaN.
        if weight == 1.0:
            return np.broadcast_to(reference, np.broadcast_shapes(previous.shape, reference.shape))
        if weight == 0.0:
            return np.broadcast_to(previous, np.broadcast_shapes(previous.shape, reference.shape))
        with np.errstate(invalid="ignore"):
            return np.asarray(weight * reference + (1.0 - weight) * previous)

    def advance(self, previous: Array, reference: Array, num_generations: int | None = None) -> Array:
        """Log-odds after one iteration."""
        if num_generations is None:
            omegas = self.signal.omega(previous)
        else:
            omegas = group_omega_at(previous, num_generations, self.signal)
        return self.shifted(self.anchor(previous, reference), omegas)

    def shifted(self, anchor: Array, advantage: Array) -> Array:
        """Log-odds after the odds of an anchor were multiplied by exp(advantage / (beta + mirror_beta))."""
        with np.errstate(over="ignore", invalid="ignore"):
            raised = anchor + advantage / (self.beta + self.mirror_beta)
        return np.where(np.isneginf(anchor), -np.inf, raised)

    def multiplier(self, log_odds: Array) -> Array:
        """Derivative of the map at a fixed point; 0 at success 1, which is one where Omega is infinite there."""
        factor = (self.mirror_beta + self.signal.slope(log_odds)) / (self.beta + self.mirror_beta)
        return np.where(np.isposinf(log_odds), 0.0, factor)

    def roots(self, reference: Array) -> Array:
        """
        Fixed points (n, k) for finite log-odds (n,) of a reference, ascending, inf for success 1, NaN for none; beta > 0.
        """

        def gap(x: Array, sign: float = 1.0) -> Array:
            with np.errstate(over="ignore"):
                return np.asarray(sign * (reference + self.signal.omega(x) / self.beta - x))

        # Between turning points the gap falls or rises, in turn, and has one zero if its ends differ in sign.
        turning_points, rises = self.signal.turning_points(self.beta)
        low, found = reference, []
        for end in (*turning_points, None):
            high = self._bound(reference, low) if end is None else np.maximum(reference, end)
            at_low, at_high = gap(low), gap(high)
            crosses = (at_low < 0.0) & (at_high > 0.0) if rises else (at_low >= 0.0) & (at_high <= 0.0)
            zeros = bisect(partial(gap, sign=-1.0 if rises else 1.0), low, high)
            found.append(np.where(crosses & (low < high), zeros, np.nan))
            low, rises = high, not rises
        found.append(np.where(at_high > 0.0, np.inf, np.nan))
        return np.sort(np.stack(found, axis=-1), axis=-1)

    def _bound(self, reference: Array, low: Array) -> Array:
        """Log-odds above all fixed points that are above `low`, unless success 1 is one."""
        largest = self.signal.largest_from(low)
        with np.errstate(over="ignore"):
            highest = np.minimum(reference + largest / self.beta * (1.0 + 1e-9) + 1.0, _HIGHEST_LOG_ODDS)
        return np.maximum(low, np.where(np.isinf(largest), _SURE, highest))

    def settle(self, current: Array, reference: Array, roots: Array, steps: int) -> tuple[Array, Array]:
        """
        Iterate prompts, from log-odds `(n,)`, until it is certain where each of them ends, or for so many steps.

        Returns the log-odds of the fixed point where each ends, NaN if that is not certain, and those reached.
        """
        settled = self._certain_limit(current, reference, roots)
        for count in range(1, steps + 1):
            if not np.isnan(settled).any():
                break
            current = self.advance(current, reference)
            if count % 8 == 0 or count < 8:
                settled = np.where(np.isnan(settled), self._certain_limit(current, reference, roots), settled)
        return settled, current

    def _certain_limit(self, current: Array, reference: Array, roots: Array) -> Array:
        here = current[:, None]
        with np.errstate(invalid="ignore"):
            close = (np.abs(here - roots) <= 1e-9 * (1.0 + np.abs(roots))) & np.isfinite(roots) | (here == roots)
        arrived = np.where(close & (np.abs(self.multiplier(roots)) < 1.0), roots, -np.inf).max(axis=-1)
        # A map that rises between the iteration and the next fixed point cannot jump over it.
        next_above = np.where(roots >= here, roots, np.inf).min(axis=-1)
        next_below = np.where(roots <= here, roots, -np.inf).max(axis=-1)
        ahead = np.where(self.advance(current, reference) > current, next_above, next_below)
        rises = self.signal.least_slope(np.minimum(current, ahead), np.maximum(current, ahead)) >= -self.mirror_beta
        is_fixed = (ahead[:, None] == roots).any(axis=-1)
        ahead = np.where(rises & is_fixed & np.isfinite(current), ahead, np.nan)
        return np.where(np.isneginf(arrived), ahead, arrived)


def anchors(p_ref: Any, p_prev: Any, step: Step, previous: str = "p_start") -> tuple[Array, Array]:
    """Log-odds of the reference and of the previous policy, in their broadcast shape, if an iteration is defined."""
    rates = {"p_ref": checks.probabilities("p_ref", p_ref), previous: checks.probabilities(previous, p_prev)}
    checks.same_shape(**rates)
    at_reference, at_previous = np.broadcast_arrays(*(logit(rate) for rate in rates.values()))
    if np.isnan(step.anchor(at_previous, at_reference)).any():
        raise ValueError(
            "A prompt that one anchor always solves and the other never leaves no policy near both: its success is 0 "
            f"in one of `p_ref` and `{previous}` and 1 in the other."
        )
    return at_reference, at_previous


def iterated(p_ref: Any, p_start: Any, steps: int, step: Step, advance: Callable[[Array, Array], Array]) -> Array:
    """Success p_0, ..., p_n, where a map takes the previous and the reference's log-odds to the next."""
    check_whole_number("steps", steps, at_least=0)
    start = p_ref if p_start is None else p_start
    reference, previous = anchors(p_ref, start, step)
    path = [previous]
    for _ in range(steps):
        path.append(advance(path[-1], reference))
    success = sigmoid(np.stack(path))
    # As given, without the rounding of a way there and back.
    success[0] = start
    return success
