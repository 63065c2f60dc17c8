# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""A run that is stopped and resumed is the run that was never stopped, on CPU bit for bit."""

import os
import pickle
import re
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors.torch import load_file
from trl import GRPOTrainer

from trl_grpo_variants.checkpoint import FORMAT, CheckpointError, load_state, objective_of, save_state

from ..tiny import make_config, make_trainer, own_variants, reward
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
    **{
        name: {"variant": name}
        for name in own_variants("grpo", "mean_only", "reference_mean_only", "grpo_upper_clip", "gspo")
    },
    # Coefficients and a reference that change with the run.
    "adaptive_entropy": {"variant": "adaptive_entropy", "entropy_target": 10.0, "entropy_coef_delta": 0.1},
    "reference_reset": {"variant": "reference_reset", "ref_model_sync_steps": 2},
    # Refreshed at steps 0 and 6, and used by the rollouts at 3 and 9.
    "older_anchor": {"variant": "mirror", "mirror_sync_steps": 4, "num_iterations": 1, "max_steps": 11},
    "moving_reference": {"variant": "dual", "sync_ref_model": True, "ref_model_sync_steps": 2},
    # An epoch has six steps.
    "second_epoch": {"variant": "tic_grpo", "per_device_train_batch_size": 8, "num_iterations": 1},
    # Logged at steps 4 and 8, and two optimizer steps see a rollout after it was made.
    "seldom_logged": {"variant": "dual", "logging_steps": 4},
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
    def make():
        return make_trainer(policy_path, tmp_path, **(SCHEDULE | CASES[name]), peft_config=lora() if adapter else None)

    whole = make()
    whole.train()
    expected = parameters(whole)
    # Within the first pass over a rollout, between its passes, between rollouts, and within the next one.
    for stopped_at in (2, 3, 6, 7):
        resumed = make()
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{stopped_at}"))
        assert later_history(resumed, stopped_at) == later_history(whole, stopped_at)
        assert all(torch.equal(expected[key], value) for key, value in parameters(resumed).items())


# ---- checkpoints that cannot be continued --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_step(policy_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mirror")
    make_trainer(policy_path, folder, **(SCHEDULE | {"max_steps": 1}), variant="mirror", mirror_sync_steps=8).train()
    return folder / "checkpoint-1"


@pytest.fixture
def checkpoint(one_step, tmp_path):
    return Path(shutil.copytree(one_step, tmp_path / "checkpoint-1"))


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "cannot be read"),
        ({"step": 3}, "cannot be read"),
        ({"format": 3}, "cannot be read"),
        ({"format": "trl_grpo_variants rollout 1"}, "rollout 1' of another version of trl_grpo_variants"),
        ({"format": FORMAT}, "is not as it was saved"),
    ],
)
def test_a_foreign_file_is_one_clear_error(policy_path, checkpoint, content, message):
    torch.save(content, checkpoint / "rollout_state_0.pt")
    with pytest.raises(ValueError, match=message):
        resume(policy_path, checkpoint)


def lose(name):
    return lambda content: content["state"].pop(name)


def replace(name, value):
    return lambda content: content["state"].__setitem__(name, value)


def in_rollout(edit):
    return lambda content: edit(content["state"]["micro_batches"][1])


@pytest.mark.parametrize(
    "edit",
    [
        *map(lose, ("step", "micro_batches", "metrics", "loss", "mirror_synced_at", "anchors")),
        replace("step", "1"),
        replace("step", 4),
        replace("metrics", None),
        replace("micro_batches", {}),
        in_rollout(lambda rows: rows.pop("advantages")),
        in_rollout(lambda rows: rows.update(advantages=rows["advantages"][:-1])),
        in_rollout(lambda rows: rows.update(completion_mask=rows["completion_mask"].float())),
        in_rollout(lambda rows: rows["completion_ids"].add_(1)),
        in_rollout(lambda rows: rows.update(more=torch.zeros(4))),
        lambda content: content.pop("objective"),
        lambda content: content["schedule"].update(num_generations=8),
    ],
)
def test_a_changed_state_is_one_clear_error(saved_state, edit):
    path, saved, schedule = saved_state
    edit(saved["content"])
    torch.save(saved, path)
    with pytest.raises(
        ValueError, match="rollout_state_0.pt is not as it was saved: something in it has been changed"
    ):
        load_state(path, schedule)


@pytest.mark.parametrize(
    "edit",
    [
        lambda anchor: anchor.popitem(),
        lambda anchor: anchor.update({name: value[:1] for name, value in anchor.items()}),
        lambda anchor: anchor[next(iter(anchor))].add_(1),
    ],
)
def test_a_changed_snapshot_is_one_clear_error(saved_state, edit):
    path, _, schedule = saved_state
    path = path.with_name("rollout_state_shared.pt")
    saved = torch.load(path, weights_only=True)
    edit(saved["content"]["state"]["anchors"]["mirror"])
    torch.save(saved, path)
    with pytest.raises(ValueError, match="rollout_state_shared.pt is not as it was saved"):
        load_state(path, schedule)


