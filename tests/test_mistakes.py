# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Mistakes, one per line: each is met with one sentence before a model is loaded, or a warning that names what idles."""

import re
import subprocess
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pytest
import yaml
from trl import TrlParser

from trl_grpo_variants import (
    Advantage,
    GRPOVariantConfig,
    GRPOVariantTrainer,
    Variant,
    cli,
    get_variant,
    launch,
    register_variant,
    unregister,
)
from trl_grpo_variants.checks import check_number
from trl_grpo_variants.fields import VariantFields
from trl_grpo_variants.recipe import _kinds
from trl_grpo_variants.variants import _VARIANTS
from trl_grpo_variants.warn import warnings_at_the_user

from .tiny import dataset, make_config, reward


BASE = {"output_dir": "out", "use_cpu": True, "bf16": False, "report_to": "none"}


def config(**settings):
    return GRPOVariantConfig(**(BASE | settings))


# ---- values ---------------------------------------------------------------------------------------------------------

TEXTS = ("variant", "importance_sampling_level", "trajectory_clip", "no_is_gradient", "loss_type", "scale_rewards")
TEXTS += ("advantage", "policy_loss", "token_advantage", "kl_estimator", "kl_placement")
TEXTS += ("prompt_sampling", "prompt_weights", "surplus_groups")
PATHS = ("prompt_success_rates",)
DICTIONARIES = ("advantage_kwargs", "policy_loss_kwargs", "token_advantage_kwargs")
FLAGS = tuple(name for name, kind in VariantFields.__annotations__.items() if kind is bool)
FLAGS += ("use_vllm", "use_bias_correction_kl", "sync_ref_model", "vllm_importance_sampling_correction")
COUNTS = ("mirror_sync_steps", "num_iterations", "steps_per_generation", "generation_batch_size", "num_generations")
COUNTS += ("refill_groups", "gradient_accumulation_steps", "per_device_train_batch_size", "max_completion_length")
NUMBERS = ("epsilon", "epsilon_high", "delta", "reward_variance_epsilon", "beta", "mirror_beta")
NUMBERS += ("top_entropy_quantile", "length_weight_power")
WORKERS, SECONDS = ("reward_num_workers",), ("reward_timeout",)
NO_VALUES = [[1], {}, (), b"x", object]
WRONG: dict[tuple[str, ...], list[Any]] = {
    DICTIONARIES: [[1], (1,), b"x", object, 5, "abc", {1: 2}, {"no_setting": 1}],
    TEXTS: [*NO_VALUES, 5, float("nan"), "abc", ""],
    PATHS: [*NO_VALUES, 5, float("nan"), ""],
    FLAGS: [*NO_VALUES, "no", "false", 0, 1, 2.5, float("nan")],
    COUNTS: [*NO_VALUES, "8", "abc", 0, -1, 2.5, 8.0, float("nan"), float("inf"), True, np.float32(2.5)],
    WORKERS: [*NO_VALUES, "8", "abc", -1, 2.5, 8.0, float("nan"), float("inf"), True, np.float32(2.5)],
    SECONDS: [*NO_VALUES, "0.1", "abc", 0, -1, float("nan"), float("inf"), True, np.float32("nan")],
    NUMBERS: [*NO_VALUES, "0.1", "abc", -1, float("nan"), float("inf"), True, 1e30, 10**400, np.float32("nan")],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [(name, value) for names, values in WRONG.items() for name in names for value in values],
    ids=lambda part: repr(part)[:24],
)
def test_a_value_of_the_wrong_kind_is_one_sentence_that_names_the_field(name, value):
    settings = {"variant": "mirror", name: value}
    with pytest.raises(ValueError, match=f"`{name}`|Unknown variant") as error:
        config(**settings)
    assert "\n" not in str(error.value)
    assert "trl_grpo_variants" in error.traceback[-1].path.parts


@pytest.mark.parametrize("value", [-np.inf, np.inf, np.nan])
def test_a_number_that_is_only_bounded_on_one_side_is_finite(value):
    for bound in ({"at_least": 0.0}, {"greater_than": 0.0}, {"at_most": 0.0}):
        with pytest.raises(ValueError, match=f"`name` must be a number .* got {value}"):
            check_number("name", value, **bound)


def test_every_field_is_tried():
    assert set(VariantFields.__annotations__) <= {name for names in WRONG for name in names} | {"variant"}


