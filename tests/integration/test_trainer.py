# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Real runs of the trainer on a tiny policy."""

import copy
import json
import math
from dataclasses import dataclass

import pandas as pd
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, TrainerCallback, set_seed
from trl import GRPOConfig, GRPOTrainer

from trl_grpo_variants import GRPOVariantConfig, GRPOVariantTrainer, TermOutput, get_variant, list_variants
from trl_grpo_variants import trainer as trainer_module
from trl_grpo_variants.objective.advantages import ADVANTAGES
from trl_grpo_variants.runs.intervals import wilson_interval
from trl_grpo_variants.runs.success import success_rows

from .. import reference
from ..tiny import dataset, make_config, make_trainer, reward
from . import distributed_worker


def lora(**settings):
    return LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", **settings)


def parameters(trainer):
    return {name: p.detach().clone() for name, p in trainer.model.named_parameters()}


def weights_after(policy_path, output_dir, **settings):
    trainer = make_trainer(policy_path, output_dir, **settings)
    trainer.train()
    return parameters(trainer)


def without_times(entry):
    return {name: value for name, value in entry.items() if not name.endswith("_time")}


def equal(left, right):
    return all(torch.equal(left[name], right[name]) for name in left)


class Recorder(GRPOVariantTrainer):
    """Keeps every rollout and every micro-batch that reaches the loss."""

    def __init__(self, *args, **kwargs):
        self.rollouts, self.micro_batches, self.rewards = [], [], {"train": [], "eval": []}
        super().__init__(*args, **kwargs)

    def _generate_and_score_completions(self, inputs):
        self.rollouts.append(super()._generate_and_score_completions(inputs))
        return self.rollouts[-1]

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        self.rewards_per_func = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self.rewards["train" if self.model.training else "eval"].append(self.rewards_per_func)
        return self.rewards_per_func

    def _compute_loss(self, model, inputs):
        self.micro_batches.append(inputs)
        return super()._compute_loss(model, inputs)


# ---- every preset --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("adapter", "num_iterations"), [(False, 2), (True, 1)], ids=["full", "lora"])
@pytest.mark.parametrize("variant", list_variants())
@pytest.mark.filterwarnings("ignore:.*does nothing")
def test_every_preset_trains(policy_path, tmp_path, variant, adapter, num_iterations):
    trainer = make_trainer(
        policy_path,
        tmp_path,
        variant=variant,
        num_iterations=num_iterations,
        steps_per_generation=2,
        max_steps=8,
        learning_rate=3e-2,
        eval_strategy="steps",
        eval_steps=8,
        per_device_eval_batch_size=4,
        eval_dataset=dataset(4),
        peft_config=lora() if adapter else None,
    )
    before = parameters(trainer)
    trainer.train()

    for name, parameter in trainer.model.named_parameters():
        assert parameter.isfinite().all(), name
        assert torch.equal(parameter, before[name]) != parameter.requires_grad, name
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(history) == 8
    assert all(math.isfinite(entry["loss"]) and math.isfinite(entry["grad_norm"]) for entry in history)
    assert any(entry["grad_norm"] > 0 for entry in history)
    names = set().union(*history)
    assert {"success", "success_all", "success_none"} <= names
    assert ("kl" in names) == (trainer.args.beta != 0)
    assert ("mirror_kl" in names) == (trainer.args.mirror_beta != 0)
    assert ("trajectory/ess" in names) == (variant != "no_is_frozen")
    assert ("trajectory/clipped_positive" in names) == variant.startswith("tic_grpo")
    evaluated = next(entry for entry in trainer.state.log_history if "eval_loss" in entry)
    assert math.isfinite(evaluated["eval_loss"])
    assert 0 <= evaluated["eval_success"] <= 1


# What takes a preset's own part away again, leaving the rest as it is.
NEUTRAL = {
    "mean_only": {"scale_rewards": "group"},
    "reference": {"beta": 0.0},
    "reference_mean_only": {"beta": 0.0},
    "mirror": {"mirror_beta": 0.0},
    "mirror_mean_only": {"mirror_beta": 0.0},
    "dual": {"mirror_beta": 0.0},
    "dual_mean_only": {"mirror_beta": 0.0},
    "no_is": {"importance_sampling_level": "token"},
    "no_is_frozen": {"no_is_gradient": "current"},
    "tic_grpo": {"importance_sampling_level": "token", "trajectory_clip": "upper"},
    "tic_grpo_v2": {"trajectory_clip": "upper"},
    "grpo_upper_clip": {"epsilon": 0.2, "delta": 100.0},
    # Its gradient is that of TRL's estimator.
    "reference_k2": {"beta": 0.0, "kl_estimator": "k3"},
    "delta_l": {"length_weight_power": 0.0},
    "kimi": {"mirror_beta": 0.0, "kl_estimator": "k3"},
    "pmd_mean": {"mirror_beta": 0.0, "kl_estimator": "k3"},
    "pmd_partition": {"mirror_beta": 0.0, "kl_estimator": "k3"},
    "kl_in_reward": {"kl_placement": "loss"},
}


# What lets a preset act in a short run of a tiny policy.
ACTING = {
    "adaptive_entropy": {"entropy_target": 10.0, "entropy_coef_delta": 0.1},
    "gdpo": {"reward_funcs": [reward, lambda completion_ids, **_: [float(len(ids)) for ids in completion_ids]]},
    "reference_reset": {"ref_model_sync_steps": 2},
    "two_grpo": {"num_generations": 2},
}


def without_own_part(variant):
    if get_variant(variant).is_stock and variant not in NEUTRAL:
        # TRL with its defaults and the same schedule.
        return {"variant": None, "num_generations": 4}
    named = {"advantage": "group_std", "policy_loss": "clipped", "token_advantage": "uniform"}
    stock = {name: value for name, value in named.items() if name in get_variant(variant).settings}
    return NEUTRAL[variant] if variant in NEUTRAL else stock


@pytest.mark.parametrize(
    "variant", [name for name in list_variants() if name != "grpo" and not get_variant(name).needs_vllm]
)
@pytest.mark.filterwarnings("ignore:The run departs")
def test_every_preset_does_something(policy_path, tmp_path, variant):
    settings = {"variant": variant, "max_steps": 8, "learning_rate": 5e-2} | ACTING.get(variant, {})
    if get_variant(variant).is_stock:
        settings["steps_per_generation"] = min(get_variant(variant).settings.get("inner_steps", 1), 4)
    assert not equal(
        weights_after(policy_path, tmp_path, **settings),
        weights_after(policy_path, tmp_path, **(settings | without_own_part(variant))),
    )


@pytest.mark.parametrize("setting", [{"group_preserving_split": True}, {"reward_variance_epsilon": 0.1}])
def test_every_other_setting_does_something(policy_path, tmp_path, setting):
    settings = {"steps_per_generation": 2, "loss_type": "dr_grpo", "learning_rate": 5e-2}
    assert not equal(
        weights_after(policy_path, tmp_path, **settings), weights_after(policy_path, tmp_path, **settings, **setting)
    )


# A term of theirs is a mean or a quantile of a micro-batch, as TRL computes it or as the micro-batch is a setting.
PER_MICRO_BATCH = {"adaptive_entropy", "high_entropy_tokens"}
PER_MICRO_BATCH |= {name for name in list_variants() if get_variant(name).parts.policy.relates_rows}


