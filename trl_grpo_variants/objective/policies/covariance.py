# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""KL-Cov: the tokens that would lower the entropy most are held to the policy that made the rollout."""

from __future__ import annotations

import math

from ...checks import MAX_COEFFICIENT
from ...papers import ENTROPY_MECHANISM
from ..ratio import token_log_ratio
from ..terms import PolicyTerm, Setting, TermInputs, TermOutput, written


# Two forward passes over the same policy differ by as much in float32. Of such a difference the sign, which is the gradient
# of its magnitude, would be chance.
_ROUNDING = 1e-5


def covariance_term(inputs: TermInputs, *, penalty: float = 1.0, share: float = 0.002) -> TermOutput:
    """
    Policy term of KL-Cov ([paper](https://huggingface.co/papers/2505.22617)): -rho A, without a clip, plus
    penalty |log rho| on the share of tokens with the largest (A - mean A)(log pi - mean log pi).

    Both means and the share are of the tokens in the micro-batch, at least one of them, so that the size of a micro-batch
    is a setting of the method.

    Args:
        inputs ([`TermInputs`]):
            Micro-batch.
        penalty (`float`, *optional*, defaults to `1.0`):
            Coefficient of the penalty.
        share (`float`, *optional*, defaults to `0.002`):
            Share of the tokens that have one, at most 1; the authors write it in per cent.

    Returns:
        [`TermOutput`]:
            Losses `(B, T)`, and the penalties without their coefficient.
    """
    log_ratio, counted = token_log_ratio(inputs.logps, inputs.old_logps), inputs.mask.bool()
    advantages = inputs.token_advantages.expand_as(log_ratio)
    logps = inputs.logps.detach()
    weights, scores = advantages[counted], logps[counted]
    covariance = (weights - weights.mean()) * (scores - scores.mean())
    # Less than one token only where there is none; a product such as 0.29 * 100 is rounded downwards.
    number = min(len(covariance), max(1, math.floor(share * len(covariance) + 1e-9)))
    held = covariance.new_zeros(covariance.shape).scatter(0, covariance.topk(number).indices, 1.0)
    moved = log_ratio.abs() > _ROUNDING
    penalties = log_ratio.abs() * moved * log_ratio.new_zeros(log_ratio.shape).masked_scatter(counted, held)
    return TermOutput(penalty * penalties - log_ratio.exp() * advantages, {"covariance/penalty": penalties})


COVARIANCE = PolicyTerm(
    name="covariance",
    function=covariance_term,
    formula=lambda values: f"-rho A + ({written(values, 'penalty')} |log rho| if t in top)",
    paper=ENTROPY_MECHANISM,
    settings=(
        Setting("penalty", at_least=0.0, at_most=MAX_COEFFICIENT),
        Setting("share", greater_than=0.0, at_most=1.0),
    ),
    symbols={
        "top": "the share of a micro-batch's tokens at which the advantage and `log pi` lie above, or below, their means "
        "most"
    },
    metrics={"covariance/penalty": "|log rho| of the tokens that are held, 0 for the others"},
    loss_type="dapo",
    relates_rows=True,
)
