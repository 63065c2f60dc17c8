# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Train a model with a GRPO variant, in the style of TRL's own scripts:

    accelerate launch examples/scripts/grpo_variants.py \
        --model_name_or_path Qwen/Qwen2.5-0.5B-Instruct \
        --dataset_name trl-lib/DeepMath-103K \
        --reward_funcs accuracy_reward \
        --variant tic_grpo \
        --output_dir qwen-tic-grpo \
        --use_peft

Every argument also goes into a YAML file that is given with `--config`. Beside TRL's own script it takes an environment,
whose methods the policy calls as tools.
"""

import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from datasets import load_dataset
from trl import ModelConfig, ScriptArguments, TrlParser, get_peft_config, get_quantization_config, rewards

from trl_grpo_variants import GRPOVariantConfig, GRPOVariantTrainer


@dataclass
class GRPOVariantScriptArguments(ScriptArguments):
    """
    Script arguments.

    Args:
        reward_funcs (`list[str]`):
            Reward functions: names in `trl.rewards`, or dotted import paths.
        environment_factory (`str`, *optional*):
            Class whose methods the policy may call as tools, and which may own the reward: a dotted import path.
    """

    reward_funcs: list[str] = field(
        default_factory=list,
        metadata={"help": "Reward functions: names in `trl.rewards`, or dotted import paths."},
    )
    environment_factory: str | None = field(
        default=None,
        metadata={
            "help": "Class whose methods the policy may call as tools, and which may own the reward: a dotted import path."
        },
    )


def load(name: str) -> Callable:
    if "." not in name:
        return getattr(rewards, name)
    module, function = name.rsplit(".", 1)
    sys.path.insert(0, os.getcwd())
    return getattr(importlib.import_module(module), function)


def main(script_args: GRPOVariantScriptArguments, training_args: GRPOVariantConfig, model_args: ModelConfig) -> None:
    training_args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        **(training_args.model_init_kwargs or {}),
    }
    dataset = load_dataset(
        script_args.dataset_name, name=script_args.dataset_config, streaming=script_args.dataset_streaming
    )

    trainer = GRPOVariantTrainer(
        model=model_args.model_name_or_path,
        reward_funcs=[load(name) for name in script_args.reward_funcs],
        args=training_args,
        train_dataset=dataset[script_args.dataset_train_split],
        eval_dataset=dataset[script_args.dataset_test_split] if training_args.eval_strategy != "no" else None,
        quantization_config=get_quantization_config(model_args),
        peft_config=get_peft_config(model_args),
        environment_factory=load(script_args.environment_factory) if script_args.environment_factory else None,
    )
    trainer.train(resume_from_checkpoint=training_args.resume_from_checkpoint)

    trainer.save_model(training_args.output_dir)
    if training_args.push_to_hub:
        trainer.push_to_hub(dataset_name=script_args.dataset_name)


def make_parser() -> TrlParser:
    return TrlParser((GRPOVariantScriptArguments, GRPOVariantConfig, ModelConfig))


if __name__ == "__main__":
    main(*make_parser().parse_args_and_config())