@pytest.mark.parametrize("variant", [name for name in list_variants() if name not in ("grpo", *PER_MICRO_BATCH)])
@pytest.mark.filterwarnings("ignore:.*does nothing")
def test_batching_never_changes_the_answer(policy_path, tmp_path, variant):
    """Two micro-batches of 8 or one of 16, on policy and then off policy, with plain gradient descent."""
    settings = {"variant": variant, "num_iterations": 3, "max_steps": 3, "optim": "sgd", "learning_rate": 0.3}
    whole = weights_after(policy_path, tmp_path, per_device_train_batch_size=16, steps_per_generation=1, **settings)
    halves = weights_after(
        policy_path,
        tmp_path,
        per_device_train_batch_size=8,
        gradient_accumulation_steps=2,
        steps_per_generation=2,
        **settings,
    )
    for name in whole:
        torch.testing.assert_close(halves[name], whole[name], rtol=1e-4, atol=1e-5)


def test_a_term_that_relates_rows_finds_the_micro_batches_of_trl(policy_path, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer_module, "arrange", lambda *_, **__: pytest.fail("rows were rearranged"))
    settings = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4, "max_steps": 4}
    trainer = make_trainer(policy_path, tmp_path, trainer_class=Recorder, variant="kl_cov", **settings)
    assert trainer.args.trim_padding
    trainer.train()
    assert all("needed" not in micro_batch for micro_batch in trainer.micro_batches)
    history = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert max(entry["covariance/penalty"] for entry in history) > 0


def wrong_shape(inputs):
    return inputs.token_advantages


def shifted(inputs, *, by=1.0):
    """An advantage of a user's that does not vanish with that of the completion."""
    return inputs.token_advantages + by * inputs.mask


@pytest.mark.parametrize("policy_loss", [None, "score"])
def test_a_users_advantages_of_tokens(policy_path, tmp_path, policy_loss):
    settings = {"trainer_class": Recorder, "num_iterations": 2, "loss_type": "grpo", "max_steps": 2}
    settings |= {"reward_funcs": no_reward, "policy_loss": policy_loss, "token_advantage": shifted}
    trainer = make_trainer(policy_path, tmp_path, **settings, token_advantage_kwargs={"by": 2.0})
    trainer.train()
    # Nothing is known of it, so that no row is left out.
    assert all("needed" not in micro_batch for micro_batch in trainer.micro_batches)
    assert trainer.state.log_history[0]["loss"] == pytest.approx(-2.0, rel=1e-4)
    settings["token_advantage"] = wrong_shape
    with pytest.raises(ValueError, match=r"one advantage per token, shape \(8, \d\); got \(8, 1\)"):
        make_trainer(policy_path, tmp_path, **settings).train()


# ---- advantages and success ----------------------------------------------------------------------------------------


def partial_reward(completion_ids, **_):
    return [None if ids[0] == 4 else 0.25 * (len(ids) % 3) for ids in completion_ids]


def partial_success(completion_ids, **_):
    return [None if ids[0] in (4, 5) else float(len(ids) % 3 == 0) for ids in completion_ids]


@pytest.mark.parametrize("name", ADVANTAGES)
def test_advantages_reach_the_loss_the_logs_and_the_completions_table(policy_path, tmp_path, name):
    fields = ADVANTAGES[name].fields
    # What an advantage takes decides what it is given.
    any_reward = reference.in_domain([2.0], ADVANTAGES[name].domain_of({})) == [2.0]
    funcs, weights = ([reward, partial_reward], (1.0, 2.0)) if any_reward else ([partial_success], (1.0,))
    trainer = make_trainer(
        policy_path,
        tmp_path,
        trainer_class=Recorder,
        max_steps=1,
        log_completions=True,
        num_completions_to_print=0,
        reward_funcs=funcs,
        reward_weights=list(weights),
        mirror_beta=0.1,
        num_iterations=2,
        **({"advantage": name} if fields is None else fields),
    )
    trainer.train()

    rows = trainer.rewards_per_func.tolist()
    scored = [[w * r for w, r in zip(weights, row, strict=True) if not math.isnan(r)] for row in rows]
    rewards = [sum(row) if row else math.nan for row in scored]
    rollout = trainer.rollouts[0]
    lengths = rollout["completion_mask"].sum(1).tolist()
    expected = torch.tensor(
        reference.ADVANTAGES[name](rewards, 4, lengths=lengths, rewards_per_func=rows, weights=weights)
    )
    assert expected.abs().max() > 0
    torch.testing.assert_close(rollout["advantages"], expected, rtol=1e-4, atol=1e-5)
    table = pd.read_parquet(tmp_path / "completions" / "completions_00001.parquet")
    torch.testing.assert_close(torch.tensor(table["advantage"]).float(), expected, rtol=1e-4, atol=1e-5)


# ---- groups of equal rewards, lengths, and rewards that an advantage does not take -----------------------------------


