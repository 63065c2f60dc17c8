# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Rewards and success within the group of completions of one prompt."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any


if TYPE_CHECKING:
    import torch


# Rewards are float32, whatever a reward function returns, and a weighted sum rounds once per function. Below the second
# tolerance TRL calls a standard deviation zero.
_ROUNDING = 4 * 2.0**-23
_ZERO_STD = 1e-8


def weighted_rewards(rewards_per_func: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """
    Sum the reward functions of each completion with their weights.

    Args:
        rewards_per_func (`torch.Tensor`):
            Rewards of shape `(N, F)`; NaN where a function did not score a completion.
        weights (`torch.Tensor`):
            Weights of shape `(F,)`.

    Returns:
        `torch.Tensor`:
            Rewards of shape `(N,)`; NaN where no function scored the completion.
    """
    rewards = (rewards_per_func * weights).nansum(dim=1)
    return rewards.masked_fill(rewards_per_func.isnan().all(dim=1), math.nan)


def without_infinite_groups(rewards: torch.Tensor, num_generations: int) -> torch.Tensor:
    """
    Rewards `(N,)` in which those of a group with an infinite one, of which no statistic is finite, are NaN as if they had
    not been scored.
    """
    infinite = rewards.view(-1, num_generations).isinf().any(dim=1, keepdim=True)
    return rewards.view(-1, num_generations).masked_fill(infinite, math.nan).view(-1)


def has_variance(rewards: torch.Tensor, num_generations: int) -> torch.Tensor:
    """
    Whether the rewards of a completion's group differ by more than the rounding of float32, the indicator 1[std != 0]
    of [off-policy GRPO](https://huggingface.co/papers/2505.22257).

    Equal rewards need not have equal means: seven times 0.1 has a standard deviation of 8e-9, and after division by
    it such noise would be an advantage.

    Args:
        rewards (`torch.Tensor`):
            Rewards of shape `(N,)`, the groups one after the other, or `(N, F)` for functions that count one by one;
            NaN where a completion could not be scored.
        num_generations (`int`):
            Group size G; it divides N.

    Returns:
        `torch.Tensor`:
            Booleans of shape `(N,)`, equal within a group; `False` for a group without any scored completion, and for
            one with an infinite reward.
    """
    grouped = rewards.view(-1, num_generations, *rewards.shape[1:])
    highest = grouped.masked_fill(grouped.isnan(), -math.inf).amax(dim=1)
    lowest = grouped.masked_fill(grouped.isnan(), math.inf).amin(dim=1)
    tolerance = _ZERO_STD + _ROUNDING * highest.abs().maximum(lowest.abs())
    differ = highest - lowest > tolerance
    return (differ if rewards.dim() == 1 else differ.any(dim=1)).repeat_interleave(num_generations)


def reward_differences(
    rewards_per_func: torch.Tensor,
    weights: torch.Tensor,
    num_generations: int,
    scope: str,
    penalties: torch.Tensor | float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Tell where rewards differ, see [`has_variance`].

    Args:
        rewards_per_func (`torch.Tensor`):
            Rewards of shape `(N, F)`, the groups one after the other; NaN where a function did not score a completion.
        weights (`torch.Tensor`):
            Weights of shape `(F,)`.
        num_generations (`int`):
            Group size G; it divides N.
        scope (`str`):
            Whose standard deviation the advantages are divided by: that of the `"group"`, of the `"batch"`, or of each
            `"function"` by itself.
        penalties (`torch.Tensor` or `float`, *optional*, defaults to `0.0`):
            What is taken from the sums `(N,)` of the rewards.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`:
            Whether the rewards of a completion's group differ `(N,)`, and where that standard deviation is zero, of any
            shape.
    """
    if scope == "function":
        varies = has_variance(rewards_per_func[:, weights != 0], num_generations)
        return varies, ~varies.any()
    rewards = weighted_rewards(rewards_per_func, weights) - penalties
    varies = has_variance(rewards, num_generations)
    return varies, ~(has_variance(rewards, len(rewards)) if scope == "batch" else varies)


def full_reward(rewards_per_func: torch.Tensor, weights: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Tell which completions have full reward.

    That is when every reward function of positive weight that scored it gave at least 1, the value at which verifiable
    rewards stand for "correct".

    Args:
        rewards_per_func (`torch.Tensor`):
            Rewards of shape `(N, F)`; NaN where a function did not score a completion.
        weights (`torch.Tensor`):
            Weights of the reward functions, of shape `(F,)`.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`:
            Whether completions have full reward, and whether they were scored at all, `(N,)` each.
    """
    counted = rewards_per_func[:, weights > 0]
    scored = ~counted.isnan().all(dim=1)
    return (counted.isnan() | (counted >= 1)).all(dim=1) & scored, scored


def success_sizes(num_generations: int) -> list[int]:
    """Sizes k of which success@k is known from groups of G completions: 1, 2, 4 and so on, at most G."""
    return [2**power for power in range(num_generations.bit_length())]


def success_at(successes: torch.Tensor, completions: torch.Tensor, k: int) -> torch.Tensor:
    """
    Probability that k completions of a prompt hold a success, estimated without bias from n of them with c successes
    ([2107.03374](https://huggingface.co/papers/2107.03374), eq. 1): the share of all choices of k out of the n that
    hold one, 1 - C(n - c, k) / C(n, k).

    Args:
        successes (`torch.Tensor`):
            Successes c, of shape `(P,)`.
        completions (`torch.Tensor`):
            Completions n, of shape `(P,)`, each at least k.
        k (`int`):
            How many completions are tried, at least 1.

    Returns:
        `torch.Tensor`:
            Estimates of shape `(P,)` in double precision.
    """
    return 1 - share_without_success(successes.double(), completions.double(), k)


def share_without_success(successes: Any, completions: Any, k: int) -> Any:
    """
    Share of the choices of k completions in which none succeeds, C(n - c, k) / C(n, k), of tensors or NumPy arrays of one
    shape; 0 where there are not k failures.
    """
    share = 0 * successes + 1.0
    # As a product, because a binomial coefficient of a large group is no longer a number.
    for drawn in range(k):
        # Where there are not k failures one of the factors is 0.
        share = share * (completions - successes - drawn) / (completions - drawn)
    return share


def success_counts(
    rewards_per_func: torch.Tensor, weights: torch.Tensor, num_generations: int
) -> dict[str, tuple[float, int]]:
    """
    Count completions and groups with full reward, see [`full_reward`], and sum what [`success_at`] estimates.

    Args:
        rewards_per_func (`torch.Tensor`):
            Rewards of shape `(N, F)`, the groups one after the other; NaN where a function did not score a completion.
        weights (`torch.Tensor`):
            Weights of the reward functions, of shape `(F,)`.
        num_generations (`int`):
            Group size G; it divides N.

    Returns:
        `dict[str, tuple[float, int]]`:
            How many, and of how many: `success` (scored completions), `success_all` and `success_none` (groups with a
            scored completion in which all, respectively none, of the scored completions succeed), and, for each of
            [`success_sizes`], `success@k` (groups with at least k scored completions).
    """
    full, scored = full_reward(rewards_per_func, weights)
    scored_per_group = scored.view(-1, num_generations).sum(dim=1)
    full_per_group = full.view(-1, num_generations).sum(dim=1)[scored_per_group > 0]
    scored_per_group = scored_per_group[scored_per_group > 0]
    groups = scored_per_group.numel()
    success_at_sizes = {}
    for k in success_sizes(num_generations):
        has_enough = scored_per_group >= k
        estimates = success_at(full_per_group[has_enough], scored_per_group[has_enough], k)
        success_at_sizes[f"success@{k}"] = (estimates.sum().item(), estimates.numel())
    return {
        "success": (int(full.sum()), int(scored.sum())),
        "success_all": (int((full_per_group == scored_per_group).sum()), groups),
        "success_none": (int((full_per_group == 0).sum()), groups),
        **success_at_sizes,
    }


def length_counts(
    lengths: torch.Tensor, rewards_per_func: torch.Tensor, weights: torch.Tensor
) -> dict[str, tuple[float, int]]:
    """
    Sum lengths by success, and find the quartiles of all.

    Args:
        lengths (`torch.Tensor`):
            Tokens of the completions, of shape `(N,)`.
        rewards_per_func (`torch.Tensor`):
            Rewards of shape `(N, F)`; NaN where a function did not score a completion.
        weights (`torch.Tensor`):
            Weights of the reward functions, of shape `(F,)`.

    Returns:
        `dict[str, tuple[float, int]]`:
            Tokens, and of how many completions: `completions/mean_successful_length` (of full reward, see
            [`full_reward`]) and `completions/mean_failed_length` (of those that were scored, the others), each only
            where there are such. The quartiles `completions/lower_quartile_length`, `completions/median_length` and
            `completions/upper_quartile_length`, of one batch each.
    """
    full, scored = full_reward(rewards_per_func, weights)
    means = {
        f"completions/mean_{outcome}_length": (lengths[chosen].sum().item(), int(chosen.sum()))
        for outcome, chosen in (("successful", full), ("failed", scored & ~full))
        if chosen.any()
    }
    quarters = {"lower_quartile": 0.25, "median": 0.5, "upper_quartile": 0.75}
    return means | {
        f"completions/{name}_length": (lengths.float().quantile(share).item(), 1) for name, share in quarters.items()
    }
