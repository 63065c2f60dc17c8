# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What is kept of several generations: groups with signal first, so many that an optimizer step keeps its size."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator


# In a rollout, what is padded on the left; everything else is on the right.
_LEFT = ("prompt_ids", "prompt_mask")


def have_signal(advantages: torch.Tensor, num_generations: int) -> torch.Tensor:
    """Which groups `(N / G,)` have a completion whose advantage, of all `(N,)`, is not zero."""
    return (advantages.view(-1, num_generations) != 0).any(dim=1)


def further_groups(missing: int, drawn: int, with_signal: int, *, most: int, multiple: int) -> int:
    """
    How many groups to generate so that the missing ones are among them, if signal stays as frequent as it was.

    Args:
        missing (`int`):
            Groups with signal that a rollout lacks, at least 1.
        drawn (`int`):
            Groups generated for it so far.
        with_signal (`int`):
            Those among them that have signal.
        most (`int`):
            Groups of a rollout, which no generation exceeds.
        multiple (`int`):
            What the processes can share evenly; it divides `most`.

    Returns:
        `int`:
            A multiple of `multiple`, at most `most`.
    """
    if drawn and not with_signal:
        return most
    needed = math.ceil(missing * drawn / with_signal) if drawn else missing
    return min(most, multiple * math.ceil(needed / multiple))


def chosen_groups(has_signal: Sequence[bool], wanted: int) -> tuple[list[int], list[int]]:
    """
    Choose the groups of a rollout, in the order in which they were generated: the first with signal, and where these
    are not enough the first of the others.

    Args:
        has_signal (`Sequence[bool]`):
            Whether each group has signal.
        wanted (`int`):
            Groups of a rollout; there are at least so many.

    Returns:
        `tuple[list[int], list[int]]`:
            The chosen ones, and those with signal that are left over.
    """
    first = sorted(range(len(has_signal)), key=lambda group: not has_signal[group])
    chosen, rest = first[:wanted], first[wanted:]
    return sorted(chosen), [group for group in rest if has_signal[group]]


def rows_of(groups: Sequence[int], num_generations: int) -> torch.Tensor:
    """Rows `(len(groups) G,)` of groups."""
    return (
        torch.tensor(groups, dtype=torch.long)[:, None] * num_generations + torch.arange(num_generations)
    ).flatten()


def selected(rollout: Mapping[str, torch.Tensor], rows: torch.Tensor) -> dict[str, torch.Tensor]:
    """Some rows of a rollout."""
    return {name: value[rows.to(value.device)] for name, value in rollout.items()}


def gathered(rollout: Mapping[str, Any], accelerator: Accelerator, pad_token_id: int) -> dict[str, torch.Tensor]:
    """
    The rows of all processes, in their order. To be called in all of them.

    A number that is one for the whole rollout is left out. Raises a `NotImplementedError` for what is not stored by row,
    like images.
    """
    rows = rollout["completion_ids"].size(0)
    whole = {}
    for name, value in rollout.items():
        if isinstance(value, torch.Tensor) and value.dim() == 0:
            continue
        if not isinstance(value, torch.Tensor) or value.dim() > 2 or value.size(0) != rows:
            raise NotImplementedError(
                f"`refill_groups` takes rollouts of text apart, but `{name}` of this one is not stored by completion; "
                "leave `refill_groups` unset."
            )
        if value.dim() == 2:
            value = accelerator.pad_across_processes(
                value, dim=1, pad_index=_padding(name, pad_token_id), pad_first=name in _LEFT
            )
        # Not every backend gathers truth values.
        every = accelerator.gather(value.to(torch.uint8) if value.dtype == torch.bool else value)
        whole[name] = every.to(value.dtype)
    return whole


def joined(parts: Sequence[Mapping[str, torch.Tensor]], pad_token_id: int) -> dict[str, torch.Tensor]:
    """The rows of several rollouts, one after the other, as wide as the widest."""
    whole = {}
    for name in parts[0]:
        values = [part[name] for part in parts]
        if values[0].dim() == 2:
            lacking = [max(value.size(1) for value in values) - value.size(1) for value in values]
            values = [
                torch.nn.functional.pad(
                    value, (columns, 0) if name in _LEFT else (0, columns), value=_padding(name, pad_token_id)
                )
                for value, columns in zip(values, lacking, strict=True)
            ]
        whole[name] = torch.cat(values)
    return whole


def _padding(name: str, pad_token_id: int) -> int:
    return pad_token_id if name in ("prompt_ids", "completion_ids") else 0
