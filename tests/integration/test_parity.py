# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Without a variant the trainer is TRL's: same losses, gradients, metrics and weights, bit for bit."""

import pytest
import torch
from peft import LoraConfig
from trl import GRPOTrainer

from trl_grpo_variants import get_variant, list_variants

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
        *(f"completions/{what}_length" for what in ("mean_successful", "mean_failed")),
        *(f"completions/{what}_length" for what in ("lower_quartile", "median", "upper_quartile")),
        "trajectory/log_weight_std",
        "trajectory/ess",
        "trajectory/log_weight_std_per_sqrt_token",
        "rollout_end/trajectory/log_weight_std",
        "rollout_end/trajectory/ess",
        "rollout_end/trajectory/log_weight_std_per_sqrt_token",
    }


# A variant has the gradient of the KL that TRL has by default since 1.10.
NEWER = {"use_bias_correction_kl": True}
# What makes a preset act in a short run of a tiny policy, in both trainers.
ACTING = {
    "adaptive_entropy": {"entropy_target": 10.0, "entropy_coef_delta": 0.1},
    "gdpo": {"reward_funcs": [reward, partial_reward]} | OFF_POLICY,
    "off_policy_mask": {"off_policy_mask_threshold": 0.01},
    "reference_reset": {"ref_model_sync_steps": 2},
    "two_grpo": {"num_generations": 2} | OFF_POLICY,
}
STOCK = [name for name in list_variants() if get_variant(name).is_stock and name != "grpo"]


@pytest.mark.parametrize("name", STOCK)
@pytest.mark.filterwarnings("ignore:`variant=")
def test_a_stock_preset_is_trl_with_its_fields(policy_path, tmp_path, name):
    """Its loss to the bit where every row is computed as padded, besides the ways to split a rollout."""
    variant, own = get_variant(name), {"mirror_beta", "group_preserving_split", "inner_steps"}
    # Rollouts of up to 16 steps on 24 prompts.
    settings = {"learning_rate": 5e-2, "max_steps": 6, "per_device_train_batch_size": 4} | ACTING.get(name, {})
    fields = {field: value for field, value in variant.settings.items() if field not in own}
    if "inner_steps" in variant.settings:
        fields["steps_per_generation"] = variant.settings["inner_steps"]
    stock = trained(policy_path, tmp_path, trainer_class=GRPOTrainer, **(NEWER | fields | settings))
    unchanged = {"trim_padding": False, "skip_inert_rows": False}
    unchanged |= {"group_preserving_split": False} if "group_preserving_split" in variant.settings else {}
    ours = trained(policy_path, tmp_path, variant=name, **settings, **unchanged)
    assert all(torch.equal(ours[1][key], stock[1][key]) for key in stock[1])
    for mine, theirs in zip(ours[0], stock[0], strict=True):
        assert {key: mine[key] for key in theirs if key not in COUNTED} == {
            key: value for key, value in theirs.items() if key not in COUNTED
        }


# Means over tokens, where TRL's are of batch means.
COUNTED = {"entropy", "kl"}
