# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Completions weighted by the exponential of their reward, so that the best of a group count more than the others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ...checks import MAX_COEFFICIENT
from ...papers import RS_GRPO
from ..terms import Advantage, Setting, written


if TYPE_CHECKING:
    import torch


def risk_sensitive_advantages(rewards: torch.Tensor, num_generations: int, *, risk: float = 2.0) -> torch.Tensor:
    """
    Advantages of the risk-seeking objective log(mean(exp(risk r))) / risk, (exp(risk r) / mean(exp(risk r)) - 1) / risk.

    A small `risk` gives mean-only advantages, a great one the best of the group alone
    ([paper](https://huggingface.co/papers/2509.24261)).

    Args:
        rewards (`torch.Tensor`):
            Rewards of shape `(N,)`, the groups one after the other; NaN where a completion could not be scored.
        num_generations (`int`):
            Group size G; it divides N.
        risk (`float`, *optional*, defaults to `2.0`):
            How much the best count more, in inverse reward units; greater than 0.

    Returns:
        `torch.Tensor`:
            Advantages of shape `(N,)`; 0 where the reward is NaN.
    """
    grouped = rewards.view(-1, num_generations)
    # Relative to the best of the group no exponential overflows. That less 1, as else a small risk would cancel.
    best = grouped.nan_to_num(nan=float("-inf")).amax(dim=1, keepdim=True)
    excess = (risk * (grouped - best)).expm1()
    mean = excess.nanmean(dim=1, keepdim=True)
    return ((excess - mean) / (risk * (1 + mean))).nan_to_num(nan=0.0).view(-1)


RISK_SENSITIVE = Advantage(
    name="risk_sensitive",
    function=risk_sensitive_advantages,
    formula=lambda values: "(exp({risk} r) / mean(exp({risk} r)) - 1) / {risk}".format(risk=written(values, "risk")),
    paper=RS_GRPO,
    settings=(Setting("risk", greater_than=0.0, at_most=MAX_COEFFICIENT),),
    # (exp(risk) - 1) / (risk (success exp(risk) + failure)), without an exponential that could overflow.
    omega=lambda success, failure, *, risk=2.0: -math.expm1(-risk) / (risk * (success + failure * math.exp(-risk))),
)
