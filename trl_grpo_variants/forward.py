# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
The forward passes over a batch of completions, without the columns and rows that the answer does not depend on.

TRL pads every row to the longest prompt and the longest completion of the whole rollout and computes all of it. Here a
row is shifted until its padding is on the left, rows of similar length share a forward pass, and each pass is as wide
as its longest row. Log-probs come back in TRL's shape, so that nothing after the forward pass sees a difference.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel


# Tokens that a forward pass must save to be worth its fixed cost, which is that of launching its kernels.
SPLIT_COST = 256
# Inputs of a forward pass with a value per token.
PER_TOKEN = ("token_type_ids", "mm_token_type_ids")
# Rotary embeddings whose frequencies depend on the length of the row.
_LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")
# Layers in which a token sees others by their distance only.
_RELATIVE_LAYERS = ("full_attention", "sliding_attention")

# Log-probs (B, T), entropies (B, T) and an auxiliary loss.
Scores = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]
# `_get_per_token_logps_and_entropies` of TRL's trainer.
Score = Callable[..., Scores]


def trimmable(config: Any) -> str:
    """
    Tell which padding can be cut from the rows of a model without changing what it computes.

    Args:
        config ([`~transformers.PretrainedConfig`]):
            Configuration of the model.

    Returns:
        `str`:
            `"both"` sides where positions are relative; `"right"` where a token's position is its column, so that the
            padding on the left counts; `"none"` where the length of the row matters.
    """
    config = config.get_text_config()
    rope = getattr(config, "rope_parameters", None) or {}
    # One set of parameters, or one per kind of layer.
    kinds = [rope] if "rope_type" in rope else [kind for kind in rope.values() if isinstance(kind, dict)]
    types = {kind.get("rope_type", "default") for kind in kinds}
    if types.intersection(_LENGTH_DEPENDENT_ROPE):
        return "none"
    relative = set(getattr(config, "layer_types", None) or ()).issubset(_RELATIVE_LAYERS)
    return "both" if types and relative else "right"


def lengths(mask: torch.Tensor, logits_to_keep: int) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Lengths of left-padded prompts and right-padded completions.

    Args:
        mask (`torch.Tensor`):
            Attention mask `(B, P + T)`.
        logits_to_keep (`int`):
            Columns `T` of the completions.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`:
            Lengths `(B,)` of the prompts and of the completions, from and to the outermost attended token.
    """
    prompt, completion = mask[:, :-logits_to_keep] != 0, mask[:, -logits_to_keep:] != 0
    prompt_columns = torch.arange(prompt.size(1), 0, -1, device=mask.device)
    completion_columns = torch.arange(1, logits_to_keep + 1, device=mask.device)
    return (prompt * prompt_columns).amax(dim=1), (completion * completion_columns).amax(dim=1)


def partition(
    widths: Sequence[int], *, max_tokens: int | None = None, split_cost: int = SPLIT_COST
) -> list[list[int]]:
    """
    Divide rows into forward passes, each as wide as its longest row.

    Args:
        widths (`Sequence[int]`):
            Lengths `(B,)` of the rows, in tokens.
        max_tokens (`int`, *optional*):
            Most tokens of one pass, padding included; a row longer than that has a pass of its own.
        split_cost (`int`, *optional*, defaults to `0`):
            Tokens of padding that one more pass must save more than.

    Returns:
        `list[list[int]]`:
            Indices of the rows of each pass, longest first.
    """
    order = sorted(range(len(widths)), key=lambda row: -widths[row])
    passes: list[list[int]] = []
    for row in order:
        fits = passes and (max_tokens is None or (len(passes[-1]) + 1) * widths[passes[-1][0]] <= max_tokens)
        if fits:
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


@dataclass(frozen=True)
class Window:
    """
    The columns of padded rows that a forward pass is given.

    Args:
        columns (`torch.Tensor`):
            Source column `(B, W)` of each column of the pass.
        kept (`torch.Tensor`):
            Among the last `logits_to_keep` columns of the pass, the one `(B, T)` of each token of the completions.
        is_token (`torch.Tensor`):
            Whether a completion has that token `(B, T)`.
        logits_to_keep (`int`):
            Columns of the completions in the pass.
    """

    columns: torch.Tensor
    kept: torch.Tensor
    is_token: torch.Tensor
    logits_to_keep: int

    @classmethod
    def around(
        cls,
        prompt_lengths: torch.Tensor,
        completion_lengths: torch.Tensor,
        size: tuple[int, int],
        *,
        trim: str,
        multiple: int = 1,
    ) -> "Window":
        """
        The narrowest window around rows.

        Args:
            prompt_lengths (`torch.Tensor`):
                Lengths `(B,)` of the prompts.
            completion_lengths (`torch.Tensor`):
                Lengths `(B,)` of the completions.
            size (`tuple[int, int]`):
                Columns `P` and `T` of the padded prompts and completions.
            trim (`str`):
                Padding to cut: `"both"`, `"right"` or `"none"`, see [`trimmable`].
            multiple (`int`, *optional*, defaults to `1`):
                The width is a multiple of this where the padded rows allow it.

        Returns:
            [`Window`]:
                The window.
        """
        total, max_length = sum(size), size[1]
        keep = max_length if trim == "none" else max(1, int(completion_lengths.max()))
        width = size[0] + keep
        # The token after the last column of the window. A shift goes around, which fills up with the row's padding.
        end = torch.full_like(completion_lengths, width)
        if trim == "both":
            width = max(2, keep, int((prompt_lengths + completion_lengths).max()))
            end = size[0] + completion_lengths
        width = min(total, -(-width // multiple) * multiple)
        if trim != "both":
            end, keep = torch.full_like(end, width), width - size[0]
        columns = (torch.arange(width, device=end.device) + (end - width).unsqueeze(1)) % total
        tokens = torch.arange(max_length, device=end.device)
        kept = tokens + (size[0] + keep - end).unsqueeze(1)
        is_token = tokens < completion_lengths.unsqueeze(1)
        return cls(columns, kept.clamp(0, keep - 1), is_token, keep)

    def cut(self, rows: torch.Tensor) -> torch.Tensor:
        """The window's columns `(B, W)` of rows `(B, P + T)`."""
        return rows.gather(1, self.columns)

    def restore(self, values: torch.Tensor) -> torch.Tensor:
        """Values `(B, T)` of the completions' tokens from those `(B, logits_to_keep)` of a pass, 0 elsewhere."""
        return torch.where(self.is_token, values.gather(1, self.kept), 0.0)


@dataclass(frozen=True)
class Batch:
    """
    What a forward pass is asked about.

    Args:
        input_ids (`torch.Tensor`):
            Prompts and completions `(B, P + T)`.
        attention_mask (`torch.Tensor`):
            Their mask `(B, P + T)`.
        logits_to_keep (`int`):
            Columns `T` of the completions.
        inputs (`dict`):
            Further arguments of TRL's forward pass.
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
