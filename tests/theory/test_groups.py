# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_grpo_variants import theory
from trl_grpo_variants.theory import groups

from .numerics import epsilons, group_sizes, known, names, prompts, quick


def group_advantage_gap(successes, size, name, epsilon):
    """Advantage of success minus that of failure, from the rewards of one group."""
    rewards = np.array([1.0] * successes + [0.0] * (size - successes))
    if name == "mean_only":
        return 1.0
    if name == "smoothed_std":
        return 1.0 / np.sqrt(rewards.var() + epsilon)
    return 1.0 / (rewards.std(ddof=1) + 1e-4)


@pytest.mark.parametrize("size", [2, 3, 16])
@pytest.mark.parametrize("name", ["smoothed_std", "mean_only", "group_std"])
@pytest.mark.parametrize("p", [Fraction(1, 1000), Fraction(1, 3), Fraction(99, 100)])
def test_effective_omega_by_enumeration_of_all_groups(p, size, name):
    expected = 0.0
    for k in range(1, size):
        rate = Fraction(k, size)
        weight = comb(size, k) * p**k * (1 - p) ** (size - k) * rate * (1 - rate) / (p * (1 - p))
        expected += float(weight) * group_advantage_gap(k, size, name, 1e-2)
    found = theory.group_omega(float(p), size, **known(name, 1e-2))
    assert found == pytest.approx(expected, rel=1e-12)


@quick
@given(prompts, group_sizes, names, epsilons)
def test_effective_omega_never_exceeds_what_the_rarest_group_computes(p, size, name, epsilon):
    settings = known(name, epsilon)
    effective = theory.group_omega(p, size, **settings)
    one = group_advantage_gap(1, size, name, epsilon)
    assert 0.0 < effective <= (size - 1) / size * one * (1.0 + 1e-12)
    assert theory.group_omega(1.0 - p, size, **settings) == pytest.approx(effective, rel=1e-6)
    if name == "mean_only":
        assert effective == pytest.approx((size - 1) / size, rel=1e-12)


@pytest.mark.parametrize("name", ["smoothed_std", "mean_only", "group_std"])
def test_effective_omega_tends_to_omega_for_large_groups(name):
    rates = np.array([0.05, 0.3, 0.9])
    errors = [
        np.abs(theory.group_omega(rates, size, advantage=name) / theory.omega(rates, advantage=name) - 1)
        for size in (200, 2000, 20000)
    ]
    # The correction is of order 1/G.
    assert (errors[0] < 0.1).all()
    np.testing.assert_allclose(errors[1] * 10.0, errors[0], rtol=0.3)
    np.testing.assert_allclose(errors[2] * 10.0, errors[1], rtol=0.3)


def test_effective_omega_saturates_where_omega_grows():
    assert theory.group_omega(0.0, 16) == pytest.approx(np.sqrt(15), rel=1e-3)
    assert theory.group_omega(1.0, 16, advantage="group_std") == pytest.approx(15 / 4, rel=1e-3)
    assert theory.omega(0.0) == pytest.approx(np.sqrt(1e5))


@quick
@given(prompts, st.integers(2, 12))
def test_share_of_groups_without_variance(p, size):
    without = 1.0 - sum(comb(size, k) * p**k * (1.0 - p) ** (size - k) for k in range(1, size))
    assert theory.zero_variance_probability(p, size) == pytest.approx(without, abs=1e-12)
    assert theory.zero_variance_probability([0.0, 1.0, 0.5], size).tolist() == [1.0, 1.0, 2.0 ** (1 - size)]


def test_first_step_of_sampled_groups_moves_as_far_as_the_effective_omega_says():
    """The mean score-function step of sampled groups, against the one of an infinite group."""
    rng = np.random.default_rng(0)
    p, size = 0.1, 8
    draws = rng.random((200_000, size)) < p
    rate = draws.mean(axis=1, keepdims=True)
    advantages = (draws - rate) / np.sqrt(rate * (1.0 - rate) + 1e-5)
    # d log pi / dL of the drawn outcome is r - p.
    steps = (advantages * (draws - p)).mean(axis=1)
    expected = p * (1.0 - p) * theory.group_omega(p, size)
    assert steps.mean() == pytest.approx(expected, abs=4.0 * steps.std() / np.sqrt(len(steps)))


def test_group_functions_refuse_what_is_no_group():
    for call in (
        lambda: theory.group_omega(0.5, 1),
        lambda: theory.zero_variance_probability(0.5, 2.5),
    ):
        with pytest.raises(ValueError, match="`num_generations` must be a whole number of at least 2"):
            call()


def test_many_prompts_are_computed_in_parts(monkeypatch):
    rates = np.linspace(0.0, 1.0, 24).reshape(4, 6)
    whole = theory.group_omega(rates, 8)
    monkeypatch.setattr(groups, "_LARGEST_TABLE", 40)
    np.testing.assert_array_equal(theory.group_omega(rates, 8), whole)
    assert whole.shape == rates.shape and whole[0, 3] == theory.group_omega(rates[0, 3], 8)
