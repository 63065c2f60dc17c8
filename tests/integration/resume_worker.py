# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Two processes that are killed within a rollout, or that resume and then train the same without a stop."""

import copy
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from ..tiny import make_trainer
from .distributed_worker import BACKENDS, fsdp_on_cpu, whole_parameters, wrapper
from .test_resume import SCHEDULE, later_history


KILLED_AT = 5
CASES = {
    "frozen": {"variant": "no_is_frozen"},
    # Refreshed at step 0 and used by the rollouts at 3 and 6.
    "anchor": {"variant": "mirror", "mirror_sync_steps": 8, "num_iterations": 1},
}


class Kill(TrainerCallback):
    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == KILLED_AT:
            # Every rank has written its part of the last checkpoint.
            torch.distributed.barrier()
            os.kill(os.getpid(), signal.SIGKILL)


def make(policy_path: str, folder: Path, name: str, backend: str, **settings: Any) -> Any:
    settings = SCHEDULE | CASES[name] | copy.deepcopy(BACKENDS[backend]) | settings
    return make_trainer(policy_path, folder / name, **settings)


def result(trainer: Any) -> dict[str, Any]:
    return {
        "processes": trainer.accelerator.num_processes,
        "wrapper": wrapper(trainer),
        "step": trainer.state.global_step,
        "history": later_history(trainer, KILLED_AT),
        "parameters": whole_parameters(trainer),
    }


def run(policy_path: str, folder: Path, backend: str) -> dict[str, Any]:
    """For every case: the run that was killed, or else stopped, and resumed; and the one that was not."""
    results = {}
    for name in ["anchor"] if backend == "zero2" else CASES:
        if not (folder / name).exists():
            make(policy_path, folder, name, backend, max_steps=KILLED_AT).train()
        resumed = make(policy_path, folder, name, backend)
        resumed.train(resume_from_checkpoint=str(folder / name / f"checkpoint-{KILLED_AT}"))
        whole = make(policy_path, folder / "whole", name, backend)
        whole.train()
        results[name] = {"resumed": result(resumed), "whole": result(whole)}
    return results


if __name__ == "__main__":
    policy, folder, backend, killed = sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4:]
    with fsdp_on_cpu():
        if killed:
            make(policy, folder, killed[0], backend, callbacks=[Kill()]).train()
        torch.save(run(policy, folder, backend), folder / f"{os.environ['RANK']}.pt")
    # The gloo process group may deadlock in its destructor once everything has been written.
    torch.distributed.barrier()
    os._exit(0)
