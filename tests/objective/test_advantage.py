# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trl_grpo_variants.objective.advantage import (
    has_variance,
    normalized_advantages,
    success_rates,
    weighted_rewards,
)


nan = math.nan


@given(
    st.lists(st.lists(st.floats(-10, 10, width=32), min_size=4, max_size=4), min_size=1, max_size=4),
    st.floats(1e-5, 1.0),
)
def test_normalized_advantages_equal_the_formula(groups, epsilon):
    expected = []
    for group in groups:
        mean = math.fsum(group) / 4
        variance = math.fsum((r - mean) ** 2 for r in group) / 4
        expected += [(r - mean) / math.sqrt(variance + epsilon) for r in group]

    advantages = normalized_advantages(torch.tensor(groups, dtype=torch.float64).view(-1), 4, epsilon)

    torch.testing.assert_close(advantages, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("successes", [1, 3, 7])
def test_binary_rewards_give_the_success_amplification_weights(successes):
    """Paper 2503.06639: +(1 - p) Omega on success and -p Omega on failure with Omega = 1 / sqrt(p (1 - p) + epsilon)."""
    rewards = torch.tensor([1.0] * successes + [0.0] * (8 - successes), dtype=torch.float64)
    p = successes / 8
    omega = 1 / math.sqrt(p * (1 - p) + 1e-5)

    advantages = normalized_advantages(rewards, 8, 1e-5)

    assert advantages[0].item() == pytest.approx((1 - p) * omega, rel=1e-12)
    assert advantages[-1].item() == pytest.approx(-p * omega, rel=1e-12)


def test_equal_rewards_have_zero_advantage():
    assert normalized_advantages(torch.full((4,), 0.3), 4, 1e-5).abs().max() < 1e-4


def test_unscored_completions_have_zero_advantage_and_do_not_count():
    advantages = normalized_advantages(torch.tensor([1.0, 0.0, nan, 1.0, nan, nan, nan, nan]), 4, 1e-5)
    scored = normalized_advantages(torch.tensor([1.0, 0.0, 1.0]), 3, 1e-5)

    torch.testing.assert_close(advantages[[0, 1, 3]], scored)
    assert advantages[2] == 0
    assert advantages[4:].tolist() == [0, 0, 0, 0]


def test_weighted_rewards_skip_functions_that_did_not_score():
    rewards = weighted_rewards(torch.tensor([[1.0, 2.0], [nan, 2.0], [nan, nan]]), torch.tensor([1.0, 0.5]))

    assert rewards[:2].tolist() == [2.0, 1.0]
    assert rewards[2].isnan()


def test_has_variance_is_per_group():
    rewards = torch.tensor([1.0, 1.0, 0.0, 1.0, nan, 1.0, nan, nan, 1e6, 1e6 + 0.5])

    assert has_variance(rewards, 2).tolist() == [False] * 2 + [True] * 2 + [False] * 4 + [True] * 2


def test_success_counts_completions_and_groups_with_full_reward():
    rewards = torch.tensor([[1.0], [1.0], [1.0], [0.0], [0.5], [0.0]])

    rates = success_rates(rewards, torch.ones(1), 2)

    assert rates == pytest.approx({"success": 0.5, "success_all": 1 / 3, "success_none": 1 / 3})


def test_success_needs_every_counted_function_and_ignores_unscored_completions():
    rewards = torch.tensor([[1.0, 0.2, -5.0], [1.0, 1.0, -5.0], [nan, 1.0, 0.0], [nan, nan, nan]])

    rates = success_rates(rewards, torch.tensor([1.0, 2.0, 0.0]), 2)

    assert rates == pytest.approx({"success": 2 / 3, "success_all": 0.5, "success_none": 0.0})
