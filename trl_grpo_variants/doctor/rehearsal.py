# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""A few steps with the settings of a recipe on a tiny model, which is made on the spot."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from trl import get_peft_config, get_quantization_config
from trl.scripts import grpo

from .. import GRPOVariantTrainer


STEPS = 3
WORDS = ["<pad>", "<eos>", *"abcdefgh", "?"]
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"

# What a machine without a GPU needs of any recipe.
ON_CPU = {"use_cpu": True, "bf16": False, "fp16": False}
_SMALL = {
    "max_completion_length": 8,
    "temperature": 1.0,
    "max_steps": STEPS,
    "logging_strategy": "steps",
    "logging_steps": 1,
    "save_strategy": "no",
    "eval_strategy": "no",
    "report_to": "none",
    "push_to_hub": False,
    "log_completions": False,
    "disable_tqdm": True,
    "dataloader_num_workers": 0,
    "dataloader_pin_memory": False,
}
# What belongs to the model, the data, the machines and the place of a run, besides what the small run sets.
_REPLACED = (
    *("dataset_config", "dataset_streaming", "datasets", "prompt_success_rates", "chat_template_path"),
    *("model_revision", "model_init_kwargs", "resume_from_checkpoint", "load_best_model_at_end", "torch_compile"),
    *("torch_compile_backend", "torch_compile_mode", "deepspeed", "fsdp", "fsdp_config", "num_train_epochs"),
    *("vllm_tensor_parallel_size", "vllm_model_impl", "prefetch_rollout", "reward_num_workers", "reward_timeout"),
)


def make_policy(
    folder: Path, words: Sequence[str], chat_template: str | None = None, spaced: bool = False, **shape: Any
) -> None:
    """
    Write an untrained Llama of two layers and its tokenizer, whose tokens are words.

    Args:
        folder (`Path`):
            Where to.
        words (`Sequence[str]`):
            Tokens in their order, of which the first is that of padding and the second ends a sequence; among them is
            `"?"`, which stands for any other word.
        chat_template (`str`, *optional*):
            Template of conversations.
        spaced (`bool`, *optional*, defaults to `False`):
            Whether words stand between spaces; else each is one letter.
        **shape (`Any`, *optional*):
            Fields of `LlamaConfig` with other values than here.
    """
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit() if spaced else pre_tokenizers.Split("", "isolated")
    special = {"pad_token": words[0], "eos_token": words[1], "unk_token": "?"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side="left", **special)
    fast.chat_template = chat_template
    fast.save_pretrained(folder)
    defaults = {
        "hidden_size": 64,  # a block of 4-bit quantisation
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": None,
        "tie_word_embeddings": False,
        "initializer_range": 0.1,
    }
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(vocab_size=len(words), **defaults | shape)).save_pretrained(folder)


