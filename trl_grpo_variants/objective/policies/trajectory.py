# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""TIC-GRPO: one importance weight per trajectory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ...checks import MAX_COEFFICIENT
from ...papers import TIC_GRPO
from ..ratio import trajectory_log_weight
from ..terms import PolicyTerm, Setting, TermInputs, TermOutput, upper_range, written


# exp(40) = 2.4e17: squared, as in the norm of a gradient, it still fits float32.
MAX_LOG_WEIGHT = 40.0


def trajectory_term(inputs: TermInputs, *, trajectory_clip: str, epsilon: float, epsilon_high: float) -> TermOutput:
    """
    Policy term of [TIC-GRPO](https://huggingface.co/papers/2508.02833), with w the product of the token ratios.

    `"upper"` is the term of v5 (Eq. 8), -min(w, 1 + epsilon_high) A: the cap acts on the weight and for both signs of A,
    so above it the gradient is exactly zero. `"two_sided"` is the PPO form,
    -min(w A, clip(w, 1 - epsilon, 1 + epsilon_high) A). `"none"` is -w A.

    TRL differentiates the PPO form too, in its `RLOOTrainer` with leave-one-out advantages and a mean over completions.
    What the paper adds is the cap for both signs and the constant length that divides; here the term also stands beside
    any advantage and KL.

    Args:
        inputs ([`TermInputs`]):
            Micro-batch with one advantage per trajectory.
        trajectory_clip (`str`):
            `"upper"`, `"two_sided"` or `"none"`.
        epsilon (`float`):
            Distance of the lower bound from 1; only for `"two_sided"`.
        epsilon_high (`float`):
            Distance of the upper bound from 1.

    Returns:
        [`TermOutput`]:
            Losses `(B,)`, and as metrics where the clip has taken the gradient away, by the sign of the advantage.

    Raises:
        `ValueError`: If there is an advantage per token.
    """
    advantages = inputs.advantages
    if advantages.dim() != 1:
        raise ValueError(f"A trajectory has one advantage, shape (B,); got shape {tuple(advantages.shape)}.")
    log_weights = trajectory_log_weight(inputs.logps, inputs.old_logps, inputs.mask)
    if trajectory_clip == "upper":
        cap = math.log1p(epsilon_high)
        # Clamping the logarithm, not the weight: the exponential never sees a value that it could overflow on.
        losses, clipped = -log_weights.clamp(max=cap).exp() * advantages, log_weights > cap
    else:
        weights, clipped = log_weights.clamp(max=MAX_LOG_WEIGHT).exp(), log_weights > MAX_LOG_WEIGHT
        losses = -weights * advantages
        if trajectory_clip == "two_sided":
            bounded = weights.clamp(1 - epsilon, 1 + epsilon_high)
            losses = losses.maximum(-bounded * advantages)
            clipped |= (weights > 1 + epsilon_high) & (advantages > 0)
            clipped |= (weights < 1 - epsilon) & (advantages < 0)
    signs = {"positive": advantages > 0, "negative": advantages < 0}
    metrics = {f"trajectory/clipped_{name}": clipped & sign for name, sign in signs.items()}
    # Completions without an advantage are of neither sign, so that a clipped share of all says little by itself.
    return TermOutput(losses, metrics | {f"trajectory/{name}": sign for name, sign in signs.items()})


def _formula(values: Mapping[str, Any]) -> str:
    clip = values.get("trajectory_clip", "upper")
    high = written(values, upper_range(values), 1)
    if clip == "two_sided":
        return f"-min(w A, clip(w, {written(values, 'epsilon', 1, -1)}, {high}) A)"
    return "-w A" if clip == "none" else f"-min(w, {high}) A"


TRAJECTORY = PolicyTerm(
    name="trajectory",
    function=trajectory_term,
    formula=_formula,
    paper=TIC_GRPO,
    settings=(
        Setting("trajectory_clip", choices=("upper", "two_sided", "none")),
        Setting("epsilon", at_least=0.0, at_most=1.0, only_with={"trajectory_clip": ("two_sided",)}),
        Setting(
            "epsilon_high",
            at_least=0.0,
            at_most=MAX_COEFFICIENT,
            only_with={"trajectory_clip": ("upper", "two_sided")},
        ),
    ),
    symbols={"w": "product of the token ratios of a completion to the policy that made the rollout"},
    fields={"importance_sampling_level": "trajectory"},
    is_per_trajectory=True,
    loss_type="dr_grpo",
    metrics={
        "trajectory/clipped_positive": "completions with a positive advantage whose weight is clipped",
        "trajectory/clipped_negative": "completions with a negative advantage whose weight is clipped",
        "trajectory/positive": "completions with a positive advantage",
        "trajectory/negative": "completions with a negative advantage",
    },
)
