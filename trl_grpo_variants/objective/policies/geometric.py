# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""GMPO: the geometric mean of the clipped token ratios."""

from ...papers import GMPO
from ..ratio import importance_log_ratio, token_log_ratio
from ..terms import PolicyTerm, Setting, TermInputs, TermOutput, upper_range, written


def geometric_term(inputs: TermInputs, *, epsilon: float, epsilon_high: float) -> TermOutput:
    """
    Policy term of [GMPO](https://huggingface.co/papers/2507.20673): -A times the geometric mean of the token ratios, each
    clipped in the direction of the advantage before the mean is taken.

    Args:
        inputs ([`TermInputs`]):
            Micro-batch.
        epsilon (`float`):
            Distance of the lower bound from 0, of the logarithm of a ratio.
        epsilon_high (`float`):
            Distance of the upper bound from 0.

    Returns:
        [`TermOutput`]:
            Losses `(B, T)`, the same for the tokens of a completion unless their advantages differ, and where the clip has
            taken the gradient of a token away.
    """
    log_ratio = token_log_ratio(inputs.logps, inputs.old_logps)
    bounded = log_ratio.clamp(-epsilon, epsilon_high)
    advantages = inputs.token_advantages
    one_sided = log_ratio.minimum(bounded).where(advantages > 0, log_ratio.maximum(bounded))
    mean = importance_log_ratio(one_sided, one_sided.new_zeros(()), inputs.mask, "sequence")
    return TermOutput(-mean.exp() * advantages.expand_as(log_ratio), {"geometric/clipped": one_sided != log_ratio})


GEOMETRIC = PolicyTerm(
    name="geometric",
    function=geometric_term,
    formula=lambda values: (
        "-g A, log g = mean_t m_A(log rho, "
        f"clip(log rho, -{written(values, 'epsilon')}, {written(values, upper_range(values))}))"
    ),
    paper=GMPO,
    settings=(Setting("epsilon", at_least=0.0, at_most=10.0), Setting("epsilon_high", at_least=0.0, at_most=10.0)),
    symbols={
        "g": "geometric mean of the clipped token ratios of a completion",
        "m_A": "the minimum where `A` is positive, else the maximum",
    },
    loss_type="grpo",
    metrics={"geometric/clipped": "tokens whose ratio is clipped"},
)