def without_signal(prompts, **_):
    """Success of the first half of the prompts alone, whatever is written."""
    return [float(i < len(prompts) // 2) for i in range(len(prompts))]


def recorded(policy_path, tmp_path, **settings):
    return make_trainer(policy_path, tmp_path, trainer_class=Recorder, reward_funcs=without_signal, **settings)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [("w_reinforce", (0.1, -1.0)), ("psr", (1.0, 0.0)), ("nsr", (0.0, -1.0)), ("asym_re", (0.1, 0.1))],
)
def test_groups_of_equal_rewards_learn_where_the_method_says_so(policy_path, tmp_path, variant, expected):
    trainer = recorded(policy_path, tmp_path, variant=variant, max_steps=2, success_monitor=True, beta=0.1)
    before = parameters(trainer)
    trainer.train()
    advantages = trainer.rollouts[0]["advantages"].view(2, -1)
    assert advantages.mean(1).tolist() == pytest.approx(expected) and (advantages.std(1) < 1e-6).all()
    entry = trainer.state.log_history[0]
    # That is what TRL's key means; the signal is another matter.
    assert entry["frac_reward_zero_std"] == 1.0
    assert entry["theory/groups_without_signal"] == expected.count(0.0) / 2
    assert not equal(before, parameters(trainer))


@pytest.mark.parametrize("variant", ["w_reinforce", "nsr", "psr", "asym_re"])
def test_rows_are_skipped_by_their_advantage_and_not_by_their_rewards(policy_path, tmp_path, variant):
    """Without a KL term nothing else acts on them."""
    results = {}
    for skips in (True, False):
        trainer = recorded(
            policy_path, tmp_path, variant=variant, max_steps=2, skip_inert_rows=skips, optim="sgd", learning_rate=0.3
        )
        trainer.train()
        results[skips] = parameters(trainer)
    needed = trainer.rollouts[0]["advantages"] != 0
    assert needed.sum() == {"w_reinforce": 32, "asym_re": 32}.get(variant, 16)
    for name, value in results[True].items():
        torch.testing.assert_close(value, results[False][name], rtol=1e-4, atol=1e-6)


def test_a_mask_takes_the_advantage_of_groups_of_equal_rewards(policy_path, tmp_path):
    trainer = recorded(
        policy_path, tmp_path, variant="w_reinforce", mask_zero_variance_groups=True, beta=0.1, max_steps=1
    )
    before = parameters(trainer)
    trainer.train()
    assert (trainer.rollouts[0]["advantages"] == 0).all()
    assert equal(before, parameters(trainer))


@pytest.mark.parametrize("settings", [{"scale_rewards": "none"}, {"advantage": "maximum_likelihood"}, {}], ids=str)
def test_length_weights_multiply_the_advantages_of_all_completions_once(policy_path, tmp_path, settings):
    settings = {"loss_type": "dr_grpo", "length_weight_power": 0.75, "max_steps": 1} | settings
    trainer = make_trainer(policy_path, tmp_path, trainer_class=Recorder, **settings)
    trainer.train()
    rollout, name = trainer.rollouts[0], trainer.args.parts.advantage.name
    lengths = rollout["completion_mask"].sum(1).tolist()
    weights = reference.length_weights(lengths, length_weight_power=0.75)
    unweighted = reference.ADVANTAGES[name](trainer.rewards_per_func.squeeze(1).tolist(), 4)
    expected = [w * a for w, a in zip(weights, unweighted, strict=True)]
    assert len(set(lengths)) > 1 and max(expected) > 0
    assert rollout["advantages"].tolist() == pytest.approx(expected, rel=1e-4, abs=1e-6)
    assert list(trainer._logs["advantages"])[-8:] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def half(completion_ids, **_):
    return [0.5] * len(completion_ids)


def negative(completion_ids, **_):
    return [-1.0] * len(completion_ids)


@pytest.mark.parametrize(
    ("variant", "functions", "sentence"),
    [
        ("maxrl", [negative], "takes rewards of at least 0, but `negative` gave -1 for a completion of the prompt"),
        (
            "pass_at_k",
            [half],
            "takes rewards of 0 or 1, but `half` gave 0.5 for a .* .and 31 more like it., so the run",
        ),
        ("nsr", [reward, half], "of 0 or 1, but the weighted sum of `reward`, `half` is (0|1).5 for"),
        ("beta_normalization", [negative], "of at least 0 and of at most 1, but `negative` gave -1"),
    ],
)
def test_a_reward_that_the_advantage_does_not_take_ends_the_run(policy_path, tmp_path, variant, functions, sentence):
    trainer = make_trainer(policy_path, tmp_path, variant=variant, reward_funcs=functions)
    with pytest.raises(ValueError, match=sentence) as error:
        trainer.train()
    assert "`advantage='" in str(error.value) and "checkpoint-0" in str(error.value)
    assert "\n" not in str(error.value)


def test_what_an_infinite_reward_leaves_of_a_rollout_is_finite(policy_path, tmp_path):
    """Statistics over the rollout are those of the other groups."""

    def one_infinite(completion_ids, **_):
        return [math.inf if i == 0 else float(i % 2) for i in range(len(completion_ids))]

    for variant in ("reinforce_plus_plus_baseline", "gpg", "beta_normalization", "w_reinforce", "opo"):
        trainer = make_trainer(
            policy_path, tmp_path, variant=variant, reward_funcs=one_infinite, stop_on_nonfinite=False, beta=0.1
        )
        trainer.model.train()
        rows = [{"prompt": text} for text in ("ab", "cd") for _ in range(4)]
        advantages = trainer._generate_and_score_completions(rows)["advantages"]
        assert (advantages[:4] == 0).all() and (advantages[4:].sign() == torch.tensor([-1.0, 1, -1, 1])).all()


def by_rank(rewards, num_generations, lengths, *, unit=1.0):
    """An advantage of a user's: half a unit for the better half of a group, longer completions first among equals."""
    order = (rewards + 1e-3 * lengths).view(-1, num_generations).argsort(dim=1).argsort(dim=1)
    return (unit * (order >= num_generations // 2).float() - unit / 2).view(-1)


def no_reward(completion_ids, **_):
    return [0.0] * len(completion_ids)


def squared_ratio(inputs, *, scale):
    """A policy term of a user's."""
    ratio = (inputs.logps - inputs.old_logps).exp()
    return TermOutput(-scale * ratio.square() * inputs.token_advantages, {"mine/ratio": ratio})


def test_a_users_own_parts_train_with_all_that_is_around_them(policy_path, tmp_path):
    trainer = make_trainer(
        policy_path,
        tmp_path,
        trainer_class=Recorder,
        reward_funcs=no_reward,
        advantage=by_rank,
        advantage_kwargs={"unit": 3.0},
        policy_loss=f"{__name__}:squared_ratio",
        policy_loss_kwargs='{"scale": 0.5}',
        mirror_beta=0.1,
        loss_type="grpo",
        num_iterations=2,
        per_device_eval_batch_size=8,
        eval_dataset=dataset(2),
        eval_strategy="steps",
        eval_steps=2,
    )
    before = {name: value.clone() for name, value in trainer.model.named_parameters()}
    trainer.train()
    assert all(set(rollout["advantages"].tolist()) == {-1.5, 1.5} for rollout in trainer.rollouts)
    # Where all rewards are equal, as here, what a user's function does is the user's to say.
    assert all((rewards == 0).all() for rewards in trainer.rewards["train"])
    trained = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert trained[0]["mine/ratio"] == pytest.approx(1.0) and trained[1]["mine/ratio"] != 1.0
    assert all("mirror_kl" in entry and not any("clip_ratio" in name for name in entry) for entry in trained)
    assert any("eval_mine/ratio" in entry for entry in trainer.state.log_history)
    assert any((value != before[name]).any() for name, value in trainer.model.named_parameters())


def not_finite(rewards, num_generations):
    return rewards / 0


def too_short(rewards, num_generations):
    return rewards[:2]


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        (not_finite, "`advantage` gave (inf|nan) for a completion with the reward [01]; it has to be finite"),
        (too_short, r"one advantage per completion, shape \(8,\); got \(2,\)"),
    ],
)
def test_what_is_no_advantage_ends_the_run_with_a_sentence(policy_path, tmp_path, function, sentence):
    trainer = make_trainer(policy_path, tmp_path, advantage=function)
    with pytest.raises((FloatingPointError, ValueError), match=sentence):
        trainer.train()


def test_an_evaluation_logs_the_advantages_of_the_variant(policy_path, tmp_path):
    trainer = make_trainer(
        policy_path,
        tmp_path,
        trainer_class=Recorder,
        variant="reference",
        per_device_eval_batch_size=8,
        eval_dataset=dataset(2),
    )
    trainer.evaluate()
    rewards = trainer.rewards_per_func.squeeze(1).tolist()
    expected = reference.smoothed_std(rewards, 4)
    assert max(expected) > 0 and len(expected) == 8
    assert list(trainer._logs["advantages"])[-8:] == pytest.approx(expected, rel=1e-5)


def test_success_is_the_share_of_completions_with_full_reward(policy_path, tmp_path):
    trainer = make_trainer(policy_path, tmp_path, trainer_class=Recorder, variant="grpo", max_steps=1)
    trainer.train()
    groups = trainer.rewards_per_func.view(-1, 4)
    entry = trainer.state.log_history[0]
    assert 0 < entry["success"] < 1
    assert entry["success"] == pytest.approx(groups.mean().item())
    assert entry["success_all"] == pytest.approx(groups.amin(1).mean().item())
    assert entry["success_none"] == pytest.approx(1 - groups.amax(1).mean().item())


def first_rows(rows):
    """The first rows of every rollout have full reward."""
    return lambda completion_ids, **_: [float(i < rows) for i in range(len(completion_ids))]


def test_an_evaluation_counts_every_prompt_once_and_by_its_own_groups(policy_path, tmp_path):
    """Groups 11 10 00 00 and, in a batch that is cut short, 11."""
    trainer = make_trainer(
        policy_path,
        tmp_path,
        variant="reference",
        num_generations_eval=2,
        per_device_eval_batch_size=8,
        eval_dataset=dataset(5),
        reward_funcs=first_rows(3),
    )
    for _ in range(2):
        metrics = trainer.evaluate()
        assert metrics["eval_success"] == pytest.approx(5 / 10)
        assert metrics["eval_success_all"] == pytest.approx(2 / 5)
        assert metrics["eval_success_none"] == pytest.approx(2 / 5)
        assert metrics["eval_success_prompts"] == 5
        assert metrics["eval_success@1"] == pytest.approx(5 / 10)
        assert metrics["eval_success@2"] == pytest.approx(3 / 5)
        assert "eval_success@4" not in metrics


def test_the_card_tells_evaluation_sets_apart_and_how_many_prompts_were_counted(policy_path, tmp_path):
    trainer = make_trainer(
        policy_path,
        tmp_path,
        variant="reference",
        num_generations_eval=2,
        per_device_eval_batch_size=8,
        eval_dataset={"easy": dataset(5), "hard": dataset(3)},
        reward_funcs=first_rows(3),
    )
    trainer.evaluate()
    rows = {row.source: row.first for row in success_rows(trainer.state.log_history)}
    assert rows.keys() == {"evaluation `easy`, 5 prompts", "evaluation `hard`, 3 prompts"}
    low, high = wilson_interval(0.5, 3)
    assert rows["evaluation `hard`, 3 prompts"] == f"0.50 [{low:.2f}, {high:.2f}] (step 0)"
    trainer.create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert "evaluation `easy`, 5 prompts" in card and "## What it took" not in card
    trainer.train()
    trainer.evaluate()
    trainer.create_model_card()
    assert "## What it took\n\nSuccess in the evaluation `easy`, " in (tmp_path / "README.md").read_text()


def test_metrics_between_two_logs_are_those_of_all_rollouts_and_of_no_evaluation(policy_path, tmp_path):
    trainer = make_trainer(
        policy_path,
        tmp_path,
        trainer_class=Recorder,
        variant="reference",
        logging_steps=3,
        max_steps=6,
        eval_strategy="steps",
        eval_steps=2,
        num_generations_eval=2,
        per_device_eval_batch_size=8,
        eval_dataset=dataset(5),
        reward_funcs=[reward, partial_reward],
        reward_weights=[1.0, 0.0],
        log_completions=True,
        num_completions_to_print=0,
    )
    trainer.train()

    def shares(rollouts, size):
        groups = torch.cat(rollouts)[:, 0].view(-1, size)
        return {
            "success": groups.mean().item(),
            "success_all": groups.amin(1).mean().item(),
            "success_none": 1 - groups.amax(1).mean().item(),
            "success_prompts": len(groups),
            "success@1": groups.mean().item(),
            f"success@{size}": groups.amax(1).mean().item(),
        }

    trained = [entry for entry in trainer.state.log_history if "loss" in entry]
    evaluated = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    assert [entry["step"] for entry in trained] == [3, 6] and [entry["step"] for entry in evaluated] == [2, 4, 6]
    for index, entry in enumerate(trained):
        expected = shares(trainer.rewards["train"][3 * index : 3 * index + 3], 4)
        assert {name: entry[name] for name in expected} == pytest.approx(expected)
        assert not [name for name in entry if name.startswith("eval_")]
    for index, entry in enumerate(evaluated):
        expected = shares(trainer.rewards["eval"][2 * index : 2 * index + 2], 2)
        assert {name: entry[f"eval_{name}"] for name in expected} == pytest.approx(expected)
    # The table of an evaluation holds the advantages that it has computed, by its own groups.
    table = pd.read_parquet(tmp_path / "completions" / "completions_00006.parquet")
    rewards = torch.cat(trainer.rewards["eval"][-2:])[:, 0]
    expected = torch.tensor(reference.smoothed_std(rewards.tolist(), 2))[-8:]
    assert expected.abs().max() > 0
    torch.testing.assert_close(torch.tensor(table["advantage"])[-8:].float(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("has_tools", [False, True])
def test_lengths_are_those_that_trl_counts_by_success(policy_path, tmp_path, has_tools):
    """Of completions that the loss leaves out, too; what a tool has written is not the policy's."""

    def rollout(prompts, trainer):
        completion_ids = [[3] * (1 + i % 4) + [1] if i % 4 < 2 else [3] * 6 for i in range(len(prompts))]
        masks = {"env_mask": [[1, 0] + [1] * (len(ids) - 2) for ids in completion_ids]} if has_tools else {}
        prompt_ids = trainer.processing_class(prompts)["input_ids"]
        logps = [[0.0] * len(ids) for ids in completion_ids]
        return {"prompt_ids": prompt_ids, "completion_ids": completion_ids, "logprobs": logps} | masks

    settings = {"variant": "reference", "mask_truncated_completions": True, "max_steps": 1}
    trainer = make_trainer(policy_path, tmp_path, rollout_func=rollout, reward_funcs=first_rows(3), **settings)
    trainer.train()
    (entry,) = [entry for entry in trainer.state.log_history if "loss" in entry]
    told = [entry[f"completions/{what}_length"] for what in ("mean_successful", "mean_failed", "median")]
    # Lengths of 2, 3, 6 and 6 in each of two groups; the first three completions are right.
    assert told == pytest.approx([11 / 3 - has_tools, 23 / 5 - has_tools, 4.5 - has_tools])
    assert entry["completions/mean_length"] == pytest.approx((3 * told[0] + 5 * told[1]) / 8)


@pytest.mark.parametrize("metric", ["eval_success@4", "success@1"])
def test_the_best_model_is_that_of_the_success_that_is_named(policy_path, tmp_path, metric):
    """After one step and after three, one of two prompts succeeds always; after two, each of them once in four."""

    def scripted(prompts, trainer_state, **_):
        if len(set(prompts)) > 2:
            return [float(i % 2) for i in range(len(prompts))]
        solved = (0, 4) if trainer_state.global_step == 2 else range(4)
        return [float(i in solved) for i in range(len(prompts))]

    trainer = make_trainer(
        policy_path,
        tmp_path,
        variant="mean_only",
        per_device_train_batch_size=12,
        per_device_eval_batch_size=8,
        max_steps=3,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model=metric,
        eval_dataset=dataset(2),
        reward_funcs=scripted,
    )
    trainer.train()
    name = f"eval_{metric.removeprefix('eval_')}"
    evaluated = [entry[name] for entry in trainer.state.log_history if name in entry]
    assert evaluated == pytest.approx([0.5, 1.0, 0.5] if name.endswith("4") else [0.5, 0.25, 0.5])
    best = 2 if name.endswith("4") else 1
    assert trainer.state.best_global_step == best
    saved = [load_file(tmp_path / f"checkpoint-{step}" / "model.safetensors") for step in (1, 2, 3)]
    assert [all(torch.equal(value, file[name]) for name, value in parameters(trainer).items() if name in file)
            for file in saved] == [step == best for step in (1, 2, 3)]  # fmt: skip
    logged = json.loads((tmp_path / "checkpoint-3" / "trainer_state.json").read_text())["log_history"]
    assert name in logged[1]


class Shaped(Recorder):
    """A user's subclass that changes the rewards after the functions have given them."""

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        return 1 - super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)


def test_rewards_that_a_subclass_has_changed_are_the_rewards(policy_path, tmp_path):
    settings = {"variant": "reference", "max_steps": 1}
    plain = make_trainer(policy_path, tmp_path, trainer_class=Recorder, **settings)
    plain.train()
    shaped = make_trainer(policy_path, tmp_path, trainer_class=Shaped, **settings)
    shaped.train()
    torch.testing.assert_close(shaped.rollouts[0]["advantages"], -plain.rollouts[0]["advantages"])
    assert plain.rollouts[0]["advantages"].abs().max() > 0
    success = [trainer.state.log_history[0]["success"] for trainer in (plain, shaped)]
    assert success[1] == pytest.approx(1 - success[0])


def test_a_function_for_the_rewards_that_is_set_on_the_trainer_stays_and_is_called_once(policy_path, tmp_path):
    settings = {"variant": "reference", "max_steps": 3, "trainer_class": Recorder}
    plain = make_trainer(policy_path, tmp_path, **settings)
    plain.train()

    hooked = make_trainer(policy_path, tmp_path, **settings)
    calls = []
    calculate = hooked._calculate_rewards

    def inverted(*args):
        calls.append(calculate(*args))
        return 1 - calls[-1]

    hooked._calculate_rewards = inverted
    hooked.train()
    assert hooked._calculate_rewards is inverted
    assert len(calls) == len(hooked.rollouts) == 3
    torch.testing.assert_close(hooked.rollouts[0]["advantages"], -plain.rollouts[0]["advantages"])
    success = [trainer.state.log_history[0]["success"] for trainer in (plain, hooked)]
    assert success[1] == pytest.approx(1 - success[0])


def test_an_evaluation_larger_than_a_rollout_and_functions_of_one_name_have_all_their_rewards(policy_path, tmp_path):
    def odd(completion_ids, **_):
        return [float(i % 2) for i in range(len(completion_ids))]

    def late(completion_ids, **_):
        return [float(i // 2 % 2) for i in range(len(completion_ids))]

    odd.__name__ = late.__name__ = "judge"
    trainer = make_trainer(
        policy_path,
        tmp_path,
        variant="mean_only",
        reward_funcs=[odd, late],
        per_device_eval_batch_size=16,
        eval_dataset=dataset(4),
    )
    assert trainer.args.generation_batch_size == 8
    trainer.evaluate()
    # The completions of a group get 0, 1, 1 and 2.
    assert trainer.state.log_history[-1]["eval_success"] == pytest.approx(0.25)
    assert list(trainer._logs["advantages"]) == pytest.approx(2 * [-1.0, 0.0, 0.0, 1.0])
    # As TRL keeps them: the last ones of what both have given.
    assert list(trainer._logs["rewards"]["judge"]) == 2 * [0.0, 0.0, 1.0, 1.0]


def test_a_rollout_that_fails_leaves_the_trainer_as_it_was(policy_path, tmp_path):
    def broken(completion_ids, **_):
        raise ZeroDivisionError("no judge")

    trainer = make_trainer(policy_path, tmp_path, variant="reference", reward_funcs=broken)
    logs = trainer._logs["rewards"]
    with pytest.raises(ZeroDivisionError, match="^no judge$"):
        trainer.train()
    assert trainer._logs["rewards"] is logs


# ---- zero-variance mask --------------------------------------------------------------------------------------------


def first_group_only(completion_ids, **_):
    """The second group of every rollout of two has equal rewards."""
    return [float(i) if i < 4 else 1.0 for i in range(len(completion_ids))]


@pytest.mark.parametrize("loss_type", ["grpo", "dr_grpo", "dapo"])
def test_masked_groups_lose_policy_and_kl_and_keep_the_normaliser(policy_path, tmp_path, loss_type):
    trainer = make_trainer(
        policy_path,
        tmp_path,
        variant="dual",
        loss_type=loss_type,
        max_steps=2,
        learning_rate=0.1,
        reward_funcs=first_group_only,
        mask_zero_variance_groups=True,
        trainer_class=Recorder,
    )
    trainer.train()
    inputs = trainer.micro_batches[-1]

    def gradient(batch):
        trainer.model.zero_grad()
        trainer.current_gradient_accumulation_steps = 1
        trainer.compute_loss(trainer.model, batch).backward()
        return torch.cat([p.grad.flatten() for p in trainer.model.parameters()])

    kept = inputs["has_variance"]
    assert kept.sum() == 4
    without_mask = {key: value for key, value in inputs.items() if key not in ("has_variance", "needed")}
    alone = {key: value[kept] if value.dim() else value for key, value in without_mask.items()}
    # Half the rows: where the normaliser counts them, the same sum weighs twice as much.
    scale = 1.0 if loss_type == "dapo" else 0.5
    torch.testing.assert_close(gradient(inputs), scale * gradient(alone), rtol=1e-4, atol=1e-6)
    assert not torch.allclose(gradient(inputs), gradient(without_mask), rtol=1e-2)


def test_an_evaluation_masks_nothing(policy_path, tmp_path):
    trainer = make_trainer(
        policy_path,
        tmp_path,
        trainer_class=Recorder,
        variant="dual",
        max_steps=2,
        learning_rate=0.1,
        mask_zero_variance_groups=True,
        eval_dataset=dataset(4),
        per_device_eval_batch_size=8,
        reward_funcs=first_group_only,
    )
    trainer.train()
    kept = [rollout["has_variance"].float().mean() for rollout in trainer.rollouts]
    losses = []
    for masks in (True, False):
        trainer.args.mask_zero_variance_groups = masks
        torch.manual_seed(0)
        losses.append(trainer.evaluate()["eval_loss"])
    assert kept == [0.5] * len(kept)
    assert losses[0] == losses[1] > 0


@pytest.mark.parametrize(
    "settings",
    [
        {"variant": "tic_grpo", "num_iterations": 1, "steps_per_generation": 4},
        {"variant": "mirror", "mirror_sync_steps": 3},
        {"variant": "no_is_frozen"},
        {"variant": "dual", "mask_zero_variance_groups": True},
        {"variant": "reference", "sync_ref_model": True, "ref_model_sync_steps": 3, "peft_config": lora()},
    ],
    ids=lambda settings: ",".join(settings),
)
def test_evaluations_in_the_middle_of_a_rollout_change_nothing_of_the_run(policy_path, tmp_path, settings):
    defaults = {
        "steps_per_generation": 2,
        "num_iterations": 2,
        "group_preserving_split": True,
        "max_steps": 6,
        "logging_steps": 3,
        "learning_rate": 3e-2,
        "rollout_func": distributed_worker.rollout,
        "reward_funcs": distributed_worker.reward,
        "eval_dataset": dataset(4),
    }
    runs = []
    for evaluations in ({}, {"eval_strategy": "steps", "eval_steps": 1}):
        # TRL before 1.10 makes an adapter before it sets the seed.
        set_seed(0)
        trainer = make_trainer(policy_path, tmp_path, **(defaults | settings | evaluations))
        trainer.train()
        history = [entry for entry in trainer.state.log_history if "loss" in entry]
        runs.append((parameters(trainer), [without_times(entry) for entry in history]))
        assert len(trainer.state.log_history) - len(history) == (7 if evaluations else 1)
    assert equal(runs[0][0], runs[1][0])
    assert runs[0][1] == runs[1][1]


# ---- equal rewards -------------------------------------------------------------------------------------------------

SEVEN = {"per_device_train_batch_size": 14, "num_generations": 7, "max_steps": 2, "num_iterations": 2}
NORMALIZATIONS = {
    "group": {"importance_sampling_level": "none"},
    "none": {"importance_sampling_level": "none", "scale_rewards": "none"},
    "batch": {"importance_sampling_level": "none", "scale_rewards": "batch"},
    "paper": {"variant": "reference"},
    "by_function": {"importance_sampling_level": "none", "multi_objective_aggregation": "normalize_then_sum"},
}


def constant(value):
    return lambda completion_ids, **_: [value] * len(completion_ids)


@pytest.mark.parametrize("settings", NORMALIZATIONS.values(), ids=NORMALIZATIONS)
def test_equal_rewards_leave_no_advantage(policy_path, tmp_path, settings):
    settings = SEVEN | settings | {"reward_funcs": [constant(0.1), constant(0.7)], "log_completions": True}
    settings["num_completions_to_print"] = 0
    trainer = make_trainer(policy_path, tmp_path, trainer_class=Recorder, **settings)
    trainer.train()
    for rollout in trainer.rollouts:
        assert rollout["advantages"].tolist() == [0.0] * 14
        assert rollout["needed"].any() == (trainer.args.beta != 0)
    assert len(trainer.rollouts) == 1
    assert trainer.state.log_history[0]["frac_reward_zero_std"] == 1.0
    assert set(pd.read_parquet(tmp_path / "completions" / "completions_00001.parquet")["advantage"]) == {0.0}


def test_equal_rewards_of_one_group_leave_the_others_alone(policy_path, tmp_path):
    def second_group_differs(completion_ids, **_):
        return [0.1 if i < 7 else 1.0 + 1e-5 * i for i in range(len(completion_ids))]

    stock = GRPOTrainer._generate_and_score_completions
    for normalization, settings in NORMALIZATIONS.items():
        trainer = make_trainer(
            policy_path,
            tmp_path,
            trainer_class=Recorder,
            **(SEVEN | settings | {"max_steps": 1, "reward_funcs": second_group_differs}),
        )
        theirs = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                GRPOTrainer,
                "_generate_and_score_completions",
                lambda self, inputs, theirs=theirs: theirs.append(stock(self, inputs)) or dict(theirs[0]),
            )
            trainer.train()
        ours, theirs = trainer.rollouts[0]["advantages"], theirs[0]["advantages"]
        assert 0 < theirs[:7].abs().max() < 1e-2, normalization
        assert ours[:7].tolist() == [0.0] * 7
        assert (ours[7:].diff() > 0).all()
        if normalization != "paper":
            assert torch.equal(ours[7:], theirs[7:])
        zero_std = 0.0 if normalization in ("batch", "by_function") else 0.5
        assert trainer.state.log_history[0]["frac_reward_zero_std"] == zero_std


# ---- group-preserving split ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("preserving", [True, False])
def test_optimizer_steps_hold_whole_groups(policy_path, tmp_path, preserving):
    trainer = make_trainer(
        policy_path,
        tmp_path,
        trainer_class=Recorder,
        variant="grpo",
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        steps_per_generation=8,
        num_iterations=2,
        group_preserving_split=preserving,
        max_steps=8,
    )
    trainer.train()
    (rollout,) = trainer.rollouts
    rows = {
        tuple(row.tolist()): i // 4
        for i, row in enumerate(torch.cat([rollout["prompt_ids"], rollout["completion_ids"]], 1))
    }
    steps = [
        torch.cat([torch.cat([m["prompt_ids"], m["completion_ids"]], 1) for m in trainer.micro_batches[i : i + 2]])
        for i in range(0, 16, 2)
    ]
    groups = [sorted({rows[tuple(row.tolist())] for row in step}) for step in steps]

    # Completions may repeat by chance, so a step is compared by the prompts that it covers.
    whole = all(len(step) == 2 for step in groups)
    assert whole == preserving
    if preserving:
        assert groups == [[0, 1], [2, 3], [4, 5], [6, 7]] * 2


# ---- frozen gradient -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "lora"])
def test_frozen_inner_steps_are_one_large_on_policy_step(policy_path, tmp_path, adapter):
    """Paper 2508.02833: under plain gradient descent K steps of size eta equal one of size K eta on the union."""
    settings = {
        "variant": "no_is_frozen",
        "optim": "sgd",
        "max_grad_norm": 0.0,
        "loss_type": "dr_grpo",
        "peft_config": lora() if adapter else None,
    }
    four = weights_after(policy_path, tmp_path, learning_rate=0.5, steps_per_generation=4, max_steps=4, **settings)
    one = weights_after(
        policy_path,
        tmp_path,
        learning_rate=2.0,
        gradient_accumulation_steps=4,
        steps_per_generation=4,
        max_steps=1,
        **settings,
    )
    current = weights_after(
        policy_path,
        tmp_path,
        learning_rate=0.5,
        steps_per_generation=4,
        max_steps=4,
        **(settings | {"no_is_gradient": "current"}),
    )
    for name in one:
        torch.testing.assert_close(four[name], one[name], rtol=1e-4, atol=1e-6)
    assert not all(torch.allclose(current[name], one[name], rtol=1e-3, atol=1e-5) for name in one)


def test_live_policy_comes_back_when_the_loss_raises(policy_path, tmp_path, monkeypatch):
    trainer = make_trainer(policy_path, tmp_path, variant="no_is_frozen", max_steps=3)
    live = {}

    def fail(self, model, inputs):
        if self.state.global_step == 2:
            raise RuntimeError("boom")
        return loss(self, model, inputs)

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            live.update(parameters(trainer))

    loss = GRPOTrainer._compute_loss
    monkeypatch.setattr(GRPOTrainer, "_compute_loss", fail)
    trainer.add_callback(Watch())
    with pytest.raises(RuntimeError, match="boom"):
        trainer.train()
    assert equal(parameters(trainer), live)
    with trainer._anchors.frozen.swapped_in():
        assert not equal(parameters(trainer), live)


def test_frozen_loss_outside_a_training_step_is_refused(policy_path, tmp_path):
    """It would leave the policy swapped out, for there is no backward pass to wait for."""
    trainer = make_trainer(policy_path, tmp_path, trainer_class=Recorder, variant="no_is_frozen", max_steps=1)
    trainer.train()
    live = parameters(trainer)
    with pytest.raises(RuntimeError, match="only be called within `training_step`"):
        trainer.compute_loss(trainer.model, trainer.micro_batches[0])
    assert equal(parameters(trainer), live)


# ---- metrics ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("logging_steps", [1, 2])
def test_metrics_do_not_depend_on_the_micro_batch(policy_path, tmp_path, logging_steps):
    histories = []
    for accumulation in (8, 1):
        trainer = make_trainer(
            policy_path,
            tmp_path,
            variant="tic_grpo",
            epsilon_high=0.01,
            beta=1e-3,
            mirror_beta=1e-3,
            logging_steps=logging_steps,
            per_device_train_batch_size=8 // accumulation,
            gradient_accumulation_steps=accumulation,
            learning_rate=0.003,
        )
        trainer.train()
        histories.append([entry for entry in trainer.state.log_history if "loss" in entry])
    single, whole = histories
    assert whole[-1]["trajectory/log_weight_std"] > 0.1
    assert {"entropy", "kl", "mirror_kl", "success", "trajectory/ess"} <= whole[0].keys()
    last = whole[-1]
    assert last["trajectory/clipped_positive"] > last["trajectory/clipped_negative"] > 0
    for mine, theirs in zip(single, whole, strict=True):
        assert mine.keys() == theirs.keys()
        for name in without_times(mine):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-5), name


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_end_of_a_rollout_is_logged_once_more(policy_path, tmp_path, accumulation):
    """Two rollouts of four optimizer steps; logs of one step and of four."""
    settings = {"variant": "dual", "num_iterations": 2, "steps_per_generation": 2 * accumulation, "max_steps": 8}
    settings |= {"per_device_train_batch_size": 8 // accumulation, "gradient_accumulation_steps": accumulation}
    histories = []
    for logging_steps in (1, 4):
        trainer = make_trainer(policy_path, tmp_path, logging_steps=logging_steps, **settings)
        trainer.train()
        histories.append([entry for entry in trainer.state.log_history if "loss" in entry])
    single, several = histories
    names = ("kl", "mirror_kl", "trajectory/ess")
    assert [entry["step"] for entry in single if "rollout_end/kl" in entry] == [4, 8]
    for entry, later in zip(single[3::4], several, strict=True):
        for name in names:
            assert later[f"rollout_end/{name}"] == entry[f"rollout_end/{name}"] == pytest.approx(entry[name])
        for name in names[:2]:
            error = f"rollout_end/{name}_standard_error"
            assert later[error] == entry[error] > 0.0
    assert several[1]["mirror_kl"] < several[1]["rollout_end/mirror_kl"]
    assert not [name for entry in single for name in entry if "standard_error" in name and entry["step"] % 4]


@pytest.mark.parametrize(
    "settings",
    [{}, {"refill_groups": 1}, {"group_preserving_split": True}, {"gradient_accumulation_steps": 2}],
    ids=lambda settings: ",".join(settings),
)
def test_a_completion_knows_its_group_wherever_it_comes_to_lie(policy_path, tmp_path, settings):
    run = {"variant": "dual", "steps_per_generation": 4, "per_device_train_batch_size": 4, "max_steps": 4}
    trainer = make_trainer(policy_path, tmp_path, trainer_class=Recorder, **run | settings)
    trainer.train()
    groups = torch.cat([m["group"] for m in trainer.micro_batches[:4]])
    prompts = torch.cat([m["prompt_ids"] for m in trainer.micro_batches[:4]])
    assert groups.bincount().tolist() == [4] * 4
    assert all(len(prompts[groups == group].unique(dim=0)) == 1 for group in range(4))
    mixed = len({tuple(m["group"].tolist()) for m in trainer.micro_batches[:4]} - {(n,) * 4 for n in range(4)})
    assert (mixed == 0) == ("group_preserving_split" in settings)


def test_a_rollout_of_one_optimizer_step_has_no_end_of_its_own(policy_path, tmp_path):
    trainer = make_trainer(policy_path, tmp_path, variant="reference", max_steps=2)
    trainer.train()
    assert not [name for entry in trainer.state.log_history for name in entry if name.startswith("rollout_end/")]
    assert all(entry["kl_standard_error"] >= 0.0 for entry in trainer.state.log_history if "kl" in entry)


def test_of_a_step_on_parts_of_two_rollouts_groups_are_not_told_apart(policy_path, tmp_path):
    settings = {"variant": "reference", "steps_per_generation": 3, "gradient_accumulation_steps": 2, "max_steps": 6}
    trainer = make_trainer(policy_path, tmp_path, **settings)
    trainer.train()
    assert not [name for entry in trainer.state.log_history for name in entry if "standard_error" in name]


@pytest.mark.parametrize("sync_steps", [None, 8])
def test_evaluation_reports_no_constants(policy_path, tmp_path, sync_steps):
    trainer = make_trainer(
        policy_path,
        tmp_path,
        variant="tic_grpo",
        mirror_beta=0.1,
        mirror_sync_steps=sync_steps,
        eval_strategy="steps",
        eval_steps=4,
        per_device_eval_batch_size=4,
        eval_dataset=dataset(4),
    )
    trainer.train()
    evaluated = next(entry for entry in trainer.state.log_history if "eval_loss" in entry)
    assert not [name for name in evaluated if name.startswith("eval_trajectory")]
    assert evaluated.get("eval_mirror_kl", 0) > 0 if sync_steps else "eval_mirror_kl" not in evaluated


# ---- anchors -------------------------------------------------------------------------------------------------------


def scored_now(trainer, rollout):
    """Log-probs of a rollout's completions under the live policy."""
    with torch.no_grad():
        return trainer._get_per_token_logps_and_entropies(
            trainer.model,
            torch.cat([rollout["prompt_ids"], rollout["completion_ids"]], 1),
            torch.cat([rollout["prompt_mask"], rollout["completion_mask"]], 1),
            rollout["completion_ids"].size(1),
        )[0]


class Policies(TrainerCallback):
    """Parameters of the policy after every optimizer step."""

    def __init__(self):
        self.after = {}

    def on_train_begin(self, args, state, control, model, **kwargs):
        self.on_step_end(args, state, control, model)

    def on_step_end(self, args, state, control, model, **kwargs):
        self.after[state.global_step] = {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize(("adapter", "sync_steps"), [(False, 3), (True, 3), (False, 4)])
def test_mirror_anchor_is_the_policy_of_its_last_refresh(policy_path, tmp_path, adapter, sync_steps):
    """Two optimizer steps per rollout, a refresh at the first rollout after three or four: at steps 0, 4, 8."""
    policies = Policies()
    trainer = make_trainer(
        policy_path,
        tmp_path,
        trainer_class=Recorder,
        variant="mirror",
        num_iterations=2,
        mirror_sync_steps=sync_steps,
        max_steps=12,
        callbacks=[policies],
        peft_config=lora() if adapter else None,
    )
    trainer.train()

    assert len(trainer.rollouts) == 6
    for index, rollout in enumerate(trainer.rollouts):
        step = 2 * index
        trainer.model.load_state_dict(policies.after[step // 4 * 4])
        mask = rollout["completion_mask"].bool()
        torch.testing.assert_close(rollout["mirror_per_token_logps"][mask], scored_now(trainer, rollout)[mask])
        if step % 4:
            assert not torch.allclose(rollout["mirror_per_token_logps"][mask], rollout["old_per_token_logps"][mask])


@pytest.mark.parametrize("moves", [False, True])
def test_only_a_reference_that_moves_is_saved_with_the_run(policy_path, tmp_path, moves):
    trainer = make_trainer(policy_path, tmp_path, variant="reference", sync_ref_model=moves)
    assert trainer.ref_model is not None
    assert set(trainer._anchors.named()) == ({"reference"} if moves else set())


def test_an_evaluation_moves_no_anchor(policy_path, tmp_path):
    """Neither within a rollout nor between two, nor when a refresh is due."""
    trainer = make_trainer(
        policy_path,
        tmp_path,
        variant="no_is_frozen",
        num_iterations=2,
        beta=0.1,
        mirror_beta=0.1,
        mirror_sync_steps=3,
        sync_ref_model=True,
        ref_model_sync_steps=2,
        eval_dataset=dataset(4),
    )
    moved = []

    class Evaluate(TrainerCallback):
        def on_step_end(self, *args, **kwargs):
            before = {name: copy.deepcopy(anchor.state_dict()) for name, anchor in trainer._anchors.named().items()}
            trainer.evaluate()
            for name, anchor in trainer._anchors.named().items():
                after = anchor.state_dict()
                moved.append((name, any(not torch.equal(value, before[name][key]) for key, value in after.items())))

    trainer.add_callback(Evaluate())
    trainer.train()
    assert moved == [(name, False) for name in ("frozen", "mirror", "reference")] * 4


def test_a_second_run_starts_from_a_fresh_anchor(policy_path, tmp_path):
    trainer = make_trainer(
        policy_path, tmp_path, trainer_class=Recorder, mirror_beta=0.1, mirror_sync_steps=3, max_steps=4
    )
    trainer.train()
    trainer.rollouts.clear()
    before = parameters(trainer)
    trainer.train()
    rollout = trainer.rollouts[0]
    trainer.model.load_state_dict(before)
    mask = rollout["completion_mask"].bool()
    torch.testing.assert_close(rollout["mirror_per_token_logps"][mask], scored_now(trainer, rollout)[mask])


def test_mirror_on_the_rollout_adds_no_forward_pass(policy_path, tmp_path, monkeypatch):
    passes = []
    forward = GRPOTrainer._get_per_token_logps_and_entropies
    monkeypatch.setattr(
        GRPOTrainer,
        "_get_per_token_logps_and_entropies",
        lambda self, *args, **kwargs: passes.append(torch.is_grad_enabled()) or forward(self, *args, **kwargs),
    )
    counts = {}
    for name, settings in {
        "stock": {"num_iterations": 4},
        "mirror": {"variant": "mirror"},
        "tic_grpo": {"variant": "tic_grpo", "steps_per_generation": 1, "num_iterations": 4},
        "no_is_frozen": {"variant": "no_is_frozen", "steps_per_generation": 1, "num_iterations": 4},
        "dual": {"variant": "dual"},
        "older_anchor": {"variant": "mirror", "mirror_sync_steps": 5},
    }.items():
        passes.clear()
        make_trainer(policy_path, tmp_path, **settings).train()
        counts[name] = (sum(passes), len(passes) - sum(passes))

    assert counts.pop("stock") == (4, 1)
    assert counts.pop("dual") == counts.pop("older_anchor") == (4, 2)
    assert set(counts.values()) == {(4, 1)}


@pytest.mark.parametrize("loaded", [False, True], ids=["new_adapter", "loaded_adapter"])
def test_moving_reference_under_peft_is_a_copy_of_the_adapter(policy_path, tmp_path, loaded):
    base = AutoModelForCausalLM.from_pretrained(policy_path, dtype=torch.float32)
    settings = {"peft_config": lora(), "model": base}
    if loaded:
        torch.manual_seed(1)
        settings = {"model": get_peft_model(base, lora(init_lora_weights=False))}
    policies = Policies()
    trainer = make_trainer(
        policy_path,
        tmp_path,
        trainer_class=Recorder,
        variant="reference",
        sync_ref_model=True,
        ref_model_sync_steps=2,
        ref_model_mixup_alpha=0.5,
        max_steps=4,
        callbacks=[policies],
        **settings,
    )
    assert trainer.args.sync_ref_model is True
    trainer.train()

    # The reference after steps 0, 2: the initial adapter, then half of it and half of the policy at step 2.
    adapter = {name: p.requires_grad for name, p in trainer.model.named_parameters()}
    start, second = policies.after[0], policies.after[2]
    mixed = {name: torch.lerp(start[name], second[name], 0.5) if adapter[name] else start[name] for name in start}
    for step, expected in {0: start, 1: start, 2: mixed, 3: mixed}.items():
        trainer.model.load_state_dict(expected)
        rollout = trainer.rollouts[step]
        mask = rollout["completion_mask"].bool()
        torch.testing.assert_close(rollout["ref_per_token_logps"][mask], scored_now(trainer, rollout)[mask])
    assert not equal(start, mixed)


def test_anchors_reach_no_file(policy_path, tmp_path):
    """What is saved of the policy with every snapshot in use is what is saved with none."""
    saved = {}
    for name, settings in {
        "stock": {"beta": 0.1},
        "snapshots": {"variant": "dual", "mirror_sync_steps": 5, "sync_ref_model": True, "ref_model_sync_steps": 1},
    }.items():
        trainer = make_trainer(
            policy_path, tmp_path / name, peft_config=lora(), save_strategy="steps", save_steps=4, **settings
        )
        trainer.train()
        trainer.save_model()
        names = sorted(path.name for path in (tmp_path / name).rglob("*") if not path.name.startswith("rollout_state"))
        assert not (tmp_path / name / "rollout_state_0.pt").exists()
        saved[name] = names, sorted(trainer.model.state_dict())
        loaded = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(policy_path), tmp_path / name)
        for key, value in loaded.state_dict().items():
            torch.testing.assert_close(value, trainer.model.state_dict()[key], rtol=0, atol=0)
    assert saved["snapshots"] == saved["stock"]


# ---- construction --------------------------------------------------------------------------------------------------


def test_trls_own_config_is_refused(policy_path, tmp_path):
    with pytest.raises(TypeError, match="`args` must be a GRPOVariantConfig, got GRPOConfig"):
        GRPOVariantTrainer(policy_path, reward, make_config(tmp_path, GRPOConfig), train_dataset=dataset())


def test_default_config(policy_path, tmp_path, monkeypatch):
    @dataclass
    class OnCPU(GRPOVariantConfig):
        use_cpu: bool = True
        bf16: bool = False

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(trainer_module, "GRPOVariantConfig", OnCPU)
    trainer = GRPOVariantTrainer(policy_path, reward, train_dataset=dataset())
    assert type(trainer.args) is OnCPU
    assert trainer.args.output_dir == f"{policy_path.rsplit('/')[-1]}-GRPO"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"variant": "no_is_frozen"}, "`no_is_gradient='frozen'` keeps a copy .* which FSDP1 flattens and shards"),
        ({"variant": "mirror", "mirror_sync_steps": 8}, "`mirror_sync_steps=8` keeps a copy"),
        (
            {"variant": "reference", "sync_ref_model": True, "peft_config": lora()},
            "`sync_ref_model=True` with PEFT keeps a copy",
        ),
    ],
)
def test_snapshots_under_fsdp1_are_refused_before_a_model_is_loaded(tmp_path, monkeypatch, settings, message):
    args = make_config(tmp_path, **{k: v for k, v in settings.items() if k != "peft_config"})
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.delenv("FSDP_VERSION", raising=False)
    with pytest.raises(NotImplementedError, match=message):
        GRPOVariantTrainer("no/such/model", reward, args, peft_config=settings.get("peft_config"))


def test_model_card_names_variant_and_paper(policy_path, tmp_path):
    trainer = make_trainer(policy_path, tmp_path, variant="tic_grpo")
    trainer.create_model_card(model_name="tiny")
    card = (tmp_path / "README.md").read_text()
    for text in ("GRPO variant `tic_grpo`", "2508.02833", "trl-grpo-variants", "Ruinan Jin"):
        assert text in card


def test_truncated_completions_leave_the_trajectory_term(policy_path, tmp_path):
    trainer = make_trainer(
        policy_path,
        tmp_path,
        trainer_class=Recorder,
        variant="tic_grpo",
        max_completion_length=3,
        mask_truncated_completions=True,
    )
    trainer.train()
    truncated = [m["completion_mask"].sum(1) == 0 for m in trainer.micro_batches]
    inputs, rows = next(
        (m, t) for m, t in zip(trainer.micro_batches, truncated, strict=True) if t.any() and (~t).any()
    )

    def loss(advantages):
        trainer.current_gradient_accumulation_steps = 1
        return trainer.compute_loss(trainer.model, inputs | {"advantages": advantages}).item()

    advantages = torch.ones_like(inputs["advantages"])
    assert loss(advantages + rows) == loss(advantages)
    assert loss(advantages + ~rows) != loss(advantages)