SIGNAL = {"prompt_sampling": "signal"}
KEPT = {"refill_groups": 2, "surplus_groups": "keep"}
REFUSED = [
    (
        {"reward_num_workers": 1, "reward_timeout": 3e6},
        r"`reward_timeout` must be a number of at most 1e\+06; got 3000000.0",
    ),
    ({"reward_timeout": 5.0}, "`reward_timeout=5.0` stops a call in a process of its own, but `reward_num_workers=0`"),
    ({"prefetch_rollout": True}, "`prefetch_rollout=True` lets a server .* without `use_vllm=True` generation takes"),
    (
        {"prefetch_rollout": True, "use_vllm": True},
        "but with `vllm_mode='colocate'` generation takes .*; use .*'server'",
    ),
    (
        {"prefetch_rollout": True, "use_vllm": True, "vllm_mode": "server", "refill_groups": 2},
        "`refill_groups=2` asks for further groups .* `prefetch_rollout=True` has asked for already; leave one",
    ),
    ({"prompt_weights": "unbiased"}, "`prompt_weights='unbiased'` is about .*; it needs `prompt_sampling='signal'`"),
    ({"prompt_success_rates": "a.jsonl"}, "`prompt_success_rates='a.jsonl'` is about .*; it needs `prompt_sampling"),
    ({"surplus_groups": "keep"}, "`surplus_groups='keep'` is about groups .*; it needs `refill_groups`"),
    (
        SIGNAL | {"shuffle_dataset": False},
        "`prompt_sampling='signal'` draws prompts at random, but `shuffle_dataset=F",
    ),
    (
        SIGNAL | {"prompt_weights": "unbiased", "refill_groups": 2},
        "`refill_groups=2` makes the objective conditional on signal, which `prompt_weights='unbiased'` cannot undo",
    ),
    (
        SIGNAL | {"prompt_weights": "unbiased", "entropy_coef": 0.1},
        "`prompt_weights='unbiased'` weights each prompt, but a term of the loss .* looks at all rows",
    ),
    ({"refill_groups": 2, "scale_rewards": "batch"}, "`scale_rewards='batch'` takes statistics over a whole rollout"),
    ({"refill_groups": 2, "advantage": "whitened"}, "`advantage='whitened'` takes statistics over a whole rollout"),
    (
        {"refill_groups": 2, "length_weight_power": 0.5},
        "`length_weight_power=0.5` weights completions by a mean over a whole rollout",
    ),
    (
        {"refill_groups": 2, "multi_objective_aggregation": "normalize_then_sum"},
        "`multi_objective_aggregation='normalize_then_sum'` takes statistics over a whole rollout",
    ),
    (
        KEPT | {"variant": "mirror", "mirror_sync_steps": 8},
        "`surplus_groups='keep'` trains groups one rollout later, .* `mirror_sync_steps=8` may have moved",
    ),
    (KEPT | {"variant": "no_is_frozen"}, "`surplus_groups='keep'` .* `no_is_gradient='frozen'` may have moved"),
    (KEPT | {"beta": 0.1, "sync_ref_model": True}, "`surplus_groups='keep'` .* `sync_ref_model=True` may have moved"),
    ({"variant": "tic"}, "Unknown variant 'tic'; the known variants are grpo, mean_only"),
    ({"variant": ["tic_grpo"]}, r"`variant` must be the name of a variant; got \['tic_grpo'\]"),
    ({"importance_sampling_level": "word"}, "must be one of 'token', 'sequence', 'trajectory', 'none'; got 'word'"),
    ({"variant": "tic_grpo", "trajectory_clip": "lower"}, "`trajectory_clip` must be one of .* got 'lower'"),
    ({"no_is_gradient": "old"}, "`no_is_gradient` must be one of 'current', 'frozen'; got 'old'"),
    ({"variant": "mirror", "loss_type": "ppo"}, "`loss_type` must be one of .* got 'ppo'"),
    (
        {"variant": "mirror", "scale_rewards": "std"},
        "`scale_rewards` must be one of 'group', 'batch', 'none'; got 'std'",
    ),
    ({"variant": "reference", "beta": -0.1}, "`beta` must be a number of at least 0; got -0.1"),
    ({"mirror_beta": -1}, "`mirror_beta` must be a number of at least 0; got -1"),
    ({"mirror_beta": float("nan")}, "`mirror_beta` must be a number of at least 0; got nan"),
    ({"mirror_beta": "0.1"}, "`mirror_beta` must be a number of at least 0; got '0.1'"),
    ({"mirror_beta": True}, "`mirror_beta` must be a number of at least 0; got True"),
    ({"variant": "tic_grpo_v2", "epsilon": -0.2}, "`epsilon` must be a number of at least 0; got -0.2"),
    ({"variant": "tic_grpo", "epsilon_high": -0.2}, "`epsilon_high` must be a number of at least 0; got -0.2"),
    ({"variant": "grpo_upper_clip", "delta": 0.0}, "`delta` must be a number greater than 1; got 0.0"),
    ({"reward_variance_epsilon": 0.0}, "`reward_variance_epsilon` must be a number greater than 0; got 0.0"),
    ({"mirror_beta": 0.1, "mirror_sync_steps": 0}, "`mirror_sync_steps` must be a whole number of at least 1; got 0"),
    ({"mirror_beta": 0.1, "mirror_sync_steps": 2.5}, "`mirror_sync_steps` must be a whole number .* got 2.5"),
    ({"num_iterations": 0}, "`num_iterations` must be a whole number of at least 1; got 0"),
    ({"steps_per_generation": 0}, "`steps_per_generation` must be a whole number of at least 1; got 0"),
    ({"steps_per_generation": -4}, "`steps_per_generation` must be a whole number of at least 1; got -4"),
    ({"gradient_accumulation_steps": 0}, "`gradient_accumulation_steps` must be a whole number .* got 0"),
    ({"group_preserving_split": "false"}, "`group_preserving_split` must be True or False; got 'false'"),
    ({"mask_zero_variance_groups": 1}, "`mask_zero_variance_groups` must be True or False; got 1"),
    ({"trajectory_clip": "none"}, "`trajectory_clip='none'` is not used by .*'token'`; it needs .*'trajectory'`"),
    (
        {"variant": "tic_grpo", "no_is_gradient": "frozen"},
        "`no_is_gradient='frozen'` is not used by .*'trajectory'`; it needs .*'none'`",
    ),
    ({"variant": "tic_grpo", "delta": 4.0}, "`delta=4.0` is not used by .*'trajectory'`; leave it unset"),
    ({"variant": "no_is", "delta": 4.0}, "`delta=4.0` is not used by .*'none'`; leave it unset"),
    *(
        ({"variant": "tic_grpo", "loss_type": loss_type}, f"'{loss_type}'.* by its length.*'dr_grpo', 'dapo', 'bnpo'")
        for loss_type in ("grpo", "luspo")
    ),
    *(
        ({"variant": name, "loss_type": loss_type}, f"'{loss_type}'.* weight tokens by their ratio.*'{instead}'")
        for name, instead in (("tic_grpo", "dr_grpo"), ("no_is", "grpo"))
        for loss_type in ("cispo", "sapo", "vespo")
    ),
    ({"variant": "tic_grpo", "top_entropy_quantile": 0.2}, "`top_entropy_quantile=0.2` selects tokens"),
    (
        {"variant": "tic_grpo", "use_vllm": True, "vllm_importance_sampling_mode": "token_mask"},
        "'token_mask'` gives a factor per token.*'sequence_truncate' or 'sequence_mask'",
    ),
    ({"mirror_sync_steps": 4}, "`mirror_sync_steps=4` holds an anchor that nothing uses; set `mirror_beta`"),
    (
        {"variant": "no_is_frozen", "mirror_beta": 0.1},
        "`mirror_beta=0.1` can never act with `no_is_gradient='frozen'`",
    ),
    ({"variant": "mirror", "use_bias_correction_kl": False}, "`use_bias_correction_kl=False` would turn"),
    (
        {"reward_variance_epsilon": 1e-5, "scale_rewards": "none"},
        "is not used by `scale_rewards='none'`; it needs `scale_rewards='group'`",
    ),
    (
        {"variant": "reference", "multi_objective_aggregation": "normalize_then_sum"},
        "`reward_variance_epsilon=1e-05` is not used by .*'normalize_then_sum'`; leave it unset",
    ),
    ({"mask_zero_variance_groups": True}, "`mask_zero_variance_groups=True` can never act without a KL term"),
    (
        {"kl_estimator": "k1", "beta": 0.1},
        "`kl_estimator='k1'` has an expected gradient of zero in the loss .* use 'k3' or 'k2', .* or `kl_placement='reward'`",
    ),
    ({"kl_estimator": "k4", "beta": 0.1}, "`kl_estimator` must be one of 'k3', 'k2', 'squared', .* got 'k4'"),
    ({"kl_placement": "reward"}, "`kl_placement='reward'` places a KL that `beta=0.0` leaves out; set `beta` > 0"),
    (
        {"kl_placement": "reward", "beta": 0.1, "kl_estimator": "k2"},
        "`kl_estimator='k2'` is about KL terms in the loss, and there is none",
    ),
    (
        {"kl_placement": "reward", "beta": 0.1, "mask_zero_variance_groups": True},
        "`mask_zero_variance_groups=True` can never act without a KL term in the loss",
    ),
    (
        {"kl_placement": "reward", "beta": 0.1, "advantage": "maximum_likelihood"},
        "`advantage='maximum_likelihood'` takes rewards of at least 0, which they no longer are less their KL",
    ),
    (
        {"kl_placement": "reward", "beta": 0.1, "multi_objective_aggregation": "normalize_then_sum"},
        "`kl_placement='reward'` works on the summed reward",
    ),
    (
        {"variant": "tic_grpo", "token_advantage": "entropy_shaped"},
        "`token_advantage='entropy_shaped'` gives an advantage per token, but .*'trajectory'` has one term per sequence",
    ),
    (
        {"variant": "entropy_shaped", "token_advantage_kwargs": {"kappa": 1.0}},
        r"`token_advantage_kwargs\['kappa'\]` must be a number greater than 1; got 1.0",
    ),
    (
        {"token_advantage_kwargs": {"kappa": 2.0}},
        "`token_advantage_kwargs` sets `kappa`, but `token_advantage=None` takes none",
    ),
    ({"token_advantage": "entropy"}, "`token_advantage` must be one of 'uniform', 'entropy_shaped', .* got 'entropy'"),
    (
        {"variant": "dppo_tv", "policy_loss_kwargs": {"anchor": "engine"}},
        r"`policy_loss_kwargs\['anchor'\]` must be one of 'sampler', 'trainer'; got 'engine'",
    ),
    ({"variant": "dppo_tv", "epsilon_high": 1.5}, "`epsilon_high` must be a number of at most 1; got 1.5"),
    ({"variant": "topr", "policy_loss_kwargs": {"level": "word"}}, "must be one of 'trajectory', 'sequence', 'token'"),
    ({"variant": "ce_gppo", "delta": 3.0}, "`delta=3.0` is not used by `policy_loss='preserving'`"),
    ({"sync_ref_model": True}, "`sync_ref_model=True` moves a reference that `beta=0.0` does not use"),
    (
        {"variant": "tic_grpo", "per_device_train_batch_size": 4, "num_generations": 8},
        r"`per_device_train_batch_size \* gradient_accumulation_steps` to be a multiple of `num_generations`.*4 and 8",
    ),
    ({"steps_per_generation": 2, "generation_batch_size": 64}, "contradict each other.*make 16"),
    ({"variant": "TIC-GRPO"}, "Unknown variant 'TIC-GRPO'; .* did you mean 'tic_grpo'?"),
    ({"variant": "tic-grpo"}, "did you mean 'tic_grpo'?"),
    ({"variant": " tic_grpo "}, "did you mean 'tic_grpo'?"),
    ({"variant": "tic"}, "did you mean 'tic_grpo'?"),
    ({"variant": "miror"}, "did you mean 'mirror'?"),
    ({"variant": "ppo"}, "the known variants are grpo, .*grpo_upper_clip\\b"),
    ({"generation_batch_size": 0}, "`generation_batch_size` must be a whole number of at least 1; got 0"),
    ({"variant": "tic_grpo", "gradient_accumulation_steps": "4"}, "`gradient_accumulation_steps` must be .* got '4'"),
    (
        {"variant": "tic_grpo", "gradient_accumulation_steps": None},
        "`gradient_accumulation_steps` must be .* got None",
    ),
    ({"per_device_train_batch_size": None}, "`per_device_train_batch_size` must be a whole number .* got None"),
    ({"variant": "tic_grpo", "max_completion_length": None}, "'dr_grpo'` divides by `max_completion_length`"),
    ({"variant": "mirror", "max_completion_length": None}, "'dr_grpo'` divides by `max_completion_length`"),
    ({"variant": "tic_grpo", "num_generations_eval": -1}, "`num_generations_eval` must be .* of at least 0; got -1"),
    ({"variant": "grpo_upper_clip", "delta": 0.5}, "`delta` must be a number greater than 1; got 0.5"),
    ({"variant": "mirror", "epsilon": 2.0}, "`epsilon` must be a number of at most 1; got 2.0"),
    ({"variant": "tic_grpo_v2", "epsilon": 2.0}, "`epsilon` must be a number of at most 1; got 2.0"),
    ({"variant": "tic_grpo", "epsilon_high": 1e30}, r"`epsilon_high` must be a number of at most 1e\+06; got 1e\+30"),
    ({"variant": "reference", "beta": 1e30}, r"`beta` must be a number of at most 1e\+06; got 1e\+30"),
    ({"mirror_beta": 1e30}, r"`mirror_beta` must be a number of at most 1e\+06; got 1e\+30"),
    ({"reward_variance_epsilon": 1e-46}, "`reward_variance_epsilon` must be a number of at least 1e-30; got 1e-46"),
    ({"variant": "tic_grpo", "top_entropy_quantile": "0.2"}, "`top_entropy_quantile` must be a number .* got '0.2'"),
    (
        {"variant": "dual", "sync_ref_model": True, "ref_model_sync_steps": 0},
        "`ref_model_sync_steps` must be .* got 0",
    ),
    (
        {"variant": "dual", "sync_ref_model": True, "ref_model_mixup_alpha": 5},
        "`ref_model_mixup_alpha` must be a number of at most 1; got 5",
    ),
    *(
        (
            {"length_weight_power": 0.75, "loss_type": loss_type},
            f"`length_weight_power=0.75` weights completions by their length, which `loss_type='{loss_type}'` does already",
        )
        for loss_type in ("grpo", "sapo")
    ),
    (
        {"variant": "pass_at_k", "advantage_kwargs": {"k": 2.0}},
        r"`advantage_kwargs\['k'\]` must be a whole number of at least 1; got 2.0",
    ),
    (
        {"variant": "pass_at_k", "advantage_kwargs": {"k": 0}},
        r"`advantage_kwargs\['k'\]` must be a whole number of at least 1; got 0",
    ),
    # With as many as there are, no group has an advantage.
    (
        {"variant": "pass_at_k", "advantage_kwargs": {"k": 8}},
        "`k` of `advantage='pass_at_k'` must be less than `num_generations`; got 8 and 8",
    ),
    (
        {"advantage": "pass_at_k", "num_generations": 2},
        "`k` of `advantage='pass_at_k'` must be less than `num_generations`; got 2 and 2",
    ),
    (
        {"variant": "pass_at_k", "num_generations_eval": 1},
        "`k` of `advantage='pass_at_k'` must be at most `num_generations_eval`; got 2 and 1",
    ),
    (
        {"variant": "beta_normalization", "advantage_kwargs": {"lowest": 1.0}},
        "`lowest` of `advantage='beta_normalization'` must be less than `highest`; got 1.0 and 1.0",
    ),
    (
        {"variant": "qae", "advantage_kwargs": {"quantile": 1.5}},
        r"`advantage_kwargs\['quantile'\]` must be a number of at most 1; got 1.5",
    ),
    (
        {"variant": "w_reinforce", "advantage_kwargs": {"success_weight": -0.1}},
        r"`advantage_kwargs\['success_weight'\]` must be a number of at least 0; got -0.1",
    ),
    ({"pack_rollout": True, "share_prompt": True}, "`pack_rollout=True` and `share_prompt=True` are two ways"),
    ({"scale_rewards": ["group"]}, r"`scale_rewards` must be one of 'group', .* got \['group'\]"),
    (
        {"variant": "tic_grpo", "use_vllm": True, "vllm_importance_sampling_mode": 3},
        "`vllm_importance_sampling_mode` must be one of .* got 3",
    ),
    (
        {"variant": "tic_grpo", "num_generations_eval": 4, "metric_for_best_model": "eval_success@8"},
        "`metric_for_best_model='eval_success@8'` is not measured with 4 completions of a prompt in an evaluation, but "
        "success@1, success@2, success@4; choose",
    ),
    ({"variant": "tic_grpo", "metric_for_best_model": "success@3"}, "is not measured with 8 completions"),
    ({"metric_for_best_model": "success@2"}, "is measured in runs of a variant only; set `variant`"),
]


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(("settings", "sentence"), REFUSED, ids=[str(settings) for settings, _ in REFUSED])
def test_a_wrong_value_or_combination_is_one_sentence(settings, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        config(**settings)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:The run departs")
def test_what_is_legal_stays_legal():
    assert config(variant="tic_grpo", loss_type="dapo", max_completion_length=None).max_completion_length is None
    assert config(variant="grpo_upper_clip").epsilon == 1.0
    assert config(variant="tic_grpo", epsilon_high=4).epsilon_high == 4
    assert config(variant="tic_grpo", num_generations_eval=0).num_generations_eval == 0
    assert config(variant="pass_at_k", num_generations_eval=2, advantage_kwargs={"k": 2}).num_generations_eval == 2
    # As if it were not given.
    assert config(variant="pass_at_k", num_generations_eval=0).num_generations_eval == 0
    assert config(variant="beta_normalization", advantage_kwargs={"lowest": -1.0, "highest": 0.0}).advantage_kwargs
    # Its groups of equal rewards have an advantage that a mask takes away.
    assert config(variant="w_reinforce", mask_zero_variance_groups=True).mask_zero_variance_groups
    assert config(length_weight_power=0.5).objective.length_weights is not None
    # TRL divides by it in its own loss, and says so.
    assert config(loss_type="dr_grpo", max_completion_length=None).has_stock_objective


def test_numbers_of_numpy_become_numbers_that_json_holds():
    args = config(
        mirror_beta=np.float64(0.25), mirror_sync_steps=np.int64(9), pack_rollout=np.True_, num_generations=np.int32(4)
    )
    assert (args.mirror_beta, args.mirror_sync_steps, args.pack_rollout) == (0.25, 9, True)
    assert '"mirror_sync_steps": 9' in args.to_json_string()


# ---- settings that never act ----------------------------------------------------------------------------------------

WITHOUT_VARIANCE = Advantage(
    "WITHOUT_VARIANCE", lambda rewards, num_generations: rewards, "r", None, is_zero_without_variance=False
)
IDLE = [
    ({"variant": "no_is", "epsilon": 0.1}, "`epsilon=0.1` does nothing: .*'none'` has no such bound"),
    ({"variant": "no_is", "epsilon_high": 0.3}, "`epsilon_high=0.3` does nothing: .*'none'` has no such bound"),
    (
        {"variant": "tic_grpo", "epsilon": 0.1},
        "`epsilon=0.1` does nothing: `trajectory_clip='upper'` has no such bound",
    ),
    (
        {"importance_sampling_level": "trajectory", "trajectory_clip": "none", "epsilon_high": 0.3},
        "`epsilon_high=0.3` does nothing: `trajectory_clip='none'` has no such bound",
    ),
    (
        {"mirror_beta": 0.1, "loss_type": "cispo", "epsilon": 0.1, "epsilon_high": 5.0},
        "`epsilon=0.1` does nothing: `loss_type='cispo'` has no such bound",
    ),
    ({"mirror_beta": 0.1, "loss_type": "sapo", "epsilon_high": 0.3}, "`epsilon_high=0.3` does nothing: .*'sapo'"),
    ({"mirror_beta": 0.1, "loss_type": "vespo", "delta": 4.0}, "`delta=4.0` does nothing: `loss_type='vespo'`"),
    ({"variant": "grpo_upper_clip", "epsilon_high": 0.5}, "`delta=1.28` lies below 1.5, the upper bound of the clip"),
    ({"mirror_beta": 0.1, "delta": 1.1}, "`delta=1.1` lies below 1.2, the upper bound of the clip"),
    ({"mirror_beta": 0.1, "loss_type": "sapo", "epsilon": 0.1}, "`epsilon=0.1` does nothing: `loss_type='sapo'`"),
    (
        {"variant": "mean_only", "multi_objective_aggregation": "normalize_then_sum"},
        "`scale_rewards='none'` does nothing: `multi_objective_aggregation='normalize_then_sum'` scales each reward",
    ),
    (
        {"group_preserving_split": True, "num_iterations": 2, "steps_per_generation": 1},
        "`group_preserving_split=True` does nothing: each optimizer step gets the whole rollout",
    ),
    ({"mirror_beta": 0.1, "mirror_sync_steps": 4}, r"`mirror_sync_steps=4` does not outlive a rollout \(4 optimizer"),
    (
        SIGNAL | {"prompt_weights": "unbiased", "loss_type": "dapo"},
        "`prompt_weights='unbiased'` is unbiased but for the number of tokens by which `loss_type='dapo'` divides",
    ),
    (
        SIGNAL | {"prompt_weights": "unbiased", "loss_type": "grpo", "scale_rewards": "batch"},
        "unbiased: `scale_rewards='batch'` takes statistics over a whole rollout, which depends on the prompts",
    ),
    (
        SIGNAL | {"prompt_weights": "unbiased", "loss_type": "dr_grpo", "length_weight_power": 0.5},
        "unbiased: `length_weight_power=0.5` weights completions by a mean over a whole rollout, which depends on",
    ),
    *(
        (settings | {"advantage": f"{__name__}:{WITHOUT_VARIANCE.name}"}, sentence)
        for settings, sentence in (
            (
                {"refill_groups": 2},
                "`refill_groups=2` does nothing: with the advantage .* equal rewards have a signal",
            ),
            (SIGNAL, "`prompt_sampling='signal'` prefers prompts whose rewards will differ, but with the advantage"),
        )
    ),
    *(
        ({"skip_inert_rows": True, **settings}, "`skip_inert_rows=True` does nothing: a term of the loss relates all")
        for settings in ({"entropy_coef": 0.1}, {"top_entropy_quantile": 0.2}, {"variant": "kl_cov"})
    ),
    *(
        (
            {name: True, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 8},
            f"`{name}=True` does nothing: with `per_device_train_batch_size=1` no two completions meet",
        )
        for name in ("pack_rollout", "share_prompt")
    ),
]
SEVERAL_STEPS = {"steps_per_generation": 4}


@pytest.mark.parametrize(("settings", "sentence"), IDLE, ids=[str(settings) for settings, _ in IDLE])
def test_what_will_not_act_is_told_once_and_at_the_line_that_sets_it(settings, sentence):
    if "gradient_accumulation_steps" not in settings:
        settings = SEVERAL_STEPS | settings
    with pytest.warns(UserWarning, match=sentence) as caught:
        GRPOVariantConfig(**(BASE | settings))
    (told,) = (warning for warning in caught if warning.category is UserWarning)
    assert told.filename == __file__


SILENT = [
    {"refill_groups": 2, "surplus_groups": "keep"},
    SIGNAL | {"prompt_weights": "unbiased", "loss_type": "grpo"},
    # A kept group has ratios of its own, so that the clip acts with one step per rollout too.
    KEPT | {"variant": "mirror_mean_only", "num_iterations": 1, "steps_per_generation": 1},
    {"variant": "tic_grpo_v2", "epsilon": 0.1},
    {"importance_sampling_level": "trajectory", "epsilon": 0.1},
    {"mirror_beta": 0.1, "loss_type": "cispo", "epsilon": 1.0},
    {"mirror_beta": 0.1, "delta": 1.5},
    {"variant": "grpo_upper_clip", "epsilon_high": 0.2},
    {"variant": "tic_grpo", "entropy_coef": 0.1},
    {"loss_type": "sapo", "epsilon": 0.1},
    *(
        {"mirror_beta": 0.1, "loss_type": loss_type, "epsilon": 0.1, "epsilon_high": 0.3, "delta": 1.5}
        for loss_type in ("grpo", "dr_grpo", "dapo", "bnpo", "luspo")
    ),
    {"vllm_lora_sync": False},
]


@pytest.mark.parametrize("settings", SILENT, ids=str)
def test_what_acts_is_not_told(settings):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        args = config(**(SEVERAL_STEPS | settings))
        # All its values are explicit by then.
        again = GRPOVariantConfig(**args.to_dict())
    assert again.to_dict() == args.to_dict()


def test_rows_that_a_term_relates_are_not_skipped_by_default():
    assert config(variant="tic_grpo").skip_inert_rows and config(variant="entropy_shaped").skip_inert_rows
    assert not config(variant="kl_cov").skip_inert_rows
    for settings in ({"entropy_coef": 0.1}, {"use_adaptive_entropy": True}):
        assert not config(variant="tic_grpo", **settings).skip_inert_rows


# ---- where a warning points -----------------------------------------------------------------------------------------


def first_warning(act):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        act()
    return next(
        warning for warning in caught if "does nothing" in str(warning.message) or "vllm" in str(warning.message)
    )


ON_POLICY = BASE | {"variant": "tic_grpo", "steps_per_generation": 1}
DEPRECATED = BASE | {"variant": "tic_grpo", "vllm_importance_sampling_cap": 2.0}


@pytest.mark.parametrize(
    "act",
    [
        lambda: GRPOVariantConfig(**ON_POLICY),
        lambda: replace(config(variant="tic_grpo"), generation_batch_size=None, steps_per_generation=1),
        lambda: TrlParser(GRPOVariantConfig).parse_dict(ON_POLICY),
        lambda: type("Subclass", (GRPOVariantConfig,), {})(**ON_POLICY),
        lambda: GRPOVariantConfig(**DEPRECATED),
        lambda: type("Subclass", (GRPOVariantConfig,), {})(**DEPRECATED),
    ],
    ids=["constructor", "replace", "parser", "subclass", "TRL's own", "TRL's own in a subclass"],
)
def test_warnings_point_at_the_users_line(act):
    assert first_warning(act).filename == __file__


def test_a_module_that_warns_is_as_it_was_afterwards():
    module = SimpleNamespace(warnings=warnings)
    with pytest.raises(KeyError, match="mine"), warnings_at_the_user(module):
        assert module.warnings.catch_warnings is warnings.catch_warnings
        with pytest.warns(FutureWarning, match="of the module itself") as caught:
            module.warnings.warn("of the module itself", FutureWarning)
        assert caught[0].filename == __file__
        raise KeyError("mine")
    assert module.warnings is warnings


# ---- configuration files and command lines --------------------------------------------------------------------------

RECIPE = BASE | {"model_name_or_path": "model", "dataset_name": "data", "variant": "tic_grpo"}


@pytest.fixture
def launched(tmp_path, monkeypatch):
    """What would be launched, and nothing is."""
    commands = []
    monkeypatch.setattr("accelerate.commands.launch.launch_command", commands.append)
    monkeypatch.chdir(tmp_path)
    yield commands
    unregister()


def write(path, content):
    (path / "recipe.yaml").write_text(yaml.safe_dump(RECIPE | content))
    return ["grpo", "--config", "recipe.yaml"]


def refused(argv, capsys):
    assert cli.main(argv) == 2
    captured = capsys.readouterr()
    sentence = captured.err.splitlines()[-1]
    assert sentence.startswith("trl-variants: ")
    assert captured.out == ""
    assert "usage" not in captured.err
    return sentence


FIELDS = [
    ({"mirrorbeta": 0.1}, "Unknown field `mirrorbeta`; did you mean `mirror_beta`?"),
    ({"mirror-beta": 0.1}, "Unknown field `mirror-beta`; did you mean `mirror_beta`?"),
    ({"num_procesess": 2}, "Unknown field `num_procesess`; did you mean `num_processes`?"),
    ({"xyzzy": 1}, "Unknown field `xyzzy`."),
    ({1: 2}, "Unknown field `1`."),
    ({"config": "other.yaml"}, "Unknown field `config`; "),
    ({"help": True}, "Unknown field `help`"),
    ({"variant": "tic-grpo"}, "did you mean 'tic_grpo'?"),
    ({"variant": ["tic_grpo"]}, "`variant` must be text; got ['tic_grpo']."),
    ({"mirror_beta": "abc"}, "`mirror_beta`: invalid float value: 'abc'."),
    ({"mirror_beta": True}, "`mirror_beta` must be a number; got True."),
    ({"beta": [1]}, "`beta` must be a number; got [1]."),
    ({"num_iterations": 2.5}, "`num_iterations` must be a whole number; got 2.5."),
    ({"vllm_lora_sync": "maybe"}, "`vllm_lora_sync`: Truthy value expected: got maybe"),
    ({"pack_rollout": 3}, "`pack_rollout` must be true or false; got 3."),
    ({"output_dir": 2024}, "`output_dir` must be text; got 2024; quote it if it is meant as text."),
    ({"reward_weights": ["a"]}, "`reward_weights` must be a list; got ['a']."),
    (
        {"lora_target_modules": "all-linear", "report_to": "none", "reward_funcs": "accuracy_reward"},
        "`reward_funcs` must be a list; got 'accuracy_reward'; put it into brackets: [accuracy_reward].",
    ),
    ({"chat_template_kwargs": 5}, "`chat_template_kwargs` must be a mapping"),
    ({"save_strategy": False}, "False is not a valid SaveStrategy"),
    ({"logging_steps": None}, "cannot be used (of the fields that are null: logging_steps): TypeError"),
    ({"datasets": [{"path": "x", "nam": "y"}]}, "cannot be used: TypeError: "),
    ({"env": ["A"]}, "`env` field should be a dict"),
    ({"multi_gpu": "abc"}, "`multi_gpu` must be true or false; got 'abc'."),
    ({"num_processes": "abc"}, "`num_processes`: invalid int value: 'abc'."),
    ({"mixed_precision": "bf17"}, "`mixed_precision`: invalid choice: 'bf17'"),
    ({"accelerate_config": "nowhere"}, "Accelerate config nowhere is neither a file nor"),
    ({"config_file": "nowhere.yaml"}, "There is no accelerate configuration 'nowhere.yaml'."),
]


@pytest.mark.parametrize(("content", "sentence"), FIELDS, ids=[str(content) for content, _ in FIELDS])
def test_a_wrong_field_of_a_configuration_file_is_one_sentence(content, sentence, launched, tmp_path, capsys):
    assert sentence in refused(write(tmp_path, content), capsys)
    assert launched == []


FILES = [
    (b"- 1\n- 2\n", "'recipe.yaml' holds a list; it must hold one `field: value` per line."),
    (b"", "'recipe.yaml' is empty; "),
    (b"hello", "'recipe.yaml' holds a str; "),
    (b"variant: [tic\nbeta: {", "'recipe.yaml' is no valid YAML in line 2: "),
    (b"variant: tic_grpo: 1", "'recipe.yaml' is no valid YAML in line 1: mapping values are not allowed here."),
    (b"beta: 0.1\nvariant: dual\nbeta: 0.2", "`beta` is given twice in 'recipe.yaml', in lines 1 and 3."),
    (b"variant: \x00", "'recipe.yaml' is no valid YAML: special characters are not allowed."),
    (b"variant: \xff\xfe", "'recipe.yaml' is not UTF-8 text."),
    (None, "'recipe.yaml' cannot be read: No such file or directory."),
]


@pytest.mark.parametrize(("content", "sentence"), FILES, ids=[str(content) for content, _ in FILES])
def test_an_unreadable_configuration_file_is_one_sentence(content, sentence, launched, tmp_path, capsys):
    if content is not None:
        (tmp_path / "recipe.yaml").write_bytes(content)
    assert sentence in refused(["grpo", "--config", "recipe.yaml"], capsys)


OPTIONS = [
    (["--mirrorbeta", "0.1"], "Unknown field `mirrorbeta`; did you mean `mirror_beta`?"),
    (["--mirror_bet=0.1"], "Unknown field `mirror_bet`; did you mean `mirror_beta`?"),
    (["--num_gen", "8"], "Unknown field `num_gen`; did you mean `num_generations`?"),
    (["--variant", "tic-grpo"], "did you mean 'tic_grpo'?"),
    (["--variant"], "`variant`: expected one argument."),
    (["--mirror_beta", "abc"], "`mirror_beta`: invalid float value: 'abc'."),
    (["--num_processes", "abc"], "`num_processes`: invalid int value: 'abc'."),
    (["--num_processes"], "`num_processes`: expected one argument."),
    (["stray"], "'stray' is neither an option nor the value of one."),
    (["-x"], "Unknown field `x`"),
    (["--config"], "`--config` is given twice"),
    (["--accelerate_config"], "Expected a value after `--accelerate_config`."),
    (["--accelerate_config", "nowhere"], "Accelerate config nowhere is neither a file nor"),
]


@pytest.mark.parametrize(("options", "sentence"), OPTIONS, ids=[" ".join(options) for options, _ in OPTIONS])
def test_a_wrong_option_is_one_sentence(options, sentence, launched, tmp_path, capsys):
    assert sentence in refused([*write(tmp_path, {}), *options], capsys)
    assert launched == []


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["grpo", "--config"], "`--config` needs the path of a configuration file after it."),
        (["grpo", "--config", "."], "'.' is no file, but a folder or a pipe"),
        (["lst"], "unknown command 'lst'; the commands are list, .* did you mean 'list'?"),
        (["frobnicate"], "unknown command 'frobnicate'; the commands are list, show, grpo, run, plan, report."),
        (["show", "TIC"], "Unknown variant 'TIC'; .* did you mean 'tic_grpo'?"),
    ],
    ids=str,
)
def test_a_wrong_command_is_one_sentence(argv, sentence, launched, capsys):
    assert re.search(sentence.replace("?", r"\?"), refused(argv, capsys))