@pytest.fixture
def saved_state(one_step, tmp_path):
    """Path of a state within a rollout, what it holds, and its schedule."""
    shutil.copytree(one_step, tmp_path / "checkpoint-1")
    path = tmp_path / "checkpoint-1" / "rollout_state_0.pt"
    saved = torch.load(path, weights_only=True)
    assert len(saved["content"]["state"]["micro_batches"]) == SCHEDULE["steps_per_generation"]
    load_state(path, saved["content"]["schedule"])
    return path, saved, dict(saved["content"]["schedule"])


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
        ({"num_iterations": 3}, "num_iterations was 2 and is 3"),
        ({"per_device_train_batch_size": 8}, "per_device_train_batch_size was 4 and is 8"),
    ],
)
def test_other_batch_settings_are_refused(policy_path, checkpoint, settings, message):
    with pytest.raises(ValueError, match=f"saved under other settings.*{message}"):
        resume(policy_path, checkpoint, **settings)


def test_a_missing_rank_is_refused(saved_state):
    path, _, schedule = saved_state
    path.rename(path.with_name("rollout_state_1.pt"))
    with pytest.raises(ValueError, match="fewer processes or has lost a file: there is no rollout_state_0.pt"):
        load_state(path, schedule)


def test_a_checkpoint_that_another_process_could_not_save_is_none(policy_path, tmp_path, monkeypatch):
    told = []

    def disagree_at_first(failure, kind):
        told.append(failure)
        if len(told) == 1:
            raise kind("no room on another process")

    trainer = make_trainer(policy_path, tmp_path, variant="mirror")
    monkeypatch.setattr("trl_grpo_variants.resume.agree", disagree_at_first)
    with pytest.raises(CheckpointError, match="no room on another process"):
        trainer._save_checkpoint(trainer.model, None)
    # Nor are the others waited for once more, which have stopped.
    assert trainer._saved_to is None and told == [None]


def test_another_policys_snapshot_is_refused(policy_path, checkpoint):
    path = checkpoint / "rollout_state_shared.pt"
    content = torch.load(path, weights_only=True)["content"]
    content["state"]["anchors"]["mirror"].popitem()
    save_state(content["state"], content["schedule"], content["objective"], path)
    with pytest.raises(ValueError, match="other trainable parameters"):
        resume(policy_path, checkpoint)


def test_a_stock_checkpoint_resumes_with_a_warning(policy_path, tmp_path, caplog):
    make_trainer(policy_path, tmp_path, trainer_class=GRPOTrainer, **(SCHEDULE | {"max_steps": 1})).train()
    trainer = resume(policy_path, tmp_path / "checkpoint-1")
    assert trainer.state.global_step == 2
    assert "holds no state of a GRPO variant" in caplog.text


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


# ---- another objective ---------------------------------------------------------------------------------------------


def objective(tmp_path, settings):
    rewards = settings.pop("rewards", [("reward", 1.0)])
    return objective_of(
        make_config(tmp_path, **({"steps_per_generation": 4, "num_iterations": 2} | settings)), rewards
    )


