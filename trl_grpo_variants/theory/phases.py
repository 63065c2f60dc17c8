# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Where the behaviour of the iterations changes: folds, at which fixed points appear in pairs, and oscillation."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..checks import check_number
from . import checks
from .logodds import logit, sigmoid
from .signal import DEFAULT_ADVANTAGE, Signal, bisect, make_signal


@dataclass(frozen=True)
class PhaseBoundaries:
    """
    Intervals of the reference's log-odds in which an iteration behaves in a particular way.

    Log-odds, because a small `beta` puts them where success rates underflow; `theory.sigmoid` turns them into success.

    Parameters:
        three_fixed_points (`tuple[float, float]` or `None`):
            Between these an iteration has three interior fixed points; at the ends two of them merge (folds). Below
            the upper end there is a fixed point short of success ~1, above it none. `None` if nowhere.
        oscillation (`tuple[float, float]` or `None`):
            Between these the lowest fixed point is unstable and the iteration oscillates around it. `None` if nowhere.
    """

    three_fixed_points: tuple[float, float] | None
    oscillation: tuple[float, float] | None


def phase_boundaries(beta: float, *, mirror_beta: float = 0.0, variance_epsilon: float = 0.0) -> PhaseBoundaries:
    r"""
    Phase boundaries of mean + variance normalisation under a KL to the reference; derived.

    [Mroueh](https://huggingface.co/papers/2503.06639) observes the sharp transition without explaining it. In the
    limit epsilon to 0, Omega is 2 cosh(L/2) and the boundaries have closed forms: interior fixed points exist for

        L_ref < 2 asinh(b) - (2/b) sqrt(1 + b^2),    b = beta,

    and the lowest loses stability for L_ref < -2 asinh(k) - (2/b) sqrt(1 + k^2) with k = b + 2 mirror_beta. For
    epsilon > 0 both intervals have a lower end too, and are found where the slope of Omega equals b and k. Mean-only
    has no boundaries: its fixed point is unique and stable.

    Args:
        beta (`float`):
            Coefficient of the KL to the reference, greater than 0.
        mirror_beta (`float`, *optional*, defaults to `0.0`):
            Coefficient of the KL to the previous policy. It moves oscillation, never the folds.
        variance_epsilon (`float`, *optional*, defaults to `0.0`):
            Smoothing of the variance; 0 gives the closed forms.

    Returns:
        [`PhaseBoundaries`]:
            Intervals of L_ref, in nats.

    Raises:
        `ValueError`: If an argument is out of range.
    """
    b = check_number("beta", beta, greater_than=0.0)
    k = b + 2.0 * check_number("mirror_beta", mirror_beta, at_least=0.0)
    if check_number("variance_epsilon", variance_epsilon, at_least=0.0) == 0.0:
        fold = 2.0 * math.asinh(b) - 2.0 * math.hypot(1.0, b) / b
        onset = -2.0 * math.asinh(k) - 2.0 * math.hypot(1.0, k) / b
        return PhaseBoundaries((-math.inf, fold), (-math.inf, onset))
    signal = make_signal(DEFAULT_ADVANTAGE, {"reward_variance_epsilon": variance_epsilon})
    # The slope is odd in L, and for L > 0 it rises to one peak and falls back to 0.
    (folds, _), (onsets, _) = signal.turning_points(b), signal.turning_points(k)
    return PhaseBoundaries(
        (_reference_of(folds[1], b, signal), _reference_of(folds[0], b, signal)) if len(folds) else None,
        (_reference_of(-onsets[1], b, signal), _reference_of(-onsets[0], b, signal)) if len(onsets) else None,
    )


def highest_target(
    p_ref: float, *, advantage: Any = DEFAULT_ADVANTAGE, advantage_kwargs: Mapping[str, Any] | None = None
) -> float:
    r"""
    Highest success at which a KL to the reference can hold a prompt before success jumps up.

    As `beta` falls the lowest fixed point rises until it meets a fold, where (L - L_ref) dOmega/dL = Omega; derived.
    The targets between this and the far side of the fold are fixed points too, but unstable ones for every `beta`, and
    no `mirror_beta` changes that. The limit for epsilon to 0 solves (L - L_ref) tanh(L/2) = 2.

    Args:
        p_ref (`float`):
            Success of the reference, strictly between 0 and 1.
        advantage (`str`, [`Advantage`] or `Callable`, *optional*, defaults to `"smoothed_std"`):
            As in [`omega`].
        advantage_kwargs (`Mapping[str, Any]`, *optional*):
            As in [`omega`].

    Returns:
        `float`:
            Success; 1 where there is no fold: an Omega that is constant or falls with success, or a `p_ref` close to 1.

    Raises:
        `ValueError`: If an argument is out of range.
    """
    rate = checks.probabilities("p_ref", p_ref)
    if rate.ndim != 0 or not 0.0 < rate < 1.0:
        raise ValueError(f"`p_ref` must be one number strictly between 0 and 1; got {p_ref!r}.")
    signal, reference = make_signal(advantage, advantage_kwargs), logit(rate)

    def turn(x: np.ndarray) -> np.ndarray:
        return np.asarray(signal.omega(x) - (x - reference) * signal.slope(x))

    # Monotone between neighbouring nodes, as the slope is.
    nodes = np.append(reference, signal.nodes[signal.nodes > reference])
    beyond = np.flatnonzero(turn(nodes) <= 0.0)
    if beyond.size == 0:
        return 1.0
    return float(sigmoid(bisect(turn, nodes[beyond[0] - 1], nodes[beyond[0]])))


def _reference_of(fixed_point: float, beta: float, signal: Signal) -> float:
    return fixed_point - float(signal.omega(np.asarray(fixed_point))) / beta
