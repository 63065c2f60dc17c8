# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""TRL's own script and a user's script, unedited, through every way to launch them."""

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import trl
import yaml
from trl.scripts import grpo as trl_script

import trl_grpo_variants
from trl_grpo_variants import GRPOVariantConfig, GRPOVariantTrainer, cli, register, unregister

from ..tiny import dataset


REPOSITORY = Path(__file__).parents[2]
TWO_PROCESSES = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]

REWARD = """
def score(completion_ids, **kwargs):
    return [float(any(token in (2, 3) for token in ids[:3])) for ids in completion_ids]
"""
USER_SCRIPT = """
import sys

from datasets import load_dataset
from rewards import score
from trl import GRPOConfig, GRPOTrainer, TrlParser

(args,) = TrlParser((GRPOConfig,)).parse_args_and_config(["--config", sys.argv[2]])
trainer = GRPOTrainer(sys.argv[1], score, args, train_dataset=load_dataset("data", split="train"))
trainer.train()
trainer.save_model()
"""
TRAINING = {
    "output_dir": "out",
    "variant": "tic_grpo",
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "num_generations": 4,
    "max_completion_length": 4,
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "report_to": "none",
    "save_strategy": "no",
    "disable_tqdm": True,
}


@pytest.fixture
def project(tmp_path, policy_path, monkeypatch):
    """A folder as a user has it: data, reward functions, a script, and configurations for both scripts."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    dataset().to_json(tmp_path / "data" / "train.jsonl")
    (tmp_path / "rewards.py").write_text(REWARD)
    (tmp_path / "script.py").write_text(textwrap.dedent(USER_SCRIPT))
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(TRAINING))
    recipe = {"model_name_or_path": policy_path, "dtype": "float32", "dataset_name": "data"}
    recipe |= {"reward_funcs": ["rewards.score"], **TRAINING}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    stock = {key: value for key, value in recipe.items() if key != "variant"}
    (tmp_path / "stock.yaml").write_text(yaml.safe_dump(stock))
    return tmp_path


def run(command):
    finished = subprocess.run(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    return finished.stdout + finished.stderr


def trained_with(project):
    """Configuration that a finished run has saved with its model."""
    args = torch.load(project / "out" / "training_args.bin", weights_only=False)
    assert (project / "out" / "model.safetensors").exists()
    return args


GRPO = [sys.executable, "-m", "trl_grpo_variants", "grpo"]
LAUNCH = ["-m", "trl_grpo_variants.launch"]


@pytest.mark.parametrize(
    "command",
    [
        pytest.param([*GRPO, "--config", "recipe.yaml"], id="trl-variants grpo"),
        pytest.param(
            [sys.executable, *LAUNCH, trl_script.__file__, "--config", "recipe.yaml"], id="launch TRL's script"
        ),
        pytest.param([f"{sys.prefix}/bin/trl-variants", "run", "script.py", "POLICY", "train.yaml"], id="run"),
        pytest.param(
            [sys.executable, str(REPOSITORY / "examples/scripts/grpo_variants.py"), "--config", "recipe.yaml"],
            id="example script",
        ),
    ],
)
def test_one_process(project, policy_path, command):
    run([policy_path if part == "POLICY" else part for part in command])
    args = trained_with(project)
    assert (type(args).__name__, args.variant) == ("GRPOVariantConfig", "tic_grpo")
    assert args.importance_sampling_level == "trajectory"


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(
            [*GRPO, "--config", "recipe.yaml", "--multi_gpu", "--num_processes", "2", "--num_generations", "2"],
            id="trl-variants grpo",
        ),
        pytest.param([*TWO_PROCESSES, *LAUNCH, "script.py", "POLICY", "train.yaml"], id="torchrun"),
        pytest.param(
            [f"{sys.prefix}/bin/accelerate", "launch", "--multi_gpu", "--num_processes", "2"]
            + [*LAUNCH, "script.py", "POLICY", "train.yaml"],
            id="accelerate launch",
        ),
    ],
)
def test_two_processes(project, policy_path, command):
    # The gloo process group may deadlock in its destructor, after everything has been written.
    script = project / "script.py"
    script.write_text(script.read_text() + "assert trainer.accelerator.num_processes == 2\nimport os; os._exit(0)\n")
    try:
        run([policy_path if part == "POLICY" else part for part in command])
    except subprocess.TimeoutExpired:
        assert "grpo" in command
    args = trained_with(project)
    assert args.variant == "tic_grpo"
    assert args.generation_batch_size == 2 * 4 * 4


def test_without_a_variant_trls_script_is_stock(project):
    ours = run([*GRPO, "--config", "stock.yaml", "--logging_steps", "1"])
    ours_weights = (project / "out" / "model.safetensors").read_bytes()
    assert trained_with(project).has_stock_objective
    stock = run([sys.executable, trl_script.__file__, "--config", "stock.yaml", "--logging_steps", "1"])
    assert "'grad_norm'" in ours
    assert "'grad_norm'" in stock
    assert (project / "out" / "model.safetensors").read_bytes() == ours_weights


def test_register_is_idempotent_and_can_be_undone():
    original = trl.GRPOTrainer, trl.GRPOConfig
    try:
        register()
        register()
        from trl import GRPOConfig, GRPOTrainer
        from trl.trainer import GRPOTrainer as FromTrainer

        assert GRPOTrainer is FromTrainer is GRPOVariantTrainer
        assert GRPOConfig is GRPOVariantConfig
    finally:
        unregister()
    assert (trl.GRPOTrainer, trl.GRPOConfig) == original
    assert GRPOVariantTrainer.__bases__[-1] is original[0]
    unregister()
    assert (trl.GRPOTrainer, trl.GRPOConfig) == original


def test_classes_are_reachable_by_dotted_path():
    """As frameworks with a `trainer_cls`-like key import them."""
    assert trl_grpo_variants.GRPOVariantTrainer is GRPOVariantTrainer
    assert GRPOVariantTrainer.__module__ == "trl_grpo_variants.trainer"
    assert GRPOVariantConfig.__module__ == "trl_grpo_variants.config"


def test_a_wrong_variant_is_one_sentence_and_exit_code_two_before_anything_is_launched(project, capsys):
    try:
        assert cli.main(["grpo", "--config", "recipe.yaml", "--variant", "tic"]) == 2
    finally:
        unregister()
    assert "Unknown variant 'tic'; the known variants are" in capsys.readouterr().err
