# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import torch

from trl_grpo_variants.rollout import split_by_group


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
