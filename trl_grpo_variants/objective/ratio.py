# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Log-ratios between the policy and an older one, and the weight of a whole trajectory."""

from __future__ import annotations

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import torch


# Bounds on log-ratios, in nats, so that no exponential overflows. Where the policy has made a token 22,000 times as
# likely as it was in the rollout, or 5e8 times as unlikely as an anchor has it, only the direction of a term matters.
# The gradient of a divergence is proportional to the importance ratio, and at its bound still fits float16.
MAX_IMPORTANCE_LOG_RATIO = 10.0
MAX_DIVERGENCE_LOG_RATIO = 20.0
# What is logged of the weights of the trajectories of an optimizer step, with titles.
TRAJECTORY_METRICS = {
    "trajectory/ess": "Effective sample size",
    "trajectory/log_weight_std": "Spread of log-weights",
    "trajectory/log_weight_std_per_sqrt_token": "Spread per root of a token",
}
# Before the names of what is logged a second time, of the last optimizer step on each rollout alone: at the first step
# the policy is still the one that made it, which a mean over all steps hides.
ROLLOUT_END = "rollout_end/"


def bounded_anchor(anchor_logps: torch.Tensor, logps: torch.Tensor, limit: float) -> torch.Tensor:
    """
    Keep an anchor's log-probs within a limit of the current ones.

    Inside the limit the anchor is returned unchanged, bit for bit. Outside, it becomes a constant at the limit, so that
    a divergence to it stays finite and still pulls in the right direction.

    Args:
        anchor_logps (`torch.Tensor`):
            Log-probs of shape `(B, T)` under the old policy or a reference.
        logps (`torch.Tensor`):
            Log-probs of shape `(B, T)` under the current policy.
        limit (`float`):
            Largest distance, in nats.

    Returns:
        `torch.Tensor`:
            Anchor log-probs of shape `(B, T)`.
    """
    current = logps.detach()
    return anchor_logps.clamp(min=current - limit, max=current + limit)


def token_log_ratio(logps: torch.Tensor, old_logps: torch.Tensor) -> torch.Tensor:
    """
    Logarithm of the ratio of each token, whose exponential is finite whatever the log-probs are.

    Args:
        logps (`torch.Tensor`):
            Log-probs of shape `(B, T)` under the current policy.
        old_logps (`torch.Tensor`):
            Log-probs of shape `(B, T)` under the policy that made the rollout, of any precision.

    Returns:
        `torch.Tensor`:
            Log-ratios of shape `(B, T)`, in nats; at most [`MAX_IMPORTANCE_LOG_RATIO`] in magnitude.
    """
    return logps - bounded_anchor(old_logps.to(logps.dtype), logps, MAX_IMPORTANCE_LOG_RATIO)


def importance_log_ratio(logps: torch.Tensor, old_logps: torch.Tensor, mask: torch.Tensor, level: str) -> torch.Tensor:
    """
    Logarithm of the importance ratio that TRL weights per-token terms with.

    Args:
        logps (`torch.Tensor`):
            Log-probs of shape `(B, T)` under the current policy.
        old_logps (`torch.Tensor`):
            Log-probs of shape `(B, T)` under the policy that made the rollout.
        mask (`torch.Tensor`):
            Mask of shape `(B, T)`, 1 for the tokens that the policy produced.
        level (`str`):
            `"token"`, or `"sequence"` for the geometric mean over the tokens of a sequence.

    Returns:
        `torch.Tensor`:
            Log-ratios of shape `(B, T)` or `(B, 1)`; 0 for a sequence without tokens.
    """
    log_ratio = logps - old_logps
    if level == "token":
        return log_ratio
    total = log_ratio.masked_fill(mask == 0, 0.0).sum(dim=1, keepdim=True)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


def trajectory_log_weight(logps: torch.Tensor, old_logps: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """
    Logarithm of the trajectory importance weight, log w = sum_t log(pi_theta / pi_old).

    Args:
        logps (`torch.Tensor`):
            Log-probs of shape `(B, T)` under the current policy.
        old_logps (`torch.Tensor`):
            Log-probs of shape `(B, T)` under the policy that made the rollout.
        mask (`torch.Tensor`):
            Mask of shape `(B, T)`, 1 for the tokens that the policy produced.

    Returns:
        `torch.Tensor`:
            Log-weights of shape `(B,)`, at least in float32; 0 for a sequence without tokens.
    """
    # A sum of many terms in half precision would lose them.
    logps, old_logps = (x if x.element_size() > 4 else x.float() for x in (logps, old_logps))
    log_ratio = logps - old_logps
    return log_ratio.masked_fill(mask == 0, 0.0).sum(dim=-1)


def effective_sample_size(log_weights: torch.Tensor) -> torch.Tensor:
    """
    Kish's effective sample size as a share of the sample, (sum w)^2 / (n sum w^2).

    Args:
        log_weights (`torch.Tensor`):
            Logarithms of the weights, of shape `(n,)`.

    Returns:
        `torch.Tensor`:
            0-d tensor in [1/n, 1]; 1 when all weights are equal.
    """
    shares = log_weights.softmax(dim=0)
    return 1 / (log_weights.numel() * shares.square().sum())


def std_per_sqrt_token(log_weights: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """
    Spread of the log-weights per root of a token, which does not depend on the length if tokens drift independently.

    Least squares with a variance in proportion to the length, around a drift in proportion to the length.

    Args:
        log_weights (`torch.Tensor`):
            Logarithms of the trajectory weights `(N,)`.
        lengths (`torch.Tensor`):
            Tokens of the trajectories `(N,)`, at least 1.

    Returns:
        `torch.Tensor`:
            0-dimensional, in nats.
    """
    deviations = log_weights - lengths * log_weights.sum() / lengths.sum()
    return (deviations.square() / lengths).mean().sqrt()
