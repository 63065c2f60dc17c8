# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What a forward pass is asked and answers, and which rows share one."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from .window import lengths


# Tokens that a forward pass must save to be worth its fixed cost, which is that of launching its kernels.
SPLIT_COST = 256
# Inputs of a forward pass with a value per token.
PER_TOKEN = ("token_type_ids", "mm_token_type_ids")

# Log-probs (B, T), entropies (B, T) and an auxiliary loss.
Scores = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]
# `_get_per_token_logps_and_entropies` of TRL's trainer.
Score = Callable[..., Scores]


@dataclass(frozen=True)
class Batch:
    """
    What a forward pass is asked about: prompts and completions `(B, P + T)` with their mask, of which the last
    `logits_to_keep` columns `T` are the completions', and further arguments of TRL's forward pass.
    """

    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    logits_to_keep: int
    inputs: dict[str, Any]

    @property
    def size(self) -> tuple[int, int]:
        """Columns `P` and `T`."""
        return self.input_ids.size(1) - self.logits_to_keep, self.logits_to_keep

    @functools.cached_property
    def lengths(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Lengths `(B,)` of prompts and completions."""
        return lengths(self.attention_mask, self.logits_to_keep)

    def rows(self, rows: torch.Tensor) -> "Batch":
        """Some of the rows, for which there is no value per image."""
        per_row = {name: value[rows] if name in PER_TOKEN else value for name, value in self.inputs.items()}
        return Batch(self.input_ids[rows], self.attention_mask[rows], self.logits_to_keep, per_row)


def partition(
    widths: Sequence[int], *, max_tokens: int | None = None, split_cost: int = SPLIT_COST
) -> list[list[int]]:
    """
    Divide rows of these widths into forward passes, each as wide as its longest row: the rows of each, longest first.

    A pass has at most `max_tokens`, padding included, unless one row alone is longer. One more pass must save more
    than `split_cost` tokens of padding.
    """
    order = sorted(range(len(widths)), key=lambda row: -widths[row])
    passes: list[list[int]] = []
    for row in order:
        if passes and (max_tokens is None or (len(passes[-1]) + 1) * widths[passes[-1][0]] <= max_tokens):
            passes[-1].append(row)
        else:
            passes.append([row])
    return [part for rows in passes for part in _split(rows, widths, split_cost)]


def _split(rows: list[int], widths: Sequence[int], split_cost: int) -> list[list[int]]:
    """Cut rows, longest first, where a cut saves most, until none is worth its cost."""
    longest = widths[rows[0]]
    saved, cut = max(((longest - widths[rows[i]]) * (len(rows) - i), i) for i in range(len(rows)))
    if saved <= split_cost:
        return [rows]
    return _split(rows[:cut], widths, split_cost) + _split(rows[cut:], widths, split_cost)


def bins(widths: Sequence[int]) -> list[list[int]]:
    """Rows on lines as wide as the longest row, each on the first line that has room for it, longest first."""
    lines: list[list[int]] = []
    room: list[int] = []
    for row in sorted(range(len(widths)), key=lambda row: -widths[row]):
        line = next((i for i, left in enumerate(room) if widths[row] <= left), len(lines))
        if line == len(lines):
            lines.append([])
            room.append(max(widths))
        lines[line].append(row)
        room[line] -= widths[row]
    return lines
