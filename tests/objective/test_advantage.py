# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trl_grpo_variants.objective.advantages import ADVANTAGES
from trl_grpo_variants.objective.advantages.exponential import risk_sensitive_advantages
from trl_grpo_variants.objective.advantages.lengths import length_weights
from trl_grpo_variants.objective.advantages.normalized import smoothed_std_advantages
from trl_grpo_variants.objective.rewards import (
    has_variance,
    weighted_rewards,
    without_infinite_groups,
)
from trl_grpo_variants.objective.terms import Domain

from .. import reference


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


# ---- by hand: groups 1 0 0 1, 1 1 1 0 and 0 0 0 1 -------------------------------------------------------------------

REWARDS = torch.tensor([1.0, 0, 0, 1, 1, 1, 1, 0, 0, 0, 0, 1])
LENGTHS = torch.tensor([6, 3, 2, 5, 4, 6, 1, 3, 2, 2, 6, 5])


def in_groups(two, three, one):
    """Advantages of success and failure in the groups with two, three and one success."""
    return [
        *(two[0], two[1], two[1], two[0]),
        *(three[0], three[0], three[0], three[1]),
        *(one[1], one[1], one[1], one[0]),
    ]


BY_HAND = [
    ("maximum_likelihood", {}, in_groups((1, -1), (0.3333, -1), (3, -1))),
    ("length_weighted", {}, in_groups((0.3125, -0.6875), (0.2143, -0.7857), (0.6667, -0.3333))),
    ("whitened", {}, in_groups((0.8575, -1.3164), (0.3140, -1.8598), (1.4009, -0.7729))),
    ("quantile", {"quantile": 0.4}, in_groups((1.7320, 0), (0, -2), (2, 0))),
    ("quantile", {"quantile": 0.6}, in_groups((0, -1.7320), (0, -2), (2, 0))),
    ("pass_at_k", {"k": 2}, in_groups((0.4472, -0.4472), (0, 0), (1, -0.3333))),
    ("pass_at_k", {"k": 3}, in_groups((0, 0), (0, 0), (0.5773, -0.1924))),
    ("best_of_group", {}, in_groups((0, 0), (0, 0), (2, 0))),
    ("beta_normalization", {}, in_groups((0.3927, -0.3927), (0.2267, -0.6802), (0.6802, -0.2267))),
    ("risk_sensitive", {"risk": 2.0}, in_groups((0.3808, -0.3808), (0.1379, -0.4137), (0.9225, -0.3075))),
    ("partition", {"partition_temperature": 0.5}, in_groups((0.4295, -0.8300), (0.1700, -1), (1, -0.5705))),
    ("shifted", {"baseline_shift": -0.1}, in_groups((0.6, -0.4), (0.35, -0.65), (0.85, -0.15))),
    ("success_weight", {}, in_groups(*[(0.1, -1)] * 3)),
    ("leave_one_out", {}, in_groups((0.6667, -0.6667), (0.3333, -1), (1, -0.3333))),
    ("signal_share", {}, in_groups((0.5, -0.5), (0.25, -0.75), (0.75, -0.25))),
]


def advantages_of(name, rewards, num_generations, lengths=None, **settings):
    part = ADVANTAGES[name]
    given = {"lengths": torch.ones(len(rewards)) if lengths is None else lengths} if part.takes("lengths") else {}
    return part.function(rewards, num_generations, **settings, **given)


@pytest.mark.parametrize(("name", "settings", "expected"), BY_HAND, ids=lambda value: str(value)[:24])
def test_advantages_by_hand(name, settings, expected):
    advantages = advantages_of(name, REWARDS, 4, LENGTHS, **settings)
    assert advantages.tolist() == pytest.approx(expected, abs=6e-5)
    assert advantages.dtype == torch.float32


def test_every_own_advantage_is_computed_by_hand():
    own = {name for name, part in ADVANTAGES.items() if part.function is not None}
    assert own == {name for name, *_ in BY_HAND} | {"smoothed_std"}


