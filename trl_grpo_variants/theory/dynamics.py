# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Success under exact iteration, prompt by prompt: the recurrence, where it rests, and where it does not.

[Mroueh](https://huggingface.co/papers/2503.06639) analyses policies that maximise the regularised objective exactly in
every iteration. In log-odds L of the success p, from pi_0 = pi_ref,

    (beta + mirror_beta) L_n = beta L_ref + mirror_beta L_{n-1} + Omega(p_{n-1}).

This one line holds all cells of his grid; that the Renyi correction of his two-KL theorem vanishes is derived. No
clip, no sampling, no function approximation: see [`clipped_step`] and [`group_omega`] for the first two.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..checks import check_whole_number
from . import checks
from .groups import group_omega_at
from .logodds import Array, logit, sigmoid
from .signal import Signal, bisect, signal


LONGEST_PERIOD = 64
# Of 384 iterations each.
_ROUNDS = 12
# A root search ends here instead of overflowing; success is 1 to the last digit long before.
_HIGHEST_LOG_ODDS = 1e300


@dataclass(frozen=True)
class FixedPoint:
    """
    A success rate that an iteration leaves unchanged.

    Parameters:
        p (`float`):
            Success rate.
        multiplier (`float`):
            Derivative of the map there: the factor by which a small distance changes in one iteration. It is the same
            in probability and, at interior points, in log-odds.
        stable (`bool`):
            Whether the multiplier lies strictly between -1 and 1, so that nearby iterations converge to the point.
        log_odds (`float`):
            The point in log-odds, which tells success rates apart that round to 1.
    """

    p: float
    multiplier: float
    stable: bool
    log_odds: float


@dataclass(frozen=True)
class Limit:
    """
    What an iteration does in the long run.

    Parameters:
        kind (`str`):
            `"fixed point"`, `"cycle"`, `"absorbed"` (at 0 or 1, which it cannot leave), or `"aperiodic"` (in thousands
            of iterations it approaches no point and no cycle of up to 64 iterations).
        period (`int` or `None`):
            Iterations until the same success returns; 1 for a fixed point, `None` if aperiodic.
        points (`tuple[float, ...]`):
            The success rates visited, one period in order from the lowest; if aperiodic, the last 64.
    """

    kind: Literal["fixed point", "cycle", "absorbed", "aperiodic"]
    period: int | None
    points: tuple[float, ...]


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
    return signal(normalization, variance_epsilon).omega(logit(checks.probabilities("p", p)))


def success_step(
    p_prev: Any,
    p_ref: Any,
    *,
    beta: float = 0.0,
    mirror_beta: float = 0.0,
    normalization: str = "mean_std",
    variance_epsilon: float = 1e-5,
    num_generations: int | None = None,
) -> Array:
    """
    Success p_n of the policy that maximises the regularised objective built on a policy of success p_{n-1}.

    [Mroueh](https://huggingface.co/papers/2503.06639), success recurrences of the reference, mirror and two-KL
    theorems in logit form, without the Renyi correction (derived to vanish from pi_0 = pi_ref). The anchor's 0 and 1
    are absorbing: whatever a KL term's anchor never or always solves stays so. With the reference alone a `p_prev` of
    0 or 1 is not absorbing, since its policy is no anchor.

    Args:
        p_prev (array-like):
            Success of the previous policy, any shape.
        p_ref (array-like):
            Success of the reference, broadcasting against `p_prev`. A mirror term alone does not use it.
        beta (`float`, *optional*, defaults to `0.0`):
            Coefficient of the KL to the reference; in the paper's letters alpha beta.
        mirror_beta (`float`, *optional*, defaults to `0.0`):
            Coefficient of the KL to the previous policy; in the paper's letters (1 - alpha) beta.
        normalization (`str`, *optional*, defaults to `"mean_std"`):
            As in [`omega`].
        variance_epsilon (`float`, *optional*, defaults to `1e-5`):
            As in [`omega`].
        num_generations (`int`, *optional*):
            If set, Omega is [`group_omega`] of this group size: the mean step to first order, with sampled groups.

    Returns:
        `np.ndarray`:
            p_n, of the broadcast shape.

    Raises:
        `ValueError`: If an argument is out of range, both coefficients are 0, or two anchors have no policy in common.
    """
    step = Step.checked(beta, mirror_beta, normalization, variance_epsilon)
    _check_group_size(num_generations)
    reference, previous = anchors(p_ref, p_prev, step, previous="p_prev")
    return sigmoid(step.advance(previous, reference, num_generations))


def success_path(
    p_ref: Any,
    steps: int,
    *,
    beta: float = 0.0,
    mirror_beta: float = 0.0,
    normalization: str = "mean_std",
    variance_epsilon: float = 1e-5,
    p_start: Any = None,
    num_generations: int | None = None,
) -> Array:
    """
    Success p_0, ..., p_n under exact iteration. See [`success_step`] for the source and the absorbing ends.

    Args:
        p_ref (array-like):
            Success of the reference, any shape.
        steps (`int`):
            Iterations n, at least 0.
        beta (`float`, *optional*, defaults to `0.0`):
            As in [`success_step`].
        mirror_beta (`float`, *optional*, defaults to `0.0`):
            As in [`success_step`].
        normalization (`str`, *optional*, defaults to `"mean_std"`):
            As in [`omega`].
        variance_epsilon (`float`, *optional*, defaults to `1e-5`):
            As in [`omega`].
        p_start (array-like, *optional*):
            Success p_0, broadcasting against `p_ref`. If not set, that of the reference.
        num_generations (`int`, *optional*):
            As in [`success_step`].

    Returns:
        `np.ndarray`:
            Success of shape `(steps + 1, ...)`; the log-odds behind it do not saturate where it rounds to 1.

    Raises:
        `ValueError`: As [`success_step`].
    """
    check_whole_number("steps", steps, at_least=0)
    step = Step.checked(beta, mirror_beta, normalization, variance_epsilon)
    _check_group_size(num_generations)
    reference, previous = anchors(p_ref, p_ref if p_start is None else p_start, step)
    path = [previous]
    for _ in range(steps):
        path.append(step.advance(path[-1], reference, num_generations))
    success = sigmoid(np.stack(path))
    # As given, without the rounding of a way there and back.
    success[0] = p_ref if p_start is None else p_start
    return success


def fixed_points(
    p_ref: float,
    *,
    beta: float = 0.0,
    mirror_beta: float = 0.0,
    normalization: str = "mean_std",
    variance_epsilon: float = 1e-5,
) -> list[FixedPoint]:
    """
    All success rates at which an iteration rests, with their stability.

    [Mroueh](https://huggingface.co/papers/2503.06639), fixed-point theorems, and for two KLs derived: `beta` alone
    decides where they are, L* = L_ref + Omega(p*) / beta, and `mirror_beta` how the iteration approaches them. One
    root lies between consecutive turning points of L_ref + Omega(L)/beta - L, which are found first, so that none is
    missed however close two of them are. There are one to three.

    Args:
        p_ref (`float`):
            Success of the reference; a mirror term alone does not use it.
        beta (`float`, *optional*, defaults to `0.0`):
            As in [`success_step`].
        mirror_beta (`float`, *optional*, defaults to `0.0`):
            As in [`success_step`].
        normalization (`str`, *optional*, defaults to `"mean_std"`):
            As in [`omega`].
        variance_epsilon (`float`, *optional*, defaults to `1e-5`):
            As in [`omega`].

    Returns:
        `list[FixedPoint]`:
            Fixed points in ascending order. With a mirror term alone: 0 and 1. With the reference: those that an
            iteration started from `p_ref` can meet, which is `p_ref` itself if it is 0 or 1, and else interior points,
            although the highest may round to 1. (Under two KLs a start at 0 or 1 stays there as well.)

    Raises:
        `ValueError`: If an argument is out of range or both coefficients are 0.
    """
    step = Step.checked(beta, mirror_beta, normalization, variance_epsilon)
    reference = logit(_single("p_ref", p_ref))
    if step.beta == 0.0:
        # 1 - p_n = (1 - p_{n-1}) exp(-Omega/beta) to first order at 1, and p_n = p_{n-1} exp(Omega/beta) at 0.
        with np.errstate(over="ignore"):
            growth = float(np.exp(np.float64(step.signal.largest) / step.mirror_beta))
        return [FixedPoint(0.0, growth, False, -np.inf), FixedPoint(1.0, 1.0 / growth, growth > 1.0, np.inf)]
    if np.isinf(reference):
        # The map is constant: no anchor leaves this end.
        return [FixedPoint(float(sigmoid(reference)), 0.0, True, float(reference))]
    roots = step.roots(reference[None])[0]
    return [
        FixedPoint(float(sigmoid(root)), float(multiplier), bool(abs(multiplier) < 1.0), float(root))
        for root, multiplier in zip(roots, step.multiplier(roots), strict=True)
        if not np.isnan(root)
    ]


def limit(
    p_ref: float,
    *,
    beta: float = 0.0,
    mirror_beta: float = 0.0,
    normalization: str = "mean_std",
    variance_epsilon: float = 1e-5,
    p_start: float | None = None,
) -> Limit:
    """
    Where an iteration ends: at a fixed point, in a cycle, absorbed at 0 or 1, or nowhere.

    Convergence is reported if it is certain (the map rises on the way to the next fixed point), and else, like a
    cycle, if the iteration approaches an orbit that returns to itself to within rounding and is stable; derived, for
    the iterations of [Mroueh](https://huggingface.co/papers/2503.06639), whose convergence result is local.

    Args:
        p_ref (`float`):
            Success of the reference.
        beta (`float`, *optional*, defaults to `0.0`):
            As in [`success_step`].
        mirror_beta (`float`, *optional*, defaults to `0.0`):
            As in [`success_step`].
        normalization (`str`, *optional*, defaults to `"mean_std"`):
            As in [`omega`].
        variance_epsilon (`float`, *optional*, defaults to `1e-5`):
            As in [`omega`].
        p_start (`float`, *optional*):
            Success p_0; if not set, that of the reference. The end depends on it.

    Returns:
        [`Limit`]:
            Kind, period and the success rates visited.

    Raises:
        `ValueError`: As [`success_step`].
    """
    step = Step.checked(beta, mirror_beta, normalization, variance_epsilon)
    start = _single("p_start", p_ref if p_start is None else p_start)
    reference, current = anchors(_single("p_ref", p_ref)[None], start[None], step)
    if step.mirror_beta > 0.0 and np.isinf(current[0]):
        return Limit("absorbed", 1, (float(sigmoid(current[0])),))
    if step.beta == 0.0:
        return Limit("absorbed", 1, (1.0,))
    if np.isinf(reference[0]):
        return Limit("absorbed", 1, (float(sigmoid(reference[0])),))
    roots = step.roots(reference)
    orbit = [float(current[0])]
    for _ in range(_ROUNDS):
        settled, current = step.settle(current, reference, roots, 256)
        if not np.isnan(settled[0]):
            return Limit("fixed point", 1, (float(sigmoid(settled[0])),))
        orbit = [float(current[0])]
        for _ in range(2 * LONGEST_PERIOD):
            current = step.advance(current, reference)
            orbit.append(float(current[0]))
        found = _stable_orbit(orbit, reference, step)
        if found is not None:
            points = [float(point) for point in sigmoid(found)]
            first = points.index(min(points))
            kind: Literal["fixed point", "cycle"] = "fixed point" if len(points) == 1 else "cycle"
            return Limit(kind, len(points), tuple(points[first:] + points[:first]))
    return Limit("aperiodic", None, tuple(float(point) for point in sigmoid(np.array(orbit[-LONGEST_PERIOD:]))))


@dataclass(frozen=True)
class Step:
    """One iteration as a map of log-odds: coefficients that were checked, and a signal."""

    beta: float
    mirror_beta: float
    signal: Signal

    @classmethod
    def checked(cls, beta: Any, mirror_beta: Any, normalization: Any, variance_epsilon: Any) -> "Step":
        return cls(*checks.coefficients(beta, mirror_beta), signal(normalization, variance_epsilon))

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
        """Derivative of the map at a fixed point."""
        return np.asarray((self.mirror_beta + self.signal.slope(log_odds)) / (self.beta + self.mirror_beta))

    def lowest_root(self, reference: Array) -> Array:
        """The lowest interior fixed point for each finite log-odds of a reference; needs beta > 0."""
        return np.asarray(np.nanmin(self.roots(reference), axis=-1))

    def roots(self, reference: Array) -> Array:
        """
        All interior fixed points for finite log-odds of the reference of shape (n,): shape (n, 3), ascending, with NaN
        in place of those that do not exist. Needs beta > 0.
        """

        def gap(x: Array) -> Array:
            return reference + self.signal.omega(x) / self.beta - x

        with np.errstate(over="ignore"):
            highest = np.minimum(reference + np.float64(self.signal.largest) / self.beta, _HIGHEST_LOG_ODDS)
            turning_points = self.signal.turning_points(self.beta)
            if turning_points is None:
                only = bisect(gap, reference, highest)
                return np.stack([only, np.full_like(only, np.nan), np.full_like(only, np.nan)], axis=-1)
            # The gap falls up to `lower`, rises up to `upper`, and falls again.
            lower, upper = (np.asarray(point) for point in turning_points)
            at_lower, at_upper = gap(lower), gap(upper)
            first = bisect(gap, reference, np.maximum(reference, lower))
            second = bisect(lambda x: -gap(x), lower, upper)
            third = bisect(gap, np.maximum(reference, upper), np.maximum(highest, upper))
        found = np.stack(
            [
                np.where(at_lower <= 0.0, first, np.nan),
                np.where((at_lower < 0.0) & (at_upper >= 0.0), second, np.nan),
                np.where(at_upper > 0.0, third, np.nan),
            ],
            axis=-1,
        )
        return np.sort(found, axis=-1)

    def settle(self, current: Array, reference: Array, roots: Array, steps: int) -> tuple[Array, Array]:
        """
        Iterate prompts until it is certain where each of them ends.

        Args:
            current (`np.ndarray`):
                Log-odds of shape `(n,)`.
            reference (`np.ndarray`):
                Finite log-odds of the reference, of shape `(n,)`.
            roots (`np.ndarray`):
                Their fixed points, as [`roots`] gives them.
            steps (`int`):
                Iterations after which to give up.

        Returns:
            `tuple[np.ndarray, np.ndarray]`:
                The log-odds of the fixed point where each prompt ends, NaN if that is not certain, and the log-odds
                that were reached, both of shape `(n,)`.
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
        close = (np.abs(here - roots) <= 1e-9 * (1.0 + np.abs(roots))) & (np.abs(self.multiplier(roots)) < 1.0)
        arrived = np.where(close, roots, -np.inf).max(axis=-1)
        # A map that rises between the iteration and the next fixed point cannot jump over it.
        next_above = np.where(roots >= here, roots, np.inf).min(axis=-1)
        next_below = np.where(roots <= here, roots, -np.inf).max(axis=-1)
        ahead = np.where(self.advance(current, reference) > current, next_above, next_below)
        rises = self.signal.least_slope(np.minimum(current, ahead), np.maximum(current, ahead)) >= -self.mirror_beta
        ahead = np.where(rises & np.isfinite(ahead) & np.isfinite(current), ahead, np.nan)
        return np.where(np.isfinite(arrived), arrived, ahead)


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


def _check_group_size(num_generations: Any) -> None:
    if num_generations is not None:
        check_whole_number("num_generations", num_generations, at_least=2)


def _single(name: str, value: Any) -> Array:
    array = checks.probabilities(name, value)
    if array.ndim != 0:
        raise ValueError(f"`{name}` must be one number; got an array of shape {array.shape}.")
    return array


def _stable_orbit(orbit: list[float], reference: Array, step: Step) -> Array | None:
    """The stable fixed point or cycle that an orbit approaches, as log-odds of shape (period,); None if neither."""
    last = orbit[-1]
    scale = 1.0 + abs(last)
    for period in range(1, LONGEST_PERIOD + 1):
        earlier = orbit[-1 - period]
        if abs(last - earlier) > 1e-3 * scale:
            continue
        # Newton's method on the map repeated `period` times: slow convergence to a shorter cycle ends in that one.
        point, change = last, np.inf
        while abs(change) > 1e-13 * scale and abs(point - last) <= 0.1 * scale:
            points, factor = _follow(point, period, reference, step)
            if factor == 1.0 or abs(points[-1] - point) >= abs(change):
                break
            change = points[-1] - point
            point += change / (1.0 - factor)
        points, factor = _follow(point, period, reference, step)
        returns = abs(points[-1] - point) <= 1e-9 * scale
        approaches = abs(last - point) <= abs(earlier - point) + 1e-12 * scale
        if returns and approaches and abs(factor) < 1.0:
            shortest = next(k for k in range(1, period + 1) if abs(points[k] - point) <= 1e-7 * scale)
            return np.array(points[:shortest])
    return None


def _follow(point: float, steps: int, reference: Array, step: Step) -> tuple[list[float], float]:
    """The points of an orbit, both ends included, and the derivative over all steps."""
    points, factor = [point], 1.0
    for _ in range(steps):
        here = np.array([points[-1]])
        factor *= float(step.multiplier(here)[0])
        points.append(float(step.advance(here, reference)[0]))
    return points, factor
