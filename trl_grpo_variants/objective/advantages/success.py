# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Advantages for rewards that tell success from failure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...checks import MAX_COEFFICIENT
from ...papers import INFERENCE_TIME, MAXRL, NSR, PASS_AT_K
from ..terms import Advantage, Domain, Setting, written
from .groups import sample_std, scored_count


if TYPE_CHECKING:
    from typing import Any

    import torch


BINARY = Domain(values=(0.0, 1.0))
# That of the papers' codes, beside what they divide by.
EPSILON = 1e-6


def maximum_likelihood_advantages(rewards: torch.Tensor, num_generations: int) -> torch.Tensor:
    """
    The reward less the mean of its group, over that mean, (r - mean) / (mean + 1e-6).

    For rewards of 0 and 1 the expected gradient is that of the logarithm of success, to the order of the group size
    ([MaxRL](https://huggingface.co/papers/2602.02710)): a success of a prompt with success p counts 1 / p as much.

    Args:
        rewards (`torch.Tensor`):
            Rewards of shape `(N,)`, the groups one after the other, at least 0; NaN where a completion could not be
            scored.
        num_generations (`int`):
            Group size G; it divides N.

    Returns:
        `torch.Tensor`:
            Advantages of shape `(N,)`; 0 where the reward is NaN or the mean of the group is 0.
    """
    grouped = rewards.view(-1, num_generations)
    mean = grouped.nanmean(dim=1, keepdim=True)
    advantages = ((grouped - mean) / (mean + EPSILON)).masked_fill(mean <= 0, 0.0)
    return advantages.nan_to_num(nan=0.0).view(-1)


def pass_at_k_advantages(rewards: torch.Tensor, num_generations: int, *, k: int = 2) -> torch.Tensor:
    """
    Advantages of the objective that one of k completions succeeds,
    (r - mean) / (1 - mean) F / (sqrt(F (1 - F)) + 1e-6).

    F = C(n - c, k) / C(n, k) is the share of all choices of k out of the n completions of a group, c of them successes,
    that hold no success ([paper](https://huggingface.co/papers/2508.10751), the analytical advantage). With k = 1 it is
    GRPO with the population's standard deviation. Where fewer than k completions fail, all advantages are 0.

    Args:
        rewards (`torch.Tensor`):
            Rewards of shape `(N,)`, the groups one after the other, 0 or 1; NaN where a completion could not be scored.
        num_generations (`int`):
            Group size G; it divides N.
        k (`int`, *optional*, defaults to `2`):
            Number of completions of which one is to succeed; less than G, as else no group has an advantage.

    Returns:
        `torch.Tensor`:
            Advantages of shape `(N,)`; 0 where the reward is NaN or fewer than k of its group are not.
    """
    grouped = rewards.view(-1, num_generations).double()
    mean = grouped.nanmean(dim=1, keepdim=True)
    count = scored_count(grouped).double()
    unsuccessful = _share_without_success(grouped.nansum(dim=1, keepdim=True), count, k)
    scale = unsuccessful / ((unsuccessful * (1 - unsuccessful)) ** 0.5 + EPSILON)
    advantages = (grouped - mean) / (1 - mean) * scale
    return advantages.nan_to_num(nan=0.0).to(rewards.dtype).view(-1)


def _share_without_success(successes: Any, count: Any, k: int) -> Any:
    """C(count - successes, k) / C(count, k), tensors or NumPy arrays of one shape; 0 where there are not k failures."""
    share = 0 * successes + 1.0
    for drawn in range(k):
        # Where there are not k failures one of the factors is 0.
        share = share * (count - successes - drawn) / (count - drawn)
    return share


def best_of_group_advantages(rewards: torch.Tensor, num_generations: int) -> torch.Tensor:
    """
    What the best of a group has before the second best, over the sample standard deviation, (r - second) / (std + 1e-6),
    and 0 for all others.

    It is how much the best of the group would be missed, which is the gradient of the expected maximum of G completions
    ([paper](https://huggingface.co/papers/2503.19595)), scaled per group. Of rewards of 0 and 1 only a single success has
    an advantage: the more completions succeed, the rarer that is.

    Args:
        rewards (`torch.Tensor`):
            Rewards of shape `(N,)`, the groups one after the other; NaN where a completion could not be scored.
        num_generations (`int`):
            Group size G; it divides N.

    Returns:
        `torch.Tensor`:
            Advantages of shape `(N,)`; 0 where the reward is NaN, not the best of its group, or shared by another.
    """
    grouped = rewards.view(-1, num_generations)
    known = grouped.nan_to_num(nan=float("-inf"))
    best, place = known.max(dim=1, keepdim=True)
    second = known.scatter(1, place, float("-inf")).amax(dim=1, keepdim=True)
    advantages = (best - second) / (sample_std(grouped) + EPSILON) * (grouped == best)
    return advantages.nan_to_num(nan=0.0).view(-1)


