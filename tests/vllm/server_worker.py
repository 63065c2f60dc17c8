# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""One process of a run whose server is killed in the middle, or which goes on with another server."""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from requests.adapters import HTTPAdapter
from transformers import TrainerCallback
from trl.generation.vllm_client import VLLMClient

from trl_grpo_variants.vllm.client import GenerationServerError

from .engine import FolderOfWeights, lora, trainer_with


# Rollouts at steps 0, 3, 6, and the server dies within the second.
STEPS_PER_ROLLOUT, KILLED_AT, STEPS = 3, 4, 9


class KillServer(TrainerCallback):
    def __init__(self, pid: int) -> None:
        self.pid = pid

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == KILLED_AT and state.is_world_process_zero:
            os.killpg(self.pid, signal.SIGKILL)


def kill_while_it_generates(monkeypatch: Any, pid: int) -> None:
    """It has the request for the third rollout, and will not get to answer it."""
    generate, calls = VLLMClient.generate, []

    def cut_off(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs)
        if len(calls) == 3:
            os.killpg(pid, signal.SIGSTOP)
            threading.Timer(2.0, os.killpg, (pid, signal.SIGKILL)).start()
        return generate(*args, **kwargs)

    monkeypatch.setattr(VLLMClient, "generate", cut_off)


def make(policy: Path, folder: Path, address: str, kind: str, processes: int) -> Any:
    trainer = trainer_with(
        policy,
        folder / "run",
        peft_config=None if kind == "full" else lora(),
        vllm_mode="server",
        vllm_server_base_url=address,
        per_device_train_batch_size=4 // processes,
        gradient_accumulation_steps=2,
        steps_per_generation=2 * STEPS_PER_ROLLOUT,
        max_steps=STEPS,
        # One request alone decides what it draws.
        generation_kwargs={"seed": 3},
        vllm_importance_sampling_correction=False,
        prefetch_rollout=kind == "prefetched",
    )
    if trainer.accelerator.is_main_process:
        # The client tries for a minute; that it does is TRL's.
        trainer.vllm_generation.vllm_client.session.mount("http://", HTTPAdapter(max_retries=0))
    return trainer


def main(policy: Path, folder: Path, address: str, kind: str, action: str, *pid: str) -> None:
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        if kind == "full":
            rank = os.environ.get("RANK", "0")
            FolderOfWeights(policy, folder / f"weights_{action}_{rank}").install(monkeypatch)
        trainer = make(policy, folder, address, kind, processes)
        if action in ("killed", "cut_off"):
            if action == "killed":
                trainer.add_callback(KillServer(int(pid[0])))
            else:
                kill_while_it_generates(monkeypatch, int(pid[0]))
            with pytest.raises(GenerationServerError) as error:
                trainer.train()
            result = {"error": str(error.value)}
        else:
            checkpoint = folder / "run" / f"checkpoint-{2 * STEPS_PER_ROLLOUT}"
            trainer.train(resume_from_checkpoint=str(checkpoint) if action == "resumed" else None)
            result = {}
    parameters = {name: p.detach().clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    result |= {"step": trainer.state.global_step, "history": trainer.state.log_history, "parameters": parameters}
    torch.save(result, folder / f"{action}_{trainer.accelerator.process_index}.pt")
    if processes > 1:
        torch.distributed.barrier()
    # The gloo process group may deadlock in its destructor once everything has been written.
    os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
