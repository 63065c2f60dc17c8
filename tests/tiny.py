# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""A tiny policy, a task for it, and a trainer on both: what the integration tests run on."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM
from trl import GRPOConfig

from trl_grpo_variants import GRPOVariantConfig, GRPOVariantTrainer, get_variant, list_variants
from trl_grpo_variants.doctor import rehearsal
from trl_grpo_variants.doctor.rehearsal import WORDS
from trl_grpo_variants.runs.visits import read_visits


def make_policy(path: Path, hidden_size: int = 16) -> None:
    shape = {"hidden_size": hidden_size, "intermediate_size": 2 * hidden_size, "max_position_embeddings": 64}
    rehearsal.make_policy(path, WORDS, **shape, initializer_range=0.3)


def own_variants(*stock: str) -> list[str]:
    """
    Variants that TRL does not compute alone, and some that it does: with these all what is tested is TRL's, as a test of
    parity shows for each. Of several that differ in numbers only, the first.
    """
    names = [name for name in list_variants() if name in stock or not get_variant(name).is_stock]
    distinct = {_parts_of(name): name for name in reversed(names)}
    return [name for name in names if name in distinct.values()]


def _parts_of(name: str) -> tuple[Any, ...]:
    variant = get_variant(name)
    numbers = {field for field, value in variant.settings.items() if not isinstance(value, str | bool)}
    chosen = {field: value for field, value in variant.settings.items() if field not in numbers and value}
    parts = tuple(part.name for part in vars(variant.parts).values() if part is not None)
    coefficients = tuple(bool(variant.settings.get(name)) for name in ("beta", "mirror_beta"))
    return (*parts, *coefficients, *sorted(chosen.items()))


def dataset(size: int = 24) -> Dataset:
    """Prompts that all differ."""
    return Dataset.from_dict({"prompt": [WORDS[2 + i % 8] * (1 + i % 3) for i in range(size)]})


def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Whether "a" or "b" are among the first three tokens: neither rare nor sure, and it varies within a group."""
    return [float(any(token in (2, 3) for token in ids[:3])) for ids in completion_ids]


def make_config(output_dir: Path, config_class: type = GRPOVariantConfig, **settings: Any) -> Any:
    defaults = {
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 6,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "max_steps": 4,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return config_class(str(output_dir), **(defaults | settings))


def make_trainer(policy_path: str, output_dir: Path, trainer_class: type = GRPOVariantTrainer, **settings: Any) -> Any:
    """Trainer on the tiny policy; a trainer of TRL gets TRL's own config."""
    arguments = {
        name: settings.pop(name)
        for name in (
            "peft_config",
            "callbacks",
            "eval_dataset",
            "quantization_config",
            "reward_funcs",
            "rollout_func",
            "tools",
            "train_dataset",
        )
        if name in settings
    }
    arguments = {"reward_funcs": reward, "train_dataset": dataset()} | arguments
    model = settings.pop("model", None) or AutoModelForCausalLM.from_pretrained(policy_path, dtype=torch.float32)
    config_class = GRPOVariantConfig if issubclass(trainer_class, GRPOVariantTrainer) else GRPOConfig
    args = make_config(output_dir, config_class, **settings)
    return trainer_class(model=model, args=args, **arguments)


def visits(folder: Path) -> list[dict[str, Any]]:
    """Visits of a run, `None` where there is no value."""
    table = read_visits(folder)[0].astype(object)
    return table.where(table.notna(), None).to_dict("records")
