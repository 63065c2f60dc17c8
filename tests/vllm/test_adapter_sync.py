# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The real engine, colocated and as a server: it samples from the policy that is being trained, adapter and all."""

import os
import socket
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig

from trl_grpo_variants.generation import AdapterVLLMGeneration

from ..tiny import make_policy, make_trainer


pytest.importorskip("vllm", reason="needs the vLLM environment: make test-vllm")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

PROMPT = [2, 3, 4]
# Mean difference of log-probs over sampled tokens. The engine computes in bfloat16, the trainer in float32.
ROUNDING = 0.1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vllm")
    make_policy(folder / "policy", hidden_size=64)
    return folder


def lora(**settings):
    return LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", **settings)


def trainer_with(folder, name, **settings):
    return make_trainer(
        str(folder / "policy"),
        folder / name,
        variant="tic_grpo",
        use_vllm=True,
        vllm_gpu_memory_utilization=0.05,
        vllm_max_model_length=64,
        peft_config=lora(),
        learning_rate=2e-2,
        max_steps=12,
        **settings,
    )


@pytest.fixture(scope="module")
def colocated(folder):
    return trainer_with(folder, "colocate", vllm_mode="colocate")


@pytest.fixture(scope="module")
def address(folder):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder / "policy")]
    command += ["--host", "127.0.0.1", "--port", str(port), "--enable-lora", "--max-lora-rank", "8"]
    command += ["--logprobs-mode", "processed_logprobs", "--max-model-len", "64", "--enforce-eager"]
    command += ["--gpu-memory-utilization", "0.05"]
    environment = os.environ | {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True", "VLLM_SERVER_DEV_MODE": "1"}
    with open(folder / "server.log", "w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait(timeout=60)


@pytest.fixture(scope="module")
def served(folder, address):
    return trainer_with(folder, "server", vllm_mode="server", vllm_server_base_url=address, vllm_server_timeout=180)


@pytest.fixture(params=["colocated", "served"])
def trainer(request):
    return request.getfixturevalue(request.param)


def policy_logps(trainer, ids):
    with torch.no_grad():
        return trainer.model(input_ids=torch.tensor([ids])).logits[0].float().log_softmax(-1)


def difference(trainer):
    """Between the log-probs that the engine reports for its samples and those of the policy."""
    _, completions, logps, _ = trainer.vllm_generation.generate([PROMPT] * 32, None, 4)
    differences = []
    for completion, reported in zip(completions, logps, strict=True):
        expected = policy_logps(trainer, PROMPT + list(completion))
        for place, (token, logp) in enumerate(zip(completion, reported, strict=True)):
            differences.append(abs(expected[len(PROMPT) - 1 + place, token].item() - logp[0]))
    return sum(differences) / len(differences)


def move_adapter(trainer, scale=0.08):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            if parameter.requires_grad:
                parameter.add_(scale * torch.randn(parameter.shape, generator=generator))


def test_engine_follows_the_adapter_through_several_updates(trainer):
    generation = trainer.vllm_generation
    assert type(generation) is AdapterVLLMGeneration
    base = {key: value.clone() for key, value in trainer.model.state_dict().items() if "lora" not in key}
    generation.sync_weights()
    assert difference(trainer) < ROUNDING
    for _ in range(3):
        move_adapter(trainer)
        # Neither stale nor ignored: without the hand-over the engine is off, with it it is not. The prompt stays the
        # same, so a prefix cached under the previous adapter would show as well.
        assert difference(trainer) > 2 * ROUNDING
        generation.sync_weights()
        assert difference(trainer) < ROUNDING
    assert all(torch.equal(trainer.model.state_dict()[key], value) for key, value in base.items())


def test_training_samples_from_the_policy_that_it_trains(trainer):
    trainer.train()
    history = trainer.state.log_history
    metric = "sampling/sampling_logp_difference/mean"
    differences = [entry[metric] for entry in history if metric in entry]
    assert len(differences) == 3
    assert max(differences) < ROUNDING
    assert all("trajectory/ess" in entry for entry in history if "loss" in entry)


def test_only_the_adapter_is_handed_over(trainer):
    handed = [path.name for path in trainer.vllm_generation.folder.iterdir()]
    assert sorted(handed) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    # An underscore keeps it out of what the trainer uploads.
    assert "_vllm_adapter" in str(trainer.vllm_generation.folder)


def test_a_server_that_is_not_there_is_one_clear_error(folder):
    with pytest.raises(OSError, match="can't be reached at http://127.0.0.1:9 .*vllm serve"):
        trainer_with(
            folder, "dead", vllm_mode="server", vllm_server_base_url="http://127.0.0.1:9", vllm_server_timeout=1
        )


def test_a_server_that_takes_no_adapter_is_one_clear_error(folder, address, served, monkeypatch):
    monkeypatch.setattr(AdapterVLLMGeneration, "_save_adapter", lambda self: None)
    with pytest.raises(RuntimeError, match="did not take the adapter in .*--enable-lora --max-lora-rank 8"):
        trainer_with(folder, "nowhere", vllm_mode="server", vllm_server_base_url=address, vllm_server_timeout=5)
