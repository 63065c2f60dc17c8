# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Settings that can never act in the combination that they are given in."""

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from .combinations import part_label, unused_settings
from .objective.policies.clipped import off_policy_settings
from .prompts.settings import idle_prompt_settings
from .variants import get_variant


if TYPE_CHECKING:
    from .fields import VariantFields


def idle_settings(args: "VariantFields", chosen: Collection[str]) -> Iterator[str]:
    """
    A sentence on each setting that will not act, of those `chosen`: the fields with another value than the default.
    """
    idle = (
        {}
        if args.has_stock_objective
        else {name: f"{user} has no such bound" for name, user, _ in unused_settings(args)}
    )
    if args.gradient_accumulation_steps % args.steps_per_generation == 0:
        idle["group_preserving_split"] = "each optimizer step gets the whole rollout"
    told = {name: reason for name, reason in idle.items() if name in chosen}
    if args.skip_inert_rows and args.relates_rows:
        told["skip_inert_rows"] = "a term of the loss relates all rows of a micro-batch"
    if (
        not args.has_stock_objective
        and args.scale_rewards != "group"
        and args.multi_objective_aggregation == "normalize_then_sum"
    ):
        told["scale_rewards"] = "`multi_objective_aggregation='normalize_then_sum'` scales each reward by itself"
    for name in ("pack_rollout", "share_prompt"):
        if getattr(args, name) and args.per_device_train_batch_size == 1:
            told[name] = "with `per_device_train_batch_size=1` no two completions meet in a forward pass"
    if not args.use_vllm and not args.has_stock_objective:
        correction = [name for name in chosen if name.startswith("vllm_importance_sampling_")]
        told |= dict.fromkeys(sorted(correction), "it corrects for the engine that `use_vllm=True` samples with")
    for name, reason in told.items():
        yield f"`{name}={getattr(args, name)!r}` does nothing: {reason}."
    high = args.epsilon if args.epsilon_high is None else args.epsilon_high
    # As sums of such numbers are rounded.
    if (
        not args.has_stock_objective
        and "delta" not in told
        and args.delta is not None
        and args.delta < 1 + high - 1e-9
    ):
        yield (
            f"`delta={args.delta}` lies below {1 + high:g}, the upper bound of the clip, so that it bounds the ratio where "
            "the advantage is positive and never where it is negative; set it to at least that."
        )
    if not args.has_stock_objective and args.loss_type == "cispo" and high < 1:
        yield (
            f"`epsilon_high={high:g}` caps every ratio at {high:g} with `loss_type='cispo'`, which takes it as the cap itself "
            "and not as its distance from 1; set it to more than 1 (ScaleRL's is 5)."
        )
    if args.variant is not None and get_variant(args.variant).needs_vllm and not args.use_vllm:
        yield (
            f"`variant={args.variant!r}` does nothing: it corrects for the engine that samples, and without "
            "`use_vllm=True` there is none."
        )
    yield from _idle_terms(args)
    yield from idle_prompt_settings(args)


def _idle_terms(args: "VariantFields") -> Iterator[str]:
    """Terms of the loss that cannot act with the schedule of the run."""
    part = args.parts.policy
    policy = part_label(args, "policy_loss")
    if part.is_per_trajectory and args.num_iterations > 1:
        yield (
            f"`num_iterations={args.num_iterations}` passes over the same completions again, for which {policy} is no "
            "longer unbiased (Lemma A.1 of TIC-GRPO needs new prompts in each optimizer step): set `num_iterations=1` and "
            "raise `steps_per_generation` instead."
        )
    if args.is_on_policy:
        remedy = "raise `steps_per_generation` above `gradient_accumulation_steps`, or `num_iterations` above 1"
        because = (
            f"with one optimizer step per rollout (`gradient_accumulation_steps={args.gradient_accumulation_steps}`, "
            f"`steps_per_generation={args.steps_per_generation}`, `num_iterations={args.num_iterations}`)"
        )
        if part.is_inert(vars(args)):
            # More passes over the same completions are none for a trajectory's weight, see above.
            split = remedy.partition(",")[0] if part.is_per_trajectory else remedy
            yield (
                f"{policy} does nothing {because}: the policy has not moved since the rollout and every ratio is 1. To "
                f"let it act, {split}."
            )
        for name in [] if args.has_stock_objective else off_policy_settings(vars(args)):
            # The engine's policy is never quite the trainer's.
            if not args.use_vllm or name != "off_policy_mask_threshold":
                value = f"`{name}={getattr(args, name)!r}`"
                yield f"{value} does nothing {because}: every ratio is 1. To let it act, {remedy}."
        if args.mirror_beta != 0.0 and args.mirror_sync_steps is None:
            yield (
                f"`mirror_beta={args.mirror_beta}` does nothing {because}: the KL to the policy that made the rollout has "
                f"no gradient at that policy. To let it act, {remedy}, or set `mirror_sync_steps`."
            )
    if args.mirror_sync_steps is not None:
        steps = max(1, args.steps_per_generation * args.num_iterations // args.gradient_accumulation_steps)
        if args.mirror_sync_steps <= steps:
            yield (
                f"`mirror_sync_steps={args.mirror_sync_steps}` does not outlive a rollout ({steps} optimizer steps), so "
                "the snapshot is the policy that made the rollout, at the price of one more forward pass. Set it above "
                f"{steps}, or leave it unset."
            )
