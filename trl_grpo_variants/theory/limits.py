# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Where exact iteration rests, and what it does in the long run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from . import checks
from .logodds import Array, logit, sigmoid
from .signal import DEFAULT_ADVANTAGE
from .step import Step, anchors


LONGEST_PERIOD = 64
# Of 384 iterations each.
_ROUNDS = 12


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


def fixed_points(
    p_ref: float,
    *,
    beta: float = 0.0,
    mirror_beta: float = 0.0,
    advantage: Any = DEFAULT_ADVANTAGE,
    advantage_kwargs: Mapping[str, Any] | None = None,
) -> list[FixedPoint]:
    """
    All success rates at which an iteration rests, with their stability.

    [Mroueh](https://huggingface.co/papers/2503.06639), fixed-point theorems, and for two KLs derived: `beta` alone
    decides where they are, L* = L_ref + Omega(p*) / beta, and `mirror_beta` how the iteration approaches them. One
    root lies between consecutive turning points of L_ref + Omega(L)/beta - L, which are found first, so that none is
    missed however close two of them are, as long as the turns of Omega's slope are found ([`Signal`] says how). There is
    one where Omega falls with success (MaxRL, RS-GRPO) or is constant, and there are one to three with a standard
    deviation.

    Args:
        p_ref (`float`):
            Success of the reference; a mirror term alone does not use it.
        beta (`float`, *optional*, defaults to `0.0`):
            As in [`success_step`].
        mirror_beta (`float`, *optional*, defaults to `0.0`):
            As in [`success_step`].
        advantage (`str`, [`Advantage`] or `Callable`, *optional*, defaults to `"smoothed_std"`):
            As in [`omega`].
        advantage_kwargs (`Mapping[str, Any]`, *optional*):
            As in [`omega`].

    Returns:
        `list[FixedPoint]`:
            Fixed points in ascending order. With a mirror term alone: 0 and 1. With the reference: those that an
            iteration started from `p_ref` can meet, which is `p_ref` itself if it is 0 or 1, and else interior points,
            although the highest may round to 1, or be 1 where Omega is infinite there. (Under two KLs a start at 0 or 1 stays there as well.)

    Raises:
        `ValueError`: If an argument is out of range or both coefficients are 0.
    """
    step = Step.checked(beta, mirror_beta, advantage, advantage_kwargs)
    return resting_points(logit(checks.probability("p_ref", p_ref)), step)


def resting_points(reference: Array, step: Step) -> list[FixedPoint]:
    """[`fixed_points`] of a step, for one log-odds of the reference."""
    if step.beta == 0.0:
        # 1 - p_n = (1 - p_{n-1}) exp(-Omega/beta) to first order at 1, and p_n = p_{n-1} exp(Omega/beta) at 0.
        with np.errstate(over="ignore"):
            zero, one = np.exp(step.signal.omega(np.array([-np.inf, np.inf])) / step.mirror_beta * [1.0, -1.0])
        return [FixedPoint(0.0, float(zero), False, -np.inf), FixedPoint(1.0, float(one), bool(one < 1.0), np.inf)]
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
    advantage: Any = DEFAULT_ADVANTAGE,
    advantage_kwargs: Mapping[str, Any] | None = None,
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
        advantage (`str`, [`Advantage`] or `Callable`, *optional*, defaults to `"smoothed_std"`):
            As in [`omega`].
        advantage_kwargs (`Mapping[str, Any]`, *optional*):
            As in [`omega`].
        p_start (`float`, *optional*):
            Success p_0; if not set, that of the reference. The end depends on it.

    Returns:
        [`Limit`]:
            Kind, period and the success rates visited.

    Raises:
        `ValueError`: As [`success_step`].
    """
    step = Step.checked(beta, mirror_beta, advantage, advantage_kwargs)
    start = checks.probability("p_start", p_ref if p_start is None else p_start)
    reference, current = anchors(checks.probability("p_ref", p_ref)[None], start[None], step)
    if step.mirror_beta > 0.0 and np.isinf(current[0]):
        return Limit("absorbed", 1, (float(sigmoid(current[0])),))
    if step.beta == 0.0:
        return Limit("absorbed", 1, (1.0,))
    if np.isinf(reference[0]):
        return Limit("absorbed", 1, (float(sigmoid(reference[0])),))
    return _long_run(current, reference, step)


def _long_run(current: Array, reference: Array, step: Step) -> Limit:
    roots = step.roots(reference)
    for _ in range(_ROUNDS):
        settled, current = step.settle(current, reference, roots, 256)
        if not np.isnan(settled[0]):
            return Limit("fixed point", 1, (float(sigmoid(settled[0])),))
        orbit = [float(current[0])]
        for _ in range(2 * LONGEST_PERIOD):
            current = step.advance(current, reference)
            orbit.append(float(current[0]))
        stable = _stable_orbit(orbit, reference, step)
        if stable is not None:
            points = [float(point) for point in sigmoid(stable)]
            first = points.index(min(points))
            kind: Literal["fixed point", "cycle"] = "fixed point" if len(points) == 1 else "cycle"
            return Limit(kind, len(points), tuple(points[first:] + points[:first]))
    return Limit("aperiodic", None, tuple(float(point) for point in sigmoid(np.array(orbit[-LONGEST_PERIOD:]))))


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
