# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""CE-GPPO: a token beyond the clip keeps a bounded gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...checks import MAX_COEFFICIENT
from ...papers import CE_GPPO
from ..ratio import token_log_ratio
from ..terms import PolicyTerm, Setting, TermInputs, TermOutput, upper_range, written


def preserving_term(
    inputs: TermInputs,
    *,
    epsilon: float,
    epsilon_high: float,
    keep_low: float = 0.75,
    keep_high: float = 1.0,
    dual_clip: float = 10.0,
) -> TermOutput:
    """
    Policy term of [CE-GPPO](https://huggingface.co/papers/2509.20712): where PPO's clip takes the gradient of a token, a
    share of the one at the bound is kept.

    Beyond the bound the term is -keep bound A rho / sg(rho), elsewhere -rho A, and for a negative advantage at most
    -dual_clip A. With both shares 1 it is [GPPO](https://huggingface.co/papers/2508.07629), with both 0 its gradient is
    that of PPO's dual clip.

    Args:
        inputs ([`TermInputs`]):
            Micro-batch.
        epsilon (`float`):
            Distance of the lower bound from 1.
        epsilon_high (`float`):
            Distance of the upper bound from 1.
        keep_low (`float`, *optional*, defaults to `0.75`):
            Share that is kept below the lower bound, where the advantage is negative.
        keep_high (`float`, *optional*, defaults to `1.0`):
            Share that is kept above the upper bound, where the advantage is positive.
        dual_clip (`float`, *optional*, defaults to `10.0`):
            Ratio above which a token with a negative advantage has no gradient; greater than 1.

    Returns:
        [`TermOutput`]:
            Losses `(B, T)`, and where a token lies below the lower or above the upper bound.
    """
    ratio = token_log_ratio(inputs.logps, inputs.old_logps).exp()
    advantages = inputs.token_advantages
    low, high = (ratio < 1 - epsilon) & (advantages < 0), (ratio > 1 + epsilon_high) & (advantages > 0)
    at_one = ratio / ratio.detach()
    weight = (keep_low * (1 - epsilon) * at_one).where(
        low, (keep_high * (1 + epsilon_high) * at_one).where(high, ratio)
    )
    losses = -weight * advantages
    losses = losses.minimum(-dual_clip * advantages).where(advantages < 0, losses)
    return TermOutput(losses, {"preserving/low": low, "preserving/high": high})


def _formula(values: Mapping[str, Any]) -> str:
    low, high = written(values, "epsilon", 1, -1), written(values, upper_range(values), 1)
    keeps = written(values, "keep_low"), written(values, "keep_high")
    return (
        f"-rho A, beyond [{low}, {high}] -({keeps[0]} * {low} if A < 0 else {keeps[1]} * {high}) A rho / sg(rho), "
        f"at most -{written(values, 'dual_clip')} A if A < 0"
    )


PRESERVING = PolicyTerm(
    name="preserving",
    function=preserving_term,
    formula=_formula,
    paper=CE_GPPO,
    settings=(
        Setting("epsilon", at_least=0.0, at_most=1.0),
        Setting("epsilon_high", at_least=0.0, at_most=MAX_COEFFICIENT),
        Setting("keep_low", at_least=0.0, at_most=MAX_COEFFICIENT),
        Setting("keep_high", at_least=0.0, at_most=MAX_COEFFICIENT),
        Setting("dual_clip", greater_than=1.0, at_most=MAX_COEFFICIENT),
    ),
    symbols={"sg": "no gradient is taken of it"},
    metrics={
        "preserving/low": "tokens with a negative advantage below the lower bound",
        "preserving/high": "tokens with a positive advantage above the upper bound",
    },
    loss_type="dapo",
)
