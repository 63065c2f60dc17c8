# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What the clip of the importance ratio leaves of an exact iteration."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..checks import check_number
from .logodds import Array, sigmoid
from .signal import DEFAULT_ADVANTAGE
from .step import Step, anchors, iterated


def clipped_step(
    p_prev: Any,
    p_ref: Any,
    *,
    epsilon: float = 0.2,
    epsilon_high: float | None = None,
    beta: float = 0.0,
    mirror_beta: float = 0.0,
    advantage: Any = DEFAULT_ADVANTAGE,
    advantage_kwargs: Mapping[str, Any] | None = None,
) -> Array:
    r"""
    Success of the policy that maximises the clipped objective min(rho A, clip(rho, 1 - epsilon, 1 + epsilon_high) A)
    minus the KL terms.

    Derived (the analysis of [Mroueh](https://huggingface.co/papers/2503.06639) leaves the clip out), for one ratio per
    output and advantages that add up to 0 over them. Successes stop counting at p(1 + epsilon_high), failures at p + epsilon(1 - p). Below both the pull is
    Omega, between them that of the other sign alone, above both only the KL acts: the objective is concave in p_n, and
    its maximum the innermost of these. Limits: [`success_step`] for wide clips; every fixed point of [`success_step`]
    is one of this map.

    Args:
        p_prev (array-like):
            Success of the previous policy, any shape.
        p_ref (array-like):
            Success of the reference, broadcasting against `p_prev`.
        epsilon (`float`, *optional*, defaults to `0.2`):
            Lower clip range, at least 0.
        epsilon_high (`float`, *optional*):
            Upper clip range, at least 0; if not set, `epsilon`.
        beta (`float`, *optional*, defaults to `0.0`):
            As in [`success_step`].
        mirror_beta (`float`, *optional*, defaults to `0.0`):
            As in [`success_step`].
        advantage (`str`, [`Advantage`] or `Callable`, *optional*, defaults to `"smoothed_std"`):
            As in [`omega`].
        advantage_kwargs (`Mapping[str, Any]`, *optional*):
            As in [`omega`].

    Returns:
        `np.ndarray`:
            p_n, of the broadcast shape.

    Raises:
        `ValueError`: As [`success_step`], or if advantages do not add up to 0, when a clip leaves a part of the baseline.
    """
    step, low, high = _checked(epsilon, epsilon_high, beta, mirror_beta, advantage, advantage_kwargs)
    reference, previous = anchors(p_ref, p_prev, step, previous="p_prev")
    return sigmoid(_advance(previous, reference, step, low, high))


def clipped_path(
    p_ref: Any,
    steps: int,
    *,
    epsilon: float = 0.2,
    epsilon_high: float | None = None,
    beta: float = 0.0,
    mirror_beta: float = 0.0,
    advantage: Any = DEFAULT_ADVANTAGE,
    advantage_kwargs: Mapping[str, Any] | None = None,
    p_start: Any = None,
) -> Array:
    """
    Success p_0, ..., p_n under exact iteration with a clip; derived, see [`clipped_step`].

    Args:
        p_ref (array-like):
            Success of the reference, any shape.
        steps (`int`):
            Iterations n, at least 0.
        epsilon (`float`, *optional*, defaults to `0.2`):
            Lower clip range, at least 0.
        epsilon_high (`float`, *optional*):
            Upper clip range, at least 0; if not set, `epsilon`.
        beta (`float`, *optional*, defaults to `0.0`):
            As in [`success_step`].
        mirror_beta (`float`, *optional*, defaults to `0.0`):
            As in [`success_step`].
        advantage (`str`, [`Advantage`] or `Callable`, *optional*, defaults to `"smoothed_std"`):
            As in [`omega`].
        advantage_kwargs (`Mapping[str, Any]`, *optional*):
            As in [`omega`].
        p_start (array-like, *optional*):
            Success p_0, broadcasting against `p_ref`. If not set, that of the reference.

    Returns:
        `np.ndarray`:
            Success of shape `(steps + 1, ...)`.

    Raises:
        `ValueError`: As [`clipped_step`].
    """
    step, low, high = _checked(epsilon, epsilon_high, beta, mirror_beta, advantage, advantage_kwargs)
    return iterated(
        p_ref, p_start, steps, step, lambda previous, reference: _advance(previous, reference, step, low, high)
    )


def _checked(
    epsilon: Any, epsilon_high: Any, beta: Any, mirror_beta: Any, advantage: Any, advantage_kwargs: Any
) -> tuple[Step, float, float]:
    low = check_number("epsilon", epsilon, at_least=0.0)
    high = low if epsilon_high is None else check_number("epsilon_high", epsilon_high, at_least=0.0)
    step = Step.checked(beta, mirror_beta, advantage, advantage_kwargs)
    step.signal.check_groups()
    return step, low, high


def _advance(previous: Array, reference: Array, step: Step, low: float, high: float) -> Array:
    anchor, omega = step.anchor(previous, reference), step.signal.omega(previous)
    success, failure = sigmoid(previous), sigmoid(-previous)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Log-odds at which successes, and at which failures, are clipped; inf where the clip is out of reach.
        raised, left = np.minimum(success * (1.0 + high), 1.0), failure * max(1.0 - low, 0.0)
        successes_stop, failures_stop = np.log(raised) - np.log1p(-raised), np.log1p(-left) - np.log(left)
    # A clip can only cut the step short, whatever rounding makes of a range of 0.
    successes_stop, failures_stop = np.maximum(successes_stop, previous), np.maximum(failures_stop, previous)
    first, second = np.minimum(successes_stop, failures_stop), np.maximum(successes_stop, failures_stop)
    with np.errstate(invalid="ignore"):
        remaining = np.where(successes_stop < failures_stop, success, failure) * omega
    # A previous policy without a success, and an infinite signal, leave nothing that could pull.
    remaining = np.where(np.isnan(remaining), 0.0, remaining)
    unpulled = step.shifted(anchor, np.zeros_like(omega))
    half_pulled, pulled = step.shifted(anchor, remaining), step.shifted(anchor, omega)
    return np.minimum(pulled, np.maximum(first, np.minimum(half_pulled, np.maximum(second, unpulled))))
