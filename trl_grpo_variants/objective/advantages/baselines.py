# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The reward less another baseline than the mean of its group."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...checks import MAX_COEFFICIENT
from ...papers import ASYM_RE, OPO, QAE, RLOO
from ..terms import Advantage, Setting, written
from .groups import sample_std, scored_count


if TYPE_CHECKING:
    import torch


# The paper's, beside a standard deviation.
QUANTILE_STD_EPSILON = 1e-6
# By which a product with the number of completions may exceed a whole number that it stands for.
_RANK_ROUNDING = 1e-6


def leave_one_out_advantages(rewards: torch.Tensor, num_generations: int) -> torch.Tensor:
    """
    The reward less the mean of the others of its group, which is n / (n - 1) (r - mean) with n scored completions.

    A baseline in which the completion itself has no part leaves the gradient unbiased
    ([paper](https://huggingface.co/papers/2402.14740), Section 2).

    Args:
        rewards (`torch.Tensor`):
            Rewards of shape `(N,)`, the groups one after the other; NaN where a completion could not be scored.
        num_generations (`int`):
            Group size G; it divides N.

    Returns:
        `torch.Tensor`:
            Advantages of shape `(N,)`; 0 where the reward is NaN or the only one of its group.
    """
    grouped = rewards.view(-1, num_generations)
    count = scored_count(grouped)
    centered = grouped - grouped.nanmean(dim=1, keepdim=True)
    return (centered * count / (count - 1)).nan_to_num(nan=0.0).view(-1)


def length_weighted_advantages(rewards: torch.Tensor, num_generations: int, lengths: torch.Tensor) -> torch.Tensor:
    """
    The reward less the mean of its group in which each completion counts by its tokens, r - sum(L r) / sum(L).

    That baseline gives the gradient the least variance where all tokens have gradients of one size
    ([OPO](https://huggingface.co/papers/2505.23585)). With equal lengths it is the mean.

    Args:
        rewards (`torch.Tensor`):
            Rewards of shape `(N,)`, the groups one after the other; NaN where a completion could not be scored.
        num_generations (`int`):
            Group size G; it divides N.
        lengths (`torch.Tensor`):
            Tokens of each completion that count in the loss, of shape `(N,)`.

    Returns:
        `torch.Tensor`:
            Advantages of shape `(N,)`; 0 where the reward is NaN or no completion of the group has a token.
    """
    grouped = rewards.view(-1, num_generations)
    weights = lengths.view(-1, num_generations).to(rewards.dtype).masked_fill(grouped.isnan(), 0.0)
    baseline = (weights * grouped).nansum(dim=1, keepdim=True) / weights.sum(dim=1, keepdim=True)
    return (grouped - baseline).nan_to_num(nan=0.0).view(-1)


def quantile_advantages(rewards: torch.Tensor, num_generations: int, *, quantile: float = 0.4) -> torch.Tensor:
    """
    The reward less a quantile of its group, over the sample standard deviation, (r - q) / (std + 1e-6).

    The quantile is the least reward that a share of `quantile` of the group does not exceed
    ([QAE](https://huggingface.co/papers/2509.22611)). Of rewards of 0 and 1 it is 0 where success is rare, so that only
    successes have an advantage, and else 1, so that only failures have one. The paper's code interpolates between two
    rewards instead.

    Args:
        rewards (`torch.Tensor`):
            Rewards of shape `(N,)`, the groups one after the other; NaN where a completion could not be scored.
        num_generations (`int`):
            Group size G; it divides N.
        quantile (`float`, *optional*, defaults to `0.4`):
            Share of the group, in (0, 1]. The paper takes 0.6 where the entropy collapses.

    Returns:
        `torch.Tensor`:
            Advantages of shape `(N,)`; 0 where the reward is NaN or the only one of its group.
    """
    grouped = rewards.view(-1, num_generations)
    rank = (quantile * scored_count(grouped).double() - _RANK_ROUNDING).ceil().long() - 1
    # What could not be scored is sorted to the end.
    baseline = grouped.sort(dim=1).values.gather(1, rank.clamp(min=0))
    return ((grouped - baseline) / (sample_std(grouped) + QUANTILE_STD_EPSILON)).nan_to_num(nan=0.0).view(-1)


def shifted_advantages(rewards: torch.Tensor, num_generations: int, *, baseline_shift: float = -0.1) -> torch.Tensor:
    """
    The reward less the mean of its group plus a constant, r - (mean + shift).

    Below the mean the baseline stresses successes, above it failures
    ([AsymRE](https://huggingface.co/papers/2506.20520)). Completions of groups with equal rewards have the advantage
    `-baseline_shift`, and learn.

    Args:
        rewards (`torch.Tensor`):
            Rewards of shape `(N,)`, the groups one after the other; NaN where a completion could not be scored.
        num_generations (`int`):
            Group size G; it divides N.
        baseline_shift (`float`, *optional*, defaults to `-0.1`):
            What is added to the mean, in reward units.

    Returns:
        `torch.Tensor`:
            Advantages of shape `(N,)`; 0 where the reward is NaN.
    """
    grouped = rewards.view(-1, num_generations)
    baseline = grouped.nanmean(dim=1, keepdim=True) + baseline_shift
    return (grouped - baseline).nan_to_num(nan=0.0).view(-1)


LEAVE_ONE_OUT = Advantage(
    name="leave_one_out",
    function=leave_one_out_advantages,
    formula="r - mean of the others",
    paper=RLOO,
    omega=lambda success, failure: 0 * success + 1,
    group_omega=lambda successes, size: 0 * successes + size / (size - 1),
)
LENGTH_WEIGHTED = Advantage(
    name="length_weighted",
    function=length_weighted_advantages,
    formula="r - sum(L r) / sum(L)",
    paper=OPO,
    is_centered=False,
    # Whatever the lengths: a baseline cancels.
    omega=lambda success, failure: 0 * success + 1,
)
QUANTILE = Advantage(
    name="quantile",
    function=quantile_advantages,
    formula=lambda values: f"(r - quantile(r, {written(values, 'quantile')})) / (std + 1e-6)",
    paper=QAE,
    settings=(Setting("quantile", greater_than=0.0, at_most=1.0),),
    is_centered=False,
    omega=lambda success, failure, *, quantile=0.4: 1 / ((success * failure) ** 0.5 + QUANTILE_STD_EPSILON),
    group_omega=lambda successes, size, *, quantile=0.4: (
        1 / ((successes * (size - successes) / (size * (size - 1))) ** 0.5 + QUANTILE_STD_EPSILON)
    ),
)
SHIFTED = Advantage(
    name="shifted",
    function=shifted_advantages,
    formula=lambda values: f"r - (mean + {written(values, 'baseline_shift')})".replace("+ -", "- "),
    paper=ASYM_RE,
    settings=(Setting("baseline_shift", at_least=-MAX_COEFFICIENT, at_most=MAX_COEFFICIENT),),
    is_zero_without_variance=False,
    is_centered=False,
    omega=lambda success, failure, *, baseline_shift=-0.1: 0 * success + 1,
)
