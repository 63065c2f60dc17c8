# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Two processes compute what one computes on the same global batch, however the policy is held."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from . import distributed_worker, resume_worker


WRAPPERS = {
    "ddp": "DistributedDataParallel",
    "fsdp2": "FSDPModule",
    "fsdp1": "FullyShardedDataParallel",
    "zero2": "DeepSpeedEngine2",
    "zero3": "DeepSpeedEngine3",
}
# The first test of a backend waits for all of its runs.
pytestmark = pytest.mark.timeout(900)
needs_deepspeed = pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed")
BACKENDS = [
    pytest.param(name, marks=needs_deepspeed if name.startswith("zero") else [])
    for name in distributed_worker.BACKENDS
]
# With the adapter or without; the moving reference of full fine-tuning is TRL's.
REFUSED = {
    "fsdp1": {
        ("no_is_frozen", "accumulated_frozen", "older_anchor"): "keeps a copy .* which FSDP1 flattens and shards",
        ("moving_reference",): "`sync_ref_model=True.*FSDP1",
    },
    "zero2": {("no_is_frozen", "accumulated_frozen"): "DeepSpeed steps within the backward pass"},
    "zero3": {
        ("no_is_frozen", "accumulated_frozen"): "DeepSpeed steps within the backward pass",
        ("older_anchor", "moving_reference/lora"): "keeps a copy .* which DeepSpeed ZeRO-3 shards",
    },
}


def launch(worker, *arguments, time_limit=240):
    """Standard error of two processes that run a module; they have ended when it returns."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    process = subprocess.Popen(
        [*command, "--module", worker.__name__, *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1", "DS_ACCELERATOR": "cpu"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        return process.communicate(timeout=time_limit)[1]
    except subprocess.TimeoutExpired:
        # The launcher ends its workers when it is asked to, and leaves them behind when it is killed.
        process.terminate()
        process.communicate(timeout=60)
        raise


def load_ranks(folder, errors):
    ranks = [folder / "0.pt", folder / "1.pt"]
    assert all(rank.exists() for rank in ranks), errors[-4000:]
    return [torch.load(rank, weights_only=True) for rank in ranks]


@pytest.fixture(scope="module")
def alone(policy_path, tmp_path_factory):
    return distributed_worker.run(policy_path, tmp_path_factory.mktemp("alone"))


@pytest.fixture(scope="module", params=BACKENDS)
def together(request, policy_path, tmp_path_factory):
    """The backend, and what every rank has computed with it."""
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, load_ranks(
        folder, launch(distributed_worker, policy_path, folder, request.param, time_limit=600)
    )


@pytest.mark.parametrize(
    ("name", "adapter"),
    [pytest.param(*run, id=f"{run[0]}-{'lora' if run[1] else 'full'}") for run in distributed_worker.runs("ddp")],
)
def test_two_processes_train_what_one_trains_or_refuse(alone, together, name, adapter):
    backend, ranks = together
    if (name, adapter) not in distributed_worker.runs(backend):
        pytest.skip("Its parts do not know who holds the parameters.")
    sentences = {case: message for cases, message in REFUSED.get(backend, {}).items() for case in cases}
    refusal = sentences.get(name) or sentences.get(f"{name}/lora" if adapter else f"{name}/full")
    expected = alone[name, adapter]
    assert (expected["processes"], expected["wrapper"] in WRAPPERS.values()) == (1, False)
    for rank in ranks:
        actual = rank[name, adapter]
        if refusal:
            with pytest.raises(NotImplementedError, match=refusal):
                raise NotImplementedError(actual["refused"])
            continue
        assert (actual["processes"], actual["wrapper"]) == (2, WRAPPERS[backend])
        if rank is ranks[0] or backend in ("ddp", "fsdp1", "zero2"):
            assert actual["parameters"].keys() == expected["parameters"].keys()
        for key, parameter in actual["parameters"].items():
            torch.testing.assert_close(parameter, expected["parameters"][key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["tic_grpo", "dual", "tic_dapo_dual"])
def test_metrics_are_averaged_over_processes(alone, together, name):
    histories = alone[name, False]["history"], together[1][0][name, False]["history"]
    for mine, theirs in zip(*histories, strict=True):
        counted = ("kl", "mirror_kl", "entropy", "trajectory/", "success", "loss", "generated_tokens")
        names = [key for key in mine if key.startswith(counted)]
        assert len(names) >= 4
        for key in names:
            assert theirs[key] == pytest.approx(mine[key], rel=1e-3, abs=1e-5), key


def test_runs_have_moved_the_policy_off_the_rollout(alone):
    """Else the comparison would be one of on-policy gradients only."""
    history = alone["tic_grpo", False]["history"]
    assert max(entry["trajectory/log_weight_std"] for entry in history) > 0.05


@pytest.mark.parametrize("backend", [name for name in BACKENDS if name.values != ("fsdp1",)])
def test_two_processes_resume_exactly(policy_path, tmp_path, backend):
    if backend == "ddp":
        errors = launch(resume_worker, policy_path, tmp_path, backend, "frozen")
        assert "SIGKILL" in errors and not (tmp_path / "0.pt").exists(), errors[-4000:]
        left = tmp_path / "frozen" / f"checkpoint-{resume_worker.KILLED_AT + 1}"
        assert (left / "model.safetensors").exists() and not (left / "trainer_state.json").exists()
    for rank in load_ranks(tmp_path, launch(resume_worker, policy_path, tmp_path, backend)):
        for case in rank.values():
            resumed, whole = case["resumed"], case["whole"]
            assert (resumed["processes"], resumed["wrapper"]) == (2, WRAPPERS[backend])
            assert resumed["step"] == whole["step"] > resume_worker.KILLED_AT
            assert resumed["history"] == whole["history"] != []
            # One copy of a policy for all processes, unless each has a part of its own.
            assert ("rollout_state_shared.pt" in resumed["states"]) == (backend != "fsdp2")
            assert resumed["parameters"].keys() == whole["parameters"].keys()
            assert all(torch.equal(value, whole["parameters"][key]) for key, value in resumed["parameters"].items())
