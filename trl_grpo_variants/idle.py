# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Settings that can never act in the combination that they are given in."""

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from .config import GRPOVariantConfig


def idle_settings(args: "GRPOVariantConfig", chosen: Collection[str]) -> Iterator[str]:
    """
    Tell the settings that will not act.

    Args:
        args ([`GRPOVariantConfig`]):
            Resolved configuration.
        chosen (`Collection[str]`):
            Fields that the user has given another value than the default.

    Yields:
        `str`:
            A sentence that names the setting.
    """
    idle = {} if args.is_stock else _idle_bounds(args)
    if args.gradient_accumulation_steps % args.steps_per_generation == 0:
        idle["group_preserving_split"] = "each optimizer step gets the whole rollout"
    told = {name: reason for name, reason in idle.items() if name in chosen}
    if args.skip_inert_rows and args.relates_rows:
        told["skip_inert_rows"] = "an entropy term relates all rows of a micro-batch"
    if (
        not args.is_stock
        and args.scale_rewards != "group"
        and args.multi_objective_aggregation == "normalize_then_sum"
    ):
        told["scale_rewards"] = "`multi_objective_aggregation='normalize_then_sum'` scales each reward by itself"
    for name in ("pack_rollout", "share_prompt"):
        if getattr(args, name) and args.per_device_train_batch_size == 1:
            told[name] = "with `per_device_train_batch_size=1` no two completions meet in a forward pass"
    for name, reason in told.items():
        yield f"`{name}={getattr(args, name)!r}` does nothing: {reason}."
    high = args.epsilon if args.epsilon_high is None else args.epsilon_high
    # As sums of such numbers are rounded.
    if not args.is_stock and "delta" not in told and args.delta is not None and args.delta < 1 + high - 1e-9:
        yield (
            f"`delta={args.delta}` lies below {1 + high:g}, the upper bound of the clip, so that it bounds the ratio where "
            "the advantage is positive and never where it is negative; set it to at least that."
        )


def _idle_bounds(args: "GRPOVariantConfig") -> dict[str, str]:
    """Bounds of the ratio that nothing uses, and why."""
    level, clip, loss_type = args.importance_sampling_level, args.trajectory_clip, args.loss_type
    has_low = has_high = True
    if level == "none":
        has_low = has_high = False
        why = "`importance_sampling_level='none'` has no ratio to clip"
    elif level == "trajectory":
        has_low, has_high = clip == "two_sided", clip != "none"
        why = f"`trajectory_clip={clip!r}` has no such bound"
    else:
        has_low, has_high = loss_type not in ("cispo", "sapo", "vespo"), loss_type not in ("sapo", "vespo")
        why = f"`loss_type={loss_type!r}` has no such bound"
    # The upper bound is the lower one's mirror image where it is not given.
    used = {
        "epsilon": has_low or (has_high and args.epsilon_high is None),
        "epsilon_high": has_high,
        "delta": has_low,
    }
    return {name: why for name, is_used in used.items() if not is_used}
