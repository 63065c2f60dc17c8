# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Advantages in which all groups of a rollout have a part, those of all processes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...checks import MAX_COEFFICIENT
from ...papers import BNPO, GPG, REINFORCE_PLUS_PLUS
from ..rewards import has_variance
from ..terms import Advantage, Domain, Setting
from .groups import scored_count


if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    import torch


WHITENING_EPSILON = 1e-8
# The greatest factor, and the least share, of the papers' codes.
MAX_BETA_SCALE = 1e6
LEAST_SHARE = 1e-5
# Less is what rounding leaves of equal means.
_LEAST_VARIANCE = 1e-12


def whitened_advantages(rewards: torch.Tensor, num_generations: int, lengths: torch.Tensor) -> torch.Tensor:
    """
    The reward less the mean of its group, c, whitened over all tokens of the rollout, (c - mu) / sqrt(v + 1e-8).

    mu = sum(L c) / sum(L) and v = sum(L (c - mu)^2) / (sum(L) - 1) weight each completion by its tokens
    ([REINFORCE++-baseline](https://huggingface.co/papers/2501.03262)). Others whiten over completions, or divide by the
    standard deviation of the raw rewards as TRL's `scale_rewards="batch"`. Unless mu is 0, groups of equal rewards have
    an advantage too, -mu / sqrt(v + 1e-8).

    Args:
        rewards (`torch.Tensor`):
            Rewards of shape `(N,)`, the groups one after the other; NaN where a completion could not be scored.
        num_generations (`int`):
            Group size G; it divides N.
        lengths (`torch.Tensor`):
            Tokens of each completion that count in the loss, of shape `(N,)`.

    Returns:
        `torch.Tensor`:
            Advantages of shape `(N,)`; 0 where the reward is NaN or the only one of its group, and where the rewards of
            every group are equal.
    """
    grouped = rewards.view(-1, num_generations)
    # Relative to the best, so that equal rewards differ from their mean by nothing.
    excess = grouped - grouped.nan_to_num(nan=float("-inf")).amax(dim=1, keepdim=True)
    centered = excess - excess.nanmean(dim=1, keepdim=True)
    counted = ~centered.isnan() & (scored_count(grouped) > 1)
    centered = centered.masked_fill(~counted, 0.0)
    tokens = lengths.view(-1, num_generations).to(rewards.dtype) * counted
    mean = (tokens * centered).sum() / tokens.sum().clamp(min=1)
    variance = (tokens * (centered - mean).square()).sum() / (tokens.sum() - 1).clamp(min=1)
    return ((centered - mean) / (variance + WHITENING_EPSILON).sqrt()).masked_fill(~counted, 0.0).view(-1)


def signal_share_advantages(rewards: torch.Tensor, num_generations: int) -> torch.Tensor:
    """
    The reward less the mean of its group, over the share of the rollout's groups whose rewards differ.

    A rollout then has a gradient of the same size however many of its groups have none
    ([GPG](https://huggingface.co/papers/2504.02546)); a scale of 1 / share per rollout, at most 1e5.

    Args:
        rewards (`torch.Tensor`):
            Rewards of shape `(N,)`, the groups one after the other; NaN where a completion could not be scored.
        num_generations (`int`):
            Group size G; it divides N.

    Returns:
        `torch.Tensor`:
            Advantages of shape `(N,)`; 0 where the reward is NaN. Groups with fewer than two scored completions count
            nowhere.
    """
    grouped = rewards.view(-1, num_generations)
    differing = has_variance(rewards, num_generations).view(-1, num_generations)[:, 0].sum().to(rewards.dtype)
    share = differing / (scored_count(grouped) > 1).sum().clamp(min=1)
    centered = grouped - grouped.nanmean(dim=1, keepdim=True)
    return (centered / share.clamp(min=LEAST_SHARE)).nan_to_num(nan=0.0).view(-1)


