# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Choose KL coefficients for a target: the dynamics, inverted."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..checks import check_whole_number
from . import checks
from .limits import FixedPoint, resting_points
from .logodds import Array, logit, sigmoid
from .signal import DEFAULT_ADVANTAGE, Signal, bisect, make_signal
from .step import Step, iterated


# A path is long enough once it is this near its end, in log-odds.
_NEAR = 0.01
_LONGEST_PATH = 50
# Iterations in which a prompt must be certain to settle; slower ones are damped.
_PATIENCE = 300
_HALVINGS = 8
_OUT_OF_REACH = "No coefficient in floating point reaches the target; it is too near what is attainable."


@dataclass(frozen=True)
class Plan:
    """
    Coefficients for a target, and what exact iteration does with them.

    Parameters:
        beta (`float`):
            Coefficient of the KL to the reference, the config's `beta`.
        mirror_beta (`float`):
            Coefficient of the KL to the previous policy, the config's `mirror_beta`.
        path (`np.ndarray`):
            Predicted success of shape `(steps + 1,)`, or `(steps + 1, n)` for several prompts: the given number of
            mirror steps, else until success is within 0.01 of its end in log-odds, at most 50 steps.
        fixed_points (`list[FixedPoint]`):
            Of one prompt: all fixed points. Of several: the one where each prompt should end, in their order.
        stable (`bool`):
            Whether the target is a stable fixed point (of all prompts). A mirror plan passes through its target on the
            way to 1, so it is not.
        reached (`bool`):
            Whether the iteration from `p_ref` is certain to end at the target (all prompts at theirs), or, with mirror
            steps, to be there after them.
        end (`np.ndarray`):
            Success of each prompt at the end, in the shape of `p_ref`; its mean is the target, or the nearest
            that a fold lets the prompts attain.
    """

    beta: float
    mirror_beta: float
    path: Array = field(repr=False)
    fixed_points: list[FixedPoint] = field(repr=False)
    stable: bool
    reached: bool
    end: Array = field(repr=False)


def plan(
    p_ref: Any,
    p_target: float,
    *,
    advantage: Any = DEFAULT_ADVANTAGE,
    advantage_kwargs: Mapping[str, Any] | None = None,
    mirror_steps: int | None = None,
) -> Plan:
    r"""
    Coefficients with which exact iteration takes success from `p_ref` to a target.

    Without `mirror_steps`, a KL to the reference whose fixed point is the target: beta = Omega(p*) / (L* - L_ref), the
    fixed-point equation of [Mroueh](https://huggingface.co/papers/2503.06639) solved for beta (derived). If that alone
    would oscillate or jump past the target, the least `mirror_beta` is added that was found to damp it, which does not
    move the fixed point. A target beyond a fold ([`highest_target`]) is an unstable fixed point whatever the
    coefficients; the plan then says that it is neither stable nor reached.

    With `mirror_steps`, a KL to the previous policy that is at the target after that many iterations and goes on to 1:
    mirror_beta = (sum of Omega(p_k)) / (L_n - L_ref), solved for itself since the p_k depend on it (derived).

    For several prompts one coefficient serves all, and the target is their mean success. As `beta` falls prompts may
    jump one by one over their folds; where the mean jumps over the target, the nearer side is taken.

    Args:
        p_ref (array-like):
            Success of the reference: one number strictly between 0 and 1, or shape `(n,)`.
        p_target (`float`):
            Success to end at, above (the mean of) `p_ref` and below what the prompts can reach.
        advantage (`str`, [`Advantage`] or `Callable`, *optional*, defaults to `"smoothed_std"`):
            As in [`omega`].
        advantage_kwargs (`Mapping[str, Any]`, *optional*):
            As in [`omega`].
        mirror_steps (`int`, *optional*):
            Iterations under a KL to the previous policy alone; if not set, a KL to the reference.

    Returns:
        [`Plan`]:
            Coefficients, predicted path, fixed points and stability.

    Raises:
        `ValueError`: If an argument is out of range or no coefficient can reach the target.
    """
    signal = make_signal(advantage, advantage_kwargs)
    target = float(checks.probability("p_target", p_target))
    prompts = _Prompts.checked(p_ref)
    _check_reachable(prompts.rates, target)
    if check_whole_number("mirror_steps", mirror_steps, optional=True):
        step, ends, reached = _mirror_step(prompts, target, signal, mirror_steps)
    else:
        step, ends, reached = _reference_step(prompts, target, signal)
    steps = mirror_steps or _steps_until_near(step, prompts.references, ends)
    return Plan(
        beta=step.beta,
        mirror_beta=step.mirror_beta,
        path=prompts.each(iterated(prompts.distinct, None, steps, step, step.advance)),
        fixed_points=prompts.fixed_points(step, ends),
        stable=mirror_steps is None and bool((np.abs(step.multiplier(ends)) < 1.0).all()),
        reached=reached,
        end=prompts.each(prompts.success(ends)),
    )


