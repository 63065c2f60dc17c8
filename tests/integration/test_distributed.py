# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Two processes compute what one computes on the same global batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from . import distributed_worker


@pytest.fixture(scope="module")
def results(policy_path, tmp_path_factory):
    """By number of processes: the results of every rank."""
    folder = tmp_path_factory.mktemp("distributed")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    finished = subprocess.run(
        [*command, "--module", distributed_worker.__name__, policy_path, str(folder)],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    ranks = [folder / "0.pt", folder / "1.pt"]
    assert all(rank.exists() for rank in ranks), finished.stderr[-4000:]
    alone = distributed_worker.run(policy_path, folder / "alone")
    return {1: [alone], 2: [torch.load(rank, weights_only=True) for rank in ranks]}


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("name", distributed_worker.CASES)
def test_two_processes_train_what_one_trains(results, name, adapter):
    alone = results[1][0][name, adapter]
    assert alone["processes"] == 1
    for rank in results[2]:
        together = rank[name, adapter]
        assert together["processes"] == 2
        for key, parameter in alone["parameters"].items():
            torch.testing.assert_close(together["parameters"][key], parameter, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["tic_grpo", "dual", "tic_dapo_dual"])
def test_metrics_are_averaged_over_processes(results, name):
    alone, together = results[1][0][name, False]["history"], results[2][0][name, False]["history"]
    for mine, theirs in zip(alone, together, strict=True):
        names = [key for key in mine if key.startswith(("kl", "mirror_kl", "trajectory/", "success", "loss"))]
        assert len(names) >= 4
        for key in names:
            assert theirs[key] == pytest.approx(mine[key], rel=1e-3, abs=1e-5), key


def test_runs_have_moved_the_policy_off_the_rollout(results):
    """Else the comparison would be one of on-policy gradients only."""
    history = results[1][0]["tic_grpo", False]["history"]
    assert max(entry["trajectory/log_weight_std"] for entry in history) > 0.05
