# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Forward passes over lines that hold several completions.

A packed line holds whole rows one after another, told apart by their positions. A shared line holds one prompt and all
of its completions, each of which sees the prompt and itself. The last token of a prompt starts each completion anew,
since what follows it differs.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F

from ..rollout import prompt_groups
from .passes import Batch, Score, Scores, bins
from .trimmed import TrimmedForward


_IGNORED = -100


@dataclass(frozen=True)
class Lines:
    """
    Sequences laid out on L lines of width W.

    `input_ids`, `position_ids` (0 at padding), `labels` (the token that follows, where its log-prob is wanted) and
    `segments` are `(L, W)`; a segment is the number of a line's sequence, 0 for what all of the line see, -1 for
    padding. `places` and `tokens` `(N,)` say where each log-prob that is wanted lies in the flattened lines and in the
    flattened completions `(B, T)`.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    labels: torch.Tensor
    segments: torch.Tensor
    places: torch.Tensor
    tokens: torch.Tensor

    @classmethod
    def laid(cls, batch: Batch, lines: Sequence[Sequence[int]], *, share_prompt: bool) -> "Lines":
        """Lay the rows of each line one after another, or, with `share_prompt`, one prompt and their completions."""
        prompts, completions = (values.tolist() for values in batch.lengths)
        parts = []
        for rows in lines:
            line = _Line(batch)
            common = prompts[rows[0]] - 1 if share_prompt else 0
            if share_prompt:
                line.add(rows[0], prompts[rows[0]], 0)
            for segment, row in enumerate(rows, start=1):
                line.add(row, prompts[row], completions[row], skipped=common, segment=segment)
            parts.append(line)
        width = max(2, *(line.width for line in parts))

        def padded(name: str, value: int) -> torch.Tensor:
            columns = [torch.cat(getattr(line, name)) for line in parts]
            return torch.stack([F.pad(column, (0, width - column.numel()), value=value) for column in columns])

        return cls(
            padded("ids", int(batch.input_ids[0, -1])),
            padded("positions", 0),
            padded("labels", _IGNORED),
            padded("segments", -1),
            torch.cat([place + i * width for i, line in enumerate(parts) for place in line.places]),
            torch.cat([token for line in parts for token in line.tokens]),
        )

    def attention_mask(self, dtype: torch.dtype | None) -> torch.Tensor:
        """What each token of shared lines sees: `(L, 1, W, W)`, boolean, or of this dtype to add to attention logits."""
        columns = torch.arange(self.segments.size(1), device=self.segments.device)
        own = self.segments.unsqueeze(2) == self.segments.unsqueeze(1)
        # Padding sees itself too: a token that sees nothing has no attention weights.
        sees = (own | (self.segments == 0).unsqueeze(1)) & (columns.unsqueeze(1) >= columns)
        sees = sees.unsqueeze(1)
        if dtype is None:
            return sees
        return torch.zeros_like(sees, dtype=dtype).masked_fill(~sees, torch.finfo(dtype).min)

    def restore(self, values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        """Values `(B, T)` of the completions' tokens from those `(L, W)` of the lines, 0 elsewhere."""
        flat = values.new_zeros(size[0] * size[1])
        return flat.index_copy(0, self.tokens, values.flatten()[self.places]).view(size)


@dataclass
class _Line:
    """A line in the making."""

    batch: Batch
    width: int = 0
    ids: list[torch.Tensor] = field(default_factory=list)
    positions: list[torch.Tensor] = field(default_factory=list)
    labels: list[torch.Tensor] = field(default_factory=list)
    segments: list[torch.Tensor] = field(default_factory=list)
    places: list[torch.Tensor] = field(default_factory=list)
    tokens: list[torch.Tensor] = field(default_factory=list)

    def add(self, row: int, prompt: int, completion: int, *, skipped: int = 0, segment: int = 0) -> None:
        """So many tokens of a row, without the first ones and without the last one, which no other follows."""
        end = self.batch.size[0]
        ids = self.batch.input_ids[row, end - prompt + skipped : end + completion]
        labels = ids[1:].clone()
        before = prompt - 1 - skipped
        labels[:before] = _IGNORED
        steps = torch.arange(completion, device=ids.device)
        self.places.append(self.width + before + steps)
        self.tokens.append(row * self.batch.logits_to_keep + steps)
        self.ids.append(ids[:-1])
        self.labels.append(labels)
        self.positions.append(skipped + torch.arange(labels.numel(), device=ids.device))
        self.segments.append(torch.full_like(labels, segment))
        self.width += labels.numel()


