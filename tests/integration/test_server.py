# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""A server that fails the main process in the middle of something ends the run of every process, and it resumes."""

import pytest
from trl.generation.vllm_client import VLLMClient

from . import server_worker
from .test_distributed import launch, load_ranks, needs_deepspeed


ERRORS = {
    "generating": "does not answer (ConnectionError)",
    "generating ahead": "does not answer (ConnectionError)",
    "unexpected answer": "fails (KeyError: 'choices')",
    "announcing weights": "does not answer (ConnectionError)",
    "sending weights": "does not answer (ConnectionError)",
    "clearing the cache": "fails (Request failed: 500, broken)",
    "sending a merged adapter": "does not answer (ConnectionError)",
    "taking an adapter": "did not take the adapter in {folder} (400: No room.)",
    "writing an adapter": "The adapter could not be written to {folder}: Error while serializing: I/O error: Is a dir",
}


# The stand-in has what TRL's client is asked for since then.
pytestmark = pytest.mark.skipif(not hasattr(VLLMClient, "get_server_info"), reason="an older TRL")


@pytest.mark.parametrize("backend", ["ddp", "fsdp2", pytest.param("zero3", marks=needs_deepspeed)])
def test_every_process_ends_with_one_sentence_and_resumes(policy_path, tmp_path, backend):
    ranks = load_ranks(tmp_path, launch(server_worker, policy_path, tmp_path, backend))
    cases = server_worker.CASES if backend == "ddp" else server_worker.SHARDED
    for rank in ranks:
        assert list(rank) == list(cases)
        for name, result in rank.items():
            run = tmp_path / "runs" / name
            assert ERRORS[name].format(folder=run / "_vllm_adapter") in result["error"], name
            assert result["step"] == server_worker.STOPPED_AT
            if name == "writing an adapter":
                # The server has nothing to do with it, and a checkpoint would find no room either.
                assert (result["kind"], result["saved"]) == ("GenerationError", False)
                assert server_worker.ADDRESS not in result["error"]
                continue
            assert result["kind"] == "GenerationServerError" and server_worker.ADDRESS in result["error"]
            checkpoint = run / f"checkpoint-{server_worker.STOPPED_AT}"
            assert f"The run is saved: `resume_from_checkpoint='{checkpoint}'`" in result["error"]
            assert (result["resumed"], result["exact"]) == (server_worker.STEPS, True), name


def test_a_server_that_falls_silent_ends_the_run(policy_path, tmp_path):
    errors = launch(server_worker, policy_path, tmp_path, server_worker.SILENT)
    assert f"GenerationServerError: The vLLM server at {server_worker.ADDRESS} has been silent for 1 seconds" in errors
    assert not (tmp_path / "0.pt").exists() and not (tmp_path / "1.pt").exists()
