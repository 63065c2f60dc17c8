# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Trains where ranks differ; run by one process or, through torchrun, by several."""

import copy
import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
from accelerate import PartialState
from peft import LoraConfig

from trl_grpo_variants.rewards import RewardFunctionError

from ..tiny import make_trainer
from .distributed_worker import BACKENDS, fsdp_on_cpu, whole_parameters, wrapper


# One group in each micro-batch of two processes, two groups in one of one process.
GLOBAL_BATCH, GROUP = 8, 4
ROLLOUTS = 3
RUN = {"max_completion_length": 16, "optim": "sgd", "learning_rate": 0.2}
OFF_POLICY = {
    "variant": "tic_grpo",
    "gradient_accumulation_steps": 2,
    "steps_per_generation": 2,
    "num_iterations": 2,
    "max_steps": 2 * ROLLOUTS,
}
# The first forward pass that any process makes is the one of the loss, whose gradients are exchanged.
ON_POLICY = {
    "variant": "mean_only",
    "gradient_accumulation_steps": 1,
    "steps_per_generation": 1,
    "max_steps": ROLLOUTS,
}
POLICIES: dict[str, dict[str, Any]] = {
    "plain": OFF_POLICY,
    "plain_on_policy": ON_POLICY,
    "packed": ON_POLICY | {"pack_rollout": True},
    "shared": ON_POLICY | {"share_prompt": True},
    "compiled": ON_POLICY | {"torch_compile_backend": "eager", "trim_padding": True, "skip_inert_rows": True},
    "adapter": OFF_POLICY | {"peft_config": LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")},
}
# Each with the policy that is to learn the same in one process.
ALIKE = {"packed": "plain_on_policy", "shared": "plain_on_policy", "compiled": "plain_on_policy"}
# Whether each half of a rollout's rows, which are those of a process where there are two, has a signal, by rollout.
SIGNAL = {
    "one_inert_at_first": [(True, False), (True, True), (False, True)],
    "one_inert_later": [(True, True), (True, False), (False, True)],
    "all_inert": [(False, False), (True, True), (False, False)],
}
SITUATIONS = (*SIGNAL, "unequal_lengths", "reward_raises", "reward_of_none")


def completion(situation: str, row: int, rows: int, prompt: list[int]) -> list[int]:
    """One that depends on the prompt and the place in the rollout only, so not on the number of processes."""
    place = row % GROUP
    length = 1 + (prompt[0] + 2 * place) % 5
    if situation == "one_inert_at_first":
        # One forward pass where there is a signal.
        length = 4
    if situation == "unequal_lengths":
        # As many forward passes as rows in one half, one in the other.
        length = 2 + 3 * (row % 8) if row < rows // 2 else 4
    return [2 + (prompt[0] + place + 3 * t) % 8 for t in range(min(length, 14))] + [1]


class Task:
    """Completions and rewards of a situation."""

    def __init__(self, situation: str):
        self.situation = situation

    def rows(self, count: int) -> tuple[range, int]:
        """Number of each of a process's rows in the rollout, and the rows of the rollout."""
        state = PartialState()
        first = state.process_index * count
        return range(first, first + count), count * state.num_processes

    def rollout(self, prompts: list[str], trainer: Any) -> dict[str, Any]:
        prompt_ids = trainer.processing_class(prompts)["input_ids"]
        rows, total = self.rows(len(prompts))
        completion_ids = [
            completion(self.situation, row, total, ids) for row, ids in zip(rows, prompt_ids, strict=True)
        ]
        return {
            "prompt_ids": prompt_ids,
            "completion_ids": completion_ids,
            "logprobs": [[0.0] * len(ids) for ids in completion_ids],
        }

    def reward(self, completion_ids: list[list[int]], trainer_state: Any, **_: Any) -> list[float | None]:
        rows, total = self.rows(len(completion_ids))
        number = ROLLOUTS * trainer_state.global_step // trainer_state.max_steps
        rewards: list[float | None] = []
        for row in rows:
            half = 2 * row // total
            signal = SIGNAL[self.situation][number][half] if self.situation in SIGNAL else True
            rewards.append(float(row % GROUP < 2) if signal else 1.0)
            if number == 1 and half == 1 and self.situation == "reward_raises":
                raise ZeroDivisionError("no judge")
            if number == 0 and half == 1 and self.situation == "reward_of_none":
                rewards[-1] = None
        return rewards


def run(
    policy_path: str, output_dir: Path, backend: str, policies: list[str], save_to: Path | None = None
) -> dict[str, Any]:
    """Parameters and history of policies in every situation; or the error that ends it."""
    # Each run compiles anew: for any size at once, instead of for a first one and then for any.
    torch._dynamo.config.assume_static_by_default = False
    results: dict[str, Any] = {}
    for policy in policies:
        for situation in SITUATIONS:
            # What an earlier run has left.
            torch._dynamo.reset()
            os.environ.pop("ACCELERATE_DYNAMO_BACKEND", None)
            task = Task(situation)
            trainer = make_trainer(
                policy_path,
                output_dir / "run",
                per_device_train_batch_size=GLOBAL_BATCH // int(os.environ.get("WORLD_SIZE", "1")),
                reward_funcs=task.reward,
                rollout_func=task.rollout,
                **copy.deepcopy(RUN | POLICIES[policy] | BACKENDS[backend]),
            )
            # So that rows as short as these are divided, and differently in each process.
            trainer._forward = dataclasses.replace(trainer._forward, split_cost=0)
            result: dict[str, Any] = {"error": None}
            try:
                trainer.train()
            except (ZeroDivisionError, RewardFunctionError) as error:
                result["error"] = [type(error).__name__, str(error), type(error.__cause__).__name__]
            else:
                # A compiled model puts what it holds before the names.
                result["parameters"] = {
                    name.removeprefix("_orig_mod.").removeprefix("module."): value
                    for name, value in whole_parameters(trainer).items()
                }
                result["history"] = [entry for entry in trainer.state.log_history if "loss" in entry]
            result |= {"step": trainer.state.global_step, "wrapper": wrapper(trainer)}
            results[policy, situation] = result
            if save_to is not None:
                # Each time, so that what is missing tells where a process has come to wait.
                torch.save(results, save_to)
    return results


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    rank = os.environ["RANK"]
    with fsdp_on_cpu():
        run(sys.argv[1], folder / rank, sys.argv[3], sys.argv[4:], folder / f"{rank}.pt")
    # The gloo process group may deadlock in its destructor once everything has been written.
    torch.distributed.barrier()
    os._exit(0)
