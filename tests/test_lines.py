# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaConfig

from trl_grpo_variants.forward.lines import LineForward, Lines, _made_up_batch
from trl_grpo_variants.forward.passes import Batch, bins

from .test_forward import ROWS, padded


def batch_of(rows):
    ids, mask = padded(rows)
    return Batch(ids, mask, 9, {})


def following(lines):
    """The label of each token, as a value that a model would return for it."""
    return lines.labels.clamp(min=0).float()


@given(ROWS)
def test_packed_lines_hold_each_row_at_its_own_positions(rows):
    batch = batch_of(rows)
    widths = [prompt + completion for prompt, completion in rows]
    lines = Lines.laid(batch, bins(widths), share_prompt=False)
    # The label behind each token of a completion's place is that token.
    expected = (batch.input_ids * batch.attention_mask)[:, 7:].float()
    assert torch.equal(lines.restore(following(lines), (len(rows), 9)), expected)
    for i, (prompt, completion) in enumerate(rows):
        is_row = (lines.input_ids // 100 == i + 1) & (lines.segments > 0)
        assert is_row.sum() == prompt + completion - 1
        assert lines.position_ids[is_row].tolist() == list(range(prompt + completion - 1))
        assert len(lines.segments[is_row].unique()) <= 1
    assert (lines.segments > 0).sum() == sum(widths) - len(rows)
    assert lines.input_ids.size(1) <= max(2, *widths)
    # Nothing but the completions goes through the language model's head.
    assert (lines.labels >= 0).sum() == sum(completion for _, completion in rows)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=6), st.integers(1, 7))
def test_a_shared_prompt_is_laid_out_once(completions, prompt):
    ids, mask = padded([(prompt, completion) for completion in completions])
    # The same prompt for all.
    ids[:, 7 - prompt : 7] = torch.arange(1, prompt + 1)
    lines = Lines.laid(Batch(ids, mask, 9, {}), [list(range(len(completions)))], share_prompt=True)
    assert torch.equal(lines.restore(following(lines), (len(completions), 9)), (ids * mask)[:, 7:].float())
    assert (lines.segments >= 0).sum() == prompt - 1 + sum(completions)

    sees = lines.attention_mask(None)[0, 0]
    for column in range(sees.size(0)):
        segment = lines.segments[0, column]
        visible = sees[column].nonzero().squeeze(1)
        assert (visible <= column).all() and column in visible
        if segment >= 0:
            # What a completion's token sees are the positions before its own, each once.
            assert lines.position_ids[0, visible].tolist() == list(range(int(lines.position_ids[0, column]) + 1))
            assert set(lines.segments[0, visible].tolist()) <= {0, int(segment)}
    added = lines.attention_mask(torch.float16)[0, 0]
    assert torch.equal(added == 0, sees) and torch.isfinite(added).all()


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30))
def test_bins_hold_each_row_once_and_are_no_wider_than_the_longest(widths):
    lines = bins(widths)
    assert sorted(row for line in lines for row in line) == list(range(len(widths)))
    assert max(sum(widths[row] for row in line) for line in lines) == max(widths)
    # No two lines would fit on one.
    sums = sorted(sum(widths[row] for row in line) for line in lines)
    assert len(sums) == 1 or sums[0] + sums[1] > max(widths)


def test_values_that_are_not_wanted_do_not_come_back():
    lines = Lines.laid(batch_of([(2, 1), (1, 0)]), [[0, 1]], share_prompt=False)
    values = torch.full(lines.input_ids.shape, float("nan")).index_put(
        (torch.tensor([0]), lines.places), torch.tensor([5.0])
    )
    assert lines.restore(values, (2, 9)).sum() == pytest.approx(5.0)


@pytest.mark.parametrize("share_prompt", [False, True])
def test_lines_are_divided_over_passes_by_their_widths(share_prompt):
    """What a pass may hold is counted before its lines are laid."""
    batch = batch_of([(3, 2), (5, 9), (3, 1), (5, 4)])
    batch.input_ids[[2, 3], :7] = batch.input_ids[[0, 1], :7]
    forward = LineForward(trim="both", splits=True, attention="sdpa", share_prompt=share_prompt)
    widths, units = forward._units(batch)
    assert [Lines.laid(batch, [unit], share_prompt=share_prompt).input_ids.size(1) for unit in units] == widths


def test_prompts_that_differ_in_their_mask_share_no_line():
    batch = batch_of([(3, 2), (2, 2), (3, 1)])
    # The padding of the second row is a token of the others' prompt.
    batch.input_ids[:, :7] = torch.tensor([0, 0, 0, 0, 0, 5, 6])
    forward = LineForward(trim="both", splits=True, attention="sdpa", share_prompt=True)
    assert sorted(forward._lines(batch)) == [[0, 2], [1]]


def test_packed_lines_are_no_wider_than_the_longest_row():
    batch = batch_of([(3, 2), (5, 9), (7, 1), (5, 4), (1, 0), (2, 8)])
    lines = LineForward(trim="both", splits=True, attention="sdpa")._lines(batch)
    assert sorted(row for line in lines for row in line) == list(range(6)) and len(lines) < 6
    assert max(batch.lengths[0][line].sum() + batch.lengths[1][line].sum() for line in lines) == 14


def test_lines_are_tried_out_on_completions_of_all_lengths():
    model = SimpleNamespace(config=LlamaConfig(vocab_size=1000))
    batch = _made_up_batch(model, torch.device("cpu"))
    prompts, completions = (values.unflatten(0, (3, 4)) for values in batch.lengths)
    assert prompts.tolist() == [[n] * 4 for n in prompts[:, 0]] and len(prompts.unique()) == 3
    assert completions.tolist() == completions[:1].expand(3, 4).tolist() and len(completions.unique()) == 4
    assert (prompts.max(), completions.max()) == batch.size and min(prompts.min(), completions.min()) > 0
    forward = LineForward(trim="both", splits=True, attention="sdpa", share_prompt=True)
    assert sorted(forward._lines(batch)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    # Completions without anything in common, so that what leaks from one to another shows.
    ids = batch.input_ids[:, batch.size[0] :]
    assert len(ids[:, 0].unique()) == 12