LEGAL = [
    ({}, [], {"num_processes": None}),
    ({"num_processes": 2}, [], {"num_processes": 2}),
    ({"num_processes": 2, "multi_gpu": True}, [], {"num_processes": 2, "multi_gpu": True}),
    ({"multi_gpu": False}, [], {"multi_gpu": False}),
    ({}, ["--num-processes=2", "--multi_gpu"], {"num_processes": 2, "multi_gpu": True}),
    ({}, ["--machine_rank", "0", "-q"], {"machine_rank": 0, "quiet": True}),
    ({"scale_rewards": False, "learning_rate": "1e-6", "bf16": 0, "disable_tqdm": 1, "max_steps": 10.0}, [], {}),
    ({"report_to": ["none"], "reward_funcs": ["a.b"], "model_init_kwargs": {"a": 1}, "top_k": None}, [], {}),
    ({"lora_target_modules": "all-linear", "env": {"SOME": 1}}, [], {}),
]


@pytest.mark.parametrize(("content", "options", "expected"), LEGAL, ids=lambda part: str(part)[:60])
def test_fields_and_flags_of_the_launcher_are_legal(content, options, expected, launched, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME", "0")
    assert cli.main([*write(tmp_path, content), *options]) == 0
    (launch,) = launched
    assert {name: getattr(launch, name) for name in expected} == expected
    assert launch.training_script == "trl_grpo_variants.launch"
    assert launch.training_script_args[1:] == ["--config", "recipe.yaml"]


@pytest.mark.parametrize("spelling", [["--accelerate_config", "zero3"], ["--accelerate_config=zero3"]])
def test_a_configuration_of_accelerate_is_named_in_either_spelling(spelling, launched, tmp_path):
    grpo, config_flag, path = write(tmp_path, {})
    assert cli.main([grpo, f"{config_flag}={path}", *spelling, "--mirror_beta=0.5"]) == 0
    (launch,) = launched
    assert launch.config_file.endswith("zero3.yaml")
    assert launch.training_script_args[1:] == ["--config", "recipe.yaml", "--mirror_beta=0.5"]


def test_what_cannot_be_imported_is_one_sentence(monkeypatch, capsys):
    def fail(_):
        raise ImportError("supports trl>=1.10, but\nTRL 1.9 is installed")

    monkeypatch.setattr(launch, "launch_grpo", fail)
    assert refused(["grpo"], capsys) == "trl-variants: supports trl>=1.10, but TRL 1.9 is installed"


@pytest.mark.parametrize(("returned", "code"), [(3, 3), (-9, 137)])
def test_a_run_that_fails_gives_its_exit_code_without_a_second_traceback(
    returned, code, launched, tmp_path, monkeypatch, capsys
):
    def fail(_):
        raise subprocess.CalledProcessError(returned, "python")

    monkeypatch.setattr("accelerate.commands.launch.launch_command", fail)
    assert cli.main(write(tmp_path, {})) == code
    assert f"the run ended with exit code {returned}." in capsys.readouterr().err


def test_the_error_of_a_script_is_its_own(tmp_path):
    script = tmp_path / "script.py"
    script.write_text("raise ValueError('mine')")
    try:
        with pytest.raises(ValueError, match="mine"):
            cli.main(["run", str(script)])
    finally:
        unregister()


@pytest.mark.parametrize("main", [launch.main, lambda argv: cli.main(["run", *argv])])
@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        ([], "There is no script ''; give the path of a script"),
        (["nowhere.py"], "There is no script 'nowhere.py'; "),
        (["."], "'.' is a folder; give the path of a script"),
    ],
    ids=str,
)
def test_a_script_that_is_none_is_one_sentence(main, argv, sentence, capsys):
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


