# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Two processes whose vLLM server fails them at some point; a stand-in takes the place of TRL's client of it."""

import contextlib
import copy
import io
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig
from trl.generation import vllm_generation
from trl.generation.vllm_client import VLLMClient

from trl_grpo_variants.vllm import client as vllm_client
from trl_grpo_variants.vllm import server

from ..tiny import make_trainer
from .distributed_worker import BACKENDS, GROUP, fsdp_on_cpu, reward, whole_parameters


# Rollouts at steps 0, 2 and 4; the second one fails. TRL sends the weights before each of them.
STEPS_PER_ROLLOUT, STEPS, STOPPED_AT = 2, 6, 2
ADDRESS = "http://stand-in"
CASES: dict[str, dict[str, Any]] = {
    "generating": {},
    # In the background, while the rollout before is trained.
    "generating ahead": {"prefetch_rollout": True},
    "unexpected answer": {},
    "announcing weights": {},
    "sending weights": {},
    "clearing the cache": {},
    "sending a merged adapter": {"peft_config": True, "vllm_lora_sync": False},
    "taking an adapter": {"peft_config": True},
    "writing an adapter": {"peft_config": True},
}
SHARDED = ["generating", "announcing weights", "sending weights"]
# Neither an answer nor an end of the connection.
SILENT = "generating in silence"


class StandIn:
    """Answers as a server would, until it fails in one way at the second rollout."""

    def __init__(self, folder: Path, fails_in: str | None) -> None:
        self.folder, self.fails_in, self.rollouts = folder, fails_in, 0
        self.session = SimpleNamespace(get=lambda *args, **kwargs: self.answer(200), post=self.post)

    def fails(self, name: str) -> bool:
        return self.fails_in == name and self.rollouts == 1

    @staticmethod
    def answer(code: int) -> Any:
        return SimpleNamespace(status_code=code, text="No room.", raise_for_status=lambda: None)

    def post(self, *args: Any, **kwargs: Any) -> Any:
        return self.answer(400 if self.fails("taking an adapter") else 200)

    def send(self, metadata: Any, named_params: Any) -> None:
        if self.fails("announcing weights"):
            raise ConnectionError("refused")
        for index, (name, weights) in enumerate(named_params):
            assert metadata[index][:1] == (name,) and metadata[index][2] == list(weights.shape)
            if index == 3 and (self.fails("sending weights") or self.fails("sending a merged adapter")):
                raise ConnectionError("reset")

    def clear(self) -> None:
        if self.fails("clearing the cache"):
            raise Exception("Request failed: 500, broken")

    def generate(self, prompts: list[list[int]], n: int, **_: Any) -> dict[str, Any]:
        if self.fails("generating") or self.fails("generating ahead"):
            raise ConnectionError("reset")
        if self.fails(SILENT):
            time.sleep(3600)
        if self.fails("unexpected answer"):
            raise KeyError("choices")
        if self.fails_in == "writing an adapter":
            # What is in the way of the next one.
            (self.folder / "adapter_model.safetensors").unlink()
            (self.folder / "adapter_model.safetensors").mkdir()
        self.rollouts += 1
        completions = []
        for ids in prompts:
            for place in range(n):
                length = 1 + (ids[0] + 2 * place) % 5
                completions.append([2 + (ids[0] * (place + 1) + 3 * t + len(ids)) % 8 for t in range(length)] + [1])
        logprobs = [[[0.0]] * len(completion) for completion in completions]
        tokens = [[[token] for token in completion] for completion in completions]
        return {
            "prompt_ids": prompts,
            "completion_ids": completions,
            "logprobs": logprobs,
            "logprob_token_ids": tokens,
        }


