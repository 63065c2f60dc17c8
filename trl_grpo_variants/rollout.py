# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The prompts and the micro-batches of rollouts."""

from typing import Any

import torch
from trl.trainer.utils import (
    RepeatSampler,
    split_pixel_values_by_grid,
    split_tensor_dict,
    unsplit_pixel_values_by_grid,
)

from .config import GRPOVariantConfig
from .warn import warn_user


# What a rollout holds besides the inputs of a forward pass. Anything that TRL adds and the forward does not accept
# fails there with a TypeError instead of being dropped from it.
_NOT_FORWARD_INPUTS = {
    "prompt_ids",
    "prompt_mask",
    "completion_ids",
    "completion_mask",
    "advantages",
    "num_items_in_batch",
    "old_per_token_logps",
    "ref_per_token_logps",
    "has_variance",
    "needed",
    "group",
    "prompt_weights",
    "importance_sampling_ratio",
    "sampling_per_token_logps",
    "tool_mask",
}


def check_prompts(dataset: Any, args: GRPOVariantConfig) -> None:
    """
    Refuse, with a `ValueError`, fewer prompts than a rollout takes, and tell if an epoch does not use all.

    TRL's sampler leaves out what does not fill a rollout, so that with too few prompts a run would train no step. Data
    without a length, like a stream, is not checked.
    """
    if not hasattr(dataset, "__len__"):
        return
    prompts, needed = len(dataset), args.generation_batch_size // args.num_generations
    takes = (
        f"a rollout takes {needed} (`generation_batch_size={args.generation_batch_size}` / "
        f"`num_generations={args.num_generations}`)"
    )
    if prompts < needed:
        raise ValueError(
            f"The training data has {prompts} prompts, but {takes}, so that there would be none: give more prompts or "
            "lower `generation_batch_size`."
        )
    micro_steps = prompts // needed * args.steps_per_generation * args.num_iterations
    if (
        prompts % needed
        and not args.chooses_prompts
        and not 0 < args.max_steps <= micro_steps // args.gradient_accumulation_steps
    ):
        warn_user(
            f"Each epoch leaves out {prompts % needed} of the {prompts} prompts, which are too few for a last rollout: "
            f"{takes}."
        )


def forward_inputs(rollout: dict[str, Any]) -> dict[str, Any]:
    """What TRL's forward pass takes of a rollout, by the names of its arguments."""
    prompt_ids, completion_ids = rollout["prompt_ids"], rollout["completion_ids"]
    return {
        "input_ids": torch.cat([prompt_ids, completion_ids], dim=1),
        "attention_mask": torch.cat([rollout["prompt_mask"], rollout["completion_mask"]], dim=1),
        "logits_to_keep": completion_ids.size(1),
        **{name: value for name, value in rollout.items() if name not in _NOT_FORWARD_INPUTS},
    }


def split_by_group(rollout: dict[str, Any], steps_per_generation: int) -> list[dict[str, Any]]:
    """
    Split a rollout into micro-batches of consecutive completions, so that prompt groups stay together.

    TRL shuffles the completions first, which spreads a group over the optimizer steps. The sampler has shuffled the
    prompts already, so keeping the order loses no randomness.
    """
    micro_batches = split_tensor_dict(split_pixel_values_by_grid(rollout), steps_per_generation)
    return [unsplit_pixel_values_by_grid(micro_batch) for micro_batch in micro_batches]


def arrange(
    micro_batches: list[dict[str, Any]], accumulation_steps: int, *, by_prompt: bool = False
) -> list[dict[str, Any]]:
    """
    Permute rows among the micro-batches of an optimizer step, all of equal size, so that rows of similar length are
    together, with `by_prompt` those of the same prompt first of all.

    Rows without any effect on the gradient come last, so that micro-batches of nothing else can form. Unchanged if the
    rollout does not end with an optimizer step, or if it holds images, which are not stored by row.
    """
    step = min(accumulation_steps, len(micro_batches))
    if step == 1 or len(micro_batches) % step or accumulation_steps % step or "pixel_values" in micro_batches[0]:
        return micro_batches
    return [
        micro_batch
        for start in range(0, len(micro_batches), step)
        for micro_batch in _by_length(micro_batches[start : start + step], by_prompt)
    ]


def _by_length(micro_batches: list[dict[str, Any]], by_prompt: bool) -> list[dict[str, Any]]:
    size = micro_batches[0]["completion_ids"].size(0)
    rows = {
        name: _joined([micro_batch[name] for micro_batch in micro_batches]) if _is_per_row(value, size) else value
        for name, value in micro_batches[0].items()
    }
    tokens = rows["prompt_mask"].sum(dim=1) + rows["completion_mask"].sum(dim=1)
    if by_prompt:
        groups = prompt_groups(rows["prompt_ids"], rows["prompt_mask"])
        longest = tokens.new_zeros(tokens.shape).scatter_reduce(0, groups, tokens, "amax")
        tokens = longest[groups] * len(groups) + groups
    if "needed" in rows:
        tokens = torch.where(rows["needed"], tokens, -1)
    order = tokens.argsort(descending=True, stable=True)
    return [
        {
            name: _selected(value, order[start : start + size]) if _is_per_row(value, len(order)) else value
            for name, value in rows.items()
        }
        for start in range(0, len(order), size)
    ]


def _is_per_row(value: Any, rows: int) -> bool:
    """Whether a value of a batch has an entry for each row. TRL splits such lists as it splits tensors."""
    return value.dim() > 0 if isinstance(value, torch.Tensor) else isinstance(value, list) and len(value) == rows


def _joined(parts: list[Any]) -> Any:
    return torch.cat(parts) if isinstance(parts[0], torch.Tensor) else [entry for part in parts for entry in part]


def _selected(value: Any, rows: torch.Tensor) -> Any:
    return value[rows] if isinstance(value, torch.Tensor) else [value[row] for row in rows.tolist()]


def prompt_groups(ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """
    Number the prompts of a batch: `(B,)`, from 0, the same for rows whose prompts are the same.

    The token of the padding may also be one of a prompt, so that tokens and mask `(B, P)` both count.
    """
    *_, groups = torch.cat([ids, mask.to(ids.dtype)], dim=1).unique(dim=0, return_inverse=True)
    return groups


def carries_gradient(
    advantages: torch.Tensor, mask: torch.Tensor, has_variance: torch.Tensor | None, has_divergence: bool
) -> torch.Tensor:
    """
    Which rows `(B,)` have any effect on the gradient: those with a token of the `mask` `(B, T)`, and an advantage,
    `(B,)` or `(B, T)`, or a divergence. `has_variance` `(B,)` tells on which rows divergences act; by default on all.
    """
    has_effect = advantages != 0 if advantages.dim() == 1 else (advantages != 0).any(dim=1)
    if has_divergence:
        has_effect = torch.ones_like(has_effect) if has_variance is None else has_effect | has_variance
    return has_effect & mask.any(dim=1)


def start_epoch(sampler: RepeatSampler, epoch: int) -> None:
    """
    Let a sampler of prompts draw the order that follows a number of epochs, whatever it has drawn so far.

    A sampler draws one order per epoch from one generator, so that a run that resumes in a later epoch would begin with
    the order of the first.
    """
    if sampler.shuffle and sampler.seed is not None:
        sampler.generator.manual_seed(sampler.seed)
        for _ in range(epoch):
            torch.randperm(sampler.num_samples, generator=sampler.generator)
