# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What two processes do where one of them meets a number that is not finite, and what they count in an evaluation."""

import math
import os
import sys
from pathlib import Path
from typing import Any

import torch
from trl import GRPOTrainer

from trl_grpo_variants.guards import NonFiniteError, RewardDomainError
from trl_grpo_variants.rewards import RewardFunctionError

from ..reward_functions import fails_for_the_last_rank
from ..tiny import dataset, make_trainer, reward


RANK = int(os.environ.get("RANK", "0"))


def on_the_last_rank(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [math.inf if RANK == 1 else float(i) for i in range(len(completion_ids))]


def negative_on_the_last_rank(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [-float(RANK) for _ in completion_ids]


def of_two_prompts(prompts: list[str], **_: Any) -> list[float]:
    first, second = dataset(5)["prompt"][1:3]
    # Of the first, every completion; of the second, the first of its group.
    return [float(prompt == first or (prompt == second and i % 2 == 0)) for i, prompt in enumerate(prompts)]


def stopped(trainer: Any) -> str:
    try:
        trainer.train()
    except (NonFiniteError, RewardDomainError, RewardFunctionError) as error:
        return str(error)
    return "It was not stopped."


def run(policy_path: str, folder: Path) -> dict[str, Any]:
    def make(name: str, **settings: Any) -> Any:
        settings = {"variant": "mirror", "num_iterations": 2, "per_device_train_batch_size": 4} | settings
        return make_trainer(policy_path, folder / name, reward_funcs=settings.pop("reward_funcs", reward), **settings)

    trainer = make("evaluation", num_generations_eval=2, per_device_eval_batch_size=8, eval_dataset=dataset(5),
                   reward_funcs=of_two_prompts)  # fmt: skip
    names = ("success", "success_all", "success_none", "success_prompts", "success@1", "success@2")
    metrics = trainer.evaluate()
    results = {"evaluation": {name: metrics[f"eval_{name}"] for name in names}}
    results["reward"] = stopped(make("reward", reward_funcs=on_the_last_rank))
    results["domain"] = stopped(make("domain", variant="maxrl", reward_funcs=negative_on_the_last_rank))
    results["worker"] = stopped(make("worker", reward_funcs=fails_for_the_last_rank, reward_num_workers=1))

    compute = GRPOTrainer._compute_loss

    def compute_loss(self: Any, model: Any, inputs: Any) -> torch.Tensor:
        return compute(self, model, inputs) * (math.nan if RANK == 1 and self.state.global_step == 1 else 1.0)

    GRPOTrainer._compute_loss = compute_loss
    results["loss"] = stopped(make("loss"))
    return results


if __name__ == "__main__":
    torch.save(run(sys.argv[1], Path(sys.argv[2])), Path(sys.argv[2]) / f"{RANK}.pt")
    # The gloo process group may deadlock in its destructor once everything has been written.
    torch.distributed.barrier()
    os._exit(0)
