# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""DPPO: a token is dropped where its probability, and not only its ratio, would leave a trust region."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...checks import MAX_COEFFICIENT
from ...papers import DPPO
from ..ratio import token_log_ratio
from ..terms import PolicyTerm, Setting, TermInputs, TermOutput, upper_range, written


if TYPE_CHECKING:
    import torch


# In a probability of all other tokens, as the authors have it.
_SMALLEST = 1e-8


def binary_tv_term(inputs: TermInputs, *, epsilon: float, epsilon_high: float, anchor: str = "sampler") -> TermOutput:
    """
    Policy term of [DPPO](https://huggingface.co/papers/2602.04879) with the binary total variation, -keep rho A.

    With p the probability of a token and q that under the anchor, it is dropped where p - q > epsilon_high and A is
    positive, or p - q < -epsilon and A is not. Dropped tokens still count in the normaliser.

    Args:
        inputs ([`TermInputs`]):
            Micro-batch.
        epsilon (`float`):
            How far a probability may fall, at most 1.
        epsilon_high (`float`):
            How far it may rise.
        anchor (`str`, *optional*, defaults to `"sampler"`):
            Whose probability q is, and the denominator of rho: that of the engine that sampled, where it gives one, else
            and with `"trainer"` that which the trainer has computed at the rollout.

    Returns:
        [`TermOutput`]:
            Losses `(B, T)`, and where a token is dropped.
    """
    old_logps = _anchor_logps(inputs, anchor)
    shift = inputs.logps.detach().exp() - old_logps.exp()
    return _kept(inputs, old_logps, rises=shift > epsilon_high, falls=shift < -epsilon, name="binary_tv")


def binary_kl_term(inputs: TermInputs, *, epsilon: float, epsilon_high: float, anchor: str = "sampler") -> TermOutput:
    """
    Policy term of [DPPO](https://huggingface.co/papers/2602.04879) with the binary KL, -keep rho A.

    With p the probability of a token, q that under the anchor and D = q log(q / p) + (1 - q) log((1 - q) / (1 - p)), it is
    dropped where D > epsilon_high, p > q and A is positive, or D > epsilon, p < q and A is not. Dropped tokens still count
    in the normaliser.

    Args:
        inputs ([`TermInputs`]):
            Micro-batch.
        epsilon (`float`):
            Largest D of a probability that falls, in nats.
        epsilon_high (`float`):
            Largest D of a probability that rises, in nats.
        anchor (`str`, *optional*, defaults to `"sampler"`):
            Whose probability q is, see [`binary_tv_term`].

    Returns:
        [`TermOutput`]:
            Losses `(B, T)`, and where a token is dropped.
    """
    old_logps, logps = _anchor_logps(inputs, anchor), inputs.logps.detach()
    q = old_logps.exp()
    # Near 1 a probability has no digits left for what it lacks, its logarithm has.
    others_now, others_then = -logps.clamp(max=0).expm1(), -old_logps.clamp(max=0).expm1()
    divergence = (q * (old_logps - logps)).where(q > 0, 0.0)
    divergence = divergence + others_then * ((others_then + _SMALLEST) / (others_now + _SMALLEST)).log()
    rises = (divergence > epsilon_high) & (logps > old_logps)
    falls = (divergence > epsilon) & (logps < old_logps)
    return _kept(inputs, old_logps, rises=rises, falls=falls, name="binary_kl")


def _anchor_logps(inputs: TermInputs, anchor: str) -> torch.Tensor:
    """Log-probs `(B, T)` of the policy at the middle of the trust region."""
    sampled = inputs.sampling_logps if anchor == "sampler" else None
    return (inputs.old_logps if sampled is None else sampled).to(inputs.logps.dtype)


def _kept(
    inputs: TermInputs, old_logps: torch.Tensor, *, rises: torch.Tensor, falls: torch.Tensor, name: str
) -> TermOutput:
    """-rho A without the tokens `(B, T)` whose probability rises or falls too far and would do so further."""
    advantages = inputs.token_advantages
    dropped = rises.where(advantages > 0, falls)
    losses = -token_log_ratio(inputs.logps, old_logps).exp() * advantages
    return TermOutput(losses.where(~dropped, 0.0), {f"{name}/dropped": dropped})


_ANCHOR = Setting("anchor", choices=("sampler", "trainer"))
_SYMBOLS = {
    "p": "probability of a token under `pi`",
    "q": "that under the engine that sampled it, where that tells it, else under `pi_old`; `rho` is then `p / q`",
}


BINARY_TV = PolicyTerm(
    name="binary_tv",
    function=binary_tv_term,
    formula=lambda values: (
        f"-rho A unless p - q > {written(values, upper_range(values))} and A > 0, "
        f"or p - q < -{written(values, 'epsilon')} and A <= 0"
    ),
    paper=DPPO,
    settings=(
        Setting("epsilon", at_least=0.0, at_most=1.0),
        Setting("epsilon_high", at_least=0.0, at_most=1.0),
        _ANCHOR,
    ),
    symbols=_SYMBOLS,
    metrics={"binary_tv/dropped": "tokens that are dropped"},
    loss_type="dapo",
    is_anchored_at_sampler=lambda values: values["anchor"] == "sampler",
)
BINARY_KL = PolicyTerm(
    name="binary_kl",
    function=binary_kl_term,
    formula=lambda values: (
        f"-rho A unless D > {written(values, upper_range(values))}, p > q and A > 0, "
        f"or D > {written(values, 'epsilon')}, p < q and A <= 0"
    ),
    paper=DPPO,
    settings=(
        Setting("epsilon", at_least=0.0, at_most=MAX_COEFFICIENT),
        Setting("epsilon_high", at_least=0.0, at_most=MAX_COEFFICIENT),
        _ANCHOR,
    ),
    symbols=_SYMBOLS | {"D": "`q log(q / p) + (1 - q) log((1 - q) / (1 - p))`"},
    metrics={"binary_kl/dropped": "tokens that are dropped"},
    loss_type="dapo",
    is_anchored_at_sampler=lambda values: values["anchor"] == "sampler",
)
