# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Beliefs about prompts, draws by them, and what is kept of several generations: numbers by hand and by enumeration."""

import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from trl.trainer.utils import RepeatSampler

from trl_grpo_variants.prompts.belief import (
    MEMORY,
    after_visit,
    expected_signal,
    prior,
    signal_of_prompts,
    visit_counts,
)
from trl_grpo_variants.prompts.chosen import ChosenPrompts
from trl_grpo_variants.prompts.draw import UNIFORM_SHARE, draw, draw_probabilities, passes, teeth
from trl_grpo_variants.prompts.refill import (
    chosen_groups,
    further_groups,
    gathered,
    have_signal,
    joined,
    rows_of,
    selected,
)
from trl_grpo_variants.prompts.source import PromptSource


# ---- beliefs --------------------------------------------------------------------------------------------------------


def log_beta(a, b):
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


@pytest.mark.parametrize("group", [2, 8, 16])
@pytest.mark.parametrize(("a", "b"), [(0.5, 0.5), (0.1, 7.3), (8.5, 0.5), (20.0, 31.0), (1e-3, 1e-3)])
def test_expected_signal_is_the_ratio_of_beta_functions(a, b, group):
    expected = (
        1 - math.exp(log_beta(a + group, b) - log_beta(a, b)) - math.exp(log_beta(a, b + group) - log_beta(a, b))
    )
    assert expected_signal(np.array([a]), np.array([b]), group)[0] == pytest.approx(expected, abs=1e-12)


def test_expected_signal_of_a_sure_belief_is_that_of_its_success():
    rate = 0.3
    signal = expected_signal(np.array([1e9 * rate]), np.array([1e9 * (1 - rate)]), 8)
    assert signal[0] == pytest.approx(1 - rate**8 - (1 - rate) ** 8, abs=1e-6)


@pytest.mark.parametrize(("a", "b"), [(0.3, 0.4), (2.0, 5.0), (8.0, 8.0)])
def test_the_prior_is_that_of_the_visited_prompts(a, b):
    generator = np.random.default_rng(0)
    completions = np.full(20000, 8.0)
    successes = generator.binomial(8, generator.beta(a, b, len(completions))).astype(float)
    # Prompts that are not known change nothing.
    first, second = prior(np.append(successes, 0.0), np.append(completions, 0.0))
    assert (first, second) == (pytest.approx(a, rel=0.1), pytest.approx(b, rel=0.1))


def test_the_prior_of_prompts_that_are_alike_leaves_one_visit_without_a_say():
    generator = np.random.default_rng(0)
    completions = np.full(2000, 8.0)
    counts = np.stack([generator.binomial(8, 0.5, 2000), completions], axis=1)
    first, second = prior(counts[:, 0], counts[:, 1])
    assert first + second > 50
    signal = signal_of_prompts(counts, 8)
    assert signal.min() > 0.95 * signal.max()


def test_the_prior_of_prompts_that_always_or_never_succeed_believes_one_visit():
    counts = np.array([[8.0, 8.0]] * 40 + [[0.0, 8.0]] * 40 + [[4.0, 8.0]] * 20)
    signal = signal_of_prompts(counts, 8)
    assert signal[0] < 0.3 and signal[40] < 0.3 and signal[80] > 0.9


def test_without_two_visited_prompts_the_prior_is_jeffreys():
    assert prior(np.array([8.0, 0.0]), np.array([8.0, 0.0])) == (0.5, 0.5)
    assert prior(np.array([8.0, 1.0]), np.array([8.0, 1.0])) == (0.5, 0.5)
    # A pair tells something: here that prompts differ as much as can be.
    assert prior(np.array([2.0, 0.0]), np.array([2.0, 2.0])) != (0.5, 0.5)


def test_all_successes_are_no_proof_that_there_is_no_other():
    first, second = prior(np.full(5, 8.0), np.full(5, 8.0))
    assert second > 0 and first / (first + second) == pytest.approx(0.99)


def test_counts_fade_with_a_visit_and_only_then():
    counts = np.array([[4.0, 8.0], [2.0, 8.0], [0.0, 0.0]])
    visit = np.array([[8.0, 8.0], [1.0, 7.0], [0.0, 0.0]])
    # The first prompt has two groups, and of the third's nothing could be scored.
    after = after_visit(counts, [0, 0, 2], visit)
    assert after.tolist() == [[MEMORY * 4 + 9, MEMORY * 8 + 15], [2.0, 8.0], [0.0, 0.0]]
    assert counts[0].tolist() == [4.0, 8.0]


def test_a_group_of_graded_rewards_with_signal_counts_as_half_successes():
    counts = visit_counts(
        np.array([0, 0, 8, 8, 3, 0]),
        np.array([8, 8, 8, 8, 8, 0]),
        np.array([False, True, False, True, True, False]),
    )
    assert counts.tolist() == [[0, 8], [4, 8], [8, 8], [4, 8], [3, 8], [0, 0]]


