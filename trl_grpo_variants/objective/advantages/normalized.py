# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The reward less the mean of its group, in a unit of its own, or in one of the rewards' spread."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...checks import LEAST_VARIANCE_EPSILON, MAX_COEFFICIENT
from ...papers import DEEPSEEKMATH, GDPO, GRPO_DYNAMICS, LITE_PPO
from ..terms import Advantage, Setting, written


if TYPE_CHECKING:
    import torch


# TRL's, beside a standard deviation.
STD_EPSILON = 1e-4


def smoothed_std_advantages(
    rewards: torch.Tensor, num_generations: int, *, reward_variance_epsilon: float
) -> torch.Tensor:
    """
    Mean + variance advantages with the smoothing inside the root, (r - mean) / sqrt(var + epsilon).

    The variance is the population variance of the group: for binary rewards with group success p it is p(1 - p), which
    is what the analysis of success amplification works with ([paper](https://huggingface.co/papers/2503.06639),
    GRPO's effective loss). TRL's `scale_rewards="group"` divides by the sample standard deviation plus 1e-4 instead.

    Args:
        rewards (`torch.Tensor`):
            Rewards of shape `(N,)`, the groups one after the other; NaN where a completion could not be scored.
        num_generations (`int`):
            Group size G; it divides N.
        reward_variance_epsilon (`float`):
            Smoothing of the variance, in squared reward units; greater than 0.

    Returns:
        `torch.Tensor`:
            Advantages of shape `(N,)`; 0 where the reward is NaN.
    """
    grouped = rewards.view(-1, num_generations)
    centered = grouped - grouped.nanmean(dim=1, keepdim=True)
    variance = centered.square().nanmean(dim=1, keepdim=True)
    return (centered / (variance + reward_variance_epsilon).sqrt()).nan_to_num(nan=0.0).view(-1)


PER_REWARD = Advantage(
    name="per_reward",
    function=None,
    formula="batch-normalised sum_f weight_f (r_f - mean_f) / (std_f + 1e-4)",
    paper=GDPO,
    fields={"multi_objective_aggregation": "normalize_then_sum"},
    is_of_rollout=True,
)
SMOOTHED_STD = Advantage(
    name="smoothed_std",
    function=smoothed_std_advantages,
    formula=lambda values: f"(r - mean) / sqrt(var + {written(values, 'reward_variance_epsilon')})",
    paper=GRPO_DYNAMICS,
    settings=(
        Setting("reward_variance_epsilon", greater_than=0.0, at_least=LEAST_VARIANCE_EPSILON, at_most=MAX_COEFFICIENT),
    ),
    fields={"scale_rewards": "group", "reward_variance_epsilon": 1e-5},
    omega=lambda success, failure, *, reward_variance_epsilon: (success * failure + reward_variance_epsilon) ** -0.5,
)
GROUP_STD = Advantage(
    name="group_std",
    function=None,
    formula="(r - mean) / (std + 1e-4)",
    paper=DEEPSEEKMATH,
    fields={"scale_rewards": "group"},
    omega=lambda success, failure: 1 / ((success * failure) ** 0.5 + STD_EPSILON),
    # The standard deviation is the sample's.
    group_omega=lambda successes, size: (
        1 / ((successes * (size - successes) / (size * (size - 1))) ** 0.5 + STD_EPSILON)
    ),
)
BATCH_STD = Advantage(
    name="batch_std",
    function=None,
    formula="(r - mean) / (std of the batch + 1e-4)",
    paper=LITE_PPO,
    fields={"scale_rewards": "batch"},
    is_of_rollout=True,
)
MEAN_ONLY = Advantage(
    name="mean_only",
    function=None,
    formula="r - mean",
    paper=GRPO_DYNAMICS,
    fields={"scale_rewards": "none"},
    omega=lambda success, failure: 0 * success + 1,
)