# ---- trainers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trainer_class", [GRPOVariantTrainer, type("Subclass", (GRPOVariantTrainer,), {})])
def test_trls_warnings_about_a_trainer_point_at_the_users_line(trainer_class, policy_path, tmp_path, monkeypatch):
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "0")
    args = make_config(tmp_path, variant="tic_grpo")
    with pytest.warns(UserWarning, match="'rollout_func', which is an experimental") as caught:
        trainer_class(policy_path, reward, args, train_dataset=dataset(), rollout_func=lambda prompts: None)
    (told,) = (warning for warning in caught if "rollout_func" in str(warning.message))
    assert told.filename == __file__


@pytest.mark.parametrize("model", [None, 5, Path("model"), {"model": "name"}], ids=repr)
@pytest.mark.parametrize("has_args", [True, False])
def test_a_model_that_is_none_is_one_sentence(model, has_args, tmp_path):
    args = make_config(tmp_path, variant="tic_grpo") if has_args else None
    with pytest.raises(
        TypeError, match="`model` must be the name or the path of a model as a `str`, or a model; got "
    ):
        GRPOVariantTrainer(model, reward, args, train_dataset=dataset())


@pytest.mark.parametrize("args", [{"variant": "tic_grpo"}, "out", GRPOVariantConfig], ids=str)
def test_arguments_that_are_none_are_one_sentence(args):
    with pytest.raises(TypeError, match="`args` must be a GRPOVariantConfig, got (dict|str|type): "):
        GRPOVariantTrainer("model", reward, args, train_dataset=dataset())


