# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Without a variant the trainer is TRL's: same losses, gradients, metrics and weights, bit for bit."""

import pytest
import torch
from peft import LoraConfig
from trl import GRPOTrainer

from ..tiny import dataset, make_trainer, reward


LOSS_TYPES = ["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"]
TIMES = ("time", "runtime", "per_second")


def partial_reward(completion_ids, **_):
    """Scores every other completion only."""
    return [None if i % 2 else float(len(ids)) for i, ids in enumerate(completion_ids)]


def lora():
    return LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM")


def trained(policy_path, output_dir, trainer_class=None, **settings):
    """History without times, and final parameters, of a short run."""
    arguments = {} if trainer_class is None else {"trainer_class": trainer_class}
    trainer = make_trainer(policy_path, output_dir, **arguments, **settings)
    trainer.train()
    history = [
        {name: value for name, value in entry.items() if not name.endswith(TIMES)}
        for entry in trainer.state.log_history
    ]
    return history, {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def assert_parity(policy_path, tmp_path, **settings):
    stock = trained(policy_path, tmp_path, trainer_class=GRPOTrainer, **settings)
    ours = trained(policy_path, tmp_path, **settings)
    assert ours[0] == stock[0]
    assert all(torch.equal(ours[1][name], stock[1][name]) for name in stock[1])


OFF_POLICY = {"steps_per_generation": 2, "num_iterations": 2, "learning_rate": 5e-2}


@pytest.mark.parametrize("level", ["token", "sequence"])
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_every_loss_type_and_level(policy_path, tmp_path, loss_type, level):
    assert_parity(policy_path, tmp_path, loss_type=loss_type, importance_sampling_level=level, beta=0.1, **OFF_POLICY)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gradient_accumulation_steps": 2, "steps_per_generation": 3, "max_steps": 6},
        {"beta": 0.1, "sync_ref_model": True, "ref_model_sync_steps": 1},
        {"scale_rewards": "batch", "mask_truncated_completions": True},
        {"scale_rewards": False, "epsilon_high": 0.3, "delta": 1.5} | OFF_POLICY,
        {"entropy_coef": 0.1, "top_entropy_quantile": 0.5} | OFF_POLICY,
        {"off_policy_mask_threshold": 0.01} | OFF_POLICY,
        {"reward_funcs": [reward, partial_reward], "reward_weights": [1.0, 0.5]},
        {"multi_objective_aggregation": "normalize_then_sum", "reward_funcs": [reward, partial_reward]},
        {"eval_strategy": "steps", "eval_steps": 2, "per_device_eval_batch_size": 4, "eval_dataset": dataset(4)},
        {"temperature": 0.7, "use_bias_correction_kl": False, "beta": 0.1} | OFF_POLICY,
    ],
    ids=lambda settings: ",".join(settings),
)
def test_settings(policy_path, tmp_path, settings):
    assert_parity(policy_path, tmp_path, **settings)


def test_lora(policy_path, tmp_path):
    assert_parity(policy_path, tmp_path, peft_config=lora(), beta=0.1, **OFF_POLICY)


def test_the_grpo_preset_is_stock_with_more_metrics(policy_path, tmp_path):
    stock = trained(policy_path, tmp_path, trainer_class=GRPOTrainer, beta=0.1, **OFF_POLICY)
    ours = trained(policy_path, tmp_path, variant="grpo", beta=0.1, **OFF_POLICY)
    assert all(torch.equal(ours[1][name], stock[1][name]) for name in stock[1])
    for mine, theirs in zip(ours[0], stock[0], strict=True):
        assert theirs.items() <= mine.items()
    added = {name for mine, theirs in zip(*[ours[0], stock[0]], strict=True) for name in mine.keys() - theirs.keys()}
    assert added == {
        "success",
        "success_all",
        "success_none",
        "success_prompts",
        "success@1",
        "success@2",
        "success@4",
        "generated_tokens",
        "trajectory/log_weight_std",
        "trajectory/ess",
        "trajectory/log_weight_std_per_sqrt_token",
    }


def test_upper_clip_is_what_trl_computes_with_the_same_settings(policy_path, tmp_path):
    """Paper 2508.02833's GRPO_2: the preset only sets TRL's own parameters, besides the split."""
    settings = {
        "epsilon": 1.0,
        "epsilon_high": 0.28,
        "delta": 1.28,
        "loss_type": "dr_grpo",
        "scale_rewards": "none",
        "steps_per_generation": 4,
        "learning_rate": 5e-2,
    }
    stock = trained(policy_path, tmp_path, trainer_class=GRPOTrainer, **settings)
    unchanged = {"group_preserving_split": False, "trim_padding": False, "skip_inert_rows": False}
    ours = trained(policy_path, tmp_path, variant="grpo_upper_clip", learning_rate=5e-2, **unchanged)
    assert all(torch.equal(ours[1][name], stock[1][name]) for name in stock[1])