TRAJECTORY = {"variant": "tic_grpo"}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("saved", "current"),
    [
        ({"variant": "dual"}, {"variant": "mirror"}),
        (TRAJECTORY, {"variant": "tic_grpo_v2"}),
        (TRAJECTORY, {}),
        ({"variant": "no_is"}, {"variant": "no_is_frozen"}),
        ({"variant": "mirror"}, {"variant": "mirror", "mirror_sync_steps": 64}),
        ({"variant": "mirror"}, {"variant": "mirror", "mirror_beta": 0.2}),
        ({"variant": "reference_mean_only"}, {"variant": "reference_mean_only", "kl_placement": "reward"}),
        ({"variant": "kimi"}, {"variant": "kimi", "kl_estimator": "sequence_squared"}),
        ({"variant": "mirror"}, {"variant": "mirror", "token_advantage": "entropy_shaped"}),
        ({"variant": "entropy_shaped"}, {"variant": "entropy_shaped", "token_advantage_kwargs": {"alpha": 0.5}}),
        ({"variant": "topr"}, {"variant": "topr", "policy_loss_kwargs": {"level": "token"}}),
        *(
            (TRAJECTORY, TRAJECTORY | {name: value})
            for name, value in {
                "beta": 0.1,
                "epsilon_high": 0.5,
                "trajectory_clip": "none",
                "loss_type": "dapo",
                "scale_rewards": "batch",
                "group_preserving_split": False,
                "max_completion_length": 7,
                "temperature": 0.7,
                "mask_truncated_completions": True,
                "off_policy_mask_threshold": 0.5,
                "entropy_coef": 0.1,
                "use_adaptive_entropy": True,
                "router_aux_loss_coef": 0.1,
                "multi_objective_aggregation": "normalize_then_sum",
                "rewards": [("reward", 0.5)],
            }.items()
        ),
        (TRAJECTORY, TRAJECTORY | {"rewards": [("other", 1.0)]}),
        ({"epsilon": 0.2}, {"epsilon": 0.3}),
        ({}, {"epsilon_high": 0.3}),
        ({}, {"delta": 3.0}),
        ({}, {"top_entropy_quantile": 0.2}),
        ({"beta": 0.1}, {"beta": 0.1, "use_bias_correction_kl": False}),
        ({"beta": 0.1}, {"beta": 0.1, "mask_zero_variance_groups": True}),
        ({"beta": 0.1}, {"beta": 0.1, "reward_variance_epsilon": 1e-3}),
        ({"beta": 0.1}, {"beta": 0.1, "sync_ref_model": True}),
        *(
            ({"beta": 0.1, "sync_ref_model": True}, {"beta": 0.1, "sync_ref_model": True} | other)
            for other in ({"ref_model_mixup_alpha": 0.1}, {"ref_model_sync_steps": 3})
        ),
        *(
            ({"loss_type": name.partition("_")[0]}, {"loss_type": name.partition("_")[0], name: 0.5})
            for name in (
                *("sapo_temperature_neg", "sapo_temperature_pos"),
                *("vespo_k_pos", "vespo_lambda_pos", "vespo_k_neg", "vespo_lambda_neg"),
            )
        ),
        ({"use_adaptive_entropy": True}, {"use_adaptive_entropy": True, "entropy_target": 0.5}),
        ({"loss_type": "dr_grpo"}, {"loss_type": "dr_grpo", "length_weight_power": 0.5}),
        ({"variant": "delta_l"}, {"variant": "delta_l", "length_weight_power": 1.0}),
        ({"variant": "w_reinforce"}, {"variant": "psr"}),
    ],
)
def test_what_changes_the_loss_changes_the_objective(tmp_path, saved, current):
    assert objective(tmp_path, dict(saved)) != objective(tmp_path, dict(current))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("saved", "current"),
    [
        (TRAJECTORY, TRAJECTORY | {"learning_rate": 1e-4}),
        (TRAJECTORY, TRAJECTORY | {"trim_padding": False, "skip_inert_rows": False}),
        (TRAJECTORY, TRAJECTORY | {"success_monitor": True, "save_steps": 7, "logging_steps": 3}),
        # The upper clip has no lower bound.
        (TRAJECTORY, TRAJECTORY | {"epsilon": 0.3}),
        ({"variant": "no_is"}, {"variant": "no_is", "epsilon": 0.3, "epsilon_high": 0.4}),
        ({"variant": "no_is"}, {"variant": "no_is", "max_completion_length": 7}),
        ({}, {"epsilon_high": 0.2}),
        ({}, {"variant": "grpo"}),
        ({}, {"ref_model_sync_steps": 3, "sapo_temperature_neg": 2.0, "entropy_target": 0.5}),
    ],
)
def test_what_does_not_act_is_not_part_of_the_objective(tmp_path, saved, current):
    assert objective(tmp_path, dict(saved)) == objective(tmp_path, dict(current))


def other_reward(completion_ids, **_):
    return reward(completion_ids)


@pytest.mark.parametrize(
    ("settings", "messages"),
    [
        ({"mirror_beta": 0.7}, ["mirror_beta was 0.1 and is 0.7"]),
        ({"variant": "dual"}, ["beta was 0.0 and is 0.05"]),
        (
            {"variant": None, "mirror_sync_steps": None},
            ["mirror_beta was 0.1 and is 0.0", "mirror_sync_steps was 8 and is unused"],
        ),
        ({"reward_funcs": other_reward}, [r"rewards was \[\('reward', 1.0\)\] and is \[\('other_reward', 1.0\)\]"]),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_another_objective_is_refused(policy_path, checkpoint, settings, messages):
    with pytest.raises(ValueError, match="saved under another objective: .*`allow_objective_change`") as error:
        resume(policy_path, checkpoint, **settings)
    for message in messages:
        assert re.search(message, str(error.value))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("settings", [{"variant": "dual"}, {"variant": "tic_grpo", "mirror_sync_steps": None}])
def test_another_objective_can_be_allowed(policy_path, checkpoint, caplog, settings):
    trainer = resume(policy_path, checkpoint, **settings, allow_objective_change=True, max_steps=7)
    assert trainer.state.global_step == 7
    assert "was saved under another objective: " in caplog.text
    assert "The rollout in progress is generated anew." in caplog.text
    assert all(torch.isfinite(value).all() for value in parameters(trainer).values())
