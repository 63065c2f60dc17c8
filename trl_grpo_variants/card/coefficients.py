# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Coefficients of a run as a card states them: each as it was resolved, none that may hold text of the user's."""

import re
from dataclasses import fields
from enum import Enum
from typing import Any

from transformers import TrainingArguments

from ..combinations import CHOICES, unused_settings
from ..config import GRPOVariantConfig
from ..objective.choice import AXES
from ..resolution import TRL_DEFAULTS
from ..variants import get_variant


# Where TRL's dataloader gives the prompts, there is nothing to say about them.
_PROMPTS = ("prompt_sampling", "prompt_weights", "refill_groups", "surplus_groups", "prefetch_rollout")
# Settings that decide what is minimised, in the order of the card; the others of `GRPOConfig` follow by themselves.
_OBJECTIVE = (
    "importance_sampling_level",
    "policy_loss",
    "policy_loss_kwargs",
    "token_advantage",
    "token_advantage_kwargs",
    "trajectory_clip",
    "no_is_gradient",
    "epsilon",
    "epsilon_high",
    "delta",
    "loss_type",
    "advantage",
    "advantage_kwargs",
    "scale_rewards",
    "reward_variance_epsilon",
    "length_weight_power",
    "mask_zero_variance_groups",
    "beta",
    "mirror_beta",
    "mirror_sync_steps",
    "kl_estimator",
    "kl_placement",
    "num_iterations",
    "steps_per_generation",
    "group_preserving_split",
    *_PROMPTS,
    "num_generations",
    "max_completion_length",
    "temperature",
)
_NAMED = (*(name for axis in AXES for name in (axis, f"{axis}_kwargs")), "length_weight_power")
_OPTIMISATION = (
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "optim",
    "weight_decay",
    "adam_beta1",
    "adam_beta2",
    "adam_epsilon",
    "max_grad_norm",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_steps",
    "num_train_epochs",
    "bf16",
    "fp16",
    "seed",
)
_CHOICES = ("multi_objective_aggregation", "vllm_importance_sampling_mode")
# Where and how a run was hosted and logged is no coefficient of it, and may name a machine.
_HOSTING = (
    "vllm_server_",
    "vllm_group_",
    "vllm_gpu_",
    "vllm_tensor_",
    "vllm_enable_",
    "log_",
    "ds3_",
    "num_completions",
    "success_monitor",
    "reward_num_workers",
    "reward_timeout",
)


def coefficients(args: GRPOVariantConfig) -> tuple[dict[str, str], dict[str, str]]:
    """Settings of a run that decide what is minimised, and all others. Neither a token nor a path is among them."""
    unused = {name for name, *_ in unused_settings(args)}
    # A choice between ways to do what is not done has nothing to say; a bound that is not used may be missed.
    names = [name for name in _OBJECTIVE if name not in unused & CHOICES.keys()]
    names = [name for name in names if name not in _NAMED or getattr(args, name) not in (None, {}, 0.0)]
    names = [name for name in names if name not in _PROMPTS or args.chooses_prompts]
    decisive = {name: number(getattr(args, name)) for name in names}
    if args.epsilon_high is None:
        decisive["epsilon_high"] = decisive["epsilon"]  # as TRL resolves it
    for name in unused & decisive.keys() & {"epsilon", "epsilon_high", "delta"}:
        decisive[name] = "not used"

    is_used = {
        "vllm_": args.use_vllm,
        "sapo_": args.loss_type == "sapo",
        "vespo_": args.loss_type == "vespo",
        "ref_model_": args.sync_ref_model,
        "entropy_coef_": args.use_adaptive_entropy,
        "entropy_target": args.use_adaptive_entropy,
        "max_steps": args.max_steps > 0,
        "num_train_epochs": args.max_steps <= 0,
    }
    idle = tuple(prefix for prefix, used in is_used.items() if not used)
    # What else a variant may set of TRL's, where it does or the run does.
    settings = {} if args.variant is None else get_variant(args.variant).settings
    for name in TRL_DEFAULTS:
        if name in settings:
            decisive.setdefault(name, "not used" if name.startswith(idle) else number(getattr(args, name)))
        elif getattr(args, name) != TRL_DEFAULTS[name] and not name.startswith(idle):
            decisive.setdefault(name, number(getattr(args, name)))
    left_out = (*_HOSTING, *idle)
    inherited = {field.name for field in fields(TrainingArguments)}
    names = [field.name for field in fields(args) if field.name not in inherited and field.init]
    others = {
        name: number(getattr(args, name))
        for name in (*_OPTIMISATION, *names)
        if name not in {*_OBJECTIVE, *decisive, "variant"} and not name.startswith(left_out) and _is_public(args, name)
    }
    return decisive, others | {"processes": str(args.world_size)}


def _is_public(args: GRPOVariantConfig, name: str) -> bool:
    """Whether a setting cannot hold text of the user's: a number, a switch, numbers, or a name out of a fixed set."""
    value = getattr(args, name, None)
    if isinstance(value, str):
        return name in (*_OPTIMISATION, *_CHOICES)
    return isinstance(value, bool | int | float) or (
        isinstance(value, list) and all(isinstance(item, int | float) for item in value)
    )


def number(value: Any) -> str:
    """Text of a setting's value."""
    if isinstance(value, Enum):
        value = value.value
    return "not set" if value is None else re.sub(r"e-0(\d)$", r"e-\1", str(value))