# ---- draws ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("least_variance", "shares"), [(False, [0.0, 0.2, 0.8]), (True, [0.0, 1 / 3, 2 / 3])])
def test_probabilities_are_the_signal_or_its_root_above_a_floor(least_variance, shares):
    q = draw_probabilities(np.array([0.0, 0.25, 1.0]), least_variance=least_variance)
    assert q.tolist() == pytest.approx([UNIFORM_SHARE / 3 + (1 - UNIFORM_SHARE) * share for share in shares])
    assert draw_probabilities(np.zeros(4)).tolist() == [0.25] * 4


# One of them has more than one draw to itself.
SHARES = [np.array([0.7, 0.2, 0.1]), np.array([0.05, 0.35, 0.35, 0.25]), np.array([1.0])]


def expectation(q, count, function):
    """Mean of a function of the drawn prompts over all offsets, which matter only by what they lie between."""
    edges = np.cumsum(q) * count
    cuts = sorted({0.0, 1.0, *(edges % 1.0)})
    return sum(
        (high - low) * function(teeth(q, count, (low + high) / 2)) for low, high in zip(cuts, cuts[1:], strict=False)
    )


@pytest.mark.parametrize("q", SHARES, ids=len)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_with_its_weights_a_sum_over_the_drawn_is_that_of_uniform_draws(q, count):
    size = len(q)
    values = np.array([3.0, -1.0, 10.0, 0.5])[:size]
    orders = list(itertools.permutations(range(size)))
    for order in map(list, orders):
        # In any order, and so on average over the orders.
        shares, ordered = q[order], values[order]
        estimate = expectation(shares, count, lambda drawn: (ordered / (size * shares))[drawn].mean())  # noqa: B023
        assert estimate == pytest.approx(values.mean(), abs=1e-9)
        for prompt in range(size):
            counted = expectation(shares, count, lambda drawn: (drawn == prompt).sum())  # noqa: B023
            assert counted == pytest.approx(count * shares[prompt], abs=1e-9)


def test_no_prompt_is_drawn_twice_whose_share_is_no_more_than_a_draw():
    generator = np.random.default_rng(0)
    q = draw_probabilities(generator.random(50))
    for _ in range(20):
        drawn = draw(q, 10, generator)
        assert len(set(drawn.tolist())) == 10
    # However the sum of the shares is rounded.
    assert teeth(np.full(10, 0.1 - 1e-9), 10, 1 - 1e-12).max() == 9


def test_passes_are_those_of_trls_sampler():
    sampler = RepeatSampler(range(12), mini_repeat_count=1, batch_size=3, seed=7)
    expected = [index for _ in range(3) for index in sampler]
    taken = [index for start in range(0, 36, 4) for index in passes(start, 4, 12, 7)]
    assert taken == expected
    assert passes(10, 5, 12, 7) == expected[10:15]
    assert passes(0, 36, 12, 7) == expected
    assert passes(10, 5, 12, None) == [10, 11, 0, 1, 2]


# ---- a source -------------------------------------------------------------------------------------------------------


def visited(source, prompts, successes):
    successes = torch.tensor(successes)
    source.learn(prompts, successes, torch.full((len(prompts),), 8), (successes > 0) & (successes < 8))


def test_a_source_goes_on_from_its_state_as_if_it_had_not_stopped():
    def make():
        return PromptSource(30, 8, seed=3, by_signal=True)

    source = make()
    prompts, *_ = source.take(6)
    visited(source, prompts, [0, 8, 4, 8, 0, 2])
    resumed = make()
    resumed.load_state_dict(source.state_dict())
    expected = source.take(6)
    for ours, theirs in zip(resumed.take(6), expected, strict=True):
        assert list(ours) == list(theirs)
    # And not where it began.
    assert make().take(6)[0] != expected[0]


def test_what_is_learned_later_changes_no_saved_state():
    source = PromptSource(4, 8, seed=0, by_signal=True)
    state = source.state_dict()
    visited(source, [0], [8])
    assert state["counts"].tolist() == [[0.0, 0.0]] * 4


def test_weights_are_those_of_the_probabilities():
    rates = np.array([0.5, 1.0, 0.0, np.nan] * 3)
    source = PromptSource(12, 8, seed=0, by_signal=True, least_variance=True, rates=rates)
    counts = np.nan_to_num(np.stack([8 * rates, np.where(np.isnan(rates), 0, 8)], axis=1))
    signal = signal_of_prompts(counts, 8)
    q = draw_probabilities(signal, least_variance=True)
    prompts, weights, expected = source.take(5)
    assert weights.tolist() == pytest.approx((1 / (12 * q[prompts])).tolist())
    assert expected.tolist() == pytest.approx(signal[prompts].tolist())
    assert signal[0] > signal[3] > signal[1]


def test_prompts_in_passes_have_equal_weights():
    prompts, weights, _ = PromptSource(8, 4, seed=0, by_signal=False).take(8)
    assert sorted(prompts) == list(range(8)) and set(weights) == {1.0}


