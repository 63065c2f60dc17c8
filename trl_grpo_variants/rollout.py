# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The micro-batches of one rollout."""

from typing import Any

from trl.trainer.utils import split_pixel_values_by_grid, split_tensor_dict, unsplit_pixel_values_by_grid


def split_by_group(rollout: dict[str, Any], steps_per_generation: int) -> list[dict[str, Any]]:
    """
    Split a rollout into micro-batches of consecutive completions, so that prompt groups stay together.

    TRL shuffles the completions first, which spreads a group over the optimizer steps. The sampler has shuffled the
    prompts already, so keeping the order loses no randomness.

    Args:
        rollout (`dict[str, Any]`):
            Generated and scored batch; tensors and lists have the batch as first dimension, the groups one after the
            other.
        steps_per_generation (`int`):
            Number of micro-batches.

    Returns:
        `list[dict[str, Any]]`:
            Micro-batches of equal size.
    """
    micro_batches = split_tensor_dict(split_pixel_values_by_grid(rollout), steps_per_generation)
    return [unsplit_pixel_values_by_grid(micro_batch) for micro_batch in micro_batches]
