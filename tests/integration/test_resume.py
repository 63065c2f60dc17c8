# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""A run that is stopped and resumed is the run that was never stopped, on CPU bit for bit."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from trl import GRPOTrainer

from trl_grpo_variants import list_variants

from ..tiny import make_trainer
from .test_parity import TIMES


STEPS = 9
# Three optimizer steps per pass and two passes: checkpoints fall at every place within a rollout.
SCHEDULE = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "steps_per_generation": 6,
    "num_iterations": 2,
    "save_strategy": "steps",
    "save_steps": 1,
    "max_steps": STEPS,
}
CASES = {
    **{name: {"variant": name} for name in list_variants()},
    # Refreshed at steps 0 and 6, and used by the rollouts at 3 and 9.
    "older_anchor": {"variant": "mirror", "mirror_sync_steps": 4, "num_iterations": 1, "max_steps": 11},
    "moving_reference": {"variant": "dual", "sync_ref_model": True, "ref_model_sync_steps": 2},
    # An epoch has six steps.
    "second_epoch": {"variant": "tic_grpo", "per_device_train_batch_size": 8, "num_iterations": 1},
    "masked_groups": {"variant": "tic_grpo", "mask_zero_variance_groups": True, "beta": 0.1},
}


def lora():
    return LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")


def later_history(trainer, step):
    return [
        {name: value for name, value in entry.items() if not name.endswith(TIMES)}
        for entry in trainer.state.log_history
        if entry["step"] > step and "loss" in entry
    ]


def parameters(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("name", CASES)
def test_resuming_inside_and_between_rollouts_changes_nothing(policy_path, tmp_path, name, adapter):
    if name == "moving_reference" and not adapter:
        pytest.skip("TRL itself saves no moving reference")

    def make():
        return make_trainer(policy_path, tmp_path, **(SCHEDULE | CASES[name]), peft_config=lora() if adapter else None)

    whole = make()
    whole.train()
    expected = parameters(whole)
    for stopped_at in (2, 6, 7):
        resumed = make()
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{stopped_at}"))
        assert later_history(resumed, stopped_at) == later_history(whole, stopped_at)
        assert all(torch.equal(expected[key], value) for key, value in parameters(resumed).items())


def test_a_killed_process_resumes(policy_path, tmp_path):
    script = f"""
        from pathlib import Path
        from tests.integration.test_resume import SCHEDULE
        from tests.tiny import make_trainer
        from transformers import TrainerCallback
        import os, signal

        class Kill(TrainerCallback):
            def on_step_begin(self, args, state, control, **kwargs):
                if state.global_step == 5:
                    os.kill(os.getpid(), signal.SIGKILL)

        settings = SCHEDULE | {{"variant": "no_is_frozen"}}
        make_trainer({policy_path!r}, Path({str(tmp_path)!r}), **settings, callbacks=[Kill()]).train()
    """
    killed = subprocess.run(
        [sys.executable, "-c", "\n".join(line[8:] for line in script.splitlines())],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    resumed = make_trainer(policy_path, tmp_path, **SCHEDULE, variant="no_is_frozen")
    resumed.train(resume_from_checkpoint=True)
    whole = make_trainer(policy_path, tmp_path / "whole", **SCHEDULE, variant="no_is_frozen")
    whole.train()

    assert resumed.state.global_step == STEPS
    assert later_history(resumed, 5) == later_history(whole, 5)
    assert all(torch.equal(parameters(whole)[key], value) for key, value in parameters(resumed).items())


# ---- checkpoints that cannot be continued --------------------------------------------------------------------------


@pytest.fixture
def checkpoint(policy_path, tmp_path):
    make_trainer(policy_path, tmp_path, **(SCHEDULE | {"max_steps": 1}), variant="mirror", mirror_sync_steps=8).train()
    return tmp_path / "checkpoint-1"


def resume(policy_path, checkpoint, **settings):
    settings = SCHEDULE | {"variant": "mirror", "mirror_sync_steps": 8, "max_steps": 2} | settings
    trainer = make_trainer(policy_path, checkpoint.parent, **settings)
    trainer.train(resume_from_checkpoint=str(checkpoint))
    return trainer


def test_a_truncated_state_is_one_clear_error(policy_path, checkpoint):
    path = checkpoint / "rollout_state_0.pt"
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match="rollout_state_0.pt cannot be read: it is truncated or not the state"):
        resume(policy_path, checkpoint)


@pytest.mark.parametrize("content", [[1, 2], {"step": 3}, {"format": "else"}])
def test_a_foreign_file_is_one_clear_error(policy_path, checkpoint, content):
    torch.save(content, checkpoint / "rollout_state_0.pt")
    with pytest.raises(ValueError, match="cannot be read|has the format 'else'"):
        resume(policy_path, checkpoint)


class Exploit:
    def __reduce__(self):
        return os.system, ("touch exploited",)


def test_a_checkpoint_executes_nothing(policy_path, checkpoint, monkeypatch):
    monkeypatch.chdir(checkpoint)
    (checkpoint / "rollout_state_0.pt").write_bytes(pickle.dumps(Exploit()))
    with pytest.raises(ValueError, match="cannot be read"):
        resume(policy_path, checkpoint)
    assert not (checkpoint / "exploited").exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gradient_accumulation_steps": 3}, "gradient_accumulation_steps was 2 and is 3"),
        ({"steps_per_generation": 8}, "steps_per_generation was 6 and is 8"),
        ({"num_generations": 2}, "num_generations was 4 and is 2"),
    ],
)
def test_other_batch_settings_are_refused(policy_path, checkpoint, settings, message):
    with pytest.raises(ValueError, match=f"saved under other settings.*{message}"):
        resume(policy_path, checkpoint, **settings)


def test_a_missing_rank_is_refused(policy_path, checkpoint):
    shutil.move(checkpoint / "rollout_state_0.pt", checkpoint / "rollout_state_1.pt")
    with pytest.raises(ValueError, match="saved by fewer processes: there is no rollout_state_0.pt"):
        resume(policy_path, checkpoint)


def test_another_policys_snapshot_is_refused(policy_path, checkpoint):
    path = checkpoint / "rollout_state_0.pt"
    saved = torch.load(path, weights_only=True)
    saved["state"]["snapshots"]["mirror"].popitem()
    torch.save(saved, path)
    with pytest.raises(ValueError, match="other trainable parameters"):
        resume(policy_path, checkpoint)


def test_a_stock_checkpoint_resumes_with_a_warning(policy_path, tmp_path, caplog):
    make_trainer(policy_path, tmp_path, trainer_class=GRPOTrainer, **(SCHEDULE | {"max_steps": 1})).train()
    trainer = resume(policy_path, tmp_path / "checkpoint-1")
    assert trainer.state.global_step == 2
    assert "was not saved by a GRPO variant" in caplog.text


def test_without_a_variant_a_checkpoint_is_trls(policy_path, tmp_path):
    make_trainer(policy_path, tmp_path, **(SCHEDULE | {"max_steps": 1})).train()
    assert not list((tmp_path / "checkpoint-1").glob("rollout_state*"))


def test_a_saved_policy_holds_no_state(policy_path, tmp_path):
    settings = SCHEDULE | {"max_steps": 1, "save_only_model": True}
    trainer = make_trainer(policy_path, tmp_path, variant="no_is_frozen", **settings)
    trainer.train()
    trainer.save_model()
    assert not list(tmp_path.rglob("rollout_state*"))
    stock = load_file(f"{policy_path}/model.safetensors")
    assert load_file(tmp_path / "model.safetensors").keys() == stock.keys()
