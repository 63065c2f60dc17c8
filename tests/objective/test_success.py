# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Success of completions and of groups, and of the best of k completions."""

import math
from fractions import Fraction
from itertools import combinations

import pytest
import torch

from trl_grpo_variants.objective.rewards import length_counts, success_at, success_counts, success_sizes


nan = math.nan


@pytest.mark.parametrize("completions", range(1, 8))
def test_success_at_k_is_the_share_of_choices_of_k_that_hold_one(completions):
    for k in range(1, completions + 1):
        outcomes = [[i < c for i in range(completions)] for c in range(completions + 1)]
        choices = [[any(chosen) for chosen in combinations(outcome, k)] for outcome in outcomes]
        expected = [sum(holds) / len(holds) for holds in choices]

        estimates = success_at(torch.arange(completions + 1), torch.full((completions + 1,), completions), k)

        assert estimates.tolist() == pytest.approx(expected, abs=1e-14), k


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_success_at_k_has_no_bias(p):
    """Over all outcomes of independent completions it is on average what k further ones would do."""
    n = 8
    successes = torch.arange(n + 1)
    probabilities = torch.tensor([math.comb(n, c) * p**c * (1 - p) ** (n - c) for c in range(n + 1)]).double()
    for k in success_sizes(n):
        mean = (probabilities * success_at(successes, torch.full((n + 1,), n), k)).sum().item()
        assert mean == pytest.approx(1 - (1 - p) ** k, abs=1e-7)


def test_success_at_k_of_large_groups():
    n = 2048
    for c, k in [(0, 2048), (1, 1024), (3, 512), (2047, 1), (2048, 1)]:
        expected = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
        assert success_at(torch.tensor([c]), torch.tensor([n]), k).item() == pytest.approx(float(expected), abs=1e-12)


def test_sizes_are_powers_of_two_within_the_group():
    assert [success_sizes(group) for group in (1, 2, 3, 6, 8)] == [[1], [1, 2], [1, 2], [1, 2, 4], [1, 2, 4, 8]]


def test_success_at_k_counts_groups_with_k_scored_completions():
    """Scored 4, 3, 1 and 0 of four, with 1, 2, 1 and 0 successes."""
    rewards = torch.tensor([[0, 1, 0, 0], [1, nan, 0, 1], [nan, nan, 1, nan], [nan] * 4]).view(-1, 1)

    counts = success_counts(rewards, torch.ones(1), 4)

    assert counts["success@1"] == (pytest.approx(1 / 4 + 2 / 3 + 1), 3)
    assert counts["success@2"] == (pytest.approx(1 / 2 + 1), 2)
    assert counts["success@4"] == (1.0, 1)


def test_success_counts_completions_and_groups_with_full_reward():
    rewards = torch.tensor([[1.0], [1.0], [1.0], [0.0], [0.5], [0.0]])

    counts = success_counts(rewards, torch.ones(1), 2)

    assert counts == {
        "success": (3, 6),
        "success_all": (1, 3),
        "success_none": (1, 3),
        "success@1": (1.5, 3),
        "success@2": (2.0, 3),
    }


def test_success_needs_every_counted_function_and_ignores_unscored_completions():
    rewards = torch.tensor([[1.0, 0.2, -5.0], [1.0, 1.0, -5.0], [nan, 1.0, 0.0], [nan, nan, nan]])

    counts = success_counts(rewards, torch.tensor([1.0, 2.0, 0.0]), 2)

    assert counts == {
        "success": (2, 3),
        "success_all": (1, 2),
        "success_none": (0, 2),
        "success@1": (1.5, 2),
        # Of the second group one member was scored, which says nothing of two.
        "success@2": (1.0, 1),
    }


def test_nothing_scored_counts_nothing():
    counts = success_counts(torch.full((4, 1), nan), torch.ones(1), 2)

    assert counts == dict.fromkeys(["success", "success_all", "success_none", "success@1", "success@2"], (0, 0))


def test_lengths_are_told_by_success_and_those_without_a_reward_among_all():
    lengths = torch.tensor([1, 2, 4, 8, 100])
    rewards = torch.tensor([[1.0], [0.5], [1.0], [0.0], [nan]])

    counts = length_counts(lengths, rewards, torch.ones(1))

    assert counts == {
        "completions/mean_successful_length": (5, 2),
        "completions/mean_failed_length": (10, 2),
        "completions/lower_quartile_length": (2.0, 1),
        "completions/median_length": (4.0, 1),
        "completions/upper_quartile_length": (8.0, 1),
    }
