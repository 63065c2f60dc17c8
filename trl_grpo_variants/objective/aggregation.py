# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""How a loss type sums per-token terms into one number: TRL's normalisers, written as the weight of a token."""

import torch


def token_weight(
    loss_type: str,
    mask: torch.Tensor,
    *,
    max_completion_length: int,
    global_tokens: torch.Tensor,
) -> torch.Tensor:
    """
    Weight that a loss type gives to each token of a micro-batch, before gradient accumulation.

    A per-token term x is aggregated as `(x * mask * weight).sum()`, which equals what TRL's trainer does for its own
    terms. Where the weight is a 0-d tensor it is the same for all tokens, so it also is the weight of one term per
    sequence.

    Args:
        loss_type (`str`):
            TRL's `loss_type`.
        mask (`torch.Tensor`):
            Mask of shape `(B, T)`, 1 for the tokens that count.
        max_completion_length (`int`):
            Constant length of `dr_grpo`.
        global_tokens (`torch.Tensor`):
            0-d tensor: this process's share of the tokens of the optimizer step, for `dapo`, `cispo` and `vespo`.

    Returns:
        `torch.Tensor`:
            Weights of shape `(B, 1)` for `grpo` and `sapo`, which divide by each sequence's own length, else 0-d.
    """
    batch_size = mask.size(0)
    if loss_type in ("grpo", "sapo"):
        return 1 / (batch_size * mask.sum(dim=-1, keepdim=True).clamp(min=1.0))
    if loss_type == "bnpo":
        return 1 / mask.sum().clamp(min=1.0)
    if loss_type == "dr_grpo":
        return torch.tensor(1 / (batch_size * max_completion_length), device=mask.device)
    if loss_type in ("dapo", "cispo", "vespo"):
        return 1 / global_tokens
    if loss_type == "luspo":
        return torch.tensor(1 / batch_size, device=mask.device)
    raise ValueError(f"No aggregation is known for loss_type={loss_type!r}.")
