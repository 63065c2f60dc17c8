# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import warnings

import pytest
import torch
from trl.trainer.utils import RepeatSampler

from trl_grpo_variants import GRPOVariantTrainer
from trl_grpo_variants.rollout import (
    arrange,
    carries_gradient,
    check_prompts,
    prompt_groups,
    split_by_group,
    start_epoch,
)

from .tiny import dataset, make_config, reward


# Six prompts of four completions in a rollout, which three optimizer steps spend.
SIX = {
    "per_device_train_batch_size": 8,
    "steps_per_generation": 3,
    "num_generations": 4,
    "mirror_beta": 0.1,
}


def told(prompts, args):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        check_prompts(prompts, args)
    return [str(warning.message) for warning in caught]


@pytest.mark.parametrize("positional", [True, False])
def test_fewer_prompts_than_a_rollout_takes_are_refused_before_a_model_is_loaded(tmp_path, positional):
    given = ([dataset(5)], {}) if positional else ([], {"train_dataset": dataset(5)})
    sentence = "has 5 prompts, but a rollout takes 6 .`generation_batch_size=24` / `num_generations=4`."
    with pytest.raises(ValueError, match=sentence):
        GRPOVariantTrainer("no/such/model", reward, make_config(tmp_path, **SIX), *given[0], **given[1])


@pytest.mark.parametrize("prompts", [6, 12, 20, 23])
def test_prompts_that_an_epoch_leaves_out_are_told(tmp_path, prompts):
    """As many as the sampler leaves out."""
    left_out = prompts - len(set(RepeatSampler(range(prompts), mini_repeat_count=4, batch_size=6, repeat_count=3)))
    sentences = told(dataset(prompts), make_config(tmp_path, **SIX, max_steps=-1))
    assert len(sentences) == (left_out > 0)
    assert all(f"leaves out {left_out} of the {prompts} prompts" in sentence for sentence in sentences)


def test_a_run_that_ends_before_the_epoch_leaves_nothing_out(tmp_path):
    assert told(dataset(20), make_config(tmp_path, **SIX, max_steps=9)) == []
    assert len(told(dataset(20), make_config(tmp_path, **SIX, max_steps=10))) == 1
    settings = SIX | {"gradient_accumulation_steps": 3, "num_iterations": 2}
    assert told(dataset(20), make_config(tmp_path, **settings, max_steps=6)) == []
    assert len(told(dataset(20), make_config(tmp_path, **settings, max_steps=7))) == 1


def test_a_stream_has_no_number_of_prompts(tmp_path):
    assert told(dataset(5).to_iterable_dataset(), make_config(tmp_path, **SIX)) == []
    assert told(None, make_config(tmp_path, **SIX)) == []


def test_micro_batches_are_consecutive_and_scalars_are_shared():
    rollout = {
        "completion_ids": torch.arange(16).view(8, 2),
        "advantages": torch.arange(8.0),
        "num_items_in_batch": torch.tensor(5),
        "tool_mask": None,
    }

    micro_batches = split_by_group(rollout, 4)

    assert [m["advantages"].tolist() for m in micro_batches] == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert micro_batches[2]["completion_ids"].tolist() == [[8, 9], [10, 11]]
    assert all(m["num_items_in_batch"] == 5 and m["tool_mask"] is None for m in micro_batches)


def test_images_go_with_their_prompts():
    rollout = {
        "advantages": torch.arange(4.0),
        "num_images": [1, 2, 0, 1],
        "image_grid_thw": torch.tensor([[1, 1, 2], [1, 1, 1], [1, 1, 3], [1, 1, 1]]),
        "pixel_values": torch.arange(7.0).view(7, 1),
    }

    first, second = split_by_group(rollout, 2)

    assert first["num_images"] == [1, 2]
    assert first["pixel_values"].flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert second["image_grid_thw"].tolist() == [[1, 1, 1]]
    assert second["pixel_values"].flatten().tolist() == [6]


def micro_batches(lengths, size, **fields):
    """Rows that hold their number, as micro-batches of `size`."""
    lengths = torch.tensor(lengths)
    rows = {
        "prompt_ids": torch.ones(len(lengths), 3, dtype=torch.long),
        "prompt_mask": torch.ones(len(lengths), 3, dtype=torch.long),
        "completion_ids": torch.arange(len(lengths)).unsqueeze(1).expand(-1, 9),
        "completion_mask": (torch.arange(9) < lengths.unsqueeze(1)).long(),
        "advantages": torch.ones(len(lengths)),
    } | fields
    starts = range(0, len(lengths), size)
    return [
        {name: value[start : start + size] for name, value in rows.items()} | {"num_items_in_batch": torch.tensor(7)}
        for start in starts
    ]


def numbers(batches):
    return [batch["completion_ids"][:, 0].tolist() for batch in batches]


