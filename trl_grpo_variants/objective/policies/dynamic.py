# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""DCPO: clip bounds that are wider the less likely a token was."""

from __future__ import annotations

from ...checks import MAX_COEFFICIENT
from ...papers import DCPO
from ..ratio import token_log_ratio
from ..terms import PolicyTerm, Setting, TermInputs, TermOutput, upper_range, written


# exp(-LEAST_LOGP) is finite in float32, and a bound is 1/2 or `max_ratio` long before.
_LEAST_LOGP = -80.0


def dynamic_term(inputs: TermInputs, *, epsilon: float, epsilon_high: float, max_ratio: float = 10.0) -> TermOutput:
    """
    Policy term of [DCPO](https://huggingface.co/papers/2509.02333): PPO's clip between bounds that follow from
    |rho - 1| p <= epsilon, with p the probability of the token.

    They are (1 + sqrt(max(0, 1 - 4 epsilon / q))) / 2 and min((1 + sqrt(1 + 4 epsilon_high / q)) / 2, max_ratio), q the
    probability at the rollout. For a negative advantage the term is at most -max_ratio A. The method's second half,
    advantages smoothed over the visits of a prompt, is not part of it.

    Args:
        inputs ([`TermInputs`]):
            Micro-batch.
        epsilon (`float`):
            How far a probability may fall.
        epsilon_high (`float`):
            How far it may rise.
        max_ratio (`float`, *optional*, defaults to `10.0`):
            Largest upper bound, and the ratio above which a token has no gradient whatever its advantage; greater than 1.

    Returns:
        [`TermOutput`]:
            Losses `(B, T)`, and where the clip has taken the gradient of a token away.
    """
    ratio = token_log_ratio(inputs.logps, inputs.old_logps).exp()
    inverse = (-inputs.old_logps.to(ratio.dtype).clamp(min=_LEAST_LOGP)).exp()
    low = (1 + (1 - 4 * epsilon * inverse).clamp(min=0).sqrt()) / 2
    high = ((1 + (1 + 4 * epsilon_high * inverse).sqrt()) / 2).clamp(max=max_ratio)
    advantages = inputs.token_advantages
    losses = (-ratio * advantages).maximum(-ratio.clamp(min=low, max=high) * advantages)
    losses = losses.minimum(-max_ratio * advantages).where(advantages < 0, losses)
    clipped = (ratio > high).where(advantages > 0, (ratio < low) | (ratio > max_ratio)) & (advantages != 0)
    return TermOutput(losses, {"dynamic/clipped": clipped})


DYNAMIC = PolicyTerm(
    name="dynamic",
    function=dynamic_term,
    formula=lambda values: (
        f"-min(rho A, clip(rho, (1 + sqrt(max(0, 1 - 4 * {written(values, 'epsilon')} / pi_old))) / 2, "
        f"min((1 + sqrt(1 + 4 * {written(values, upper_range(values))} / pi_old)) / 2, {written(values, 'max_ratio')})) A), "
        f"at most -{written(values, 'max_ratio')} A if A < 0"
    ),
    paper=DCPO,
    settings=(
        Setting("epsilon", at_least=0.0, at_most=1.0),
        Setting("epsilon_high", at_least=0.0, at_most=1.0),
        Setting("max_ratio", greater_than=1.0, at_most=MAX_COEFFICIENT),
    ),
    metrics={"dynamic/clipped": "tokens whose gradient the clip takes away"},
    loss_type="grpo",
)
