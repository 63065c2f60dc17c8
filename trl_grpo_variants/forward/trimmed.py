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

    Args:
        trim (`str`):
            Padding to cut from rows, see [`trimmable`].
        splits (`bool`):
            Whether rows may be divided over several forward passes within one backward pass. Where parameters are
            gathered for each pass, all processes need the same number of them.
        multiple (`int`, *optional*, defaults to `1`):
            Widths are multiples of this.
        split_cost (`int`, *optional*, defaults to `256`):
            Tokens of padding that one more pass must save more than.
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
        Score completions.

        Args:
            score (`Callable`):
                TRL's forward pass over padded rows.
            model (`nn.Module`):
                Model to score with.
            input_ids (`torch.Tensor`):
                Prompts and completions `(B, P + T)`.
            attention_mask (`torch.Tensor`):
                Their mask `(B, P + T)`.
            logits_to_keep (`int`):
                Columns `T` of the completions.
            batch_size (`int`, *optional*):
                Padded rows that fit into one pass without gradients.
            needed (`torch.Tensor`, *optional*):
                Rows `(B,)` to be computed. The others come back as zeros without a gradient.
            inputs (`dict`):
                Further arguments of `score`.

        Returns:
            `tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]`:
                What `score` returns; values of tokens that a completion does not have are 0.
        """
        given = {name: value for name, value in inputs.items() if value is not None}
        batch = Batch(input_ids, attention_mask, logits_to_keep, given)
        # Images belong to rows in ways that differ from model to model, and an auxiliary loss to all rows together.
        if "pixel_values" in given or given.get("compute_aux_loss"):
            return TrimmedForward._score(self, score, model, batch, batch_size)

        rows = torch.arange(input_ids.size(0)) if needed is None else needed.cpu().nonzero().squeeze(1)
        if rows.numel() == 0:
            return self._nothing(score, model, batch)
        passes = [rows[indices].to(input_ids.device) for indices in self._passes(batch, rows, batch_size)]
        # All but the last pass go around DDP, which counts forward passes; its hooks on the parameters see all.
        inner = model.module if isinstance(model, DistributedDataParallel) else model
        modules = [inner] * (len(passes) - 1) + [model]
        outputs = [self._score(score, module, batch.rows(rows)) for module, rows in zip(modules, passes, strict=True)]
        order = torch.cat(passes)

        def gathered(parts: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
            if parts[0] is None:
                return None
            values = torch.cat([part for part in parts if part is not None])
            return values.new_zeros(input_ids.size(0), logits_to_keep).index_copy(0, order, values)

        logps = gathered([output[0] for output in outputs])
        assert logps is not None
        return logps, gathered([output[1] for output in outputs]), None

    def _passes(self, batch: Batch, rows: torch.Tensor, batch_size: int | None) -> list[list[int]]:
        """Divide the rows, of which the indices among `rows` are returned, over forward passes."""
        prompt_lengths, completion_lengths = batch.lengths
        if self.trim == "both":
            widths = (prompt_lengths + completion_lengths)[rows].tolist()
        else:
            widths = (batch.size[0] + completion_lengths)[rows].tolist()
        if self.trim == "none":
            widths = [sum(batch.size)] * len(widths)
        if self.splits:
            max_tokens = None if batch_size is None else batch_size * sum(batch.size)
            return partition(widths, max_tokens=max_tokens, split_cost=self.split_cost)
        order = sorted(range(len(widths)), key=lambda row: -widths[row])
        batch_size = batch_size or len(order)
        return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]

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
