# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What the trainer needs of the TRL and the backend that it finds; checked before a model is loaded."""

import os
from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

from accelerate.utils import parse_flag_from_env
from packaging.version import Version

from .requirements import requirements


if TYPE_CHECKING:
    from .fields import VariantFields


# Methods of the parent that the trainer overrides or stands in front of.
SEAMS = (
    "_calculate_rewards",
    "_compute_loss",
    "_generate",
    "_generate_and_score_completions",
    "_get_per_token_logps_and_entropies",
    "_get_train_sampler",
    "_load_optimizer_and_scheduler",
    "_prepare_inputs",
    "_push_from_checkpoint",
    "_save",
    "_save_checkpoint",
    "_save_rng_state",
    "create_model_card",
    "evaluate",
    "get_batch_samples",
    "log",
    "push_to_hub",
    "train",
    "training_step",
)

# Loss types whose normaliser TRL has changed since 1.9.0.
REDIVIDED = ("cispo", "dapo", "luspo", "vespo")


def check_trl(found: str) -> None:
    """Refuse, with an `ImportError`, a version of TRL that this package does not declare to support."""
    supported = requirements()["trl"].specifier
    if not supported.contains(found, prereleases=True):
        raise ImportError(
            f"trl_grpo_variants builds on parts of TRL that differ between versions and supports trl{supported}, but "
            f"TRL {found} is installed: run `pip install 'trl{supported}'`."
        )


trl_version = version("trl")
# Whoever imports the trainer imports this module.
check_trl(trl_version)


def check_parent(parent: type, args: "VariantFields") -> None:
    """
    Refuse, with a `RuntimeError`, a parent class that is not TRL's own or lacks a method, and, with a
    `NotImplementedError`, a TRL that would bypass the loss, divides it otherwise or cannot score lines.
    """
    if (parent.__module__, parent.__name__) != ("trl.trainer.grpo_trainer", "GRPOTrainer"):
        raise RuntimeError(
            f"GRPOVariantTrainer builds on TRL's own GRPOTrainer, but `trl.GRPOTrainer` is "
            f"{parent.__module__}.{parent.__qualname__}, whose loss would run instead of the variant's. Import "
            "trl_grpo_variants before the package that replaces it, or do without that package."
        )
    missing = [name for name in SEAMS if not hasattr(parent, name)]
    if missing:
        raise RuntimeError(
            f"TRL {trl_version} has no GRPOTrainer.{', '.join(missing)}, which the variants build on; install a "
            "version in the range that trl_grpo_variants declares."
        )
    lines = [name for name in ("pack_rollout", "share_prompt") if getattr(args, name)]
    if lines and not hasattr(import_module("trl.trainer.utils"), "add_fused_lm_head"):
        raise NotImplementedError(
            f"`{lines[0]}=True` needs the fused LM head of a newer TRL than {trl_version}; install TRL 1.16 or newer, "
            "or leave it off."
        )
    if args.loss_type in REDIVIDED and not args.has_stock_objective and Version(trl_version) < Version("1.10"):
        raise NotImplementedError(
            f"`loss_type={args.loss_type!r}` divides by another number in TRL {trl_version} than in later versions, which "
            "the terms of a variant do not follow; use 'grpo', 'dr_grpo' or 'bnpo', or TRL 1.10 or newer."
        )
    if args.prefetch_rollout and Version(trl_version) < Version("1.16"):
        raise NotImplementedError(
            f"`prefetch_rollout=True` asks the server as TRL does from 1.16 on, and TRL {trl_version} is installed; install "
            "TRL 1.16 or newer, or leave it off."
        )
    if args.use_liger_kernel and not args.has_stock_objective and Version(trl_version) < Version("1.14"):
        raise NotImplementedError(
            f"`use_liger_kernel=True` bypasses the loss that variants extend in TRL {trl_version}; use TRL 1.14 or "
            "newer, or leave it off."
        )


def sharding_backend(args: "VariantFields") -> str | None:
    """The backend that shards the parameters: `"DeepSpeed"`, `"FSDP"`, or `None` for one process and DDP."""
    if args.deepspeed_plugin is not None:
        return "DeepSpeed"
    if args.fsdp or parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return "FSDP"
    return None


def check_backend(args: "VariantFields", moves_adapter: bool) -> None:
    """
    Refuse, with a `NotImplementedError`, a backend that holds the parameters in a way that the policy snapshot that is
    needed, or a reference that moves (as a copy of an adapter with `moves_adapter`), cannot follow.
    """
    fsdp_version = _fsdp_version(args)
    if fsdp_version == 1 and args.sync_ref_model and not moves_adapter and args.extends_trl:
        raise NotImplementedError(
            "`sync_ref_model=True` moves the reference to other parameters than the policy's under FSDP1; use FSDP2 "
            "(`fsdp_version: 2`), DDP or one process."
        )
    users = {
        "`no_is_gradient='frozen'`": args.no_is_gradient == "frozen",
        f"`mirror_sync_steps={args.mirror_sync_steps}`": args.mirror_sync_steps is not None,
        "`sync_ref_model=True` with PEFT": moves_adapter,
        "`prefetch_rollout=True`": args.prefetch_rollout,
    }
    setting = next((name for name, needs_snapshot in users.items() if needs_snapshot), None)
    if setting is None:
        return
    if fsdp_version == 1:
        raise NotImplementedError(
            f"{setting} keeps a copy of the trainable parameters, which FSDP1 flattens and shards; use FSDP2 "
            "(`fsdp_version: 2`), DDP or one process."
        )
    if args.deepspeed_plugin is None:
        return
    if args.no_is_gradient == "frozen":
        raise NotImplementedError(
            f"{setting} takes the gradient at a copy of the trainable parameters, but DeepSpeed steps within the "
            "backward pass, before they are back in place; use FSDP2, DDP or one process."
        )
    if args.deepspeed_plugin.zero_stage == 3:
        raise NotImplementedError(
            f"{setting} keeps a copy of the trainable parameters, which DeepSpeed ZeRO-3 shards; use ZeRO-2, FSDP2, "
            "DDP or one process."
        )


def _fsdp_version(args: "VariantFields") -> int | None:
    """Version of FSDP that accelerate is going to use; 1 also for that of XLA, `None` without FSDP."""
    if args.fsdp:
        return (args.fsdp_plugin_args or {}).get("fsdp_version", 1)
    if parse_flag_from_env("ACCELERATE_USE_FSDP"):
        return int(os.environ.get("FSDP_VERSION", "1"))
    return None