def test_length_weights_by_hand():
    expected = [0.5802, 0.9757, 1.3225, 0.6652, 0.7863, 0.5802, 2.2241, 0.9757, 1.3225, 1.3225, 0.5802, 0.6652]
    assert length_weights(LENGTHS, length_weight_power=0.75).tolist() == pytest.approx(expected, abs=5e-5)


@given(st.lists(st.integers(0, 30000), min_size=1, max_size=12), st.sampled_from([0.0, 0.5, 0.75, 1.0, 40.0]))
def test_length_weights_are_one_on_average_over_what_has_a_token(lengths, power):
    weights = length_weights(torch.tensor(lengths), length_weight_power=power)
    expected = [0.0] * len(lengths) if power == 40.0 else reference.length_weights(lengths, length_weight_power=power)
    has_token = [length > 0 for length in lengths]
    assert weights.sum().item() == pytest.approx(sum(has_token))
    assert weights.isfinite().all() and (weights[~torch.tensor(has_token)] == 0).all()
    if power < 40.0:
        assert weights.tolist() == pytest.approx(expected)
    if power == 0.0:
        assert weights.tolist() == [float(has) for has in has_token]


@pytest.mark.parametrize("scale", [0.0, 1e-9])
def test_equal_group_means_normalise_nothing(scale):
    """Their variance is 0, or what rounding leaves of it."""
    noise = scale * torch.arange(8)
    rewards = (torch.tensor([1.0, 0, 1, 0, 0, 1, 0, 1]) * (1 - noise)).double()
    advantages = advantages_of("beta_normalization", rewards, 4)
    torch.testing.assert_close(advantages, rewards - 0.5, atol=1e-7, rtol=0)


def test_beta_normalization_maps_its_bounds():
    mapped = advantages_of("beta_normalization", 2 * REWARDS - 1, 4, lowest=-1.0, highest=1.0)
    torch.testing.assert_close(mapped, advantages_of("beta_normalization", REWARDS, 4))


def test_beta_normalization_is_bounded():
    """Far from the other groups the density is next to 0, and at 0 and 1 it is 0 or infinite."""
    groups = [[0.5 + 0.001 * i, 0.5 - 0.001 * i] for i in range(200)] + [[0.0, 1e-3], [0.0, 0.0], [1.0, 1.0]]
    rewards = torch.tensor(groups, dtype=torch.float64).view(-1)
    advantages = advantages_of("beta_normalization", rewards, 2)
    assert advantages.isfinite().all()
    assert advantages[-6:].tolist() == pytest.approx([-500.0, 500.0, 0, 0, 0, 0])


def test_the_share_of_groups_with_a_signal_counts_those_that_could_have_one():
    """Of four groups one differs, one is equal, one has one reward and one none."""
    rewards = torch.tensor([1.0, 0.0, 0.3, 0.3, 1.0, nan, nan, nan])
    assert advantages_of("signal_share", rewards, 2).tolist() == pytest.approx([1.0, -1.0, 0, 0, 0, 0, 0, 0])


def test_a_rollout_of_equal_rewards_is_not_whitened_to_noise():
    rewards = torch.tensor([0.1] * 7 + [0.7] * 7)
    assert advantages_of("whitened", rewards, 7, torch.arange(1, 15)).abs().max() == 0


def test_a_quantile_is_no_rank_higher_for_rounding():
    """0.28 of 25 are 7, and 7.000000000000001 in double precision."""
    assert advantages_of("quantile", torch.arange(25.0), 25, quantile=0.28)[6] == 0


def test_what_the_others_of_a_group_hold_keeps_its_digits():
    """Beside the best of the group, whose exponential is 1, theirs are 8e-7."""
    rewards, temperature = [1.0, 0.0, 0.0, 0.0], 1 / 14
    expected = reference.partition(rewards, 4, partition_temperature=temperature)
    advantages = advantages_of("partition", torch.tensor(rewards), 4, partition_temperature=temperature)
    assert advantages.tolist() == pytest.approx(expected, rel=1e-6)


def test_a_baseline_of_tokens_needs_a_token():
    lengths = torch.tensor([0, 0, 3, 0])
    assert advantages_of("length_weighted", torch.tensor([1.0, 0, 1, 0]), 2, lengths).tolist() == [0, 0, 0, -1]


