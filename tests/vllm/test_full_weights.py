# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Full fine-tuning with the real engine: it follows the policy, and the ratios are the trainer's own."""

import pytest
from trl.generation.vllm_generation import VLLMGeneration

from trl_grpo_variants.vllm.server import WatchedVLLMGeneration

from .engine import (
    FULL_OPTIONS,
    ROUNDING,
    FolderOfWeights,
    difference,
    load_into_cpu_engine,
    move,
    serve,
    train_and_check_ratios,
    trainer_with,
)


@pytest.fixture(scope="module", params=["colocate", "server"])
def trainer(request, policy, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as monkeypatch:
        if request.param == "colocate":
            monkeypatch.setattr(VLLMGeneration, "sync_weights", load_into_cpu_engine)
            yield trainer_with(policy, folder)
        else:
            FolderOfWeights(policy, folder / "weights").install(monkeypatch)
            with serve(policy, folder / "server.log", *FULL_OPTIONS) as (address, _):
                yield trainer_with(policy, folder, vllm_mode="server", vllm_server_base_url=address)


def test_engine_follows_the_policy(trainer):
    generation = trainer.vllm_generation
    assert type(generation) is (WatchedVLLMGeneration if generation.mode == "server" else VLLMGeneration)
    assert difference(trainer) < ROUNDING
    for _ in range(2):
        move(trainer)
        assert difference(trainer) > 2 * ROUNDING
        generation.sync_weights()
        assert difference(trainer) < ROUNDING


def test_training(trainer):
    train_and_check_ratios(trainer, rollouts=3)