def success_weight_advantages(
    rewards: torch.Tensor, num_generations: int, *, success_weight: float = 0.1, failure_weight: float = 1.0
) -> torch.Tensor:
    """
    One constant for each success and the negative of another for each failure, without a baseline.

    Successes alone narrow the policy, failures alone keep it wide
    ([paper](https://huggingface.co/papers/2506.01347): weighted, positive and negative sample reinforcement). Groups of
    equal rewards learn as well.

    Args:
        rewards (`torch.Tensor`):
            Rewards of shape `(N,)`, 0 or 1; NaN where a completion could not be scored.
        num_generations (`int`):
            Group size, on which nothing depends.
        success_weight (`float`, *optional*, defaults to `0.1`):
            Advantage of a success, at least 0.
        failure_weight (`float`, *optional*, defaults to `1.0`):
            Negative of the advantage of a failure, at least 0.

    Returns:
        `torch.Tensor`:
            Advantages of shape `(N,)`; 0 where the reward is NaN.
    """
    return (success_weight * rewards - failure_weight * (1 - rewards)).nan_to_num(nan=0.0)


MAXIMUM_LIKELIHOOD = Advantage(
    name="maximum_likelihood",
    function=maximum_likelihood_advantages,
    formula="(r - mean) / (mean + 1e-6)",
    paper=MAXRL,
    domain=Domain(at_least=0.0),
    omega=lambda success, failure: 1 / (success + EPSILON),
)


def _pass_at_k_omega(success: Any, failure: Any, *, k: int = 2) -> Any:
    # 1 - failure^k, as a sum of which no term cancels another.
    passed = success * sum(failure**power for power in range(k))
    return failure ** (k - 1) / ((failure**k * passed) ** 0.5 + EPSILON)


def _pass_at_k_group_omega(successes: Any, num_generations: int, *, k: int = 2) -> Any:
    share = _share_without_success(successes, num_generations, k)
    scale = share / ((share * (1 - share)) ** 0.5 + EPSILON)
    return scale * num_generations / (num_generations - successes)


PASS_AT_K_ADVANTAGE = Advantage(
    name="pass_at_k",
    function=pass_at_k_advantages,
    formula=lambda values: (
        "(r - mean) / (1 - mean) F / (sqrt(F (1 - F)) + 1e-6), F = C(n - c, {k}) / C(n, {k})".format(
            k=written(values, "k")
        )
    ),
    paper=PASS_AT_K,
    settings=(Setting("k", at_least=1, is_whole=True, below=("num_generations",), within=("num_generations_eval",)),),
    symbols={"C": "binomial coefficient; `n`: completions of the group, `c` of them with a reward of 1"},
    domain=BINARY,
    omega=_pass_at_k_omega,
    group_omega=_pass_at_k_group_omega,
)
BEST_OF_GROUP = Advantage(
    name="best_of_group",
    function=best_of_group_advantages,
    formula="(r - second) / (std + 1e-6) if r = max else 0",
    paper=INFERENCE_TIME,
    symbols={"second": "second highest reward of the group, `max` the highest"},
    is_centered=False,
    # A large group has more than one success, and then nobody is missed.
    omega=lambda success, failure: 0 * success,
    group_omega=lambda successes, size: (successes == 1) / (size**-0.5 + EPSILON),
)
SUCCESS_WEIGHT = Advantage(
    name="success_weight",
    function=success_weight_advantages,
    formula=lambda values: (
        f"{written(values, 'success_weight')} if r = 1 else {written(values, 'failure_weight', sign=-1)}"
    ),
    paper=NSR,
    settings=(
        Setting("success_weight", at_least=0.0, at_most=MAX_COEFFICIENT),
        Setting("failure_weight", at_least=0.0, at_most=MAX_COEFFICIENT),
    ),
    is_zero_without_variance=False,
    is_centered=False,
    domain=BINARY,
    omega=lambda success, failure, *, success_weight=0.1, failure_weight=1.0: (
        0 * success + success_weight + failure_weight
    ),
)
