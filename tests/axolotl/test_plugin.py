# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""axolotl's own command with the plugin."""

import json
import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file


pytest.importorskip("axolotl")

from trl_grpo_variants import GRPOVariantConfig, GRPOVariantTrainer  # noqa: E402
from trl_grpo_variants.axolotl import VariantPlugin  # noqa: E402

from ..tiny import dataset, reward  # noqa: E402


PLUGIN = "trl_grpo_variants.axolotl.VariantPlugin"
REWARDS = """
def reward(prompts, completions, completion_ids, **_):
    return [float(any(token in (2, 3) for token in ids[:3])) for ids in completion_ids]

def row(cfg, *_, **__):
    return lambda example, tokenizer=None: {"prompt": example["prompt"]}
"""
LORA = {"adapter": "lora", "lora_r": 4, "lora_alpha": 8, "lora_target_modules": ["q_proj", "v_proj"]}


def recipe(policy_path, **settings):
    return {
        "base_model": policy_path,
        "tokenizer_type": "PreTrainedTokenizerFast",
        "special_tokens": {"pad_token": "<pad>"},
        "rl": "grpo",
        "trl": {"num_generations": 4, "max_completion_length": 6, "reward_funcs": ["rewards.reward"]},
        "datasets": [{"path": "prompts.jsonl", "ds_type": "json", "type": "rewards.row", "split": "train"}],
        "skip_prepare_dataset": True,
        "shuffle_merged_datasets": False,
        "output_dir": "out",
        "micro_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "max_steps": 4,
        "learning_rate": 0.01,
        "lr_scheduler": "constant",
        "optimizer": "adamw_torch",
        "bf16": False,
        "tf32": False,
        "logging_steps": 1,
        "save_strategy": "steps",
        "save_steps": 4,
        "sequence_len": 64,
        **settings,
    }


def train(folder, settings):
    """Run axolotl, which must succeed; what it printed."""
    (folder / "rewards.py").write_text(REWARDS)
    (folder / "prompts.jsonl").write_text("\n".join(json.dumps(row) for row in dataset()))
    (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))
    paths = os.pathsep.join((str(folder), str(Path(__file__).parents[2])))
    environment = os.environ | {"PYTHONPATH": paths, "AXOLOTL_DO_NOT_TRACK": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "axolotl.cli.train", "recipe.yaml"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout + done.stderr


def checkpoint(folder):
    """Arguments, log and weights that a run has saved."""
    folder = folder / "checkpoint-4"
    args = torch.load(folder / "training_args.bin", weights_only=False)
    state = json.loads((folder / "trainer_state.json").read_text())
    (weights,) = folder.glob("*model.safetensors")
    return args, state["log_history"], load_file(weights)


@pytest.mark.filterwarnings("ignore")
def test_a_run_in_axolotl_is_the_run_without_it(tmp_path, policy_path):
    variant = {"variant": "tic_grpo", "success_monitor": True}
    printed = train(tmp_path, recipe(policy_path, plugins=[PLUGIN], grpo_variant=variant))
    assert "departs from the variant" not in printed
    saved, log, weights = checkpoint(tmp_path / "out")
    resolved = GRPOVariantConfig("out", use_cpu=True, **variant)
    names = ("variant", "loss_type", "scale_rewards", "importance_sampling_level", "steps_per_generation")
    assert [getattr(saved, name) for name in names] == [getattr(resolved, name) for name in names]

    values = {field.name: getattr(saved, field.name) for field in fields(GRPOVariantConfig) if field.init}
    args = GRPOVariantConfig(**values | {"output_dir": str(tmp_path / "ours")})
    GRPOVariantTrainer(policy_path, reward, args, train_dataset=dataset()).train()
    _, expected_log, expected_weights = checkpoint(tmp_path / "ours")
    for theirs, ours in zip(log, expected_log, strict=True):
        assert theirs.keys() == ours.keys()
        for name in ("reward", "loss", "grad_norm"):
            assert theirs.get(name) == pytest.approx(ours.get(name), abs=1e-6)
    for name, value in expected_weights.items():
        torch.testing.assert_close(weights[name], value, rtol=0, atol=1e-6)


def test_axolotl_trains_an_adapter(tmp_path, policy_path):
    variant = {"variant": "dual", "mirror_beta": 0.2, "steps_per_generation": 2, "num_iterations": 1}
    train(tmp_path, recipe(policy_path, plugins=[PLUGIN], grpo_variant=variant, **LORA))
    saved, log, weights = checkpoint(tmp_path / "out")
    assert (saved.mirror_beta, saved.beta) == (0.2, GRPOVariantConfig("out", use_cpu=True, variant="dual").beta)
    assert log[1]["mirror_kl"] > 0
    assert all(weight.abs().sum() > 0 for name, weight in weights.items() if "lora_B" in name)


def configured(**changes):
    settings = {"rl": "grpo", "trl": {}, "grpo_variant": {"variant": "dual"}} | changes
    VariantPlugin().register(settings)
    return settings


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"rl": "dpo"}, "VariantPlugin trains with `rl: grpo` or `rl: gdpo`; got 'dpo'"),
        ({"trainer_cls": "mine.Trainer"}, "leave `trainer_cls` unset, got 'mine.Trainer'"),
        ({"trl": {"async_prefetch": True}}, "`trl.async_prefetch: true` trains with a loss of axolotl's own"),
        ({"context_parallel_size": 2}, "`context_parallel_size: 2` trains with a loss of axolotl's own"),
        ({"use_ray": True}, "`use_ray: true` has not been tried"),
        ({"grpo_variant": {"mirror_betta": 0.1}}, "no field `mirror_betta`; did you mean `mirror_beta`"),
        ({"trl": {"beta": 0.1}, "grpo_variant": {"beta": 0.1}}, "`beta` is given twice"),
    ],
)
def test_what_the_plugin_cannot_do_is_one_sentence(changes, sentence):
    with pytest.raises(ValueError, match=sentence):
        configured(**changes)


def test_the_trainer_is_the_plugins():
    assert configured()["trainer_cls"] == "trl_grpo_variants.axolotl.trainer.AxolotlGRPOVariantTrainer"
    with pytest.raises(TypeError, match="axolotl has built a object, which knows no variant"):
        VariantPlugin().post_trainer_create({}, object())
