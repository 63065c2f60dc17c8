# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The policy gradient as it is, without a ratio: an ablation of TIC-GRPO's paper."""

from ...papers import TIC_GRPO
from ..terms import PolicyTerm, Setting, TermInputs, TermOutput


def score_term(inputs: TermInputs) -> TermOutput:
    """
    Policy term without importance sampling: the gradient is -A grad log pi, whatever policy made the rollout.

    The [paper](https://huggingface.co/papers/2508.02833) drops the ratio in an ablation (Sec. 2.3). Written as
    -exp(logp - stop_gradient(logp)) A, the value stays that of a ratio of 1.

    Args:
        inputs ([`TermInputs`]):
            Micro-batch, scored by the policy at which the gradient is taken.

    Returns:
        [`TermOutput`]:
            Losses `(B, T)`.
    """
    return TermOutput(-(inputs.logps - inputs.logps.detach()).exp() * inputs.token_advantages)


SCORE = PolicyTerm(
    name="score",
    function=score_term,
    formula="-A log pi",
    paper=TIC_GRPO,
    # Where the trainer takes the gradient.
    settings=(Setting("no_is_gradient", choices=("current", "frozen")),),
    fields={"importance_sampling_level": "none"},
    loss_type="grpo",
)
