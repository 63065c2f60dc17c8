# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Which forward passes a run can score its completions with."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import DynamoBackend

from ..compat import sharding_backend
from ..config import GRPOVariantConfig
from .lines import LineForward
from .passes import Score
from .trimmed import TrimmedForward
from .window import trimmable


logger = get_logger(__name__)

# What rounding does to log-probs, with room to spare; a leak between sequences does far more.
FULL_PRECISION_TOLERANCE = 1e-4
HALF_PRECISION_TOLERANCE = 5e-2


def trimmed_for(args: GRPOVariantConfig, config: Any, accelerator: Accelerator) -> TrimmedForward:
    """The forward pass over rows that a configuration, a model's configuration and a backend allow."""
    # A model is compiled for shapes, and around DDP, so that no pass could go around DDP without leaving it.
    compiles = accelerator.state.dynamo_plugin.backend != DynamoBackend.NO
    splits = args.trim_padding and sharding_backend(args) is None and not compiles
    if accelerator.num_processes > 1:
        # DDP waits for each parameter once per backward pass: not so with reentrant checkpoints, and it takes the
        # experts that no token of the last forward pass went to for unused.
        reentrant = (args.gradient_checkpointing_kwargs or {}).get("use_reentrant", False)
        splits = splits and not (args.gradient_checkpointing and reentrant)
        splits = splits and not hasattr(config.get_text_config(), "output_router_logits")
    trim = trimmable(config) if args.trim_padding else "none"
    return TrimmedForward(trim=trim, splits=splits, multiple=args.pad_to_multiple_of or 1)


def lines_for(
    args: GRPOVariantConfig, model: Any, trimmed: TrimmedForward, autocast: Callable[[], AbstractContextManager[Any]]
) -> LineForward | None:
    """
    The lines that a configuration asks for, which are still to be tried out, see [`are_exact`].

    `None` where none are asked for, and, with a warning, where the model cannot run packed ones. That it cannot share
    prompts is a `NotImplementedError`.
    """
    if not (args.pack_rollout or args.share_prompt):
        return None
    attention = model.config._attn_implementation
    obstacle = _obstacle(model.config, attention, args.share_prompt)
    if obstacle is not None and args.share_prompt:
        raise NotImplementedError(f"`share_prompt=True` cannot be used with this model: {obstacle}; leave it off.")
    if obstacle is not None:
        logger.warning(f"`pack_rollout=True` cannot be used with this model: {obstacle}; rows are trimmed instead.")
        return None
    return LineForward(
        **{item.name: getattr(trimmed, item.name) for item in fields(trimmed)},
        share_prompt=args.share_prompt,
        attention=attention,
        autocast=autocast,
    )


def are_exact(lines: LineForward, args: GRPOVariantConfig, model: Any, score: Score, accelerator: Accelerator) -> bool:
    """
    Try lines out on a model, by a forward pass over them and one over rows, in all processes at once.

    Not with the first rows that come: which rows a process has to score, and whether it has any, is its own business,
    and a forward pass is everyone's. Of packed lines that are not exact a warning tells; behind a shared prompt they
    are a `RuntimeError`.
    """
    error = torch.tensor([lines.error(score, model, accelerator.device)], device=accelerator.device)
    half = args.bf16 or args.fp16 or any(parameter.dtype.itemsize == 2 for parameter in model.parameters())
    tolerance = HALF_PRECISION_TOLERANCE if half else FULL_PRECISION_TOLERANCE
    # Of all processes, so that they decide alike; NaN, which is no number at all, is in no tolerance.
    largest = accelerator.gather(error).max().item()
    if largest <= tolerance:
        return True
    difference = (
        f"log-probs that differ from those of unpacked rows by {largest:.2g} nats on average "
        f"(`attn_implementation={lines.attention!r}`, tolerance {tolerance:g})"
    )
    if lines.share_prompt:
        raise RuntimeError(f"`share_prompt=True` gives {difference}; leave it off for this model.")
    logger.warning(f"`pack_rollout=True` gives {difference}; rows are trimmed instead.")
    return False


def _obstacle(config: Any, attention: str, share_prompt: bool) -> str | None:
    text = config.get_text_config()
    if trimmable(config) != "both":
        return "its positions are not relative, or depend on the length of the row"
    if text is not config:
        return "it takes images"
    if getattr(text, "output_router_logits", False):
        return "the auxiliary loss of its experts counts all tokens together"
    if not share_prompt:
        return None
    if attention not in ("sdpa", "eager"):
        return f"its attention implementation is {attention!r}, which takes no mask of its own; allowed are 'sdpa', 'eager'"
    windows = set(getattr(text, "layer_types", None) or ()) - {"full_attention"}
    if windows or (not hasattr(text, "layer_types") and getattr(text, "sliding_window", None) is not None):
        return "its attention has a sliding window"
    return None
