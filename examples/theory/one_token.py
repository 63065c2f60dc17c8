# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
A policy that the theory describes without approximation: a prompt is one token, an output is one token, and every
prompt has a softmax of its own over the outputs, some of which are right.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar


OUTPUTS = 10
RIGHT = 4
# Of the tokens that are no outputs: their probability is 0 in float32.
NEVER = -200.0


def make_policy(folder: Path, success: list[float]) -> None:
    """
    Save a policy and its tokenizer.

    The model has no layers: a prompt's embedding is one-hot, so that the language model's head is a table of logits.

    Args:
        folder (`Path`):
            Where to save.
        success (`list[float]`):
            Success rate of each prompt.
    """
    disable_progress_bar()
    prompts = len(success)
    words = ["<pad>", *(f"o{i}" for i in range(OUTPUTS)), *(f"q{i}" for i in range(prompts))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<pad>", padding_side="left"
    ).save_pretrained(folder)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=prompts,
        intermediate_size=1,
        num_hidden_layers=0,
        num_attention_heads=1,
        head_dim=2,
        rms_norm_eps=0.0,
        pad_token_id=0,
        eos_token_id=0,
        bos_token_id=None,
        tie_word_embeddings=False,
    )
    model = LlamaForCausalLM(config)
    generator = torch.Generator().manual_seed(0)
    logits = torch.full((len(words), prompts), NEVER)
    for prompt, p in enumerate(success):
        spread = 0.5 * torch.randn(OUTPUTS, generator=generator)
        right, wrong = spread[:RIGHT].log_softmax(dim=0), spread[RIGHT:].log_softmax(dim=0)
        logits[1 : 1 + OUTPUTS, prompt] = torch.cat([right + np.log(p), wrong + np.log1p(-p)])
    with torch.no_grad():
        model.model.embed_tokens.weight.zero_()
        model.model.embed_tokens.weight[1 + OUTPUTS :] = torch.eye(prompts)
        # The norm scales a one-hot vector by the square root of its size.
        model.lm_head.weight.copy_(logits / prompts**0.5)
    model.save_pretrained(folder)


def load_policy(folder: Path) -> LlamaForCausalLM:
    """The policy with its table as the only trainable parameter."""
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.model.requires_grad_(False)
    return model


def probabilities(model: Any) -> torch.Tensor:
    """Probabilities `(prompts, OUTPUTS)` of the outputs."""
    table = model.lm_head.weight.detach().double() * model.config.hidden_size**0.5
    return table.log_softmax(dim=0).exp()[1 : 1 + OUTPUTS].T


def success(model: Any) -> np.ndarray:
    """Success `(prompts,)`, exactly."""
    return probabilities(model)[:, :RIGHT].sum(dim=1).numpy()


def right(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Reward function."""
    return [float(1 <= ids[0] <= RIGHT) for ids in completion_ids]


def dataset(prompts: int) -> Dataset:
    return Dataset.from_dict({"prompt": [f"q{i}" for i in range(prompts)]})


def in_proportion(prompts: list[str], trainer: Any) -> dict[str, list[list[int]]]:
    """
    Rollout function: each prompt's completions are the outputs in proportion to their probabilities.

    The quantiles of a distribution at evenly spaced points, in place of draws: what remains of the sampling is
    rounding, less than one completion per output.
    """
    table = probabilities(trainer.model).cumsum(dim=1)
    size = trainer.num_generations
    points = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    completion_ids = []
    for index, prompt in enumerate(prompts):
        output = int(torch.searchsorted(table[int(prompt[1:])], points[index % size]))
        completion_ids.append([1 + min(output, OUTPUTS - 1)])
    return {
        "prompt_ids": [[1 + OUTPUTS + int(prompt[1:])] for prompt in prompts],
        "completion_ids": completion_ids,
        "logprobs": [[0.0]] * len(prompts),
    }
