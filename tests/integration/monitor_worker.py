# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Trains with the success monitor; run by one process or, through torchrun, by two that share a group."""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from datasets import concatenate_datasets

from ..tiny import dataset, make_trainer, visits


GROUP = 8
# Of three groups, the second is half in each of two processes.
GLOBAL_BATCH = 3 * GROUP


def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
    """Completions that depend on the prompt, the step and the place in the group, so not on the number of processes."""
    prompt_ids = trainer.processing_class(prompts)["input_ids"]
    first = trainer.accelerator.process_index * len(prompts)
    completion_ids = []
    for index, ids in enumerate(prompt_ids, start=first):
        shift = ids[0] * (index % GROUP + 1) + len(ids) + trainer.state.global_step
        completion_ids.append([2 + (shift + 3 * t) % 8 for t in range(1 + shift % 4)] + [1])
    return {
        "prompt_ids": prompt_ids,
        "completion_ids": completion_ids,
        "logprobs": [[0.0] * len(ids) for ids in completion_ids],
    }


def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [float(sum(ids) % 3 == 0) for ids in completion_ids]


def run(policy_path: str, output_dir: Path) -> dict[str, Any]:
    """Visits of a dual run over more than an epoch, and what was logged of theory, lengths and KLs."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    trainer = make_trainer(
        policy_path,
        output_dir,
        variant="dual",
        success_monitor=True,
        per_device_train_batch_size=GLOBAL_BATCH // processes,
        num_generations=GROUP,
        num_iterations=2,
        max_steps=12 * 2,
        optim="sgd",
        learning_rate=0.05,
        save_strategy="steps",
        save_steps=14,
        save_total_limit=1,
        reward_funcs=reward,
        # So that a rollout may hold several groups of a prompt.
        train_dataset=concatenate_datasets([dataset(4)] * 6),
        rollout_func=rollout,
    )
    trainer.train()
    return {
        "processes": trainer.accelerator.num_processes,
        "visits": visits(output_dir) if trainer.accelerator.is_main_process else None,
        "logged": [
            {
                name: value
                for name, value in entry.items()
                if name.startswith(("theory/", "completions/", "rollout_end/"))
            }
            for entry in trainer.state.log_history
        ],
        "files": sorted(path.name for path in output_dir.iterdir()),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    # Both write to one folder, as the processes of a run do.
    torch.save(run(sys.argv[1], folder / "run"), folder / f"{os.environ['RANK']}.pt")
    # The gloo process group may deadlock in its destructor once everything has been written.
    torch.distributed.barrier()
    os._exit(0)