# ---- identities -----------------------------------------------------------------------------------------------------

OWN = [part for part in ADVANTAGES.values() if part.function is not None]
FIELDS = {"reward_variance_epsilon": 1e-3}
COUNTS = st.integers(1, 5)


def centered(rewards, size):
    return rewards - rewards.view(-1, size).mean(1).repeat_interleave(size)


FLOATS = st.floats(-5, 5, width=16)


@st.composite
def rollouts(draw, values=FLOATS):
    size, groups = draw(st.integers(2, 6)), draw(COUNTS)
    rewards = draw(st.lists(values, min_size=size * groups, max_size=size * groups))
    return torch.tensor(rewards, dtype=torch.float64), size


BITS = st.sampled_from([0.0, 1.0])


@given(rollouts(BITS))
def test_pass_at_1_is_the_population_standard_deviation(rollout):
    rewards, size = rollout
    deviations = centered(rewards, size)
    std = deviations.view(-1, size).square().mean(1).sqrt().repeat_interleave(size)
    torch.testing.assert_close(advantages_of("pass_at_k", rewards, size, k=1), deviations / (std + 1e-6))


@given(rollouts(), st.integers(1, 9))
def test_tokens_of_equal_lengths_have_the_mean_as_baseline(rollout, length):
    rewards, size = rollout
    lengths = torch.full(rewards.shape, length)
    torch.testing.assert_close(advantages_of("length_weighted", rewards, size, lengths), centered(rewards, size))


@given(rollouts())
def test_leaving_one_out_scales_the_mean_only_advantage(rollout):
    rewards, size = rollout
    expected = size / (size - 1) * centered(rewards, size)
    torch.testing.assert_close(advantages_of("leave_one_out", rewards, size), expected)


@given(st.lists(st.floats(0, 1, width=16), min_size=2, max_size=8))
def test_one_group_is_not_beta_normalized(rewards):
    rewards = torch.tensor(rewards, dtype=torch.float64)
    torch.testing.assert_close(
        advantages_of("beta_normalization", rewards, len(rewards)), centered(rewards, len(rewards))
    )


@pytest.mark.parametrize("part", OWN, ids=lambda part: part.name)
@given(data=st.data())
def test_permuting_a_group_permutes_its_advantages(part, data):
    rewards, size = data.draw(rollouts(BITS))
    settings = {name: FIELDS.get(name, default) for name, default in part.keywords().items()}
    order = torch.tensor(data.draw(st.permutations(range(size))))
    order = torch.cat([order + start for start in range(0, len(rewards), size)])
    lengths = torch.arange(1, len(rewards) + 1)
    advantages = advantages_of(part.name, rewards, size, lengths, **settings)
    permuted = advantages_of(part.name, rewards[order], size, lengths[order], **settings)
    torch.testing.assert_close(permuted, advantages[order])


@pytest.mark.parametrize("part", [part for part in OWN if part.domain == Domain()], ids=lambda part: part.name)
@given(rollout=rollouts(st.integers(-3, 3).map(float)), constant=st.integers(-9, 9))
def test_a_constant_in_the_rewards_changes_nothing(part, rollout, constant):
    rewards, size = rollout
    settings = {name: FIELDS.get(name, default) for name, default in part.keywords().items()}
    lengths = torch.arange(1, len(rewards) + 1)
    torch.testing.assert_close(
        advantages_of(part.name, rewards + constant, size, lengths, **settings),
        advantages_of(part.name, rewards, size, lengths, **settings),
    )


def test_a_constant_in_the_rewards_changes_an_advantage_over_the_mean():
    shifted, plain = (advantages_of("maximum_likelihood", REWARDS + c, 4) for c in (1.0, 0.0))
    assert (shifted - plain).abs().max() > 0.1


def test_a_group_with_an_infinite_reward_counts_as_not_scored():
    rewards = torch.tensor([1.0, math.inf, 0.0, 1.0, nan, -math.inf])
    torch.testing.assert_close(
        without_infinite_groups(rewards, 2), torch.tensor([nan, nan, 0.0, 1.0, nan, nan]), equal_nan=True
    )


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