def test_only_variants_are_registered():
    with pytest.raises(TypeError, match="`variant` must be a Variant; got 'mine'"):
        register_variant("mine")
    with pytest.raises(ValueError, match=r"`variant` must be the name of a variant; got \['mirror'\]"):
        get_variant(["mirror"])


def test_a_variant_sets_fields_only():
    register_variant(Variant("mine", "", get_variant("mirror").paper, {"mirrorbeta": 0.1}))
    try:
        with pytest.raises(
            ValueError, match="'mine' sets `mirrorbeta`, which is no field; did you mean `mirror_beta`"
        ):
            config(variant="mine")
    finally:
        del _VARIANTS["mine"]


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("variant", "dual", r"`variant='dual'` was set on a finished configuration \(of `variant='tic_grpo'`\)"),
        ("mirror_beta", -1.0, "`mirror_beta` must be a number of at least 0; got -1.0"),
        ("loss_type", "grpo", "`loss_type='grpo'` weights a sequence by its length"),
    ],
)
def test_what_is_set_after_construction_is_checked_too(name, value, sentence, tmp_path):
    args = make_config(tmp_path, variant="tic_grpo")
    setattr(args, name, value)
    with pytest.raises(ValueError, match=sentence):
        GRPOVariantTrainer("model", reward, args, train_dataset=dataset())


@pytest.mark.parametrize(
    ("hint", "fitting", "others"),
    [
        (bool, [True, False, 0, 1], [2, -1, "true", [True]]),
        (int, [0, -3, 4.0], [True, 1.5, "4"]),
        (float, [0, 1.5, -2.0], [False, "1.5"]),
        (str, ["a", True], [1, ["a"]]),
        (int | None, [3], ["3", True]),
        (Literal["a", "b"], ["a", "b"], ["c", 1]),
        (list[int], [[], [1, 2]], [1, [1, "2"], ["1"], "12"]),
        (list[int | str], [[], [1, "a"], ["a"]], [[1, None], "a"]),
        (list, [[], [1, "a"]], ["a"]),
        (dict | str, [{}, "a"], [1, [1]]),
    ],
    ids=str,
)
def test_values_of_a_recipe_are_told_by_the_type_of_the_field(hint, fitting, others):
    kinds = _kinds(hint).values()
    assert [any(fits(value) for fits in kinds) for value in fitting] == [True] * len(fitting)
    assert [any(fits(value) for fits in kinds) for value in others] == [False] * len(others)


def test_a_field_that_may_be_anything_is_not_checked():
    assert _kinds(Any) == _kinds(int | Any) == {}