def beta_normalized_advantages(
    rewards: torch.Tensor, num_generations: int, *, lowest: float = 0.0, highest: float = 1.0
) -> torch.Tensor:
    """
    The reward less the mean of its group, over the density of a Beta distribution at that mean, (r - mean) / f(mean; a, b).

    Rewards are first mapped to [0, 1]. The distribution is made from mean m and unbiased variance v of the rollout's group
    means: with u = m (1 - m) / v - 1 it has a = max(1, 1 + u m / 3) and b = max(1, 1 + u (1 - m) / 3)
    ([BNPO](https://huggingface.co/papers/2506.02864), which is not TRL's `loss_type="bnpo"`). a = b = 1 is mean-only, and
    so is a rollout in which v is 0 or there is one group; a = b = 3/2 divides by the standard deviation, up to a constant.

    Args:
        rewards (`torch.Tensor`):
            Rewards of shape `(N,)`, the groups one after the other, between `lowest` and `highest`; NaN where a
            completion could not be scored.
        num_generations (`int`):
            Group size G; it divides N.
        lowest (`float`, *optional*, defaults to `0.0`):
            Reward that stands for failure.
        highest (`float`, *optional*, defaults to `1.0`):
            Reward that stands for success; greater than `lowest`.

    Returns:
        `torch.Tensor`:
            Advantages of shape `(N,)`, in units of `highest - lowest`; 0 where the reward is NaN. Groups with fewer than
            two scored completions count nowhere.
    """
    grouped = ((rewards.double() - lowest) / (highest - lowest)).clamp(0.0, 1.0).view(-1, num_generations)
    grouped = grouped.masked_fill(scored_count(grouped) < 2, float("nan"))
    success = grouped.nanmean(dim=1, keepdim=True)
    a, b = _beta_parameters(success[~success.isnan()])
    log_density = (a - 1).xlogy(success) + (b - 1).xlogy(1 - success) - a.lgamma() - b.lgamma() + (a + b).lgamma()
    # First bounded, as a mean of 0 or 1 leaves no deviation to multiply.
    scale = (-log_density).exp().clamp(max=MAX_BETA_SCALE)
    return ((grouped - success) * scale).nan_to_num(nan=0.0).to(rewards.dtype).view(-1)


def _beta_parameters(success: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Parameters of the density that groups of these means `(P,)` are divided by, 0-d tensors."""
    mean = success.sum() / max(success.numel(), 1)
    variance = (success - mean).square().sum() / max(success.numel() - 1, 1)
    concentration = (mean * (1 - mean) / variance.clamp(min=_LEAST_VARIANCE) - 1) * (variance > _LEAST_VARIANCE)
    return (1 + concentration * mean / 3).clamp(min=1), (1 + concentration * (1 - mean) / 3).clamp(min=1)


def _beta_formula(values: Mapping[str, Any]) -> str:
    low, high = values.get("lowest", 0.0), values.get("highest", 1.0)
    if (low, high) == (0.0, 1.0):
        return "(r - mean) / f(mean; a, b)"
    return f"(x - mean) / f(mean; a, b), x = (r - {low:g}) / {high - low:g}".replace("- -", "+ ")


WHITENED = Advantage(
    name="whitened",
    function=whitened_advantages,
    formula="(c - mu) / sqrt(v + 1e-8), c = r - mean",
    paper=REINFORCE_PLUS_PLUS,
    is_of_rollout=True,
    is_centered=False,
    symbols={"mu": "mean of `c` over all tokens of the rollout, `v` its variance"},
    # Its scale is that of the whole rollout, hence no function of one prompt's success.
    is_zero_without_variance=False,
)
SIGNAL_SHARE = Advantage(
    name="signal_share",
    function=signal_share_advantages,
    formula="(r - mean) / share",
    paper=GPG,
    is_of_rollout=True,
    symbols={"share": "share of the rollout's groups whose rewards differ"},
    # In large groups of prompts that neither always nor never succeed the share is 1. Smaller ones have one scale per
    # rollout, the same for all prompts.
    omega=lambda success, failure: 0 * success + 1,
)
BETA_NORMALIZED = Advantage(
    name="beta_normalization",
    function=beta_normalized_advantages,
    formula=_beta_formula,
    paper=BNPO,
    is_of_rollout=True,
    settings=(
        Setting("lowest", at_least=-MAX_COEFFICIENT, at_most=MAX_COEFFICIENT, below=("highest",)),
        Setting("highest", at_least=-MAX_COEFFICIENT, at_most=MAX_COEFFICIENT),
    ),
    symbols={"f": "density of the Beta distribution, with `a` and `b` from the group means of the rollout"},
    domain=Domain(at_least="lowest", at_most="highest"),
)
