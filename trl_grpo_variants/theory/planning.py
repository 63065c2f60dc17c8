# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Choose KL coefficients for a target: the dynamics, inverted."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..checks import check_whole_number
from . import checks
from .dynamics import FixedPoint, Step, fixed_points, success_path
from .logodds import Array, logit, sigmoid
from .signal import Signal, signal


# A path is long enough once it is this near its end, in log-odds.
_NEAR = 0.01
_LONGEST_PATH = 50
# Iterations in which a prompt must be certain to settle; slower ones are damped.
_PATIENCE = 300
_HALVINGS = 8


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
    normalization: str = "mean_std",
    variance_epsilon: float = 1e-5,
    mirror_steps: int | None = None,
) -> Plan:
    r"""
    Coefficients with which exact iteration takes success from `p_ref` to a target.

    Without `mirror_steps`, a KL to the reference whose fixed point is the target: beta = Omega(p*) / (L* - L_ref), the
    fixed-point equation of [Mroueh](https://huggingface.co/papers/2503.06639) solved for beta (derived). If that alone
    would oscillate or jump past the target, a `mirror_beta` is added, which damps without moving the fixed point: the
    least that was found to be enough among those with which success does not end in an oscillation. A target beyond a
    fold ([`highest_target`]) is an unstable fixed point whatever the coefficients; the plan then says that it is
    neither stable nor reached.

    With `mirror_steps`, a KL to the previous policy that is at the target after that many iterations and goes on to 1:
    mirror_beta = (sum of Omega(p_k)) / (L_n - L_ref), solved for itself since the p_k depend on it (derived).

    For several prompts one coefficient serves all, and the target is their mean success. Prompts at 0 and 1 stay
    there. As `beta` falls prompts may jump one by one over their folds; where the mean jumps over the target, the
    nearer side is taken.

    Args:
        p_ref (array-like):
            Success of the reference: one number strictly between 0 and 1, or shape `(n,)`.
        p_target (`float`):
            Success to end at, above (the mean of) `p_ref` and below what the prompts can reach.
        normalization (`str`, *optional*, defaults to `"mean_std"`):
            As in [`omega`].
        variance_epsilon (`float`, *optional*, defaults to `1e-5`):
            As in [`omega`].
        mirror_steps (`int`, *optional*):
            Iterations under a KL to the previous policy alone; if not set, a KL to the reference.

    Returns:
        [`Plan`]:
            Coefficients, predicted path, fixed points and stability.

    Raises:
        `ValueError`: If an argument is out of range or no coefficient can reach the target.
    """
    of = signal(normalization, variance_epsilon)
    rates = checks.probabilities("p_ref", p_ref)
    target = float(_scalar_target(p_target))
    if rates.ndim > 1 or rates.size == 0:
        raise ValueError(f"`p_ref` must be one number or have shape (n,) with n > 0; got {rates.shape}.")
    _check_reachable(rates, target)
    # Rates estimated from groups repeat: each of them is iterated once.
    distinct, where = np.unique(rates, return_inverse=True)
    weights = np.bincount(where.ravel()) / rates.size
    inner = (distinct > 0.0) & (distinct < 1.0)
    references = logit(distinct[inner])

    def mean_success(log_odds: Array) -> float:
        success = distinct.copy()
        success[inner] = sigmoid(log_odds)
        return float(weights @ success)

    if mirror_steps is not None:
        check_whole_number("mirror_steps", mirror_steps, at_least=1)
        step = Step(0.0, _mirror_beta(references, mean_success, target, mirror_steps, of), of)
        ends, multipliers, reached = _after(mirror_steps, step, references), None, True
    else:
        if rates.ndim == 0:
            ends = logit(target)[None]
            beta = float(of.omega(ends)[0] / (ends - references)[0])
        else:
            beta = _reference_beta(references, mean_success, target, of)
            ends = Step(beta, 0.0, of).lowest_root(references)
        step, reached = _damped(references, ends, beta, of)
        multipliers = step.multiplier(ends)

    settings: dict[str, Any] = {
        "beta": step.beta,
        "mirror_beta": step.mirror_beta,
        "normalization": normalization,
        "variance_epsilon": variance_epsilon,
    }
    success = distinct.copy()
    success[inner] = sigmoid(ends)
    path = success_path(distinct, mirror_steps or _steps_until_near(step, references, ends), **settings)
    if rates.ndim == 0 or multipliers is None:
        points = fixed_points(float(distinct[inner][0]), **settings)
    else:
        each = [FixedPoint(float(p), 0.0, True, float(logit(p))) for p in distinct]
        for index, end, multiplier in zip(np.flatnonzero(inner), ends, multipliers, strict=True):
            each[index] = FixedPoint(float(sigmoid(end)), float(multiplier), bool(abs(multiplier) < 1.0), float(end))
        points = [each[index] for index in where.ravel()]
    return Plan(
        beta=step.beta,
        mirror_beta=step.mirror_beta,
        path=path[:, where].reshape(len(path), *rates.shape),
        fixed_points=points,
        stable=multipliers is not None and bool((np.abs(multipliers) < 1.0).all()),
        reached=reached,
        end=success[where].reshape(rates.shape),
    )


