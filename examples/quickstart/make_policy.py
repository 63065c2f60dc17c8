# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Trains the policies that the quickstart starts from, in about a minute on two CPU cores:

    python examples/quickstart/make_policy.py
    python examples/quickstart/make_policy.py spread

A policy imitates noisy demonstrations, so it can sort but does not do so reliably: reinforcement learning then has
something to select from.
"""

import random
import sys
from pathlib import Path

import torch
from experiment import SORT, TASKS
from measure import Estimate, evaluate
from rich.progress import track
from task import Task, make_prompt, make_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.optimization import get_cosine_schedule_with_warmup


BATCH_SIZE = 64
LEARNING_RATE = 3e-3


def make_policy(directory: Path, task: Task = SORT, seed: int = 0) -> None:
    """
    Train the starting policy and save it with its tokenizer.

    Args:
        directory (`Path`):
            Where to save.
        task ([`Task`], *optional*, defaults to sorting):
            Task whose demonstrations it imitates.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the weights and of the demonstrations.
    """
    torch.manual_seed(seed)
    rng = random.Random(seed)
    tokenizer = make_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=192,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = get_cosine_schedule_with_warmup(optimizer, num_warmup_steps=100, num_training_steps=task.policy_steps)

    for _ in track(range(task.policy_steps), description="Imitating noisy demonstrations"):
        loss = model(**_demonstrations(task, tokenizer, rng)).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()

    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)

    held_out = task.make_dataset("held_out", task.held_out_prompts)
    sampled = evaluate(model, model, tokenizer, held_out, samples=8).success
    greedy = evaluate(model, model, tokenizer, held_out, samples=0).success
    print(f"Held-out success: sampled {Estimate.over_prompts(sampled)}, greedy {Estimate.over_prompts(greedy)}")


def _demonstrations(task: Task, tokenizer: PreTrainedTokenizerFast, rng: random.Random) -> dict[str, torch.Tensor]:
    problems = [task.draw_digits("train", rng) for _ in range(BATCH_SIZE)]
    prompts = [make_prompt(digits) for digits in problems]
    texts = [
        f"{prompt} {task.demonstrate(digits, rng)} <eos>" for prompt, digits in zip(prompts, problems, strict=True)
    ]
    batch = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
    # A prompt is `sort`, the digits and `:`. Only what follows is imitated.
    prompt_lengths = torch.tensor([len(digits) + 2 for digits in problems])
    is_prompt = torch.arange(batch["input_ids"].shape[1]) < prompt_lengths[:, None]
    ignored = is_prompt | (batch["attention_mask"] == 0)
    return {
        "input_ids": batch["input_ids"],
        "attention_mask": batch["attention_mask"],
        "labels": batch["input_ids"].masked_fill(ignored, -100),
    }


if __name__ == "__main__":
    asked_for = TASKS[sys.argv[1]] if len(sys.argv) > 1 else SORT
    make_policy(asked_for.policy, asked_for)
