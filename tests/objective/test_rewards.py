# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from trl_grpo_variants.objective.advantages.normalized import trls_advantages
from trl_grpo_variants.objective.rewards import reward_differences

from .. import reference


NAN = float("nan")
REWARDS = [1.0, 0.0, 0.0, 2.5, NAN, 1.0, 0.25, NAN, NAN, NAN, NAN, NAN, 0.5, 0.5, 0.5, NAN]
NAMES = {"none": "mean_only", "group": "group_std", "batch": "batch_std"}


@pytest.mark.parametrize("scale", NAMES)
def test_trls_advantages_are_those_of_the_reference(scale):
    advantages = trls_advantages(torch.tensor(REWARDS, dtype=torch.float64), 4, scale_rewards=scale)
    expected = torch.tensor(reference.ADVANTAGES[NAMES[scale]](REWARDS, 4), dtype=torch.float64)
    torch.testing.assert_close(advantages, expected)
    assert (advantages[8:12] == 0).all()


def test_equal_rewards_less_other_penalties_differ():
    rewards, weights = torch.tensor([[1.0], [1.0], [0.5], [NAN]]), torch.ones(1)
    assert not reward_differences(rewards, weights, 2, "group")[0].any()
    varies, zero_std = reward_differences(rewards, weights, 2, "group", torch.tensor([0.1, 0.2, 0.3, 0.4]))
    assert varies.tolist() == [True, True, False, False] == (~zero_std).tolist()


def test_functions_that_are_scaled_one_by_one_differ_one_by_one():
    """Sums that are equal may be of functions that differ; one without a weight does not count."""
    rewards = torch.tensor([[1.0, 0.0, 1.0], [0.0, 1.0, 1.0], [0.5, 0.5, 0.0], [0.5, 0.5, 1.0]])
    weights = torch.tensor([1.0, 1.0, 0.0])
    varies, zero_std = reward_differences(rewards, weights, 2, "function")
    assert varies.tolist() == [True, True, False, False] and not zero_std
    assert not reward_differences(rewards, weights, 2, "group")[0].any()
    assert reward_differences(rewards[2:], weights, 2, "function")[1]
