# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import math

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import GradientState
from torch.utils.data import DataLoader, IterableDataset

from trl_grpo_variants.metrics import RunningMeans, distinct_rows


@pytest.fixture
def means():
    return RunningMeans(Accelerator(cpu=True))


def test_a_mean_weighs_what_was_counted_and_not_the_batches(means):
    means.add("train", "kl", 1.0, 2)
    means.add("train", "kl", 5.0, 4)
    means.add("eval", "kl", 7.0, 1)
    assert means.pop("train") == {"kl": 1.0}
    # Counting has begun anew, and an evaluation has its own.
    assert means.pop("train") == {}
    assert means.pop("eval") == {"kl": 7.0}


def test_what_was_not_counted_stays_in_the_log_without_a_value(means):
    means.add("train", "entropy", 0.0, 0)
    (name, value), *others = means.pop("train").items()
    assert name == "entropy" and math.isnan(value) and not others
    means.add("train", "entropy", 0.0, 0)
    means.add("train", "entropy", 3.0, 2)
    assert means.pop("train") == {"entropy": 1.5}


def test_means_go_on_from_a_state_that_later_counts_leave_alone(means):
    resumed = RunningMeans(Accelerator(cpu=True))
    means.add("train", "kl", 1.0, 2)
    means.add("eval", "kl", 9.0, 1)
    state = means.state_dict()
    means.add("train", "kl", 5.0, 1)
    assert state == {"kl": [1.0, 2.0]}
    resumed.add("train", "entropy", 1.0, 1)
    resumed.load_state_dict(state)
    resumed.add("train", "kl", 2.0, 4)
    assert state == {"kl": [1.0, 2.0]}
    assert resumed.pop("train") == {"kl": 0.5}
    assert resumed.pop("eval") == {}


@pytest.mark.parametrize(("rows", "expected"), [(24, [4] * 6), (10, [4, 4, 2]), (3, [3]), (5, [4, 1])])
def test_rows_of_the_last_batch_that_are_repeated_do_not_count(rows, expected):
    loader = Accelerator(cpu=True).prepare(DataLoader(torch.arange(rows), batch_size=4))
    # As if each batch had been filled up with rows that were there before.
    assert [distinct_rows(4) for _ in loader] == expected
    # Outside of a loop over data all rows are what they are.
    assert distinct_rows(4) == 4


class Stream(IterableDataset):
    def __iter__(self):
        return iter(torch.arange(6))


def test_data_without_a_length_repeats_nothing_that_is_known():
    loader = Accelerator(cpu=True).prepare(DataLoader(Stream(), batch_size=4))
    assert [distinct_rows(4) for _ in loader] == [4, 4]


def test_tokens_and_trajectories_that_count_are_counted(means):
    mask = torch.tensor([[1, 1, 0], [0, 0, 0], [1, 0, 0]])
    tokens = torch.tensor([[1.0, 2.0, math.nan], [math.inf, 9.0, 9.0], [6.0, 9.0, 9.0]])
    rows = torch.tensor([1.0, math.nan, 2.0])
    means.count("train", {"of_tokens": tokens, "of_rows": rows}, mask)
    means.count("train", {"of_tokens": tokens[2:]}, mask[2:])
    assert means.pop("train") == {"of_tokens": 15.0 / 4, "of_rows": 1.5}


def test_success_of_an_evaluation_leaves_out_what_is_repeated(means, monkeypatch):
    rewards, weights = torch.tensor([[1.0], [1.0], [1.0], [0.0]]), torch.ones(1)
    monkeypatch.setattr("trl_grpo_variants.metrics.distinct_rows", lambda rows: rows - 2)
    for mode, success, prompts in (("train", 0.75, 2.0), ("eval", 1.0, 1.0)):
        means.count_success(mode, rewards, weights, 2)
        logged = means.pop(mode)
        assert (logged["success"], logged["success_prompts"]) == (success, prompts)


def test_weights_of_trajectories_are_those_of_a_whole_optimizer_step(means):
    gradients = GradientState()
    log_weights = torch.tensor([0.0, math.log(3.0), 7.0])
    # Of the last row no token counts.
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]])
    gradients._set_sync_gradients(False)
    means.count_trajectories(log_weights[:1], mask[:1])
    assert means.pop("train") == {}
    gradients._set_sync_gradients(True)
    means.count_trajectories(log_weights[1:], mask[1:])
    logged = means.pop("train")
    assert logged["trajectory/ess"] == pytest.approx(4.0**2 / (1.0 + 9.0) / 2)
    assert logged["trajectory/log_weight_std"] == pytest.approx(math.log(3.0) / 2)
    # A step of which no trajectory counts keeps the names.
    means.count_trajectories(log_weights[2:], mask[2:])
    later = means.pop("train")
    assert later.keys() == logged.keys() and all(map(math.isnan, later.values()))
    # Beside others it adds nothing to their means.
    for rows in (slice(2, 3), slice(0, 2)):
        means.count_trajectories(log_weights[rows], mask[rows])
    assert means.pop("train") == logged


def test_weights_at_the_end_of_a_rollout_are_logged_once_more(means):
    log_weights, mask = torch.tensor([0.0, math.log(3.0)]), torch.ones(2, 4)
    means.count_trajectories(torch.zeros(2), mask)
    means.count_trajectories(log_weights, mask, ends_rollout=True)
    logged = means.pop("train")
    assert logged["rollout_end/trajectory/ess"] == pytest.approx(4.0**2 / (1.0 + 9.0) / 2)
    assert logged["trajectory/ess"] == pytest.approx((1.0 + logged["rollout_end/trajectory/ess"]) / 2)
