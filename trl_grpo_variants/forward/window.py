# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Which columns of padded rows a forward pass is given."""

from dataclasses import dataclass
from typing import Any

import torch


# Rotary embeddings whose frequencies depend on the length of the row.
_LENGTH_DEPENDENT_ROPE = ("dynamic", "longrope")
# Layers in which a token sees others by their distance only.
_RELATIVE_LAYERS = ("full_attention", "sliding_attention")


def trimmable(config: Any) -> str:
    """
    Which padding can be cut from the rows of a model without changing what it computes.

    `"both"` sides where positions are relative; `"right"` where a token's position is its column, so that the padding
    on the left counts; `"none"` where the length of the row matters.
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
    Lengths `(B,)` of left-padded prompts and of right-padded completions, of which the mask `(B, P + T)` has the last
    `logits_to_keep` columns: from and to the outermost attended token.
    """
    prompt, completion = mask[:, :-logits_to_keep] != 0, mask[:, -logits_to_keep:] != 0
    prompt_columns = torch.arange(prompt.size(1), 0, -1, device=mask.device)
    completion_columns = torch.arange(1, logits_to_keep + 1, device=mask.device)
    return (prompt * prompt_columns).amax(dim=1), (completion * completion_columns).amax(dim=1)


@dataclass(frozen=True)
class Window:
    """
    The columns of padded rows that a forward pass is given.

    `columns` `(B, W)` are their sources. Among the last `logits_to_keep` columns of the pass, those of the
    completions, `kept` `(B, T)` is the one of each token; `is_token` `(B, T)` tells whether a completion has that
    token.
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
        The narrowest window around rows of these lengths `(B,)` among `size` = `(P, T)` columns; its width is a
        `multiple` where these allow it. For `trim` see [`trimmable`].
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
