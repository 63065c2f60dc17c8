# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Peak memory of QLoRA training: every variant beside stock TRL.

    python examples/benchmarks/qlora_memory.py
    python examples/benchmarks/qlora_memory.py --model 0.6B --only "stock TRL" --only mirror

Trains a random Llama of 7 million parameters in 4 bits (NF4, double quantisation) with LoRA on all linear maps, with
rollouts of the same size in every run, and prints one row per run: the most bytes of tensors that lived at once during
training, what they are more than stock TRL's and their ratio to these, and the bytes of the policy snapshots, which
are all that a variant holds besides. On a GPU the bytes are the allocator's statistics; on the CPU they are summed
over the allocations that PyTorch's profiler has seen. `--model` takes a Qwen3 of these sizes instead, also of random
weights.
"""

import argparse
import gc
import tempfile
from pathlib import Path
from typing import Any

import torch
from common import SHAPES, heading, make_model, row
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.profiler import ProfilerActivity, profile, record_function
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, PrinterCallback
from trl import GRPOConfig, GRPOTrainer

from trl_grpo_variants import GRPOVariantConfig, GRPOVariantTrainer, list_variants


WORDS = ["<pad>", "<eos>", *(f"w{index}" for index in range(4094))]
STOCK = {
    "stock TRL": {},
    "stock TRL, beta=0.1": {"beta": 0.1},
}
# Runs that hold a snapshot of the adapter besides those of the presets: an older anchor, a reference that moves.
SNAPSHOTS = {
    "mirror, mirror_sync_steps=8": {"variant": "mirror", "mirror_sync_steps": 8},
    "dual, mirror_sync_steps=8": {"variant": "dual", "mirror_sync_steps": 8},
    "reference, sync_ref_model=True": {"variant": "reference", "sync_ref_model": True, "ref_model_sync_steps": 2},
}
RUNS = STOCK | {name: {"variant": name} for name in list_variants()} | SNAPSHOTS


def make_policy(path: Path, model: str | None) -> None:
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", padding_side="left"
    ).save_pretrained(path)
    if model is not None:
        make_model(SHAPES[model]).save_pretrained(path)
        return
    torch.manual_seed(0)
    shape = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 5, "num_attention_heads": 4}
    config = LlamaConfig(vocab_size=len(WORDS), pad_token_id=0, eos_token_id=1, bos_token_id=None, **shape)
    # In many files: on the CPU, the weights that stay unquantised keep the whole file alive that they were read from.
    LlamaForCausalLM(config).save_pretrained(path, max_shard_size="1KB")


def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [float(sum(ids) % 2) for ids in completion_ids]


def make_trainer(policy: Path, output_dir: Path, settings: dict[str, Any]) -> Any:
    stock = "variant" not in settings
    args = (GRPOConfig if stock else GRPOVariantConfig)(
        str(output_dir),
        per_device_train_batch_size=8,
        num_generations=4,
        steps_per_generation=4,
        max_completion_length=32,
        # All completions have the full length, so that all runs have the same sizes.
        generation_kwargs={"min_new_tokens": 32},
        max_steps=8,
        save_strategy="no",
        report_to="none",
        use_cpu=not torch.cuda.is_available(),
        bf16=torch.cuda.is_available(),
        disable_tqdm=True,
        **settings,
    )
    trainer = (GRPOTrainer if stock else GRPOVariantTrainer)(
        model=str(policy),
        reward_funcs=reward,
        args=args,
        train_dataset=Dataset.from_dict({"prompt": [" ".join(WORDS[i : i + 16]) for i in range(2, 66)]}),
        quantization_config=BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16,
        ),
        peft_config=LoraConfig(r=16, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def cpu_peak(recorded: profile, name: str) -> int:
    """Most bytes alive at once within a range of a profile that has seen every allocation."""
    events = recorded.profiler.kineto_results.events()
    start, end = next((e.start_ns(), e.start_ns() + e.duration_ns()) for e in events if e.name() == name)
    alive = peak = 0
    for event in sorted((e for e in events if e.name() == "[memory]"), key=lambda e: e.start_ns()):
        alive += event.nbytes()
        if start <= event.start_ns() <= end:
            peak = max(peak, alive)
    return peak


def measure(policy: Path, output_dir: Path, settings: dict[str, Any]) -> tuple[int, int, int]:
    """Bytes at the peak of a run, of its snapshots, and of its adapter."""
    gc.collect()
    if torch.cuda.is_available():
        trainer = make_trainer(policy, output_dir, settings)
        torch.cuda.reset_peak_memory_stats()
        trainer.train()
        peak = torch.cuda.max_memory_allocated()
    else:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            trainer = make_trainer(policy, output_dir, settings)
            with record_function("training"):
                trainer.train()
        peak = cpu_peak(recorded, "training")
    snapshots = trainer._anchors.named().values() if isinstance(trainer, GRPOVariantTrainer) else []
    adapter = sum(p.nbytes for p in trainer.model.parameters() if p.requires_grad)
    return peak, sum(value.nbytes for snapshot in snapshots for value in snapshot.state_dict().values()), adapter


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SHAPES, help="Sizes of a Qwen3.")
    parser.add_argument(
        "--only", choices=RUNS, action="append", help="One of the runs, stock TRL first; may be repeated."
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        policy = Path(folder) / "policy"
        make_policy(policy, arguments.model)
        stock = 0
        print(
            heading("run", "peak, bytes", "more than stock", "ratio", "snapshots, bytes", "adapter, bytes"), flush=True
        )
        for name in arguments.only or RUNS:
            peak, held, adapter = measure(policy, Path(folder) / "run", RUNS[name])
            stock = stock or peak
            print(
                row(name, f"{peak:,}", f"{peak - stock:+,}", f"{peak / stock:.3f}", f"{held:,}", f"{adapter:,}"),
                flush=True,
            )


if __name__ == "__main__":
    main()
