# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Which settings of an engine mean something together. No torch, no TRL."""

from typing import TYPE_CHECKING

from ..checks import check_choice


if TYPE_CHECKING:
    from ..fields import VariantFields


_CORRECTIONS = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")


def check_vllm_settings(args: "VariantFields") -> None:
    """Refuse, with a `ValueError`, settings of an engine that are wrong or contradict others."""
    # A stock configuration is TRL's to judge.
    if args.use_vllm and not args.has_stock_objective:
        check_choice("vllm_importance_sampling_mode", args.vllm_importance_sampling_mode, _CORRECTIONS)
    if not args.prefetch_rollout:
        return
    if not args.use_vllm or args.vllm_mode != "server":
        where = f"with `vllm_mode={args.vllm_mode!r}`" if args.use_vllm else "without `use_vllm=True`"
        raise ValueError(
            "`prefetch_rollout=True` lets a server make the next rollout while this one is trained, but "
            f"{where} generation takes the trainer's own time; use `use_vllm=True` with `vllm_mode='server'`."
        )
    if args.refill_groups is not None:
        raise ValueError(
            f"`refill_groups={args.refill_groups}` asks for further groups when those of a rollout are scored, which would "
            "wait behind the rollout that `prefetch_rollout=True` has asked for already; leave one of them unset."
        )
