# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, GPT2Config, LlamaConfig, Qwen3Config

from trl_grpo_variants.forward.passes import partition
from trl_grpo_variants.forward.trimmed import TrimmedForward
from trl_grpo_variants.forward.window import Window, lengths, trimmable


ROWS = st.lists(st.tuples(st.integers(1, 7), st.integers(0, 9)), min_size=1, max_size=12)

LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 512,
    "short_factor": [1.0] * 64,
    "long_factor": [2.0] * 64,
}
ONE_KIND_DEPENDS_ON_THE_LENGTH = {
    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    "full_attention": {"rope_type": "dynamic", "rope_theta": 1e6, "factor": 2.0},
}


def padded(rows, prompt_columns=7, completion_columns=9):
    """Token ids that tell row and place, 0 for padding, and their mask."""
    ids = torch.zeros(len(rows), prompt_columns + completion_columns, dtype=torch.long)
    for i, (prompt, completion) in enumerate(rows):
        start = prompt_columns - prompt
        ids[i, start : prompt_columns + completion] = 100 * (i + 1) + torch.arange(prompt + completion)
    return ids, (ids != 0).long()


def score_of_ids(calls=None):
    """A forward pass whose log-prob of a token is its id, and which remembers what it was given."""

    def score(model, input_ids, attention_mask, logits_to_keep, batch_size=None, **inputs):
        if calls is not None:
            calls.append((input_ids, attention_mask, logits_to_keep, inputs))
        values = (input_ids * attention_mask)[:, -logits_to_keep:].float() * model
        return values, 2 * values, None

    return score


@given(ROWS)
def test_lengths_are_those_of_the_rows(rows):
    _, mask = padded(rows)
    prompt, completion = lengths(mask, 9)
    assert list(zip(prompt.tolist(), completion.tolist(), strict=True)) == rows


def test_a_hole_in_a_mask_does_not_shorten_a_row():
    mask = torch.tensor([[0, 1, 0, 1, 1, 0, 1, 0]])
    assert [length.item() for length in lengths(mask, 4)] == [3, 3]


@given(ROWS, st.sampled_from(["both", "right", "none"]), st.integers(1, 5))
def test_a_window_holds_every_token_in_order_and_restores_it(rows, trim, multiple):
    ids, mask = padded(rows)
    window = Window.around(*lengths(mask, 9), (7, 9), trim=trim, multiple=multiple)
    cut, cut_mask = window.cut(ids), window.cut(mask)
    for i, row in enumerate(cut):
        assert torch.equal(row[cut_mask[i] != 0], ids[i][mask[i] != 0])
        # Contiguous, and where the model may not see it, padding only.
        assert (row[cut_mask[i] == 0] == 0).all()
    restored = window.restore(cut[:, -window.logits_to_keep :].float())
    assert torch.equal(restored, (ids * mask)[:, 7:].float())
    if trim != "none":
        longest = max(prompt + completion for prompt, completion in rows)
        if trim == "right":
            longest = 7 + max(1, *[completion for _, completion in rows])
        assert longest <= cut.size(1) <= max(2, longest + multiple - 1)
    if trim != "both":
        # Every token keeps its column.
        assert torch.equal(cut, ids[:, : cut.size(1)])
    assert trim != "none" or cut.shape == ids.shape


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(50, 200), st.integers(0, 100))
def test_a_partition_takes_each_row_once_and_keeps_to_its_budget(widths, max_tokens, split_cost):
    passes = partition(widths, max_tokens=max_tokens, split_cost=split_cost)
    assert sorted(row for rows in passes for row in rows) == list(range(len(widths)))
    for rows in passes:
        assert len(rows) * max(widths[row] for row in rows) <= max_tokens


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(0, 200))
def test_a_pass_is_cut_only_where_that_saves_its_cost(widths, split_cost):
    def computed(passes):
        return sum(len(rows) * max(widths[row] for row in rows) for rows in passes)

    passes = partition(widths, split_cost=split_cost)
    saved = len(widths) * max(widths) - computed(passes)
    assert saved >= (len(passes) - 1) * (split_cost + 1) or len(passes) == 1
    if split_cost == 0:
        assert computed(passes) == sum(widths)