def test_a_state_of_other_data_is_refused():
    state = PromptSource(8, 4, seed=0, by_signal=False).state_dict()
    with pytest.raises(ValueError, match="has 8 prompts and that of the run that resumes has 9"):
        PromptSource(9, 4, seed=0, by_signal=False).load_state_dict(state)


# ---- what is kept ---------------------------------------------------------------------------------------------------


def test_a_group_has_signal_where_an_advantage_is_not_zero():
    advantages = torch.tensor([0.0, 0.0, 0.0, -0.5, 1e-30, 0.0])
    assert have_signal(advantages, 2).tolist() == [False, True, True]


@pytest.mark.parametrize(
    ("missing", "drawn", "with_signal", "multiple", "expected"),
    [
        (8, 0, 0, 1, 8),  # the first generation of a rollout
        (3, 0, 0, 2, 4),  # with kept ones, as far as the processes can share it
        (5, 8, 3, 1, 8),  # 13.3 are needed
        (2, 8, 6, 1, 3),  # 2.67 are needed
        (1, 16, 8, 4, 4),
        (8, 8, 0, 1, 8),  # no signal at all so far
    ],
)
def test_a_further_generation_is_as_large_as_it_is_expected_to_be_needed(
    missing, drawn, with_signal, multiple, expected
):
    assert further_groups(missing, drawn, with_signal, most=8, multiple=multiple) == expected


@pytest.mark.parametrize(
    ("has_signal", "chosen", "surplus"),
    [
        ("0110", [0, 1, 2], []),
        ("1011", [0, 2, 3], []),
        ("11111", [0, 1, 2], [3, 4]),
        ("00000", [0, 1, 2], []),
        ("0100", [0, 1, 2], []),
        ("01001011", [1, 4, 6], [7]),
    ],
)
def test_groups_with_signal_come_first_and_stay_in_order(has_signal, chosen, surplus):
    assert chosen_groups([flag == "1" for flag in has_signal], 3) == (chosen, surplus)


class Widened:
    """The first of two processes, of which the other one's rollout is a column wider, and has the same rows."""

    def pad_across_processes(self, value, dim, pad_index=0, pad_first=False):
        assert dim == 1
        return torch.nn.functional.pad(value, (1, 0) if pad_first else (0, 1), value=pad_index)

    def gather(self, value):
        assert value.dtype != torch.bool
        return torch.cat([value, value])


def test_rows_of_processes_are_padded_on_their_own_sides():
    rollout = {
        "prompt_ids": torch.tensor([[3]]),
        "prompt_mask": torch.tensor([[1]]),
        "completion_ids": torch.tensor([[4]]),
        "old_per_token_logps": torch.tensor([[-0.5]]),
        "has_variance": torch.tensor([True]),
        "num_items_in_batch": torch.tensor(5),
    }
    whole = gathered(rollout, Widened(), pad_token_id=7)
    assert {name: value.tolist() for name, value in whole.items()} == {
        "prompt_ids": [[7, 3]] * 2,
        "prompt_mask": [[0, 1]] * 2,
        "completion_ids": [[4, 7]] * 2,
        "old_per_token_logps": [[-0.5, 0.0]] * 2,
        "has_variance": [True] * 2,
    }


def test_rows_of_rollouts_are_padded_on_their_own_sides():
    parts = [
        {
            "prompt_ids": torch.full((2, width), width),
            "prompt_mask": torch.ones(2, width, dtype=torch.long),
            "completion_ids": torch.full((2, 4 - width), 10 * width),
            "old_per_token_logps": torch.full((2, 4 - width), -0.5),
            "advantages": torch.tensor([0.5, -0.5]) * width,
        }
        for width in (1, 3)
    ]
    whole = joined(parts, pad_token_id=7)
    assert whole["prompt_ids"].tolist() == [[7, 7, 1]] * 2 + [[3, 3, 3]] * 2
    assert whole["prompt_mask"].tolist() == [[0, 0, 1]] * 2 + [[1, 1, 1]] * 2
    assert whole["completion_ids"].tolist() == [[10, 10, 10]] * 2 + [[30, 7, 7]] * 2
    assert whole["old_per_token_logps"].tolist() == [[-0.5] * 3] * 2 + [[-0.5, 0.0, 0.0]] * 2
    assert selected(whole, rows_of([1], 2))["advantages"].tolist() == [1.5, -1.5]
    assert rows_of([2, 0], 2).tolist() == [4, 5, 0, 1]


@pytest.mark.parametrize(("prompts", "state"), [(None, {"kept": None, "silent": 3}), ("chosen here", None)])
def test_a_run_that_chooses_prompts_goes_on_from_one_that_did_not_and_the_other_way_round(prompts, state):
    trainer = SimpleNamespace(_prompts=prompts, _kept=None, _silent_groups=0)
    ChosenPrompts._restore_prompts(trainer, state)
    assert vars(trainer) == {"_prompts": prompts, "_kept": None, "_silent_groups": 0}
