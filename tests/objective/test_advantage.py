# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trl_grpo_variants.objective.advantages.exponential import risk_sensitive_advantages
from trl_grpo_variants.objective.advantages.normalized import smoothed_std_advantages
from trl_grpo_variants.objective.rewards import has_variance, weighted_rewards


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

    advantages = smoothed_std_advantages(
        torch.tensor(groups, dtype=torch.float64).view(-1), 4, reward_variance_epsilon=epsilon
    )

    torch.testing.assert_close(advantages, torch.tensor(expected, dtype=torch.float64), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("successes", [1, 3, 7])
def test_binary_rewards_give_the_success_amplification_weights(successes):
    """Paper 2503.06639: +(1 - p) Omega on success and -p Omega on failure with Omega = 1 / sqrt(p (1 - p) + epsilon)."""
    rewards = torch.tensor([1.0] * successes + [0.0] * (8 - successes), dtype=torch.float64)
    p = successes / 8
    omega = 1 / math.sqrt(p * (1 - p) + 1e-5)

    advantages = smoothed_std_advantages(rewards, 8, reward_variance_epsilon=1e-5)

    assert advantages[0].item() == pytest.approx((1 - p) * omega, rel=1e-12)
    assert advantages[-1].item() == pytest.approx(-p * omega, rel=1e-12)


def test_risk_sensitive_advantages_by_hand():
    """Paper 2509.24261: a rare success counts more than a rare failure; without risk they count alike."""
    rewards = torch.tensor([1.0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1])
    expected = [0.3808, -0.3808, -0.3808, 0.3808, *[0.1379] * 3, -0.4137, *[-0.3075] * 3, 0.9225]
    assert risk_sensitive_advantages(rewards, 4, risk=2.0).tolist() == pytest.approx(expected, abs=5e-5)
    mean_only = rewards - rewards.view(3, 4).mean(1).repeat_interleave(4)
    torch.testing.assert_close(risk_sensitive_advantages(rewards, 4, risk=1e-7), mean_only)
    assert risk_sensitive_advantages(1e4 * rewards + 1e6, 4).isfinite().all()


def test_risk_sensitive_statistics_are_over_the_scored():
    advantages = risk_sensitive_advantages(torch.tensor([1.0, 0.0, nan, 1.0, nan, nan, nan, nan]), 4)
    scored = risk_sensitive_advantages(torch.tensor([1.0, 0.0, 1.0]), 3)
    torch.testing.assert_close(advantages[[0, 1, 3]], scored)
    assert advantages[[2, 4, 5, 6, 7]].tolist() == [0] * 5


def test_equal_rewards_have_zero_advantage():
    assert smoothed_std_advantages(torch.full((4,), 0.3), 4, reward_variance_epsilon=1e-5).abs().max() < 1e-4


def test_unscored_completions_have_zero_advantage_and_do_not_count():
    advantages = smoothed_std_advantages(
        torch.tensor([1.0, 0.0, nan, 1.0, nan, nan, nan, nan]), 4, reward_variance_epsilon=1e-5
    )
    scored = smoothed_std_advantages(torch.tensor([1.0, 0.0, 1.0]), 3, reward_variance_epsilon=1e-5)

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


@pytest.mark.parametrize("others", [[0.1] * 7, [1.0] * 7, [-3e4] * 7, [2.0, nan, 2.0]], ids=str)
def test_has_variance_tells_a_difference_from_rounding(others):
    others = torch.tensor(others)
    magnitude = others.nan_to_num().abs().max()
    for difference, expected in {0.0: False, 3e-7: False, 1e-5: True, 1e-3: True}.items():
        first = others[:1] + difference * magnitude
        rewards = torch.cat([first, others])
        assert has_variance(rewards, len(rewards)).tolist() == [expected] * len(rewards), difference
    assert has_variance(torch.tensor([0.0, 1.5e-8, 0.0, 6e-9]), 2).tolist() == [True, True, False, False]
    # Two ways to add up to 0.3.
    assert not has_variance(torch.tensor([[0.1, 0.2], [0.3, 0.0]]).sum(1), 2).any()


@pytest.mark.parametrize("infinity", [math.inf, -math.inf])
def test_an_infinite_reward_is_no_variance(infinity):
    assert not has_variance(torch.tensor([1.0, 0.0, infinity]), 3).any()


def test_has_variance_is_that_of_any_function():
    rewards = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.1, 0.1], [0.1, 0.1], [0.5, nan], [0.5, nan]])

    assert has_variance(rewards, 2).tolist() == [True, True, False, False, False, False]
    assert has_variance(rewards.sum(1), 2).tolist() == [False] * 6
