# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The success monitor in real runs: it changes nothing, counts what was sampled, and continues where a run resumes."""

import json
from pathlib import Path

import pytest
import torch

from trl_grpo_variants import GRPOVariantTrainer
from trl_grpo_variants.runs.visits import read_visits

from ..tiny import dataset, make_config, make_trainer, reward, visits
from . import monitor_worker
from .test_distributed import launch, load_ranks


# Eight prompts per rollout and 24 of them; a rollout serves two optimizer steps, checkpoints fall within and between.
SETTINGS = {
    "per_device_train_batch_size": 32,
    "num_generations": 4,
    "num_iterations": 2,
    "max_steps": 14,
    "success_monitor": True,
}


def parameters(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


@pytest.mark.parametrize("settings", [{}, {"variant": "grpo", "beta": 0.1}, {"variant": "dual"}], ids=str)
def test_the_monitor_changes_nothing_but_the_logs(policy_path, tmp_path, settings):
    trained = []
    for watched in (False, True):
        settings = SETTINGS | settings | {"success_monitor": watched, "max_steps": 6}
        trainer = make_trainer(policy_path, tmp_path, **settings)
        trainer.train()
        trained.append((parameters(trainer), trainer.state.log_history))
    (without, plain), (with_it, logged) = trained
    assert all(torch.equal(without[name], value) for name, value in with_it.items())
    names = [{name for entry in history for name in entry} for history in (plain, logged)]
    added = {"theory/groups_without_signal"} | (
        {"theory/renyi_residual"} if settings.get("variant") == "dual" else set()
    )
    # A stock run with a monitor logs besides what every run of a variant does.
    assert names[1] - names[0] >= added | (set() if "variant" in settings else {"success"})
    assert names[1] - names[0] == added or "variant" not in settings
    assert [row["step"] for row in visits(tmp_path)] == [step for step in (0, 2, 4) for _ in range(8)]
    for mine, theirs in zip(logged, plain, strict=True):
        assert mine.get("loss") == theirs.get("loss") and mine.get("reward") == theirs.get("reward")


def test_visits_are_the_rollouts_of_training(policy_path, tmp_path):
    trainer = make_trainer(
        policy_path,
        tmp_path,
        **SETTINGS,
        variant="dual",
        eval_strategy="steps",
        eval_steps=5,
        eval_dataset=dataset(4),
    )
    trainer.train()
    found = visits(tmp_path)
    # Six optimizer steps per epoch of three rollouts.
    assert [row["step"] for row in found] == [step for step in range(0, 14, 2) for _ in range(8)]
    assert {row["prompt"] for row in found if row["visit"] == 1} == set(dataset()["prompt"])
    assert [row["visit"] for row in found] == [1] * 24 + [2] * 24 + [3] * 8
    logged = [entry for entry in trainer.state.log_history if "success" in entry]
    for start, entry in zip(range(0, 56, 8), logged, strict=True):
        rollout = found[start : start + 8]
        assert {row["step"] for row in rollout} == {entry["step"] - 1}
        assert sum(row["successes"] for row in rollout) / 32 == pytest.approx(entry["success"])
        silent = sum(row["groups_without_signal"] for row in rollout) / 8
        assert silent == entry["theory/groups_without_signal"] == entry["frac_reward_zero_std"]
        if rollout[0]["visit"] > 1:
            predicted = sum(row["predicted"] for row in rollout) / 8
            assert entry["theory/predicted_success"] == pytest.approx(predicted)
            assert entry["theory/gap"] == pytest.approx(entry["success"] - predicted, abs=1e-6)


def test_a_resumed_run_has_the_visits_of_one_that_was_not_stopped(policy_path, tmp_path):
    settings = SETTINGS | {"variant": "dual", "save_strategy": "steps", "save_steps": 3, "max_steps": 10}
    whole = make_trainer(policy_path, tmp_path, **settings)
    whole.train()
    expected = visits(tmp_path)
    assert len(expected) == 40 and expected[-1]["predicted"] is not None
    # Between two rollouts and within one; the file holds later visits than the checkpoint.
    for stopped_at, folder in ((6, tmp_path / "elsewhere"), (6, tmp_path), (3, tmp_path)):
        resumed = make_trainer(policy_path, folder, **settings)
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{stopped_at}"))
        assert visits(folder) == expected
        histories = [
            [{name: value for name, value in entry.items() if name.startswith("theory/")} for entry in logs]
            for logs in (resumed.state.log_history, whole.state.log_history)
        ]
        assert histories[0] == histories[1]


def test_two_processes_that_share_a_group_write_what_one_writes(policy_path, tmp_path):
    alone = monitor_worker.run(policy_path, tmp_path / "alone")
    ranks = load_ranks(tmp_path, launch(monitor_worker, policy_path, tmp_path))
    assert [alone["processes"], *(rank["processes"] for rank in ranks)] == [1, 2, 2]
    assert ranks[1]["visits"] is None and "success_monitor.parquet" in alone["files"]
    assert not [name for name in ranks[0]["files"] if "partial" in name or name.endswith("jsonl")]
    assert {row["completions"] for row in alone["visits"]} == {monitor_worker.GROUP, 2 * monitor_worker.GROUP}
    assert any(row["groups"] == 2 and row["silent_none_succeeds"] for row in alone["visits"])
    assert len({row["successes"] for row in alone["visits"]}) > 2
    assert ranks[0]["visits"] == alone["visits"]
    for mine, theirs in zip(ranks[0]["logged"], alone["logged"], strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)
    names = {name for entry in alone["logged"] for name in entry}
    assert {"theory/renyi_residual", "completions/mean_failed_length", "rollout_end/kl_standard_error"} <= names


def test_the_card_shows_predicted_against_measured(policy_path, tmp_path):
    settings = SETTINGS | {"variant": "dual", "save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    make_trainer(policy_path, tmp_path, **settings).train()
    assert (tmp_path / "success.png").read_bytes().startswith(b"\x89PNG")
    assert "](success.png)" in (tmp_path / "README.md").read_text()


def test_a_stream_of_prompts_is_monitored(policy_path, tmp_path):
    args = make_config(tmp_path, **SETTINGS | {"per_device_train_batch_size": 8, "max_steps": 8, "variant": "mirror"})
    stream = dataset(4).to_iterable_dataset()
    GRPOVariantTrainer(policy_path, reward, args, train_dataset=stream).train()
    assert [row["visit"] for row in visits(tmp_path)] == [1] * 4 + [2] * 4


def test_the_file_says_what_was_trained(policy_path, tmp_path):
    settings = SETTINGS | {"variant": "dual", "max_steps": 2, "seed": 7}
    make_trainer(policy_path, tmp_path, **settings).train()
    told = read_visits(tmp_path)[1]
    assert (told["global_step"], told["max_steps"]) == (2, 2)
    subject = told["subject"]
    # A folder is named without those that it is in.
    assert (subject["model"], subject["data"]) == (Path(policy_path).name, "24 rows")
    assert (subject["rewards"], subject["seed"]) == ("reward", "7")
    assert {"begun", "trl_grpo_variants", "trl", "transformers", "torch"} <= subject.keys()
    assert str(policy_path) not in str(told)


def test_growth_with_length_is_that_of_the_log_weights(policy_path, tmp_path):
    """A drift of -0.1 a token and a deviation of 0.3 per root of a token, up or down."""
    trainer = make_trainer(policy_path, tmp_path, variant="tic_grpo", max_steps=1)
    lengths = torch.tensor([1, 1, 4, 4, 9, 9, 0])
    signs = torch.tensor([1.0, -1.0] * 3 + [0.0])
    mask = torch.arange(9) < lengths.unsqueeze(1)
    log_weights = -0.1 * lengths + 0.3 * signs * lengths.sqrt()
    trainer._means.count_trajectories(log_weights, mask)
    logged = trainer._means.pop("train")
    assert logged["trajectory/log_weight_std_per_sqrt_token"] == pytest.approx(0.3)
    assert logged["trajectory/log_weight_std"] == pytest.approx(log_weights[:6].std(correction=0).item())


def test_state_and_visits_tell_the_same_steps(policy_path, tmp_path):
    settings = SETTINGS | {"variant": "reference", "save_strategy": "steps", "save_steps": 3, "max_steps": 3}
    make_trainer(policy_path, tmp_path, **settings).train()
    state = json.loads((tmp_path / "checkpoint-3" / "trainer_state.json").read_text())
    assert max(row["step"] for row in visits(tmp_path)) < state["global_step"]
