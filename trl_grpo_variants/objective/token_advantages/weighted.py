# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Advantages that are the same for all tokens of a completion, and those weighted by a token's probability."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...papers import ADVANTAGE_REWEIGHTING, DEEPSEEKMATH
from ..terms import Setting, TermInputs, TokenAdvantage, written


if TYPE_CHECKING:
    import torch


def probability_weighted_advantages(inputs: TermInputs, *, weight: float = 0.2) -> torch.Tensor:
    """
    Advantages A (weight q + 1 - weight), with q the probability of the token under the policy that made the rollout: the
    advantage reweighting of [Yang et al.](https://huggingface.co/papers/2505.12929), which keeps unlikely tokens from
    dominating an update.

    Args:
        inputs ([`TermInputs`]):
            Micro-batch.
        weight (`float`, *optional*, defaults to `0.2`):
            How much the probability counts, between 0 and 1.

    Returns:
        `torch.Tensor`:
            Advantages of shape `(B, T)`.
    """
    advantages = inputs.token_advantages
    probabilities = inputs.old_logps.to(advantages.dtype).clamp(max=0).exp()
    return advantages * (weight * probabilities + 1 - weight)


UNIFORM = TokenAdvantage(name="uniform", function=None, formula="a", paper=DEEPSEEKMATH, fields={})
PROBABILITY_WEIGHTED = TokenAdvantage(
    name="probability_weighted",
    function=probability_weighted_advantages,
    formula=lambda values: f"a ({written(values, 'weight')} pi_old + {written(values, 'weight', 1, -1)})",
    paper=ADVANTAGE_REWEIGHTING,
    settings=(Setting("weight", at_least=0.0, at_most=1.0),),
)
