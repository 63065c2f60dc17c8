# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Exact policies over finitely many outputs, as probabilities that can be enumerated."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import checks
from .logodds import Array
from .signal import DEFAULT_ADVANTAGE, make_signal


# They divide by a function of the variance, whatever the rewards.
_OF_VARIANCE = ("smoothed_std", "group_std", "mean_only")


def tabular_advantages(
    pi: Any, rewards: Any, *, advantage: Any = DEFAULT_ADVANTAGE, advantage_kwargs: Mapping[str, Any] | None = None
) -> Array:
    """
    Advantages (r - E[r]) Omega of all outputs, with the expectation under a policy.

    [Mroueh](https://huggingface.co/papers/2503.06639), advantage with mean and variance; for the others derived. Omega is
    that of [`omega`] at the policy's success, and what an advantage gives all outputs alike beside, as its baseline, is
    left out: no policy depends on it. Rewards other than 0 and 1 are for those that divide by a function of the
    variance: `"smoothed_std"`, `"group_std"` and `"mean_only"`.

    Args:
        pi (array-like):
            Probabilities of shape `(..., n_outputs)`.
        rewards (array-like):
            Rewards, broadcasting against `pi`.
        advantage (`str`, [`Advantage`] or `Callable`, *optional*, defaults to `"smoothed_std"`):
            As in [`omega`].
        advantage_kwargs (`Mapping[str, Any]`, *optional*):
            As in [`omega`].

    Returns:
        `np.ndarray`:
            Advantages of shape `(..., n_outputs)`.

    Raises:
        `ValueError`: If an argument is out of range, or the advantage does not take these rewards.
    """
    signal = make_signal(advantage, advantage_kwargs)
    policy, values = _distribution("pi", pi), _rewards(rewards)
    checks.same_shape(pi=policy, rewards=values)
    centered = values - (policy * values).sum(axis=-1, keepdims=True)
    if np.isin(values, (0.0, 1.0)).all():
        rates = ((policy * share).sum(axis=-1, keepdims=True) for share in (values, 1.0 - values))
        success, failure = (np.broadcast_to(rate, centered.shape) for rate in rates)
    elif signal.name in _OF_VARIANCE:
        variance = (policy * centered**2).sum(axis=-1, keepdims=True)
        # Two numbers whose sum is 1 and whose product is the variance, which may be more than that of a success.
        success, failure = (0.5 + sign * (0.25 + 0.0j - variance) ** 0.5 for sign in (1.0, -1.0))
    else:
        raise ValueError(
            f"Of `advantage={signal.name!r}` the theory knows rewards of 0 and 1 alone; other rewards are for "
            f"{', '.join(map(repr, _OF_VARIANCE))}."
        )
    with np.errstate(all="ignore"):
        scaled = centered * np.real(signal.function(success, failure))
    # Where no output differs from the mean there is nothing to scale, be Omega infinite.
    return np.where(centered == 0.0, 0.0, scaled)


def optimal_policy(
    pi_ref: Any,
    pi_prev: Any,
    rewards: Any,
    *,
    beta: float = 0.0,
    mirror_beta: float = 0.0,
    advantage: Any = DEFAULT_ADVANTAGE,
    advantage_kwargs: Mapping[str, Any] | None = None,
) -> Array:
    r"""
    The policy that maximises E_pi[A] - beta KL(pi || pi_ref) - mirror_beta KL(pi || pi_prev).

    pi is proportional to pi_ref^a pi_prev^(1 - a) exp(A / (beta + mirror_beta)) with a = beta / (beta + mirror_beta),
    and A the advantages under `pi_prev`: [Mroueh](https://huggingface.co/papers/2503.06639), closed forms of the
    reference, mirror and two-KL theorems. Outputs that an anchor with a positive coefficient never gives stay
    impossible.

    Args:
        pi_ref (array-like):
            Probabilities of shape `(..., n_outputs)`.
        pi_prev (array-like):
            Probabilities, broadcasting against `pi_ref`.
        rewards (array-like):
            Rewards, binary or not, broadcasting against `pi_ref`.
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
            Probabilities of shape `(..., n_outputs)`.

    Raises:
        `ValueError`: If an argument is out of range, or no output is possible under both anchors.
    """
    strengths = checks.coefficients(beta, mirror_beta)
    reference, previous = _distribution("pi_ref", pi_ref), _distribution("pi_prev", pi_prev)
    checks.same_shape(pi_ref=reference, pi_prev=previous, rewards=_rewards(rewards))
    advantages = tabular_advantages(previous, rewards, advantage=advantage, advantage_kwargs=advantage_kwargs)
    # Anchors with a coefficient of 0 have no say.
    anchors = [(beta, policy) for beta, policy in zip(strengths, (reference, previous), strict=True) if beta > 0.0]
    possible = np.ones(np.broadcast_shapes(advantages.shape, reference.shape), dtype=bool)
    for _, policy in anchors:
        possible &= policy > 0.0
    best = np.where(possible, advantages, -np.inf).max(axis=-1, keepdims=True)
    if np.isneginf(best).any():
        raise ValueError("No output is possible under both `pi_ref` and `pi_prev`, so no policy is near both.")
    # Relative to the best, so that small coefficients underflow and never overflow.
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        logits = np.where(possible, (advantages - best) / sum(strengths), -np.inf)
        for strength, policy in anchors:
            logits = logits + strength / sum(strengths) * np.where(possible, np.log(policy), 0.0)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return np.asarray(weights / weights.sum(axis=-1, keepdims=True))


def _distribution(name: str, value: Any) -> Array:
    policy = checks.probabilities(name, value)
    if policy.ndim == 0 or policy.shape[-1] == 0:
        raise ValueError(f"`{name}` must have shape (..., n_outputs); got {policy.shape}.")
    sums = policy.sum(axis=-1)
    if (np.abs(sums - 1.0) > 1e-6).any():
        raise ValueError(
            f"`{name}` must sum to 1 over the outputs; got {np.ravel(sums)[np.argmax(np.abs(sums - 1.0))]:g}."
        )
    return policy


def _rewards(value: Any) -> Array:
    try:
        rewards = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError("Rewards and values must be numbers in one regular shape.") from error
    if not np.isfinite(rewards).all():
        raise ValueError("Rewards and values must be finite numbers.")
    return rewards