@dataclass(frozen=True, kw_only=True)
class LineForward(TrimmedForward):
    """
    Scores completions on lines: packed, or with a shared prompt.

    `attention` is the model's attention implementation, `autocast` makes the context of a forward pass.
    """

    share_prompt: bool = False
    attention: str
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext

    def error(self, score: Score, model: Any, device: torch.device) -> float:
        """
        Mean distance, in nats, of the log-probs of made-up completions on lines and on rows.

        The model's dropout is left out, and no random number is drawn.
        """
        batch = _made_up_batch(model, device)
        with torch.no_grad(), _without_dropout(model):
            on_lines, *_ = self._score(score, model, batch)
            on_rows, *_ = super()._score(score, model, batch)
        return ((on_lines - on_rows).abs().sum() / batch.lengths[1].sum()).item()

    def _units(self, batch: Batch) -> tuple[list[int], list[list[int]]]:
        lines = self._lines(batch)
        prompts, completions = (values.tolist() for values in batch.lengths)
        if self.share_prompt:
            return [prompts[line[0]] - 1 + sum(completions[row] for row in line) for line in lines], lines
        return [sum(prompts[row] + completions[row] - 1 for row in line) for line in lines], lines

    def _lines(self, batch: Batch) -> list[list[int]]:
        if self.share_prompt:
            end = batch.size[0]
            groups = prompt_groups(batch.input_ids[:, :end], batch.attention_mask[:, :end])
            return [(groups == group).nonzero().squeeze(1).tolist() for group in range(int(groups.max()) + 1)]
        prompts, completions = batch.lengths
        widths = (prompts + completions).tolist()
        # Flash attention is told of sequences by their positions on a single line only. Elsewhere a mask is as large
        # as the line is long, squared.
        return [list(range(len(widths)))] if self.attention.startswith("flash") else bins(widths)

    def _score(self, score: Score, model: Any, batch: Batch, batch_size: int | None = None) -> Scores:
        lines = Lines.laid(batch, self._lines(batch), share_prompt=self.share_prompt)
        mask = None
        if self.share_prompt:
            mask = lines.attention_mask(None if self.attention == "sdpa" else next(model.parameters()).dtype)
        with self.autocast():
            output = model(
                input_ids=lines.input_ids,
                position_ids=lines.position_ids,
                attention_mask=mask,
                shift_labels=lines.labels,
                fused_lm_head=True,
            )
        size = (batch.input_ids.size(0), batch.logits_to_keep)
        logps = lines.restore(output.log_probs, size)
        entropies = lines.restore(output.entropy, size) if batch.inputs.get("compute_entropy") else None
        return logps, entropies, None


def _made_up_batch(model: Any, device: torch.device) -> Batch:
    """Three prompts with four completions each, of all lengths, in tokens without a pattern."""
    prompts, completions = (8, 5, 2), (9, 6, 3, 1)
    tokens = torch.randint(
        model.config.get_text_config().vocab_size,
        (len(prompts), len(completions), prompts[0] + completions[0]),
        generator=torch.Generator().manual_seed(0),
    )
    # The completions of a prompt have it in common.
    tokens[:, :, : prompts[0]] = tokens[:, :1, : prompts[0]]
    columns = torch.arange(tokens.size(2)) - prompts[0]
    starts, ends = torch.tensor(prompts).view(-1, 1, 1), torch.tensor(completions).view(1, -1, 1)
    mask = (columns >= -starts) & (columns < ends)
    ids = torch.where(mask, tokens, 0)
    return Batch(ids.flatten(0, 1).to(device), mask.flatten(0, 1).long().to(device), completions[0], {})


@contextmanager
def _without_dropout(model: Any) -> Iterator[None]:
    """Modules as in an evaluation. Not those of a quantised base: on some CPUs they change their weights in one."""
    modes = {module: module.training for module in model.modules()}
    for module in modes:
        module.training = type(module).__module__.startswith("bitsandbytes")
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode
