# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Advantages made of exponentials of the rewards, in which the best of a group count more than the others."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ...checks import MAX_COEFFICIENT
from ...papers import PMD, RS_GRPO
from ..terms import Advantage, Setting, written
from .groups import scored_count


if TYPE_CHECKING:
    from typing import Any

    import torch


# Of the mean of exponentials, the least that its logarithm is taken of.
LEAST_MEAN = 1e-8


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


def partition_advantages(
    rewards: torch.Tensor, num_generations: int, *, partition_temperature: float = 0.01
) -> torch.Tensor:
    """
    The reward less the soft maximum of the others of its group,
    r - max - temperature log(mean(exp((r_j - max) / temperature))), j over the others.

    The baseline estimates the partition function of the policy that mirror descent aims at
    ([PMD-partition](https://huggingface.co/papers/2602.05933)); the paper's temperature is also the coefficient of a
    squared log-ratio of whole completions. The mean is bounded by 1e-8 from below.

    Args:
        rewards (`torch.Tensor`):
            Rewards of shape `(N,)`, the groups one after the other; NaN where a completion could not be scored.
        num_generations (`int`):
            Group size G; it divides N.
        partition_temperature (`float`, *optional*, defaults to `0.01`):
            How soft the maximum is, in reward units; greater than 0.

    Returns:
        `torch.Tensor`:
            Advantages of shape `(N,)`; 0 where the reward is NaN or the only one of its group.
    """
    # In double precision, as the others' sum is the group's less one that may be nearly all of it.
    grouped = rewards.view(-1, num_generations).double()
    best = grouped.nan_to_num(nan=float("-inf")).amax(dim=1, keepdim=True)
    weights = ((grouped - best) / partition_temperature).exp()
    others = (weights.nansum(dim=1, keepdim=True) - weights) / (scored_count(grouped) - 1)
    advantages = grouped - best - partition_temperature * others.clamp(min=LEAST_MEAN).log()
    return advantages.nan_to_num(nan=0.0).to(rewards.dtype).view(-1)


def _partition_group_omega(successes: Any, num_generations: int, *, partition_temperature: float = 0.01) -> Any:
    failures, least = num_generations - successes, math.exp(-1 / partition_temperature)
    of_success = ((successes - 1) + failures * least) / (num_generations - 1)
    of_failure = (successes + (failures - 1) * least) / (num_generations - 1)
    return 1 + partition_temperature * np.log(np.maximum(of_failure, LEAST_MEAN) / np.maximum(of_success, LEAST_MEAN))


PARTITION = Advantage(
    name="partition",
    function=partition_advantages,
    formula=lambda values: "r - max - {t} log(mean(exp((r - max) / {t}) of the others))".format(
        t=written(values, "partition_temperature")
    ),
    paper=PMD,
    settings=(Setting("partition_temperature", greater_than=0.0, at_least=1e-6, at_most=MAX_COEFFICIENT),),
    symbols={"max": "highest reward of the group"},
    is_centered=False,
    # In a large group the baseline is the same for success and failure, and cancels.
    omega=lambda success, failure, *, partition_temperature=0.01: 0 * success + 1,
    group_omega=_partition_group_omega,
)
RISK_SENSITIVE = Advantage(
    name="risk_sensitive",
    function=risk_sensitive_advantages,
    formula=lambda values: "(exp({risk} r) / mean(exp({risk} r)) - 1) / {risk}".format(risk=written(values, "risk")),
    paper=RS_GRPO,
    settings=(Setting("risk", greater_than=0.0, at_most=MAX_COEFFICIENT),),
    # (exp(risk) - 1) / (risk (success exp(risk) + failure)), without an exponential that could overflow.
    omega=lambda success, failure, *, risk=2.0: -math.expm1(-risk) / (risk * (success + failure * math.exp(-risk))),
)