@contextlib.contextmanager
def standing_in(stand_in: StandIn) -> Iterator[None]:
    def init(client: VLLMClient, **_: Any) -> None:
        client.base_url, client.session = ADDRESS, stand_in.session

    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(vllm_generation, "is_vllm_available", lambda: True)
        monkeypatch.setattr(server, "urlopen", lambda *args, **kwargs: io.BytesIO())
        monkeypatch.setattr(VLLMClient, "__init__", init)
        monkeypatch.setattr(VLLMClient, "init_communicator", lambda client, **_: None)
        served = {"model": "policy", "quantization": None, "logprobs_mode": "processed_logprobs"}
        monkeypatch.setattr(VLLMClient, "get_server_info", lambda client: {"model_config": served})
        monkeypatch.setattr(VLLMClient, "update_named_params", lambda client, *args: stand_in.send(*args))
        monkeypatch.setattr(VLLMClient, "reset_prefix_cache", lambda client: stand_in.clear())
        monkeypatch.setattr(VLLMClient, "generate", lambda client, **kwargs: stand_in.generate(**kwargs))
        yield


def train(
    policy_path: str,
    folder: Path,
    name: str,
    backend: str,
    fails: bool,
    checkpoint: str | None = None,
    **settings: Any,
) -> Any:
    """The trainer after its run, and the error that has ended it."""
    settings |= CASES.get(name, {})
    if settings.pop("peft_config", False):
        settings["peft_config"] = LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")
    with standing_in(StandIn(folder / "_vllm_adapter", name if fails else None)):
        trainer = make_trainer(
            policy_path,
            folder,
            variant="tic_grpo",
            per_device_train_batch_size=GROUP,
            num_generations=GROUP,
            steps_per_generation=STEPS_PER_ROLLOUT,
            max_steps=STEPS,
            use_vllm=True,
            vllm_mode="server",
            vllm_server_base_url=ADDRESS,
            vllm_importance_sampling_correction=False,
            reward_funcs=reward,
            **settings,
            **copy.deepcopy(BACKENDS[backend]),
        )
        try:
            trainer.train(resume_from_checkpoint=checkpoint)
        except RuntimeError as error:
            return trainer, error
    return trainer, None


def fail_silently(policy_path: str, folder: Path) -> None:
    def is_silent(*args: Any, **kwargs: Any) -> None:
        raise TimeoutError

    vllm_client.urlopen = is_silent
    vllm_client.LOOK_EVERY, server.GIVES_UP_AFTER = 0.1, 1.0
    train(policy_path, folder, SILENT, "ddp", fails=True, vllm_server_timeout=1.0)


def run(policy_path: str, folder: Path, backend: str) -> dict[str, Any]:
    """For every case: the error, and whether the run that resumes after it is the one that never had it."""
    results = {}
    for name in CASES if backend == "ddp" else SHARDED:
        here = folder / name
        trainer, error = train(policy_path, here, name, backend, fails=True)
        results[name] = {"kind": type(error).__name__, "error": str(error), "step": trainer.state.global_step}
        stopped = here / f"checkpoint-{STOPPED_AT}"
        if name == "writing an adapter":
            results[name]["saved"] = stopped.exists()
            continue
        resumed, _ = train(policy_path, folder / "resumed" / name, name, backend, fails=False, checkpoint=str(stopped))
        whole, _ = train(policy_path, folder / "whole" / name, name, backend, fails=False)
        parameters = [whole_parameters(trainer) for trainer in (resumed, whole)]
        results[name] |= {
            "resumed": resumed.state.global_step,
            "exact": all(torch.equal(value, parameters[1][key]) for key, value in parameters[0].items()),
        }
    return results


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    rank = os.environ["RANK"]
    with fsdp_on_cpu():
        if sys.argv[3] == SILENT:
            fail_silently(sys.argv[1], folder / "silent")
        torch.save(run(sys.argv[1], folder / "runs", sys.argv[3]), folder / f"{rank}.pt")
    # The gloo process group may deadlock in its destructor once everything has been written.
    torch.distributed.barrier()
    os._exit(0)
