# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""A run that ends for want of a rollout, wherever in an optimizer step that is, leaves a checkpoint that resumes."""

import re

import pytest
import torch

from trl_grpo_variants.vllm.client import GenerationServerError

from ..tiny import make_trainer
from .killing import killed_at
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
    ("accumulation", "per_rollout", "logging_steps", "stopped_at"),
    [
        pytest.param(2, 6, 1, 3, id="between_steps"),
        pytest.param(2, 6, 5, 3, id="between_steps_and_logs"),
        pytest.param(2, 3, 1, 1, id="within_a_step"),
        pytest.param(4, 6, 1, 1, id="within_a_longer_step"),
        pytest.param(4, 6, 3, 1, id="within_a_longer_step_between_logs"),
    ],
)
def test_it_resumes_exactly(policy_path, tmp_path, variant, accumulation, per_rollout, logging_steps, stopped_at):
    def make():
        return make_trainer(
            policy_path,
            tmp_path,
            variant=variant,
            per_device_train_batch_size=4,
            gradient_accumulation_steps=accumulation,
            steps_per_generation=per_rollout,
            logging_steps=logging_steps,
            max_steps=6,
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
    assert later_history(resumed, stopped_at) == later_history(whole, stopped_at) != []
    for parameter, expected in zip(resumed.model.parameters(), whole.model.parameters(), strict=True):
        assert torch.equal(parameter, expected)


def test_a_failed_evaluation_lies_between_two_steps(policy_path, tmp_path):
    trainer = make_trainer(policy_path, tmp_path, variant="tic_grpo", steps_per_generation=4)
    trainer.train()
    trainer._metrics["train"]["kept"] = [1.0]
    trainer._save_interrupted()
    assert (tmp_path / "checkpoint-4" / "trainer_state.json").exists()
    assert (trainer._step, trainer._metrics["train"]["kept"]) == (4, [1.0])


def test_where_only_models_are_saved_none_is(policy_path, tmp_path):
    """It could not be resumed from."""
    trainer = make_trainer(policy_path, tmp_path, variant="tic_grpo", save_only_model=True)
    fail_at(trainer, 1)
    with pytest.raises(GenerationServerError, match="^The server is gone.$"):
        trainer.train()
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_checkpoint_of_the_same_step_is_not_written_again(policy_path, tmp_path):
    """If the process died meanwhile, there might be none."""
    settings = {"variant": "tic_grpo", "save_strategy": "steps", "save_steps": 1, "gradient_accumulation_steps": 2}
    trainer = make_trainer(policy_path, tmp_path, **settings, steps_per_generation=2)
    fail_at(trainer, 2)
    with (
        pytest.raises(GenerationServerError, match="The run is saved: .*checkpoint-1'"),
        killed_at(2, where="checkpoint-1/trainer_state.json") as seen,
    ):
        trainer.train()
    assert seen == ["unlink trainer_state.json", "open trainer_state.json"]


def test_what_stopped_the_run_is_told_where_it_cannot_be_saved(policy_path, tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    trainer = make_trainer(policy_path, tmp_path, variant="tic_grpo", steps_per_generation=2)
    fail_at(trainer, 2)
    monkeypatch.setattr(trainer, "_save_checkpoint", fail)
    with pytest.raises(
        GenerationServerError, match=r"^The server is gone. The run could not be saved either \(OSError"
    ):
        trainer.train()
