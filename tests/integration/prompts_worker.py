# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Chooses prompts in every way; run by one process or, through torchrun, by several, which then share groups."""

import contextlib
import copy
import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from trl.generation.vllm_client import VLLMClient

from trl_grpo_variants.rewards import RewardFunctionError

from ..tiny import make_trainer
from .distributed_worker import BACKENDS, fsdp_on_cpu, whole_parameters, wrapper
from .server_worker import ADDRESS, StandIn, standing_in


# Two groups to a process, and a further generation may be of a single group, of which each has half.
GLOBAL_BATCH, GROUP = 16, 4
RUN = {"max_completion_length": 16, "optim": "sgd", "learning_rate": 0.2, "num_iterations": 2, "max_steps": 8}
REFILL = {"refill_groups": 6}
CASES: dict[str, dict[str, Any]] = {
    "refilled": REFILL | {"variant": "tic_grpo", "steps_per_generation": 1},
    "kept": REFILL | {"surplus_groups": "keep", "num_iterations": 1, "beta": 0.1, "max_steps": 6},
    "by_signal": {"prompt_sampling": "signal", "prompt_weights": "unbiased", "loss_type": "dr_grpo", "beta": 0.1},
    "all": REFILL
    | {"surplus_groups": "keep", "prompt_sampling": "signal", "mask_zero_variance_groups": True}
    # Where groups with signal are to be kept, they have log-probs of their own.
    | {"variant": "mirror", "num_iterations": 2},
    # With the correction for a mismatch to the engine, which has factors and log-probs of its own for each row.
    "served": REFILL
    | {"surplus_groups": "keep", "variant": "mean_only", "num_iterations": 1, "use_vllm": True}
    | {"vllm_mode": "server", "vllm_server_base_url": ADDRESS},
    "prefetched": {"prefetch_rollout": True, "prompt_sampling": "signal", "variant": "dual", "use_vllm": True}
    | {"vllm_mode": "server", "vllm_server_base_url": ADDRESS},
    "exhausted": REFILL | {"max_steps": 30},
    "raises": REFILL,
}


class Task:
    """Completions and rewards that depend on the prompt and the place in its group only."""

    def __init__(self, case: str):
        self.case = case
        self.generations = 0

    def places(self, count: int) -> list[int]:
        first = PartialState().process_index * count
        return [row % GROUP for row in range(first, first + count)]

    def rollout(self, prompts: list[str], trainer: Any) -> dict[str, Any]:
        self.generations += 1
        prompt_ids = trainer.processing_class(prompts)["input_ids"]
        completion_ids = [
            [2 + (ids[0] + place + 3 * t + len(ids)) % 8 for t in range(1 + (ids[0] + 2 * place) % 5)] + [1]
            for ids, place in zip(prompt_ids, self.places(len(prompts)), strict=True)
        ]
        logprobs = [[0.0] * len(ids) for ids in completion_ids]
        return {"prompt_ids": prompt_ids, "completion_ids": completion_ids, "logprobs": logprobs}

    def reward(self, prompts: list[str], **_: Any) -> list[float]:
        if self.case == "raises" and self.generations == 2 and PartialState().is_last_process:
            raise ZeroDivisionError("no judge")
        silent = "abcdefgh" if self.case == "exhausted" else "abcde"
        return [
            float(prompt[0] in silent or place < 2)
            for prompt, place in zip(prompts, self.places(len(prompts)), strict=True)
        ]


def run(policy_path: str, output_dir: Path, backend: str = "ddp") -> dict[str, Any]:
    """Parameters and history of every case, or the error that ends it."""
    results: dict[str, Any] = {}
    for case, settings in CASES.items():
        is_served = settings.get("use_vllm", False)
        if is_served and not hasattr(VLLMClient, "get_server_info"):
            continue
        with standing_in(StandIn(output_dir, None)) if is_served else contextlib.nullcontext():
            results[case] = trained(policy_path, output_dir, backend, case, settings)
    return results


def trained(policy_path: str, output_dir: Path, backend: str, case: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Parameters and history of a case, or the error that ends it."""
    task = Task(case)
    trainer = make_trainer(
        policy_path,
        output_dir / "run",
        per_device_train_batch_size=GLOBAL_BATCH // int(os.environ.get("WORLD_SIZE", "1")),
        reward_funcs=task.reward,
        rollout_func=None if settings.get("use_vllm") else task.rollout,
        **copy.deepcopy(RUN | settings | BACKENDS[backend]),
    )
    error = None
    try:
        trainer.train()
    except (ZeroDivisionError, RewardFunctionError) as raised:
        error = str(raised)
    return {
        "error": error,
        "step": trainer.state.global_step,
        "generations": task.generations,
        "wrapper": wrapper(trainer),
        "parameters": whole_parameters(trainer),
        "kept": None if trainer._kept is None else trainer._kept["completion_ids"],
        "history": [entry for entry in trainer.state.log_history if "loss" in entry],
    }


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    rank = os.environ["RANK"]
    with fsdp_on_cpu():
        torch.save(run(sys.argv[1], folder / rank, sys.argv[3]), folder / f"{rank}.pt")
    # The gloo process group may deadlock in its destructor once everything has been written.
    torch.distributed.barrier()
    os._exit(0)
