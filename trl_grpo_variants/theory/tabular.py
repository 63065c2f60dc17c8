# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Exact policies over finitely many outputs, as probabilities that can be enumerated."""

from typing import Any

import numpy as np

from . import checks
from .logodds import Array
from .signal import make_signal


def tabular_advantages(
    pi: Any, rewards: Any, *, normalization: str = "mean_std", variance_epsilon: float = 1e-5
) -> Array:
    """
    Advantages (r - E[r]) Omega of all outputs, with the expectation and variance of a policy.

    [Mroueh](https://huggingface.co/papers/2503.06639), advantage with mean and variance, for any rewards. For binary
    ones Omega is that of [`omega`].

    Args:
        pi (array-like):
            Probabilities of shape `(..., n_outputs)`.
        rewards (array-like):
            Rewards, broadcasting against `pi`.
        normalization (`str`, *optional*, defaults to `"mean_std"`):
            As in [`omega`].
        variance_epsilon (`float`, *optional*, defaults to `1e-5`):
            As in [`omega`].

    Returns:
        `np.ndarray`:
            Advantages of shape `(..., n_outputs)`.

    Raises:
        `ValueError`: If an argument is out of range.
    """
    signal = make_signal(normalization, variance_epsilon)
    policy, values = _distribution("pi", pi), _rewards(rewards)
    checks.same_shape(pi=policy, rewards=values)
    centered = values - (policy * values).sum(axis=-1, keepdims=True)
    variance = (policy * centered**2).sum(axis=-1, keepdims=True)
    return np.asarray(centered / signal.scale(variance))


def optimal_policy(
    pi_ref: Any,
    pi_prev: Any,
    rewards: Any,
    *,
    beta: float = 0.0,
    mirror_beta: float = 0.0,
    normalization: str = "mean_std",
    variance_epsilon: float = 1e-5,
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
        normalization (`str`, *optional*, defaults to `"mean_std"`):
            As in [`omega`].
        variance_epsilon (`float`, *optional*, defaults to `1e-5`):
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
    advantages = tabular_advantages(previous, rewards, normalization=normalization, variance_epsilon=variance_epsilon)
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
