# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What the benchmarks share: models of random weights, a tokenizer, clocks, peak memory, and tables."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from trl import __version__ as trl_version


CUDA = torch.cuda.is_available()
# Tokens that have a text; a model may have more.
VOCABULARY = 1024


def shape(hidden: int, layers: int) -> dict[str, Any]:
    """A small model of this width and depth."""
    heads = hidden // 32
    return {
        "vocab_size": VOCABULARY,
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": 32,
    }


def _qwen3(hidden: int) -> dict[str, Any]:
    return {
        "vocab_size": 151936,
        "hidden_size": hidden,
        "intermediate_size": 3 * hidden,
        "num_hidden_layers": 28,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "tie_word_embeddings": True,
    }


# A model for a CPU, and those of published ones.
SHAPES = {"tiny": shape(128, 4), "0.6B": _qwen3(1024), "1.7B": _qwen3(2048)}


def make_model(sizes: dict[str, Any]) -> Qwen3ForCausalLM:
    """A model of random weights, the same each time, where it is to be used."""
    torch.manual_seed(0)
    config = Qwen3Config(**sizes, pad_token_id=0, eos_token_id=1)
    # Drawn on the device: on a CPU, billions of random numbers take longer than what is to be measured.
    with torch.device("cuda" if CUDA else "cpu"):
        return Qwen3ForCausalLM(config).to(torch.bfloat16 if CUDA else torch.float32)


@contextmanager
def tokenizer_folder() -> Iterator[Path]:
    """A folder with a tokenizer, for which a text is numbers with spaces between them."""
    with tempfile.TemporaryDirectory() as folder:
        vocabulary = {"<pad>": 0, "<eos>": 1} | {str(i): i + 2 for i in range(VOCABULARY - 2)}
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
        tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", padding_side="left"
        ).save_pretrained(folder)
        yield Path(folder)


def wall_time() -> float:
    """Seconds, with all that the device has been given to do."""
    if CUDA:
        torch.cuda.synchronize()
    return time.perf_counter()


def work_time() -> float:
    """Seconds; on a CPU those of this process, so that what else runs on the machine counts little."""
    return wall_time() if CUDA else time.process_time()


def peak_memory(action: Callable[[], object], held: Sequence[torch.Tensor]) -> int:
    """Bytes at the height of an action, of what it allocates and of the tensors that are held before it."""
    size = sum(tensor.nbytes for tensor in held)
    if CUDA:
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        action()
        return size + torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        action()
    allocated = peak = 0
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        allocated += event.nbytes()
        peak = max(peak, allocated)
    return size + peak


def machine() -> str:
    """What the numbers are from."""
    device = torch.cuda.get_device_name() if CUDA else f"{os.cpu_count()} CPU cores"
    precision = "bfloat16" if CUDA else "float32"
    return f"{device}, PyTorch {torch.__version__}, TRL {trl_version}, {precision}"


def row(*cells: object) -> str:
    """A row of a table in Markdown."""
    return f"| {' | '.join(map(str, cells))} |"


def heading(*cells: object) -> str:
    """The first two rows of a table in Markdown."""
    return f"{row(*cells)}\n|{'---|' * len(cells)}"