@dataclass(frozen=True)
class _Prompts:
    """Success rates, of which those that repeat, as rates estimated from groups do, are iterated once."""

    rates: Array
    distinct: Array
    places: NDArray[np.intp]

    @classmethod
    def checked(cls, p_ref: Any) -> "_Prompts":
        rates = checks.probabilities("p_ref", p_ref)
        if rates.ndim > 1 or rates.size == 0:
            raise ValueError(f"`p_ref` must be one number or have shape (n,) with n > 0; got {rates.shape}.")
        distinct, places = np.unique(rates, return_inverse=True)
        return cls(rates, distinct, places.ravel())

    @property
    def inner(self) -> NDArray[np.bool_]:
        """Which of the distinct rates can move."""
        return (self.distinct > 0.0) & (self.distinct < 1.0)

    @property
    def references(self) -> Array:
        """Log-odds of the inner rates."""
        return logit(self.distinct[self.inner])

    def success(self, log_odds: Array) -> Array:
        """Success at each distinct rate, from log-odds at the inner ones."""
        success = self.distinct.copy()
        success[self.inner] = sigmoid(log_odds)
        return success

    def mean_success(self, log_odds: Array) -> float:
        weights = np.bincount(self.places) / self.rates.size
        return float(weights @ self.success(log_odds))

    def each(self, values: Array) -> Array:
        """Values `(..., n)` of the prompts from those of the distinct rates."""
        return values[..., self.places].reshape((*values.shape[:-1], *self.rates.shape))

    def fixed_points(self, step: Step, ends: Array) -> list[FixedPoint]:
        """All fixed points of one prompt or of a mirror term; of several prompts those where each should end."""
        if self.rates.ndim == 0 or step.beta == 0.0:
            return resting_points(self.references[0], step)
        points = [FixedPoint(float(p), 0.0, True, float(logit(p))) for p in self.distinct]
        for index, end, multiplier in zip(np.flatnonzero(self.inner), ends, step.multiplier(ends), strict=True):
            points[index] = FixedPoint(float(sigmoid(end)), float(multiplier), bool(abs(multiplier) < 1.0), float(end))
        return [points[place] for place in self.places]


def _check_reachable(rates: Array, target: float) -> None:
    start, ceiling = float(rates.mean()), float((rates > 0.0).mean())
    if rates.ndim == 0:
        if not 0.0 < start < 1.0:
            raise ValueError(
                f"A prompt whose success is {start:g} stays there under any coefficient; `p_ref` must be strictly "
                "between 0 and 1."
            )
        if not start < target < 1.0:
            raise ValueError(
                f"`p_target` must lie above `p_ref` ({start:g}) and below 1, since exact iteration only raises "
                f"success; got {target:g}."
            )
    elif not start < target < ceiling:
        raise ValueError(
            f"`p_target` must lie above the mean of `p_ref` ({start:g}) and below the share of prompts that are ever "
            f"solved ({ceiling:g}), since exact iteration only raises success and never leaves 0; got {target:g}."
        )


def _reference_step(prompts: _Prompts, target: float, signal: Signal) -> tuple[Step, Array, bool]:
    """A step with the KL to the reference, the log-odds at which it should end, and whether it is certain to."""
    references = prompts.references

    def lowest(beta: float) -> Array:
        return np.asarray(np.nanmin(Step(beta, 0.0, signal).roots(references), axis=-1))

    if prompts.rates.ndim == 0:
        ends = logit(target)[None]
        beta = float(signal.omega(ends)[0] / (ends - references)[0])
        if beta == 0.0:
            raise ValueError(_OUT_OF_REACH)
    else:
        # The mean falls in beta, with jumps at folds.
        around = _coefficients_around(target, lowest, prompts)
        beta = min(around, key=lambda beta: abs(prompts.mean_success(lowest(beta)) - target))
        ends = lowest(beta)
    step, reached = _damped(references, ends, beta, signal)
    return step, ends, reached


def _mirror_step(prompts: _Prompts, target: float, signal: Signal, steps: Any) -> tuple[Step, Array, bool]:
    """A step with the KL to the previous policy, the log-odds after so many of it, and whether that is certain."""

    def after(mirror_beta: float) -> Array:
        step, log_odds = Step(0.0, mirror_beta, signal), prompts.references
        for _ in range(steps):
            log_odds = step.advance(log_odds, prompts.references)
        return log_odds

    step = Step(0.0, _coefficients_around(target, after, prompts)[1], signal)
    return step, after(step.mirror_beta), True


def _coefficients_around(target: float, ends: Callable[[float], Array], prompts: _Prompts) -> tuple[float, float]:
    """Neighbouring coefficients at whose ends the mean success is above the target, and is not."""

    def excess(log_coefficient: Any) -> Any:
        return np.asarray(prompts.mean_success(ends(float(np.exp(log_coefficient)))) - target)

    high = 0.0
    while excess(high) > 0.0 and high < 600.0:
        high += 2.0
    low = high
    while excess(low) <= 0.0:
        low -= 2.0
        if low < -600.0:
            raise ValueError(_OUT_OF_REACH)
    high = float(bisect(excess, np.asarray(low), np.asarray(high)))
    return float(np.exp(np.nextafter(high, -np.inf))), float(np.exp(high))


def _damped(references: Array, ends: Array, beta: float, signal: Signal) -> tuple[Step, bool]:
    """The least damping with which all prompts are certain to end where they should, and whether there is one."""
    at_ends = max(0.0, -float(signal.slope(ends).min()))
    monotone = max(0.0, -float(signal.least_slope(references, ends).min()))
    alone = Step(beta, 0.0, signal)
    if (alone.multiplier(ends) >= 1.0).any():
        return alone, False
    roots = alone.roots(references)
    # From `at_ends` on no multiplier is negative; with `monotone` no prompt can jump over its lowest fixed point.
    ladder = {max(at_ends, monotone / 2**halvings) for halvings in range(_HALVINGS)}
    for mirror_beta in (0.0, *sorted(ladder)):
        step = Step(beta, mirror_beta, signal)
        settled, _ = step.settle(references, references, roots, _PATIENCE)
        if np.isclose(settled, ends, rtol=1e-6, atol=1e-6).all():
            return step, True
    return alone, False


def _steps_until_near(step: Step, references: Array, ends: Array) -> int:
    current = references
    for count in range(1, _LONGEST_PATH):
        current = step.advance(current, references)
        if np.isclose(current, ends, rtol=0.0, atol=_NEAR).all():
            return count
    return _LONGEST_PATH