def small_recipe(
    recipe: Mapping[str, Any], folder: Path, can_quantize: bool = True, can_run_vllm: bool = False
) -> tuple[Path, list[str]]:
    """
    Write a recipe that takes seconds, of which the objective, its schedule, the group and the adapter are the given ones.

    Args:
        recipe (`Mapping[str, Any]`):
            Fields of the recipe.
        folder (`Path`):
            Folder of the small recipe, of its model (`policy`) and of its output (`out`).
        can_quantize (`bool`, *optional*, defaults to `True`):
            Whether bitsandbytes works.
        can_run_vllm (`bool`, *optional*, defaults to `False`):
            Whether vLLM may generate.

    Returns:
        `tuple[Path, list[str]]`:
            The file, and what the run has to do without.
    """
    kept = {name: value for name, value in recipe.items() if name not in _REPLACED}
    given, without = _fitting(kept, can_quantize, can_run_vllm)
    given |= {"model_name_or_path": str(folder / "policy"), "output_dir": str(folder / "out")}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(given), encoding="utf-8")
    args = _parse(path)[1]
    # One group per micro-batch and two micro-batches per step, so that whole groups make a step.
    small = _SMALL | {"per_device_train_batch_size": args.num_generations, "gradient_accumulation_steps": 2}
    if given.pop("generation_batch_size", None) or "steps_per_generation" in given:
        small["steps_per_generation"] = 2 * max(1, args.steps_per_generation // args.gradient_accumulation_steps)
    path.write_text(yaml.safe_dump(given | small), encoding="utf-8")
    return path, without


def _fitting(recipe: dict[str, Any], can_quantize: bool, can_run_vllm: bool) -> tuple[dict[str, Any], list[str]]:
    """The settings as far as the machine can, and what it does without."""
    settings, without = dict(recipe), []
    has_gpu = torch.cuda.is_available() and not recipe.get("use_cpu")
    quantized = [name for name in ("load_in_4bit", "load_in_8bit") if settings.get(name)]
    if not has_gpu:
        settings |= ON_CPU
        settings["dtype"] = settings.get("dtype", "float32") if quantized else "float32"
        if any(part in str(settings.get("optim")) for part in ("bit", "paged", "bnb")):
            without.append(str(settings.pop("optim")))
    if not has_gpu and settings.get("attn_implementation", "sdpa") not in ("sdpa", "eager"):
        del settings["attn_implementation"]
        without.append("flash attention")
    if quantized and not can_quantize:
        settings = {name: value for name, value in settings.items() if name not in quantized}
        without.append("quantisation")
    if settings.get("use_vllm"):
        # A server has the recipe's own model, and TRL cannot send whole models to an engine on a CPU.
        is_colocated = settings.get("vllm_mode", "colocate") == "colocate"
        settings["use_vllm"] = can_run_vllm and is_colocated and (has_gpu or bool(settings.get("use_peft")))
        settings |= {"vllm_gpu_memory_utilization": 0.1, "vllm_max_model_length": 64}
        without += [] if settings["use_vllm"] else ["vLLM"]
    return settings, without


@dataclass(frozen=True)
class Rehearsal:
    """What became of the steps."""

    losses: list[float]
    gradients: list[float]
    seconds_per_step: float
    without: list[str]

    @property
    def obstacle(self) -> str:
        """What is wrong with them, empty if nothing is."""
        if len(self.losses) != STEPS or not all(map(math.isfinite, [*self.losses, *self.gradients])):
            return f"losses {self.losses} and gradient norms {self.gradients}"
        return "" if any(self.gradients) else "no step had a gradient"


def rehearse(recipe: Mapping[str, Any], can_quantize: bool, can_run_vllm: bool) -> Rehearsal:
    """Train a tiny model; whatever the trainer raises is let through."""
    with TemporaryDirectory() as folder:
        path, without = small_recipe(recipe, Path(folder), can_quantize, can_run_vllm)
        script, args, model = _parse(path)
        make_policy(Path(model.model_name_or_path), WORDS, TEMPLATE)
        args.model_init_kwargs = {"dtype": model.dtype, "attn_implementation": model.attn_implementation}
        size = args.generation_batch_size // args.num_generations
        prompts = [[{"role": "user", "content": WORDS[2 + i % 8] * (1 + i % 3)}] for i in range(size)]
        rewards = [*(script.reward_funcs or []), *filter(None, [script.reward_model_name_or_path])]
        trainer = GRPOVariantTrainer(
            model=model.model_name_or_path,
            # As many as the recipe has, since their weights are its own.
            reward_funcs=[
                _binary if args.parts.advantage.domain.values else _graded,
                *[_no_reward] * (len(rewards) - 1),
            ],
            args=args,
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            quantization_config=get_quantization_config(model),
            peft_config=get_peft_config(model),
        )
        seconds = trainer.train().metrics["train_runtime"] / STEPS
        steps = [entry for entry in trainer.state.log_history if "grad_norm" in entry]
        return Rehearsal([s["loss"] for s in steps], [s["grad_norm"] for s in steps], seconds, without)


def _parse(path: Path) -> Any:
    """Arguments of the script, of the trainer and of the model, as TRL's script reads them."""
    parsed = grpo.make_parser().parse_args_and_config(["--config", str(path)], fail_with_unknown_args=False)
    return parsed[:3]


# Of a group hardly ever the same, so that every method has a signal.
def _graded(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [sum(ids[:3]) / (3 * len(WORDS)) for ids in completion_ids]


def _binary(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [float(sum(ids[:3]) % 2) for ids in completion_ids]


def _no_reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [0.0] * len(completion_ids)
