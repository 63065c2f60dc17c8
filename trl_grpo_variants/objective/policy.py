# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Policy terms that TRL does not have, before aggregation. Losses are minimised."""

from typing import NamedTuple

import torch


# exp(40) = 2.4e17: squared, as in the norm of a gradient, it still fits float32.
MAX_LOG_WEIGHT = 40.0


class TrajectoryTerm(NamedTuple):
    """
    One loss per sequence.

    Parameters:
        loss (`torch.Tensor`):
            Losses of shape `(B,)`.
        clipped (`torch.Tensor`):
            Booleans of shape `(B,)`: where the clip has taken the gradient away.
    """

    loss: torch.Tensor
    clipped: torch.Tensor


def trajectory_policy_loss(
    log_weights: torch.Tensor,
    advantages: torch.Tensor,
    *,
    clip: str,
    epsilon_low: float,
    epsilon_high: float,
) -> TrajectoryTerm:
    """
    Policy term of [TIC-GRPO](https://huggingface.co/papers/2508.02833): one importance weight per trajectory.

    `clip="upper"` is the term of v5 (Eq. 8), -min(w, 1 + epsilon_high) A: the cap acts on the weight and for both
    signs of A, so above it the gradient is exactly zero. `clip="two_sided"` is the PPO form,
    -min(w A, clip(w, 1 - epsilon_low, 1 + epsilon_high) A). `clip="none"` is -w A.

    Args:
        log_weights (`torch.Tensor`):
            Logarithms of the trajectory weights, of shape `(B,)`.
        advantages (`torch.Tensor`):
            Advantages of shape `(B,)`: one per trajectory.
        clip (`str`):
            `"upper"`, `"two_sided"` or `"none"`.
        epsilon_low (`float`):
            Distance of the lower bound from 1; only for `"two_sided"`.
        epsilon_high (`float`):
            Distance of the upper bound from 1.

    Returns:
        [`TrajectoryTerm`]:
            Losses and clip indicators, both of shape `(B,)`.
    """
    if advantages.dim() != 1:
        raise ValueError(f"A trajectory has one advantage, shape (B,); got shape {tuple(advantages.shape)}.")
    if clip == "upper":
        cap = torch.tensor(epsilon_high, device=log_weights.device).log1p()
        # Clamping the logarithm, not the weight: the exponential never sees a value that it could overflow on.
        return TrajectoryTerm(-log_weights.clamp(max=cap).exp() * advantages, log_weights > cap)
    weights = log_weights.clamp(max=MAX_LOG_WEIGHT).exp()
    saturated = log_weights > MAX_LOG_WEIGHT
    if clip == "none":
        return TrajectoryTerm(-weights * advantages, saturated)
    if clip == "two_sided":
        bounded = weights.clamp(1 - epsilon_low, 1 + epsilon_high)
        clipped = ((weights > 1 + epsilon_high) & (advantages > 0)) | ((weights < 1 - epsilon_low) & (advantages < 0))
        return TrajectoryTerm(-torch.min(weights * advantages, bounded * advantages), clipped | saturated)
    raise ValueError(f"`clip` must be 'upper', 'two_sided' or 'none', got {clip!r}.")


def score_policy_loss(logps: torch.Tensor, advantages: torch.Tensor) -> torch.Tensor:
    """
    Policy term without importance sampling: the gradient is -A grad log pi, whatever policy made the rollout.

    The [paper](https://huggingface.co/papers/2508.02833) drops the ratio in an ablation (Sec. 2.3). Written as
    -exp(logp - stop_gradient(logp)) A, the value stays that of a ratio of 1.

    Args:
        logps (`torch.Tensor`):
            Log-probs of shape `(B, T)` under the policy at which the gradient is taken.
        advantages (`torch.Tensor`):
            Advantages of shape `(B, 1)` or `(B, T)`.

    Returns:
        `torch.Tensor`:
            Losses of shape `(B, T)`.
    """
    return -(logps - logps.detach()).exp() * advantages
