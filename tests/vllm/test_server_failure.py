# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""A server that is not there, is something else, or dies in the middle of a run."""

import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import torch

from trl_grpo_variants.vllm.client import GenerationServerError

from ..integration.test_parity import TIMES
from .engine import ADAPTER_OPTIONS, FULL_OPTIONS, environment, free_port, lora, serve, trainer_with
from .server_worker import KILLED_AT, STEPS, STEPS_PER_ROLLOUT


STOPPED_AT = 2 * STEPS_PER_ROLLOUT


@pytest.mark.parametrize(("peft_config", "command"), [(lora(), "--enable-lora"), (None, "--weight-transfer-config")])
def test_a_server_that_is_not_there(policy, tmp_path, peft_config, command):
    address = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(
        GenerationServerError, match=f"{address} does not answer after .*=1`.*`.*vllm serve.*{command}"
    ):
        trainer_with(
            policy,
            tmp_path,
            peft_config=peft_config,
            vllm_mode="server",
            vllm_server_base_url=address,
            vllm_server_timeout=1,
        )


def test_a_server_that_is_no_vllm(policy, tmp_path):
    class Other(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(404)

        def log_message(self, *args):
            pass

    other = HTTPServer(("127.0.0.1", 0), Other)
    threading.Thread(target=other.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{other.server_port}"
    try:
        with pytest.raises(GenerationServerError, match=f"{address} answers 404 after .*vllm serve"):
            trainer_with(
                policy,
                tmp_path,
                peft_config=lora(),
                vllm_mode="server",
                vllm_server_base_url=address,
                vllm_server_timeout=1,
            )
    finally:
        other.shutdown()
        other.server_close()


def work(processes, *arguments):
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", str(free_port())]
    command = [sys.executable, *(launcher if processes > 1 else []), "-m", "tests.vllm.server_worker"]
    done = subprocess.run(
        [*command, *map(str, arguments)],
        cwd=Path(__file__).parents[2],
        env=environment(ACCELERATE_USE_CPU="true"),
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def later(result):
    return [
        {name: value for name, value in entry.items() if not name.endswith(TIMES)}
        for entry in result["history"]
        if entry["step"] > STOPPED_AT and "loss" in entry
    ]


def stopped_runs(policy, folder, kind, processes, moment):
    """What every process says of a run whose server is killed, and the run's last checkpoint."""
    options = FULL_OPTIONS if kind == "full" else ADAPTER_OPTIONS
    with serve(policy, folder / "first.log", *options) as (address, server):
        work(processes, policy, folder, address, kind, moment, server.pid)
        server.wait(timeout=30)
    checkpoint = folder / "run" / f"checkpoint-{STOPPED_AT}"
    for rank in range(processes):
        result = torch.load(folder / f"{moment}_{rank}.pt")
        # What was left of the rollout has been used.
        assert result["step"] == STOPPED_AT > KILLED_AT
        assert f"{address} does not answer" in result["error"]
        assert f"resume_from_checkpoint='{checkpoint}'" in result["error"]


@pytest.mark.parametrize("kind", ["lora", "prefetched"])
def test_a_server_that_dies_while_it_generates_ends_every_process(policy, tmp_path, kind):
    stopped_runs(policy, tmp_path, kind, 2, "cut_off")
    assert (tmp_path / "run" / f"checkpoint-{STOPPED_AT}" / "trainer_state.json").exists()


@pytest.mark.parametrize(("kind", "processes"), [("lora", 2), ("full", 1), ("prefetched", 2)])
def test_a_server_that_dies_leaves_a_run_that_resumes(policy, tmp_path, kind, processes):
    stopped_runs(policy, tmp_path, kind, processes, "killed")
    options = FULL_OPTIONS if kind == "full" else ADAPTER_OPTIONS
    with serve(policy, tmp_path / "second.log", *options) as (address, _):
        work(processes, policy, tmp_path, address, kind, "resumed")
        (tmp_path / "run").rename(tmp_path / "interrupted")
        work(processes, policy, tmp_path, address, kind, "whole")
    for rank in range(processes):
        resumed, whole = (torch.load(tmp_path / f"{action}_{rank}.pt") for action in ("resumed", "whole"))
        assert resumed["step"] == whole["step"] == STEPS
        assert later(resumed) == later(whole)
        assert len(later(whole)) == STEPS - STOPPED_AT
        assert all(torch.equal(resumed["parameters"][key], value) for key, value in whole["parameters"].items())
