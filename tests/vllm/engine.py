# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What the suites of the real engine share: its trainers, its servers, and what CPU engines need for whole models."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import save_file
from transformers import BitsAndBytesConfig
from trl.generation.vllm_client import VLLMClient
from trl.generation.vllm_generation import VLLMGeneration

from ..tiny import make_trainer


pytest.importorskip("vllm", reason="needs the vLLM environment: make test-vllm")

PROMPT = [2, 3, 4]
# Mean difference of log-probs over sampled tokens. The engine computes in bfloat16, the trainer in float32.
ROUNDING = 0.1
NF4 = BitsAndBytesConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.bfloat16
)
ADAPTER_OPTIONS = ("--enable-lora", "--max-lora-rank", "8")
# Attention in bfloat16 dies of an illegal instruction where nothing before it in the process has asked the kernel for
# the CPU's matrix unit, as adapters happen to.
FULL_OPTIONS = ("--dtype", "float32")


def lora(**settings: Any) -> LoraConfig:
    return LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", **settings)


def trainer_with(policy: Path, folder: Path, **settings: Any) -> Any:
    defaults = {
        "variant": "tic_grpo",
        "use_vllm": True,
        "vllm_mode": "colocate",
        "vllm_gpu_memory_utilization": 0.05,
        "vllm_max_model_length": 64,
        "vllm_server_timeout": 180,
        "learning_rate": 2e-3,
        "max_steps": 12,
        "reward_funcs": parity,
    }
    if settings.get("quantization_config") is not None:
        settings["model"] = str(policy)
    trainer = make_trainer(str(policy), folder, **(defaults | settings))
    # As while it trains. On a CPU, bitsandbytes packs the base for a forward pass in evaluation mode, and what
    # `state_dict` unpacks is not bit for bit what it was.
    trainer.model.train()
    return trainer


def parity(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [float(sum(ids) % 2) for ids in completion_ids]


def environment(**settings: str) -> dict[str, str]:
    """For a process of its own: without what a colocated engine has told this one of its rank."""
    left = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}
    return {name: value for name, value in os.environ.items() if name not in left} | settings


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def serve(policy: Path, log: Path, *options: str, port: int | None = None) -> Iterator[tuple[str, subprocess.Popen]]:
    """A server that is up, and its address."""
    port = port or free_port()
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(policy)]
    command += ["--host", "127.0.0.1", "--port", str(port), "--logprobs-mode", "processed_logprobs", *options]
    command += ["--max-model-len", "64", "--enforce-eager", "--gpu-memory-utilization", "0.05"]
    settings = environment(VLLM_ALLOW_RUNTIME_LORA_UPDATING="True", VLLM_SERVER_DEV_MODE="1")
    address = f"http://127.0.0.1:{port}"
    with open(log, "w") as file:
        # Its engine is a process of its own, which has to go with it.
        server = subprocess.Popen(command, env=settings, stdout=file, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        for _ in range(360):
            try:
                urlopen(f"{address}/health", timeout=5).close()
                break
            except (URLError, OSError):
                assert server.poll() is None, log.read_text()[-2000:]
                time.sleep(0.5)
        yield address, server
    finally:
        server.terminate()
        server.wait(timeout=60)


def difference(trainer: Any) -> float:
    """Between the log-probs that the engine reports for its samples and those of the policy."""
    _, completions, logps, _ = trainer.vllm_generation.generate([PROMPT] * 32, None, 4)
    differences = []
    for completion, reported in zip(completions, logps, strict=True):
        with torch.no_grad():
            logits = trainer.model(input_ids=torch.tensor([PROMPT + list(completion)])).logits[0]
        expected = logits.float().log_softmax(-1)
        for place, (token, logp) in enumerate(zip(completion, reported, strict=True)):
            differences.append(abs(expected[len(PROMPT) - 1 + place, token].item() - logp[0]))
    return sum(differences) / len(differences)


def move(trainer: Any, scale: float = 0.08) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def train_and_check_ratios(trainer: Any, rollouts: int) -> None:
    """Train, and check of every rollout that its ratios start from what the trainer itself says of it."""
    kept = []
    score = trainer._generate_and_score_completions

    def keep(inputs: Any) -> Any:
        rollout = score(inputs)
        with torch.no_grad():
            logps, *_ = trainer._get_per_token_logps_and_entropies(
                trainer.model,
                torch.cat([rollout["prompt_ids"], rollout["completion_ids"]], dim=1),
                torch.cat([rollout["prompt_mask"], rollout["completion_mask"]], dim=1),
                rollout["completion_ids"].size(1),
                batch_size=trainer.args.per_device_train_batch_size,
            )
        mask = rollout["completion_mask"].bool()
        assert torch.equal(rollout["old_per_token_logps"][mask], logps[mask])
        off = (rollout["sampling_per_token_logps"][mask] - logps[mask]).abs().mean().item()
        # The engine reproduces the policy, but not bit for bit.
        assert 0 < off < ROUNDING
        kept.append(off)
        return rollout

    trainer._generate_and_score_completions = keep
    trainer.train()
    assert len(kept) == rollouts


# TRL sends whole models over NCCL, or loads them into an engine that still knows how; an engine on a CPU does neither,
# but reloads.
def load_into_cpu_engine(generation: VLLMGeneration) -> None:
    weights = [(name, parameter.detach().clone()) for name, parameter in generation._iter_named_params()]
    generation.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": weights})
    generation.llm.reset_prefix_cache()


class FolderOfWeights:
    """Hands whole models over through a folder that the server reads."""

    def __init__(self, policy: Path, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(json.loads((policy / "config.json").read_text())))

    def install(self, monkeypatch: Any) -> None:
        monkeypatch.setattr(VLLMClient, "init_communicator", lambda *args, **kwargs: None)
        monkeypatch.setattr(VLLMClient, "update_named_params", lambda client, *args: self.send(client, *args))

    def send(self, client: VLLMClient, metadata: Any, named_params: Any) -> None:
        # The bridge is what travels; that TRL announced all of it first stays true.
        weights = {name: parameter.detach().contiguous().clone() for name, parameter in named_params}
        assert list(weights) == [name for name, _, _ in metadata]
        save_file(weights, self.folder / "model.safetensors")
        client._post(
            f"{client.base_url}/collective_rpc",
            json={"method": "reload_weights", "kwargs": {"weights_path": str(self.folder)}},
        )