def test_rows_are_arranged_by_length_within_an_optimizer_step():
    batches = micro_batches([1, 9, 2, 8, 3, 7, 4, 6], size=2)
    assert numbers(arrange(batches, 2)) == [[1, 3], [2, 0], [5, 7], [6, 4]]
    assert numbers(arrange(batches, 4)) == numbers(arrange(batches, 8)) == [[1, 3], [5, 7], [6, 4], [2, 0]]
    for batch in arrange(batches, 4):
        assert (
            batch["completion_mask"].sum(dim=1)
            == torch.tensor([1, 9, 2, 8, 3, 7, 4, 6])[batch["completion_ids"][:, 0]]
        ).all()
        assert batch["num_items_in_batch"] == 7


def test_a_row_is_as_long_as_its_prompt_and_its_completion():
    prompts = torch.tensor([[1, 1, 1], [0, 0, 1], [0, 1, 1], [1, 1, 1]])
    assert numbers(arrange(micro_batches([3, 4, 4, 1], 2, prompt_mask=prompts), 2)) == [[0, 2], [1, 3]]


def test_rows_without_effect_come_last():
    needed = torch.tensor([True, False, True, False])
    assert numbers(arrange(micro_batches([1, 9, 2, 8], 2, needed=needed), 2)) == [[2, 0], [1, 3]]


def test_rows_of_a_prompt_come_together():
    prompts = torch.tensor([1, 2, 1, 2, 3, 3]).unsqueeze(1).expand(-1, 3)
    batches = micro_batches([1, 5, 2, 6, 9, 3], 2, prompt_ids=prompts)
    assert numbers(arrange(batches, 3, by_prompt=True)) == [[4, 5], [1, 3], [0, 2]]


def test_the_same_tokens_under_another_mask_are_another_prompt():
    """A token of padding may be one of a prompt too."""
    ids = torch.tensor([[0, 0, 5]]).expand(4, -1)
    mask = torch.tensor([[1, 1, 1], [0, 1, 1], [1, 1, 1], [0, 1, 1]])
    assert prompt_groups(ids, mask).tolist() in ([0, 1, 0, 1], [1, 0, 1, 0])
    batches = micro_batches([9, 5, 2, 6], 2, prompt_ids=ids, prompt_mask=mask)
    assert numbers(arrange(batches, 2, by_prompt=True)) == [[0, 2], [1, 3]]


def test_lists_with_an_entry_per_row_go_with_the_rows():
    batches = micro_batches([1, 9, 2, 8], 2, num_images=["1", "9", "2", "8"])
    for batch in batches:
        batch["names"] = ["one", "for", "all"]
    arranged = arrange(batches, 2)
    assert [batch["num_images"] for batch in arranged] == [["9", "8"], ["2", "1"]]
    assert all(batch["names"] == ["one", "for", "all"] for batch in arranged)


@pytest.mark.parametrize(
    ("steps", "fields"), [(1, {}), (3, {}), (6, {}), (2, {"pixel_values": torch.ones(8, 1)})], ids=str
)
def test_rows_stay_where_steps_do_not_end_with_the_rollout_or_images_are_not_by_row(steps, fields):
    batches = micro_batches([1, 9, 2, 8, 3, 7, 4, 6], 2, **fields)
    assert numbers(arrange(batches, steps)) == [[0, 1], [2, 3], [4, 5], [6, 7]]


@pytest.mark.parametrize(
    ("has_variance", "has_divergence", "expected"),
    [
        (None, False, [True, True, False, False]),
        (None, True, [True, True, True, False]),
        ([True, False, False, True], False, [True, True, False, False]),
        ([False, False, True, True], True, [True, True, True, False]),
        ([False, False, False, True], True, [True, True, False, False]),
    ],
)
def test_a_row_matters_by_its_advantage_or_a_divergence_and_its_tokens(has_variance, has_divergence, expected):
    mask = torch.tensor([[1, 1], [0, 1], [1, 0], [0, 0]])
    has_variance = None if has_variance is None else torch.tensor(has_variance)
    for advantages in (torch.tensor([1.0, -1.0, 0.0, 1.0]), torch.tensor([[1.0, 0], [0, -1], [0, 0], [1, 1]])):
        assert carries_gradient(advantages, mask, has_variance, has_divergence).tolist() == expected


def test_an_epoch_has_the_order_that_a_run_from_the_start_would_give_it():
    whole = RepeatSampler(range(12), mini_repeat_count=2, batch_size=4, seed=3)
    epochs = [list(whole) for _ in range(3)]
    assert epochs[0] != epochs[1] != epochs[2]
    for epoch in (2, 0, 1):
        start_epoch(whole, epoch)
        assert list(whole) == epochs[epoch]


def test_an_order_that_is_not_drawn_or_not_seeded_stays_as_it_is():
    for settings in ({"shuffle": False, "seed": 3}, {"shuffle": True}):
        started, other = (RepeatSampler(range(12), mini_repeat_count=2, batch_size=4, **settings) for _ in range(2))
        start_epoch(started, 2)
        assert list(started) == list(other)
