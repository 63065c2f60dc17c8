# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Seconds to bring a colocated vLLM engine up to date with an adapter, over bases of growing size.

Rank, layers and the modules that carry the adapter (attention) stay the same, so the adapter has the same size over every
base; vocabulary and width of the MLPs grow. An engine with `vllm_lora_sync=True` and one with TRL's way (merge, send the
whole model, take the merge back) are timed in turn. An engine on a CPU forgets how to load single tensors, so there TRL's
weights are sent with `reload_weights`.

    python examples/benchmarks/adapter_sync.py
"""

import argparse
import functools
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any


os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

import torch  # noqa: E402
from common import heading, row  # noqa: E402
from datasets import Dataset  # noqa: E402
from peft import LoraConfig  # noqa: E402
from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402
from trl.generation.vllm_generation import VLLMGeneration  # noqa: E402

from trl_grpo_variants import GRPOVariantConfig, GRPOVariantTrainer  # noqa: E402


HIDDEN_SIZE, LAYERS, RANK = 256, 2, 8
# Vocabulary, width of the MLPs.
SIZES = ((2**11, 2**9), (2**13, 2**11), (2**15, 2**13), (2**17, 2**15))


def make_base(path: Path, vocabulary: int, width: int) -> None:
    words = {"<pad>": 0, "<eos>": 1, "?": 2}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", unk_token="?", padding_side="left"
    ).save_pretrained(path)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=HIDDEN_SIZE,
        intermediate_size=width,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        max_position_embeddings=64,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(path)


def make_trainer(base: Path, output_dir: Path, lora_sync: bool) -> GRPOVariantTrainer:
    on_cpu = not torch.cuda.is_available()
    args = GRPOVariantConfig(
        output_dir=str(output_dir),
        variant="tic_grpo",
        use_vllm=True,
        vllm_mode="colocate",
        vllm_lora_sync=lora_sync,
        vllm_gpu_memory_utilization=0.05,
        vllm_max_model_length=64,
        model_init_kwargs={"dtype": "bfloat16"},
        per_device_train_batch_size=8,
        report_to="none",
        use_cpu=on_cpu,
        bf16=not on_cpu,
    )
    return GRPOVariantTrainer(
        model=str(base),
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=args,
        train_dataset=Dataset.from_dict({"prompt": ["?"] * 8}),
        peft_config=LoraConfig(r=RANK, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"], task_type="CAUSAL_LM"),
    )


def reload(generation: VLLMGeneration) -> None:
    generation.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": generation._iter_named_params()})
    generation.llm.reset_prefix_cache()


def seconds(action: Any) -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    started = time.perf_counter()
    action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(folder: Path, vocabulary: int, width: int, repeats: int) -> tuple[int, int, float, float]:
    """Parameters of the base and of the adapter, and median seconds of both ways."""
    base = folder / "base"
    make_base(base, vocabulary, width)
    beside, merged = (make_trainer(base, folder / str(lora_sync), lora_sync) for lora_sync in (True, False))
    sizes = {True: 0, False: 0}
    for parameter in beside.model.parameters():
        sizes[parameter.requires_grad] += parameter.numel()
    generation = merged.vllm_generation
    merge = generation.sync_weights if torch.cuda.is_available() else functools.partial(reload, generation)
    times: dict[str, list[float]] = {"adapter": [], "merge": []}
    for _ in range(repeats + 1):
        times["adapter"].append(seconds(beside.vllm_generation.sync_weights))
        times["merge"].append(seconds(merge))
    # The first ones also allocate.
    return sizes[False], sizes[True], statistics.median(times["adapter"][1:]), statistics.median(times["merge"][1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Time to bring vLLM up to date: the adapter alone, and the whole model."
    )
    parser.add_argument("--repeats", type=int, default=15, help="timings per size, of which the median is printed")
    arguments = parser.parse_args()
    print(heading("parameters of the base", "adapter", "adapter only", "merge and send, as TRL", "ratio"), flush=True)
    for vocabulary, width in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            base, adapter, alone, merged = measure(Path(folder), vocabulary, width, arguments.repeats)
        times = (f"{alone * 1e3:.1f} ms", f"{merged * 1e3:.1f} ms", f"{merged / alone:.1f}")
        print(row(f"{base / 1e6:.1f} M", f"{adapter / 1e3:.1f} k", *times), flush=True)


if __name__ == "__main__":
    main()
