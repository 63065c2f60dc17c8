# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Two processes of which one is killed while they save, or that resume and then train the same without a stop."""

import copy
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch

from ..tiny import make_trainer
from .distributed_worker import BACKENDS, fsdp_on_cpu, whole_parameters, wrapper
from .killing import killed_at
from .test_resume import SCHEDULE, later_history


KILLED_AT = 5
CASES = {
    "frozen": {"variant": "no_is_frozen"},
    # Refreshed at step 0 and used by the rollouts at 3 and 6.
    "anchor": {"variant": "mirror", "mirror_sync_steps": 8, "num_iterations": 1},
    "reference": {"variant": "reference", "beta": 0.1, "sync_ref_model": True, "ref_model_sync_steps": 2},
}
# DeepSpeed takes no gradient at a snapshot, and ZeRO-3 no snapshot.
CASES_OF = {"zero2": ["anchor", "reference"], "zero3": ["reference"]}


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def make(policy_path: str, folder: Path, name: str, backend: str, **settings: Any) -> Any:
    settings = SCHEDULE | CASES[name] | copy.deepcopy(BACKENDS[backend]) | settings
    return make_trainer(policy_path, folder / name, **settings)


def result(trainer: Any) -> dict[str, Any]:
    checkpoint = Path(trainer.args.output_dir) / f"checkpoint-{KILLED_AT}"
    return {
        "processes": trainer.accelerator.num_processes,
        "wrapper": wrapper(trainer),
        "step": trainer.state.global_step,
        "history": later_history(trainer, KILLED_AT),
        "states": {path.name: path.stat().st_size for path in checkpoint.glob("rollout_state_*")},
        "parameters": whole_parameters(trainer),
    }


def run(policy_path: str, folder: Path, backend: str) -> dict[str, Any]:
    """For every case: the run that was killed, or else stopped, and resumed; and the one that was not."""
    results = {}
    # Before the processes meet: later, one of them may see a folder that the other has just made.
    killed = [name for name in CASES if (folder / name).exists()]
    for name in CASES_OF.get(backend, CASES):
        if name not in killed:
            make(policy_path, folder, name, backend, max_steps=KILLED_AT).train()
        resumed = make(policy_path, folder, name, backend)
        resumed.train(resume_from_checkpoint=True)
        whole = make(policy_path, folder / "whole", name, backend)
        whole.train()
        results[name] = {"resumed": result(resumed), "whole": result(whole)}
    return results


if __name__ == "__main__":
    policy, folder, backend, killed = sys.argv[1], Path(sys.argv[2]), sys.argv[3], sys.argv[4:]
    with fsdp_on_cpu():
        if killed:
            # The second process, when the weights are there and its own state is not; the first is waiting for it.
            with killed_at(0, kill=kill, where=f"checkpoint-{KILLED_AT + 1}/rollout_state_1"):
                make(policy, folder, killed[0], backend).train()
        torch.save(run(policy, folder, backend), folder / f"{os.environ['RANK']}.pt")
    # The gloo process group may deadlock in its destructor once everything has been written.
    torch.distributed.barrier()
    os._exit(0)
