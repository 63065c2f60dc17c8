# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Trains every case for a few steps on a fixed rollout; run by one process or, through torchrun, by several."""

import os
import sys
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from transformers import AutoTokenizer

from trl_grpo_variants import list_variants

from ..tiny import WORDS, make_trainer


GLOBAL_BATCH, GROUP = 8, 4
EXTRA = {
    "older_anchor": {"variant": "mirror", "mirror_sync_steps": 4},
    "masked_dual": {"variant": "dual", "mask_zero_variance_groups": True, "loss_type": "dapo"},
    "tic_dapo_dual": {"variant": "tic_grpo", "loss_type": "dapo", "beta": 0.1, "mirror_beta": 0.1},
    "moving_reference": {"variant": "reference", "sync_ref_model": True, "ref_model_sync_steps": 2},
    "mirror_cispo": {"variant": "mirror", "loss_type": "cispo"},
}
CASES = {name: {"variant": name} for name in list_variants()} | EXTRA


def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
    """Completions that depend on the prompt and the place in its group only, so not on the number of processes."""
    prompt_ids = trainer.processing_class(prompts)["input_ids"]
    completion_ids = []
    for index, ids in enumerate(prompt_ids):
        place = index % GROUP
        length = 1 + (ids[0] + 2 * place) % 5
        completion_ids.append([2 + (ids[0] * (place + 1) + 3 * t + len(ids)) % 8 for t in range(length)] + [1])
    return {
        "prompt_ids": prompt_ids,
        "completion_ids": completion_ids,
        "logprobs": [[0.0] * len(ids) for ids in completion_ids],
    }


def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [float(sum(ids) % 3 == 0) for ids in completion_ids]


def run(policy_path: str, output_dir: Path) -> dict[str, Any]:
    """Final parameters and history of every case, full and with an adapter."""
    results = {}
    assert AutoTokenizer.from_pretrained(policy_path)("a")["input_ids"] == [WORDS.index("a")]
    for name, settings in CASES.items():
        for adapter in (False, True):
            trainer = make_trainer(
                policy_path,
                output_dir / "run",
                per_device_train_batch_size=GLOBAL_BATCH // int(os.environ.get("WORLD_SIZE", "1")),
                steps_per_generation=1,
                **({"num_iterations": 3, "max_steps": 6, "optim": "sgd", "learning_rate": 0.2} | settings),
                reward_funcs=reward,
                rollout_func=rollout,
                peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM") if adapter else None,
            )
            trainer.train()
            results[name, adapter] = {
                "processes": trainer.accelerator.num_processes,
                "parameters": {key: p.detach().clone() for key, p in trainer.model.named_parameters()},
                "history": [entry for entry in trainer.state.log_history if "loss" in entry],
            }
    return results


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    rank = os.environ["RANK"]
    torch.save(run(sys.argv[1], folder / rank), folder / f"{rank}.pt")
    # The gloo process group may deadlock in its destructor once everything has been written.
    torch.distributed.barrier()
    os._exit(0)
