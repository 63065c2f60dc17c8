# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""A run that ends for want of a rollout, wherever in an optimizer step that is, leaves a checkpoint that resumes."""

import re

import pytest
import torch

from trl_grpo_variants.generation import GenerationServerError

from ..tiny import make_trainer
from .test_resume import later_history


def fail_at(trainer, call):
    generate, calls = trainer._generate_single_turn, []

    def failing(*args, **kwargs):
        calls.append(call)
        if len(calls) == call:
            raise GenerationServerError("The server is gone.")
        return generate(*args, **kwargs)

    trainer._generate_single_turn = failing


@pytest.mark.parametrize("variant", ["tic_grpo", "no_is_frozen"])
@pytest.mark.parametrize(
    ("accumulation", "per_rollout", "stopped_at"),
    [
        pytest.param(2, 6, 3, id="between_steps"),
        pytest.param(2, 3, 1, id="within_a_step"),
        pytest.param(4, 6, 1, id="within_a_longer_step"),
    ],
)
def test_it_resumes_exactly(policy_path, tmp_path, variant, accumulation, per_rollout, stopped_at):
    def make():
        return make_trainer(
            policy_path,
            tmp_path,
            variant=variant,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=accumulation,
            steps_per_generation=per_rollout,
            max_steps=5,
        )

    whole = make()
    whole.train()
    interrupted = make()
    fail_at(interrupted, 2)
    with pytest.raises(GenerationServerError, match="The server is gone. The run is saved") as error:
        interrupted.train()
    checkpoint = re.search("'(.*)'", str(error.value))[1]
    assert checkpoint == str(tmp_path / f"checkpoint-{stopped_at}")

    resumed = make()
    resumed.train(resume_from_checkpoint=checkpoint)
    assert later_history(resumed, stopped_at) == later_history(whole, stopped_at)
    for parameter, expected in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(parameter, expected)


def test_a_failed_evaluation_lies_between_two_steps(policy_path, tmp_path):
    trainer = make_trainer(policy_path, tmp_path, variant="tic_grpo", steps_per_generation=4)
    trainer.train()
    trainer._metrics["train"]["kept"] = [1.0]
    trainer._save_interrupted()
    assert (tmp_path / "checkpoint-4" / "trainer_state.json").exists()
    assert (trainer._step, trainer._metrics["train"]["kept"]) == (4, [1.0])