def test_rows_of_one_length_stay_together():
    assert partition([7] * 64, split_cost=0) == [list(range(64))]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LlamaConfig(), "both"),
        (LlamaConfig(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}), "both"),
        (LlamaConfig(rope_parameters={"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}), "none"),
        (LlamaConfig(rope_parameters=LONGROPE), "none"),
        (AutoConfig.for_model("gemma3_text", rope_parameters=ONE_KIND_DEPENDS_ON_THE_LENGTH), "none"),
        (Qwen3Config(), "both"),
        (Qwen3Config(use_sliding_window=True, sliding_window=8, max_window_layers=1), "both"),
        (AutoConfig.for_model("gemma3_text"), "both"),
        (AutoConfig.for_model("qwen2_5_vl"), "both"),
        (AutoConfig.for_model("qwen3_next"), "right"),
        (AutoConfig.for_model("llama4_text"), "right"),
        (AutoConfig.for_model("phi3", rope_scaling=None), "both"),
        (GPT2Config(), "right"),
        (AutoConfig.for_model("opt"), "right"),
        (AutoConfig.for_model("mamba"), "right"),
    ],
    ids=lambda value: getattr(value, "model_type", value),
)
def test_what_may_be_trimmed_depends_on_the_positions(config, expected):
    assert trimmable(config) == expected


@given(ROWS, st.sampled_from(["both", "right", "none"]), st.booleans(), st.data())
def test_scores_come_back_to_their_rows(rows, trim, splits, data):
    ids, mask = padded(rows)
    needed = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    weight = torch.ones((), requires_grad=True)
    forward = TrimmedForward(trim=trim, splits=splits, split_cost=0)
    logps, entropies, _ = forward(score_of_ids(), weight, ids, mask, 9, needed=needed)
    expected = (ids * mask)[:, 7:].float() * needed.unsqueeze(1)
    assert torch.equal(logps, expected)
    assert torch.equal(entropies, 2 * expected)
    # Even where nothing is needed, there is a graph to go back through.
    logps.sum().backward()
    assert weight.grad == expected.sum()


@pytest.mark.parametrize(("splits", "shapes"), [(True, [(1, 10), (2, 4), (1, 2)]), (False, [(4, 10)])])
def test_rows_of_similar_length_share_a_pass(splits, shapes):
    ids, mask = padded([(2, 2), (3, 1), (4, 6), (1, 1)])
    calls = []
    TrimmedForward(trim="both", splits=splits, split_cost=0)(score_of_ids(calls), 1.0, ids, mask, 9)
    assert [tuple(given_ids.shape) for given_ids, *_ in calls] == shapes


def test_without_gradients_short_rows_make_larger_batches():
    """As many tokens as TRL's batches of padded rows have; where processes must agree, as many passes."""
    ids, mask = padded([(1, 1)] * 30 + [(7, 9)] * 2)
    for splits, expected in ((True, [(2, 16), (16, 2), (14, 2)]), (False, [(2, 16)] + 15 * [(2, 2)])):
        calls = []
        with torch.no_grad():
            TrimmedForward(trim="both", splits=splits)(score_of_ids(calls), 1.0, ids, mask, 9, 2)
        assert [tuple(given_ids.shape) for given_ids, *_ in calls] == expected


def test_nothing_to_compute_costs_two_tokens():
    ids, mask = padded([(7, 9)] * 6)
    calls = []
    TrimmedForward(trim="both", splits=True)(score_of_ids(calls), 1.0, ids, mask, 9, needed=torch.zeros(6).bool())
    # One of them is the completion's.
    assert [(tuple(given_ids.shape), keep) for given_ids, _, keep, _ in calls] == [((1, 2), 1)]


def test_images_are_not_taken_apart_and_their_token_types_follow_the_rows():
    ids, mask = padded([(2, 1), (3, 4), (1, 2)])
    calls = []
    TrimmedForward(trim="both", splits=True, split_cost=0)(
        score_of_ids(calls),
        1.0,
        ids,
        mask,
        9,
        pixel_values=torch.ones(5, 2),
        mm_token_type_ids=ids % 7,
        num_images=None,
    )
    ((given_ids, given_mask, keep, inputs),) = calls
    assert (tuple(given_ids.shape), keep) == ((3, 7), 4)
    assert torch.equal(inputs["mm_token_type_ids"], given_ids % 7)
    assert inputs["pixel_values"].shape == (5, 2)
    assert "num_images" not in inputs


@pytest.mark.parametrize("name", ["token_type_ids", "mm_token_type_ids"])
def test_rows_that_are_divided_over_passes_take_their_token_types_along(name):
    ids, mask = padded([(2, 1), (7, 9), (3, 4), (1, 2)])
    needed = torch.tensor([True, True, False, True])
    calls = []
    TrimmedForward(trim="both", splits=True, split_cost=0)(
        score_of_ids(calls), 1.0, ids, mask, 9, needed=needed, **{name: ids % 7}
    )
    assert [len(given_ids) for given_ids, *_ in calls] == [1, 2]
    for given_ids, _, _, inputs in calls:
        assert torch.equal(inputs[name], given_ids % 7)
    calls.clear()
    TrimmedForward(trim="both", splits=True)(
        score_of_ids(calls), 1.0, ids, mask, 9, needed=~mask.any(dim=1), **{name: ids % 7}
    )
    ((given_ids, _, _, inputs),) = calls
    assert torch.equal(inputs[name], given_ids % 7)
