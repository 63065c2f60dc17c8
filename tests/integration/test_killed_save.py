# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""A run that is killed while it saves resumes from a whole checkpoint, whatever the moment."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from trl_grpo_variants.checkpoint import choose_checkpoint

from ..tiny import make_trainer
from .killing import Killed, killed_at
from .test_resume import SCHEDULE, STEPS, later_history, parameters


# An older anchor and a moving reference, so that all kinds of files are there.
SETTINGS = SCHEDULE | {
    "variant": "dual",
    "num_iterations": 1,
    "mirror_sync_steps": 8,
    "sync_ref_model": True,
    "use_adaptive_entropy": True,
    "save_total_limit": 1,
    "max_steps": 2,
}


def contents(checkpoint):
    return {path.name: path.read_bytes() for path in checkpoint.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def saved(policy_path, tmp_path_factory):
    """A trainer that has taken two steps, its output folder, and a folder with its first checkpoint."""
    folder, kept = tmp_path_factory.mktemp("run"), tmp_path_factory.mktemp("kept")
    trainer = make_trainer(policy_path, folder, **(SETTINGS | {"save_total_limit": None}))
    trainer.train()
    trainer.args.save_total_limit = 1
    shutil.copytree(folder / "checkpoint-1", kept / "checkpoint-1")
    return trainer, folder, kept


@pytest.mark.parametrize("overwrites", [False, True], ids=["new", "again"])
@pytest.mark.parametrize("within", [False, True], ids=["before", "within"])
def test_at_every_write_a_whole_checkpoint_is_left_and_chosen(saved, overwrites, within):
    trainer, folder, kept = saved

    def save(chosen):
        """Save the second step where the first has been saved, and the second perhaps by a run that went elsewhere."""
        for checkpoint in folder.glob("checkpoint-*"):
            shutil.rmtree(checkpoint)
        shutil.copytree(kept / "checkpoint-1", folder / "checkpoint-1")
        if overwrites:
            shutil.copytree(kept / "checkpoint-1", folder / "checkpoint-2")
        with killed_at(chosen, within=within) as seen:
            trainer._save_checkpoint(trainer.model, None)
        return seen

    writes = save(None)
    assert {path.name for path in folder.glob("checkpoint-*")} == {"checkpoint-2"}
    first, second = contents(kept / "checkpoint-1"), contents(folder / "checkpoint-2")
    for needed in ("open trainer_state.json", "save optimizer.pt", "replace rollout_state_0.partial", "rmdir"):
        assert any(write.startswith(needed) for write in writes), writes

    chosen_steps = set()
    for index, write in enumerate(writes):
        with pytest.raises(Killed):
            save(index)
        asked, warning, error = choose_checkpoint(True, folder, holds_all_states=True)
        assert error is None, write
        checkpoint = Path(asked)
        # TRL writes one file after all others; the state holds what is in it.
        unused = {"entropy_ctrl_state.json": b""}
        found, untouched = contents(checkpoint) | unused, index == 0 and overwrites
        is_second = checkpoint.name == "checkpoint-2" and not untouched
        assert found == (second if is_second else first) | unused, write
        assert (warning is not None) == (checkpoint.name == "checkpoint-1" and (folder / "checkpoint-2").exists())
        chosen_steps.add(checkpoint.name)
    assert chosen_steps == {"checkpoint-1", "checkpoint-2"}


def test_the_card_is_drawn_before_the_folder_is_made(saved):
    trainer, folder, _ = saved
    shutil.rmtree(folder / "checkpoint-2", ignore_errors=True)
    with killed_at(None, where=str(folder)) as seen:
        trainer._save_checkpoint(trainer.model, None)
    assert seen.index("open README.md") < seen.index("mkdir checkpoint-2")


@pytest.mark.parametrize("last", ["truncated", "missing"])
def test_a_run_killed_at_its_very_last_write_resumes(policy_path, tmp_path, last):
    """The file that TRL writes after all others may be missing or truncated."""
    whole = make_trainer(policy_path, tmp_path / "whole", **(SETTINGS | {"max_steps": 3}))
    whole.train()
    make_trainer(policy_path, tmp_path, **SETTINGS).train()
    path = tmp_path / "checkpoint-2" / "entropy_ctrl_state.json"
    path.write_text("{") if last == "truncated" else path.unlink()
    resumed = make_trainer(policy_path, tmp_path, **(SETTINGS | {"max_steps": 3}))
    resumed.train(resume_from_checkpoint=True)
    assert later_history(resumed, 2) == later_history(whole, 2) != []
    assert all(torch.equal(parameters(whole)[key], value) for key, value in parameters(resumed).items())


def test_a_killed_process_resumes_with_one_warning(policy_path, tmp_path, caplog):
    script = f"""
        from pathlib import Path
        from tests.integration.killing import killed_at
        from tests.integration.test_resume import SCHEDULE
        from tests.tiny import make_trainer
        import os, signal

        settings = SCHEDULE | {{"variant": "no_is_frozen", "save_total_limit": 1}}
        trainer = make_trainer({policy_path!r}, Path({str(tmp_path)!r}), **settings)
        kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
        with killed_at(0, within=True, kill=kill, where="checkpoint-6/model"):
            trainer.train()
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
    warnings = [record.message for record in caplog.records if "Passed over" in record.message]
    assert len(warnings) == 1
    assert "not saved to the end: checkpoint-6 (" in warnings[0]
    assert f"the run resumes from {tmp_path / 'checkpoint-5'}" in warnings[0]
    whole = make_trainer(policy_path, tmp_path / "whole", **SCHEDULE, variant="no_is_frozen")
    whole.train()

    assert resumed.state.global_step == STEPS
    assert later_history(resumed, 5) == later_history(whole, 5)
    assert all(torch.equal(parameters(whole)[key], value) for key, value in parameters(resumed).items())


def test_with_incomplete_checkpoints_only_the_run_starts_from_the_beginning(policy_path, tmp_path, caplog):
    def make(folder):
        return make_trainer(policy_path, folder, **(SCHEDULE | {"max_steps": 2}), variant="tic_grpo")

    whole = make(tmp_path / "whole")
    whole.train()
    killed = make(tmp_path)
    with pytest.raises(Killed), killed_at(0, where="optimizer.pt"):
        killed.train()
    resumed = make(tmp_path)
    resumed.train(resume_from_checkpoint=True)
    assert "checkpoint-1 (" in caplog.text and "the run starts from the beginning" in caplog.text
    assert later_history(resumed, 0) == later_history(whole, 0)
    assert len(later_history(resumed, 0)) == 2
    assert all(torch.equal(parameters(whole)[key], value) for key, value in parameters(resumed).items())


def test_a_finished_run_that_resumes_takes_no_further_step(policy_path, tmp_path):
    whole = make_trainer(policy_path, tmp_path, **SETTINGS)
    whole.train()
    resumed = make_trainer(policy_path, tmp_path, **SETTINGS)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == whole.state.global_step == SETTINGS["max_steps"]
    assert all(torch.equal(parameters(whole)[key], value) for key, value in parameters(resumed).items())


def test_without_any_checkpoint_the_error_is_trls(policy_path, tmp_path):
    trainer = make_trainer(policy_path, tmp_path, **SCHEDULE, variant="tic_grpo")
    with pytest.raises(ValueError, match="No valid checkpoint found"):
        trainer.train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("lost", "flaw"),
    [
        ("trainer_state.json", "there is no trainer_state.json, or it is truncated"),
        ("model.safetensors", "there are no weights"),
        ("rollout_state_0.pt", "there is no rollout_state_0.pt"),
    ],
)
def test_an_incomplete_checkpoint_that_is_asked_for_is_refused(policy_path, tmp_path, lost, flaw):
    make_trainer(policy_path, tmp_path, **(SCHEDULE | {"max_steps": 2}), variant="mirror", mirror_sync_steps=8).train()
    asked, others = tmp_path / "checkpoint-2", tmp_path / "checkpoint-1"
    (asked / lost).unlink()
    _, _, error = choose_checkpoint(str(asked), tmp_path, holds_all_states=True)
    assert error == f"The checkpoint {asked} is incomplete: {flaw}. Resume from {others}, the newest whole one."
    shutil.rmtree(others)
    trainer = make_trainer(policy_path, tmp_path, **SCHEDULE, variant="mirror", mirror_sync_steps=8)
    with pytest.raises(ValueError, match=f"checkpoint-2 is incomplete: {flaw}. Start from the beginning."):
        trainer.train(resume_from_checkpoint=str(asked))


def test_one_of_many_processes_may_be_missing(policy_path, tmp_path):
    """`rollout_state_0.pt` says how many there were; with one folder per machine the others are elsewhere."""
    make_trainer(policy_path, tmp_path, **(SCHEDULE | {"max_steps": 1}), variant="tic_grpo").train()
    path = tmp_path / "checkpoint-1" / "rollout_state_0.pt"
    saved = torch.load(path, weights_only=True)
    saved["content"]["schedule"]["num_processes"] = 2
    torch.save(saved, path)
    assert "no rollout_state_1.pt" in choose_checkpoint(True, tmp_path, holds_all_states=True)[1]
    assert choose_checkpoint(True, tmp_path, holds_all_states=False) == (str(path.parent), None, None)
