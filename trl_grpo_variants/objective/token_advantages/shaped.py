# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Advantages that rise with the entropy of a token, so that steps at which the policy hesitates count more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...checks import MAX_COEFFICIENT
from ...papers import ENTROPY_SHAPED as PAPER
from ..terms import Setting, TermInputs, TokenAdvantage, written


if TYPE_CHECKING:
    import torch


def entropy_shaped_advantages(inputs: TermInputs, *, alpha: float = 0.4, kappa: float = 2.0) -> torch.Tensor:
    """
    Advantages A + min(alpha H, |A| / kappa), with H the entropy of the token under the current policy
    ([paper](https://huggingface.co/papers/2506.14758), Eq. 4-7).

    No gradient is taken of the entropy, so this is no entropy bonus.

    Args:
        inputs ([`TermInputs`]):
            Micro-batch.
        alpha (`float`, *optional*, defaults to `0.4`):
            Advantage per nat of entropy.
        kappa (`float`, *optional*, defaults to `2.0`):
            Bound of what is added, as a part of the advantage; greater than 1, so that no advantage changes its sign.

    Returns:
        `torch.Tensor`:
            Advantages of shape `(B, T)`.
    """
    advantages = inputs.token_advantages
    added = (alpha * inputs.entropies.detach()).to(advantages.dtype)
    return advantages + added.minimum(advantages.abs() / kappa)


ENTROPY_SHAPED = TokenAdvantage(
    name="entropy_shaped",
    function=entropy_shaped_advantages,
    formula=lambda values: f"a + min({written(values, 'alpha')} H, |a| / {written(values, 'kappa')})",
    paper=PAPER,
    settings=(
        Setting("alpha", at_least=0.0, at_most=MAX_COEFFICIENT),
        Setting("kappa", greater_than=1.0, at_most=MAX_COEFFICIENT),
    ),
)
