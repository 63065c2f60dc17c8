# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Log-ratios between the policy and an older one, and the weight of a whole trajectory."""

import torch


# exp(10) = 22026 is far outside any trust region, and a divergence's gradient at it still fits float16.
LOG_RATIO_LIMIT = 10.0


def bounded_anchor(anchor: torch.Tensor, logps: torch.Tensor) -> torch.Tensor:
    """
    Keep an anchor's log-probs within [`LOG_RATIO_LIMIT`] nats of the current ones, so that no ratio overflows.

    Inside the limit the anchor is returned unchanged, bit for bit. Outside, it becomes a constant at the limit, so a
    divergence to it stays finite and still pulls in the right direction.

    Args:
        anchor (`torch.Tensor`):
            Log-probs of shape `(B, T)` under the old policy or a reference.
        logps (`torch.Tensor`):
            Log-probs of shape `(B, T)` under the current policy.

    Returns:
        `torch.Tensor`:
            Anchor log-probs of shape `(B, T)`.
    """
    current = logps.detach()
    return torch.clamp(anchor, min=current - LOG_RATIO_LIMIT, max=current + LOG_RATIO_LIMIT)


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
            Float32 log-weights of shape `(B,)`; 0 for a sequence without tokens.
    """
    log_ratio = logps.float() - old_logps.float()
    return torch.where(mask.bool(), log_ratio, 0.0).sum(dim=-1)


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