def _scalar_target(p_target: Any) -> Array:
    target = checks.probabilities("p_target", p_target)
    if target.ndim != 0:
        raise ValueError(f"`p_target` must be one number; got an array of shape {target.shape}.")
    return target


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


def _reference_beta(references: Array, mean_success: Callable[[Array], float], target: float, of: Signal) -> float:
    """The beta whose lowest fixed points have the target as mean, which falls in beta, with jumps at folds."""

    def excess(log_beta: float) -> float:
        return mean_success(Step(float(np.exp(log_beta)), 0.0, of).lowest_root(references)) - target

    above, below = _falling_sign_change(excess)
    return float(np.exp(above if abs(excess(above)) <= abs(excess(below)) else below))


def _mirror_beta(
    references: Array, mean_success: Callable[[Array], float], target: float, steps: int, of: Signal
) -> float:
    """A mirror_beta with which the mean success after the steps is the target."""

    def excess(log_beta: float) -> float:
        return mean_success(_after(steps, Step(0.0, float(np.exp(log_beta)), of), references)) - target

    return float(np.exp(_falling_sign_change(excess)[1]))


def _falling_sign_change(excess: Callable[[float], float]) -> tuple[float, float]:
    """Neighbouring floats between which a function of log beta goes from positive to not positive."""
    high = 0.0
    while excess(high) > 0.0 and high < 600.0:
        high += 2.0
    low = high
    while excess(low) <= 0.0:
        low -= 2.0
        if low < -600.0:
            raise ValueError("No coefficient in floating point reaches the target; it is too near what is attainable.")
    while low < (middle := low + (high - low) / 2.0) < high:
        if excess(middle) > 0.0:
            low = middle
        else:
            high = middle
    return low, high


def _damped(references: Array, ends: Array, beta: float, of: Signal) -> tuple[Step, bool]:
    """The least damping with which all prompts are certain to end where they should, and whether there is one."""
    at_ends = max(0.0, -float(of.slope(ends).min()))
    monotone = max(0.0, -float(of.least_slope(references, ends).min()))
    alone = Step(beta, 0.0, of)
    if (alone.multiplier(ends) >= 1.0).any():
        return alone, False
    roots = alone.roots(references)
    # From `at_ends` on no multiplier is negative; with `monotone` no prompt can jump over its lowest fixed point.
    ladder = {max(at_ends, monotone / 2**halvings) for halvings in range(_HALVINGS)}
    for mirror_beta in (0.0, *sorted(ladder)):
        step = Step(beta, mirror_beta, of)
        settled, _ = step.settle(references, references, roots, _PATIENCE)
        if (np.abs(settled - ends) <= 1e-6 * (1.0 + np.abs(ends))).all():
            return step, True
    return alone, False


def _after(steps: int, step: Step, references: Array) -> Array:
    log_odds = references
    for _ in range(steps):
        log_odds = step.advance(log_odds, references)
    return log_odds


def _steps_until_near(step: Step, references: Array, ends: Array) -> int:
    current = references
    for count in range(1, _LONGEST_PATH):
        current = step.advance(current, references)
        if (np.abs(current - ends) <= _NEAR).all():
            return count
    return _LONGEST_PATH
