# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""TOPR: no ratio where the advantage is positive, and one of at most 1 where it is not."""

from __future__ import annotations

from ...papers import TOPR
from ..ratio import importance_log_ratio, trajectory_log_weight
from ..terms import PolicyTerm, Setting, TermInputs, TermOutput


_RATIOS = {"trajectory": "w", "sequence": "s", "token": "rho"}


def tapered_term(inputs: TermInputs, *, level: str = "trajectory") -> TermOutput:
    """
    Policy term of [TOPR](https://huggingface.co/papers/2503.14286) (Eq. 8): the gradient is -A grad log pi where A is
    positive and -min(ratio, 1) A grad log pi elsewhere, with a ratio that is not differentiated.

    Written with exp(logp - stop_gradient(logp)), the value of a loss stays that of its weight times -A.

    Args:
        inputs ([`TermInputs`]):
            Micro-batch.
        level (`str`, *optional*, defaults to `"trajectory"`):
            The ratio: `"trajectory"`, the product of those of a completion's tokens, is the paper's; `"sequence"` is their
            geometric mean, and `"token"` each token's own.

    Returns:
        [`TermOutput`]:
            Losses `(B, T)`, and the weights of tokens.
    """
    logps, old_logps = inputs.logps.detach(), inputs.old_logps.to(inputs.logps.dtype)
    if level == "trajectory":
        log_ratio = trajectory_log_weight(logps, old_logps, inputs.mask).unsqueeze(1)
    else:
        log_ratio = importance_log_ratio(logps, old_logps, inputs.mask, level)
    advantages = inputs.token_advantages
    ones = (inputs.logps - logps).exp()
    # The logarithm is bounded, so that no exponential overflows.
    weight = log_ratio.clamp(max=0).exp().where(advantages <= 0, 1.0)
    return TermOutput(-weight * ones * advantages, {"tapered/weight": weight.expand_as(ones)})


TAPERED = PolicyTerm(
    name="tapered",
    function=tapered_term,
    formula=lambda values: (
        f"-A log pi if A > 0 else -sg(min({_RATIOS[values.get('level', 'trajectory')]}, 1)) A log pi"
    ),
    paper=TOPR,
    settings=(Setting("level", choices=tuple(_RATIOS)),),
    symbols={
        "w": "product of the token ratios of a completion to the policy that made the rollout",
        "s": "geometric mean of the token ratios of a completion to the policy that made the rollout",
        "sg": "no gradient is taken of it",
    },
    metrics={"tapered/weight": "the weights of tokens, 1 where the advantage is positive"},
    loss_type="dr_grpo",
)
