# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What trackers of experiments hold of a run, each with its own files and no network."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers.integrations import TensorBoardCallback

from trl_grpo_variants import GRPOVariantConfig
from trl_grpo_variants.objective.formula import objective_text
from trl_grpo_variants.runs.trackers import Tracker, read_trackers, write_trackers
from trl_grpo_variants.tracking import TrackedObjective

from .tiny import make_trainer


NAMES = {"tensorboard": "TensorBoard", "trackio": "Trackio", "wandb": "Weights & Biases"}
INSTALLED = [name for name in NAMES if find_spec(name) is not None]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """What each tracker that is installed holds of one run: its configuration, the names of its metrics, and its project."""
    folder = tmp_path_factory.mktemp("tracked")
    local = {"TRACKIO_DIR": str(folder / "trackio"), "WANDB_DIR": str(folder), "WANDB_MODE": "offline"}
    command = [sys.executable, "-m", "tests.tracking_worker", str(folder), *INSTALLED]
    done = subprocess.run(
        command, cwd=Path(__file__).parents[1], env=os.environ | local, capture_output=True, text=True, timeout=250
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / "held.json").read_text()) | {"folder": folder}


@pytest.mark.parametrize("name", NAMES)
def test_a_tracker_holds_the_variant_and_what_it_stands_for(run, name):
    if name not in INSTALLED:
        pytest.skip(f"{name} is not installed")
    config, metrics = run["held"][name]
    args = GRPOVariantConfig(
        "out", use_cpu=True, variant="dual", success_monitor=True, steps_per_generation=2, num_generations=4
    )
    assert config["objective"] == objective_text(args.parts, vars(args))
    resolved = ("variant", "beta", "mirror_beta", "scale_rewards", "reward_variance_epsilon", "loss_type", "advantage")
    resolved += ("epsilon", "epsilon_high", "kl_estimator", "trim_padding", "use_bias_correction_kl")
    assert {field: config[field] for field in resolved} == {field: getattr(args, field) for field in resolved}
    # Neither a default that stands for another value nor a function is left in it.
    assert not [
        field for field, value in config.items() if "the variant's value" in str(value) or "<function" in str(value)
    ]
    names = {metric.removeprefix("train/") for metric in metrics}
    assert {"mirror_kl", "success", "theory/groups_without_signal", "trajectory/ess", "loss"} <= names
    assert NAMES[name] in run["kept"]


def test_the_run_keeps_its_projects(run):
    expected = {"Trackio": "huggingface", "Weights & Biases": "huggingface"}
    for name, project in run["kept"].items():
        if name == "TensorBoard":
            assert Path(project).is_relative_to(run["folder"] / "out")
        else:
            assert project == expected[name]


def test_trackers_are_read_as_they_were_written(tmp_path):
    assert read_trackers(tmp_path) == []
    trackers = [Tracker("Trackio", "mine", "https://page"), Tracker("TensorBoard")]
    write_trackers(tmp_path / "out", trackers)
    assert read_trackers(tmp_path / "out") == trackers
    (tmp_path / "out" / "trackers.json").write_text("[{]")
    with pytest.raises(ValueError, match="trackers.json cannot be read"):
        read_trackers(tmp_path / "out")


def test_without_a_tracker_nothing_is_kept(tmp_path, policy_path):
    write_trackers(tmp_path, [Tracker("Trackio", "of an earlier start")])
    make_trainer(policy_path, tmp_path, variant="mean_only", max_steps=1).train()
    assert list(tmp_path.glob("trackers*")) == []


def test_the_folder_of_tensorboard_is_that_of_either_package(tmp_path):
    """tensorboardX has another name for it than PyTorch."""
    writers = SimpleNamespace(get_logdir=lambda: tmp_path / "events")
    callback = TensorBoardCallback(SimpleNamespace(add_text=lambda *_: None, file_writer=writers))
    args = GRPOVariantConfig(str(tmp_path), use_cpu=True, bf16=False)
    state = SimpleNamespace(is_world_process_zero=True)
    TrackedObjective(SimpleNamespace(callbacks=[callback])).on_train_begin(args, state, None)
    assert Tracker("TensorBoard", str(tmp_path / "events")) in read_trackers(tmp_path)
