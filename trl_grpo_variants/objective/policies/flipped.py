# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""ASPO: where the advantage is positive, tokens are weighted by the inverse of their ratio."""

from __future__ import annotations

from ...checks import MAX_COEFFICIENT
from ...papers import ASPO
from ..ratio import token_log_ratio
from ..terms import PolicyTerm, Setting, TermInputs, TermOutput, upper_range, written


def flipped_term(
    inputs: TermInputs, *, epsilon: float, epsilon_high: float, quantile: float = 0.8, max_weight: float = 3.0
) -> TermOutput:
    """
    Policy term of [ASPO](https://huggingface.co/papers/2510.06062): the gradient is -A grad log pi / rho where A is positive
    and -rho A grad log pi elsewhere, none beyond PPO's bound 1 + e or 1 - e, and never weighted by more than `max_weight`.

    e is `epsilon_high` for the tokens whose entropy lies above a quantile of those of their completion, else `epsilon`.

    Args:
        inputs ([`TermInputs`]):
            Micro-batch.
        epsilon (`float`):
            Distance of both bounds from 1, for tokens of low entropy.
        epsilon_high (`float`):
            Distance of both bounds from 1, for tokens of high entropy; at most 1.
        quantile (`float`, *optional*, defaults to `0.8`):
            The quantile of entropies.
        max_weight (`float`, *optional*, defaults to `3.0`):
            Largest weight of a token.

    Returns:
        [`TermOutput`]:
            Losses `(B, T)`, whose values are those of their weights times -A, and where PPO's bound has taken the gradient
            of a token away.
    """
    ratio = token_log_ratio(inputs.logps.detach(), inputs.old_logps).exp()
    entropies = inputs.entropies.detach().to(ratio.dtype)
    # Of a completion without tokens there is none, so that nothing lies above it.
    threshold = entropies.masked_fill(inputs.mask == 0, float("nan")).nanquantile(quantile, dim=1, keepdim=True)
    distance = ratio.new_full(ratio.shape, epsilon).where(~(entropies > threshold), epsilon_high)
    advantages = inputs.token_advantages
    bounded = ratio.minimum(1 + distance).where(advantages > 0, ratio.maximum(1 - distance))
    clipped = (bounded != ratio) & (advantages != 0)
    weight = (1 / bounded).where(advantages > 0, bounded).clamp(max=max_weight)
    losses = -weight * (inputs.logps - inputs.logps.detach()).exp() * advantages
    return TermOutput(losses.where(~clipped, losses.detach()), {"flipped/clipped": clipped})


FLIPPED = PolicyTerm(
    name="flipped",
    function=flipped_term,
    formula=lambda values: (
        f"-sg(min(1 / min(rho, 1 + e) if A > 0 else max(rho, 1 - e), {written(values, 'max_weight')})) A log pi "
        f"within the bound, e = {written(values, upper_range(values))} where H is high, else {written(values, 'epsilon')}"
    ),
    paper=ASPO,
    settings=(
        Setting("epsilon", at_least=0.0, at_most=1.0),
        Setting("epsilon_high", at_least=0.0, at_most=1.0),
        Setting("quantile", at_least=0.0, at_most=1.0),
        Setting("max_weight", at_least=1.0, at_most=MAX_COEFFICIENT),
    ),
    symbols={
        "e": "distance of the bound from 1; high is an entropy above a quantile of those of the completion",
        "sg": "no gradient is taken of it",
    },
    metrics={"flipped/clipped": "tokens whose gradient the clip takes away"},
    loss_type="dapo",
)
