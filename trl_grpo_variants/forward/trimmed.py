# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
The forward passes over a batch of completions, without the columns and rows that the answer does not depend on.

TRL pads every row to the longest prompt and the longest completion of the whole rollout and computes all of it. Here a
row is shifted until its padding is on the left, rows of similar length share a forward pass, and each pass is as wide
as its longest row. Log-probs come back in TRL's shape, so that nothing after the forward pass sees a difference.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from .passes import PER_TOKEN, SPLIT_COST, Batch, Score, Scores, partition
from .window import Window


@dataclass(frozen=True)
class TrimmedForward:
    """
    Scores completions with as few tokens as the model and the backend allow.

    `trim` is the padding to cut, see [`trimmable`]. `splits` says whether rows may be divided over several forward
    passes within one backward pass: where parameters are gathered for each pass, all processes need the same number of
    them. Widths are multiples of `multiple`, and one more pass must save more than `split_cost` tokens of padding.
    """

    trim: str
    splits: bool
    multiple: int = 1
    split_cost: int = SPLIT_COST

    def __call__(
        self,
        score: Score,
        model: Any,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        logits_to_keep: int,
        batch_size: int | None = None,
        *,
        needed: torch.Tensor | None = None,
        **inputs: Any,
    ) -> Scores:
        """
        What TRL's `score` gives for the completions of a batch, `(B, T)`, with 0 where a completion has no token.

        `input_ids` and `attention_mask` are `(B, P + T)`; without gradients `batch_size` padded rows fit into one
        pass. Rows that are not `needed` `(B,)` come back as zeros without a gradient.
        """
        given = {name: value for name, value in inputs.items() if value is not None}
        batch = Batch(input_ids, attention_mask, logits_to_keep, given)
        # Images belong to rows in ways that differ from model to model, and an auxiliary loss to all rows together.
        if "pixel_values" in given or given.get("compute_aux_loss"):
            return TrimmedForward._score(self, score, model, batch, batch_size)
        rows = torch.arange(len(input_ids)) if needed is None else needed.nonzero().squeeze(1)
        if rows.numel() == 0:
            return self._nothing(score, model, batch)
        rows = rows.to(input_ids.device)
        chosen = batch.rows(rows)
        passes = [torch.tensor(part, device=rows.device) for part in self._passes(chosen, batch_size)]
        # All but the last pass go around DDP, which counts forward passes; its hooks on the parameters see all.
        inner = model.module if isinstance(model, DistributedDataParallel) else model
        modules = [inner] * (len(passes) - 1) + [model]
        outputs = [self._score(score, module, chosen.rows(part)) for module, part in zip(modules, passes, strict=True)]
        order = rows[torch.cat(passes)]

        def gathered(parts: Sequence[torch.Tensor | None]) -> torch.Tensor:
            values = torch.cat([part for part in parts if part is not None])
            return values.new_zeros(len(input_ids), logits_to_keep).index_copy(0, order, values)

        logps, entropies, _ = zip(*outputs, strict=True)
        return gathered(logps), None if entropies[0] is None else gathered(entropies), None

    def _passes(self, batch: Batch, batch_size: int | None) -> list[list[int]]:
        """Rows of each forward pass."""
        if self.splits:
            widths, units = self._units(batch)
            max_tokens = None if batch_size is None else batch_size * sum(batch.size)
            passes = partition(widths, max_tokens=max_tokens, split_cost=self.split_cost)
            return [[row for unit in indices for row in units[unit]] for indices in passes]
        widths = self._widths(batch)
        order = sorted(range(len(widths)), key=lambda row: -widths[row])
        batch_size = batch_size or len(order)
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]

    def _units(self, batch: Batch) -> tuple[list[int], list[list[int]]]:
        """Widths of what cannot be divided over passes, and the rows of each."""
        return self._widths(batch), [[row] for row in range(batch.input_ids.size(0))]

    def _widths(self, batch: Batch) -> list[int]:
        prompts, completions = batch.lengths
        if self.trim == "none":
            return [sum(batch.size)] * len(completions)
        return ((prompts if self.trim == "both" else batch.size[0]) + completions).tolist()

    def _score(self, score: Score, model: Any, batch: Batch, batch_size: int | None = None) -> Scores:
        """One forward pass."""
        window = Window.around(*batch.lengths, batch.size, trim=self.trim, multiple=self.multiple)
        cut = {name: window.cut(batch.inputs[name]) for name in PER_TOKEN if name in batch.inputs}
        logps, entropies, aux_loss = score(
            model,
            window.cut(batch.input_ids),
            window.cut(batch.attention_mask),
            window.logits_to_keep,
            batch_size=batch_size,
            **{**batch.inputs, **cut},
        )
        entropies = None if entropies is None else window.restore(entropies)
        return window.restore(logps), entropies, aux_loss

    def _nothing(self, score: Score, model: Any, batch: Batch) -> Scores:
        """Zeros that hang on the parameters: a backward pass, and what waits for it elsewhere, needs a graph."""
        columns = slice(batch.size[0] - 1, batch.size[0] + 1)
        tokens = batch.input_ids[:1, columns]
        cut = {name: batch.inputs[name][:1, columns] for name in PER_TOKEN if name in batch.inputs}
        logps, entropies, _ = score(model, tokens, torch.ones_like(tokens), 1, **{**batch.inputs, **cut})
        zeros = logps.new_zeros(batch.input_ids.size(0), batch.logits_to_keep)
        return zeros + 0.0 * logps.sum(), None if entropies is None else zeros, None
