# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import json
import pickle
import re
import warnings
from dataclasses import fields, replace
from typing import get_type_hints

import numpy as np
import pytest
import yaml
from trl import GRPOConfig, TrlParser

from trl_grpo_variants import (
    GRPOVariantConfig,
    Variant,
    get_variant,
    list_variants,
    register_variant,
    resolution,
)
from trl_grpo_variants.fields import OWN_DEFAULTS, TRL_DEFAULTS, VariantFields
from trl_grpo_variants.objective.choice import chosen_parts
from trl_grpo_variants.variants import _VARIANTS


BASE = {"output_dir": "out", "use_cpu": True, "bf16": False, "report_to": "none"}
# Of a variant, whatever TRL's default is.
NEWER = {"use_bias_correction_kl": True}


OWN = VariantFields.__annotations__


def config(**settings):
    return GRPOVariantConfig(**(BASE | settings))


# The table of the presets, written out: what each sets on top of TRL's defaults.
TOKEN = {"importance_sampling_level": "token", "epsilon": 0.2, "epsilon_high": 0.2}
SMOOTHED = {"scale_rewards": "group", "reward_variance_epsilon": 1e-5}
MEAN_ONLY = {"scale_rewards": "none", "reward_variance_epsilon": None}
TRL_STD = {"scale_rewards": "group", "reward_variance_epsilon": None}
NO_KL = {"beta": 0.0, "mirror_beta": 0.0}
DISJOINT = {"steps_per_generation": 4, "num_iterations": 1, "group_preserving_split": True, "loss_type": "dr_grpo"}
REFERENCE = {"beta": 0.1, "mirror_beta": 0.0, "loss_type": "dr_grpo", "num_iterations": 1}
MIRROR = {"beta": 0.0, "mirror_beta": 0.1, "loss_type": "dr_grpo", "num_iterations": 4}
DUAL = {"beta": 0.05, "mirror_beta": 0.05, "loss_type": "dr_grpo", "num_iterations": 4}
NO_IS = {"importance_sampling_level": "none", "loss_type": "grpo", "steps_per_generation": 4, "num_iterations": 1}
PRESETS = {
    "grpo": {},
    "mean_only": MEAN_ONLY | {"importance_sampling_level": "token"},
    "reference": SMOOTHED | TOKEN | REFERENCE,
    "reference_mean_only": MEAN_ONLY | TOKEN | REFERENCE,
    "mirror": SMOOTHED | TOKEN | MIRROR,
    "mirror_mean_only": MEAN_ONLY | TOKEN | MIRROR,
    "dual": SMOOTHED | TOKEN | DUAL,
    "dual_mean_only": MEAN_ONLY | TOKEN | DUAL,
    "no_is": TRL_STD | NO_IS | NO_KL | {"no_is_gradient": "current"},
    "no_is_frozen": TRL_STD | NO_IS | NO_KL | {"no_is_gradient": "frozen"},
    "tic_grpo": MEAN_ONLY
    | NO_KL
    | DISJOINT
    | {"importance_sampling_level": "trajectory", "trajectory_clip": "upper", "epsilon_high": 0.28},
    "tic_grpo_v2": TRL_STD
    | NO_KL
    | DISJOINT
    | {
        "importance_sampling_level": "trajectory",
        "trajectory_clip": "two_sided",
        "epsilon": 0.2,
        "epsilon_high": 0.2,
    },
    "grpo_upper_clip": MEAN_ONLY
    | NO_KL
    | DISJOINT
    | {"importance_sampling_level": "token", "epsilon": 1.0, "epsilon_high": 0.28, "delta": 1.28},
}


def own_row(name):
    """What a preset says that it sets, as fields."""
    settings = dict(get_variant(name).settings)
    inner_steps = settings.pop("inner_steps", None)
    return settings if inner_steps is None else settings | {"steps_per_generation": inner_steps}


# Those whose values are the papers' are written out above, so that none is changed by mistake.
assert set(PRESETS) <= set(list_variants())
PRESETS = {name: PRESETS.get(name, own_row(name)) for name in list_variants()}


@pytest.mark.parametrize("name", PRESETS)
def test_preset_sets_its_row_and_leaves_the_rest_to_trl(name):
    resolved = config(variant=name)
    stock = GRPOConfig(**(BASE if name == "grpo" else BASE | NEWER))
    for field in fields(GRPOConfig):
        if field.name == "generation_batch_size":
            continue
        expected = PRESETS[name].get(field.name, getattr(stock, field.name))
        assert getattr(resolved, field.name) == expected, field.name
    for own, value in PRESETS[name].items():
        assert getattr(resolved, own) == value, own


def test_steps_per_generation_follows_the_accumulation():
    assert config(variant="tic_grpo", gradient_accumulation_steps=3).steps_per_generation == 12


# The values of the papers, written out a second time: what `GRPOConfig` would be given for each method.
STOCK_ROWS = {
    "r1": {"loss_type": "grpo", "beta": 1e-3, "epsilon": 1.0, "epsilon_high": 10.0, "steps_per_generation": 16},
    "dr_grpo": {"loss_type": "dr_grpo", "scale_rewards": "none"},
    "dapo": {"epsilon_high": 0.28, "mask_truncated_completions": True, "steps_per_generation": 16},
    "high_entropy_tokens": {
        "epsilon_high": 0.28,
        "mask_truncated_completions": True,
        "top_entropy_quantile": 0.2,
        "steps_per_generation": 16,
    },
    "lite_ppo": {"scale_rewards": "batch"},
    "gdpo": {"multi_objective_aggregation": "normalize_then_sum"},
    "two_grpo": {"num_generations": 2, "loss_type": "grpo"},
    "two_sided": {"delta": 4.0, "beta": 1e-3, "steps_per_generation": 4},
    "dual_clip": {"delta": 3.0, "loss_type": "grpo", "steps_per_generation": 4},
    "gspo": {
        "importance_sampling_level": "sequence",
        "loss_type": "grpo",
        "epsilon": 3e-4,
        "epsilon_high": 4e-4,
        "steps_per_generation": 4,
    },
    "luspo": {
        "importance_sampling_level": "sequence",
        "loss_type": "luspo",
        "epsilon": 2e-3,
        "epsilon_high": 2.5e-3,
        "steps_per_generation": 4,
    },
    "cispo": {"loss_type": "cispo", "epsilon_high": 5.0, "steps_per_generation": 4},
    "scale_rl": {
        "loss_type": "cispo",
        "epsilon_high": 5.0,
        "scale_rewards": "batch",
        "cast_lm_head_to_fp32": True,
        "steps_per_generation": 4,
    },
    "sapo": {
        "loss_type": "sapo",
        "sapo_temperature_pos": 1.0,
        "sapo_temperature_neg": 1.05,
        "steps_per_generation": 4,
    },
    "vespo": {
        "loss_type": "vespo",
        "vespo_k_pos": 2.0,
        "vespo_lambda_pos": 3.0,
        "vespo_k_neg": 3.0,
        "vespo_lambda_neg": 2.0,
        "vllm_importance_sampling_mode": "token_truncate",
        "steps_per_generation": 4,
    },
    "off_policy_mask": {
        "loss_type": "grpo",
        "beta": 1e-3,
        "off_policy_mask_threshold": 0.5,
        "steps_per_generation": 4,
    },
    "adaptive_entropy": {"use_adaptive_entropy": True, "entropy_target": 0.2, "entropy_coef_delta": 0.005},
    "reference_reset": {
        "beta": 0.1,
        "sync_ref_model": True,
        "ref_model_mixup_alpha": 1.0,
        "ref_model_sync_steps": 512,
    },
    "tis": {"vllm_importance_sampling_mode": "token_truncate"},
    "mis": {"vllm_importance_sampling_mode": "sequence_mask"},
    "icepop": {
        "vllm_importance_sampling_mode": "token_mask",
        "vllm_importance_sampling_clip_min": 0.5,
        "vllm_importance_sampling_clip_max": 5.0,
    },
}


def test_the_rows_above_are_all_that_is_stock():
    older = {"grpo", "mean_only", "reference_mean_only", "grpo_upper_clip"}
    assert {name for name in list_variants() if get_variant(name).is_stock} == STOCK_ROWS.keys() | older


# Values that count, of the fields of this package; those that only split a rollout or belong to another field aside.
OWN_VALUES = {
    "advantage": "smoothed_std",
    "policy_loss": "score",
    "kl_estimator": "k2",
    "reward_variance_epsilon": 0.1,
    "mirror_beta": 0.1,
    "mask_zero_variance_groups": True,
    "no_is_gradient": None,
    "trajectory_clip": None,
    "mirror_sync_steps": None,
    "advantage_kwargs": None,
    "policy_loss_kwargs": None,
    "group_preserving_split": None,
    "token_advantage": "probability_weighted",
    "token_advantage_kwargs": None,
    "kl_placement": "reward",
    "length_weight_power": 0.75,
    "prompt_weights": "unbiased",
    "prompt_sampling": None,
    "prompt_success_rates": None,
    "refill_groups": None,
    "surplus_groups": None,
    "prefetch_rollout": None,
}


@pytest.mark.parametrize("name", OWN_DEFAULTS)
def test_with_a_field_of_this_package_trl_does_not_compute_the_loss_alone(name):
    if OWN_VALUES[name] is not None:
        values = {"scale_rewards": "group", name: OWN_VALUES[name]}
        assert not chosen_parts(values).leave_loss_to_trl(values)
        assert not Variant("mine", "", get_variant("grpo").paper, values).is_stock


@pytest.mark.parametrize("name", STOCK_ROWS)
@pytest.mark.filterwarnings("ignore:`variant")
def test_a_stock_preset_is_what_trls_own_configuration_would_be(name):
    # `epsilon_high` is that of `epsilon` where TRL is given none.
    fallback = {"epsilon_high": 0.2} if "epsilon" in get_variant(name).settings else {}
    stock, resolved = GRPOConfig(**(BASE | NEWER | fallback | STOCK_ROWS[name])), config(variant=name)
    assert {f.name: getattr(resolved, f.name) for f in fields(GRPOConfig)} == {
        f.name: getattr(stock, f.name) for f in fields(GRPOConfig)
    }


@pytest.mark.parametrize("name", sorted(TRL_DEFAULTS))
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_an_explicit_value_wins_also_where_it_is_trls_default(name):
    """The default, and where that is possible no value at all."""
    stock = GRPOConfig.__dataclass_fields__[name].default
    setting = {name: stock} if stock is not None else {}
    for variant in list_variants():
        if name in get_variant(variant).settings and setting:
            # The rest is free to fit together or not.
            resolution.resolve(args := unresolved(variant=variant, **setting), TRL_DEFAULTS)
            assert getattr(args, name) == stock, variant


def test_a_variant_has_the_gradient_of_its_kl_whatever_trls_default_is(monkeypatch):
    """Before 1.10 the default is off, which for TRL's own methods is what they are."""
    monkeypatch.setattr(GRPOConfig, "use_bias_correction_kl", False)
    off_policy = {"steps_per_generation": 2}
    assert config(variant="reference", **off_policy).use_bias_correction_kl
    assert not config(variant="reference", use_bias_correction_kl=False, **off_policy).use_bias_correction_kl
    assert not config(variant="grpo", beta=0.1).use_bias_correction_kl
    assert not config(beta=0.1).use_bias_correction_kl


def unresolved(**settings):
    args = object.__new__(GRPOVariantConfig)
    for field in fields(GRPOVariantConfig):
        setattr(args, field.name, field.default)
    for name, value in {"gradient_accumulation_steps": 1, **settings}.items():
        setattr(args, name, value)
    return args


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_no_bound_is_a_value_like_any_other():
    for settings, value in (({}, 3.0), ({"variant": "icepop"}, 5.0)):
        assert config(**settings).vllm_importance_sampling_clip_max == value
        assert config(**settings, vllm_importance_sampling_clip_max=None).vllm_importance_sampling_clip_max is None
    assert config(variant="off_policy_mask", off_policy_mask_threshold=None).off_policy_mask_threshold is None


def test_a_preset_of_a_field_that_trl_does_not_have_is_refused_at_use(monkeypatch):
    monkeypatch.setattr(resolution, "SET_BY_PRESETS", {*resolution.SET_BY_PRESETS, "later_field"})
    for name, sentence in (
        ("later_field", "sets `later_field`, which TRL .* does not have; install TRL 1.16"),
        ("temperature", "sets `temperature`, which no variant can"),
        ("temprature", "sets `temprature`, which is no field; did you mean `temperature`"),
    ):
        register_variant(Variant("mine", "", get_variant("gspo").paper, {name: 1}))
        try:
            with pytest.raises(ValueError, match=f"The variant 'mine' {sentence}"):
                config(variant="mine")
        finally:
            del _VARIANTS["mine"]


@pytest.mark.parametrize(
    ("settings", "high"),
    [({"variant": "cispo", "loss_type": "dapo"}, None), ({"variant": "mirror", "loss_type": "cispo"}, None)],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_bound_that_would_mean_something_else_goes_with_the_loss_type(settings, high):
    assert config(**settings).epsilon_high is high


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("settings", "name", "value"),
    [
        ({"variant": "mirror", "num_iterations": 1, "steps_per_generation": 2}, "num_iterations", 1),
        ({"variant": "tic_grpo", "epsilon_high": 0.5}, "epsilon_high", 0.5),
        ({"variant": "tic_grpo", "loss_type": "dapo"}, "loss_type", "dapo"),
        ({"variant": "tic_grpo", "steps_per_generation": 2}, "steps_per_generation", 2),
        ({"variant": "tic_grpo", "generation_batch_size": 64}, "steps_per_generation", 8),
        ({"variant": "tic_grpo", "group_preserving_split": False}, "group_preserving_split", False),
        ({"variant": "dual", "beta": 0.0}, "beta", 0.0),
        ({"variant": "reference", "mirror_beta": 0.2, "num_iterations": 2}, "mirror_beta", 0.2),
        ({"variant": "mean_only", "scale_rewards": True}, "scale_rewards", "group"),
        ({"scale_rewards": False}, "scale_rewards", "none"),
        # What a preset sets along with a field goes with it.
        ({"variant": "reference", "scale_rewards": False}, "reward_variance_epsilon", None),
        ({"variant": "tic_grpo_v2", "importance_sampling_level": "token"}, "trajectory_clip", "upper"),
        ({"variant": "no_is_frozen", "importance_sampling_level": "token"}, "no_is_gradient", "current"),
        ({"variant": "grpo_upper_clip", "importance_sampling_level": "trajectory"}, "delta", None),
    ],
)
def test_explicit_values_beat_the_preset(settings, name, value):
    assert getattr(config(**settings), name) == value


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"variant": "tic_grpo", "importance_sampling_level": "token"}, "='token' instead of 'trajectory'"),
        ({"variant": "dual", "beta": 0.0}, "beta=0.0 instead of 0.05"),
        ({"variant": "tic_grpo", "policy_loss": "score"}, "policy_loss='score' instead of importance_sampling_level="),
        (
            {"variant": "gmpo", "importance_sampling_level": "sequence"},
            "='sequence' instead of policy_loss='geometric'",
        ),
        (
            {"variant": "rs_grpo", "scale_rewards": "none"},
            "scale_rewards='none' instead of advantage='risk_sensitive'",
        ),
        ({"variant": "rs_grpo", "reward_variance_epsilon": 0.1}, "epsilon=0.1 instead of advantage='risk_sensitive'"),
        ({"variant": "tic_grpo", "advantage": "batch_std"}, "advantage='batch_std' instead of scale_rewards='none'"),
        ({"variant": "reference", "scale_rewards": "none"}, "scale_rewards='none' instead of 'group'"),
        ({"variant": "tic_grpo", "group_preserving_split": False}, "group_preserving_split=False instead of True"),
    ],
)
def test_replacing_a_part_of_the_variant_is_told(settings, told):
    with pytest.warns(UserWarning, match=f"departs from the variant '{settings['variant']}'.*{told}"):
        config(**settings)


def test_a_variant_named_over_a_resolved_configuration_is_told():
    """All its values are explicit by then, so that the new variant has no say."""
    with pytest.warns(UserWarning, match="departs from the variant 'tic_grpo'.*importance_sampling_level='token'"):
        replace(config(generation_batch_size=8), variant="tic_grpo")


def test_a_preset_is_not_changed_through_a_configuration():
    config(variant="rs_grpo").advantage_kwargs["risk"] = 7.0
    assert config(variant="rs_grpo").advantage_kwargs == {"risk": 2.0}


def test_choosing_a_coefficient_is_silent():
    assert messages(variant="tic_grpo", epsilon_high=0.5) == []
    assert messages(variant="dual", beta=0.3, reward_variance_epsilon=1e-3) == []


def test_without_a_variant_every_field_is_trls():
    assert config().has_stock_objective
    stock = GRPOConfig(**BASE)
    assert {f.name: getattr(config(), f.name) for f in fields(GRPOConfig)} == {
        f.name: getattr(stock, f.name) for f in fields(GRPOConfig)
    }


@pytest.mark.parametrize(
    "settings",
    [
        {"variant": "mean_only"},
        {"mirror_beta": 0.1, "num_iterations": 2},
        {"group_preserving_split": True, "steps_per_generation": 2},
    ],
)
def test_whatever_departs_from_trl_is_not_stock(settings):
    assert not config(**settings).has_stock_objective


@pytest.mark.parametrize("name", [None, *PRESETS])
def test_round_trip_through_json(name):
    resolved = config(variant=name)
    restored = GRPOVariantConfig(**json.loads(json.dumps(resolved.to_dict())))
    assert restored.to_dict() == resolved.to_dict()


def test_round_trip_through_pickle():
    resolved = config(variant="tic_grpo")
    assert pickle.loads(pickle.dumps(resolved)).to_dict() == resolved.to_dict()


def test_a_printed_configuration_holds_no_token():
    resolved = config(variant="tic_grpo", hub_token="hf_secret")
    assert "hf_secret" not in repr(resolved)
    assert "variant=tic_grpo" in repr(resolved)


def test_yaml_and_command_line(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(BASE | {"variant": "dual", "beta": 0.2, "scale_rewards": "group"}))
    arguments = ["--config", str(path), "--mirror_beta", "0.3", "--num_iterations", "2", "--mask_zero_variance_groups"]

    (parsed,) = TrlParser(GRPOVariantConfig).parse_args_and_config(arguments)

    assert (parsed.variant, parsed.beta, parsed.mirror_beta, parsed.num_iterations) == ("dual", 0.2, 0.3, 2)
    assert parsed.mask_zero_variance_groups is True
    assert parsed.reward_variance_epsilon == 1e-5


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_names_all_that_makes_it_and_leaves_the_rest_open(name):
    settings = own_row(name)
    row = {field: value for field, value in PRESETS[name].items() if value is not None}
    if "num_iterations" not in settings:
        # One pass is TRL's default.
        assert row.pop("num_iterations", 1) == 1
    assert settings == row


@pytest.mark.parametrize(
    ("settings", "policy", "advantage"),
    [
        ({}, "clipped", "group_std"),
        ({"variant": "mean_only"}, "clipped", "mean_only"),
        ({"variant": "mirror"}, "clipped", "smoothed_std"),
        ({"variant": "tic_grpo"}, "trajectory", "mean_only"),
        ({"variant": "no_is"}, "score", "group_std"),
        ({"variant": "mirror", "advantage": "batch_std"}, "clipped", "batch_std"),
        ({"variant": "mirror", "scale_rewards": "batch"}, "clipped", "batch_std"),
        ({"advantage": "smoothed_std", "reward_variance_epsilon": 0.1}, "clipped", "smoothed_std"),
        ({"policy_loss": "score", "steps_per_generation": 2}, "score", "group_std"),
        ({"policy_loss": "trajectory", "loss_type": "dapo", "steps_per_generation": 2}, "trajectory", "group_std"),
        ({"multi_objective_aggregation": "normalize_then_sum"}, "clipped", "per_reward"),
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:The run departs")
def test_parts_are_chosen_by_name_or_by_the_fields_of_trl(settings, policy, advantage):
    resolved = config(**settings)
    assert (resolved.parts.policy.name, resolved.parts.advantage.name) == (policy, advantage)
    again = config(**{name: getattr(resolved, name) for name in ("scale_rewards", "importance_sampling_level")})
    if "multi_objective_aggregation" not in settings and advantage != "smoothed_std" and policy != "trajectory":
        assert (again.parts.policy.name, again.parts.advantage.name) == (policy, advantage)


@pytest.mark.parametrize(
    ("settings", "trims"),
    [
        ({}, True),
        ({"torch_compile": True}, False),
        ({"torch_compile_backend": "eager"}, False),
        ({"torch_compile_mode": "default"}, False),
        ({"torch_compile": True, "trim_padding": True}, True),
    ],
    ids=str,
)
def test_widths_stay_as_they_are_where_each_would_be_compiled(settings, trims):
    args = config(variant="mirror", **settings)
    assert args.trim_padding is trims
    assert args.skip_inert_rows is (not args.torch_compile)


def test_help_tells_trls_default_of_a_field_that_a_variant_may_set():
    helps = {field.name: field.metadata["help"] for field in fields(GRPOVariantConfig) if field.metadata}
    told = {
        name: found[1]
        for name, text in helps.items()
        if text.endswith("If not set, the variant's value.") or "the variant's value. Known values" in text
        if (found := re.search(r"TRL's default is (?:'?\"?)(.*?)(?:\"?'?)\. ", text))
    }
    defaults = {field.name: str(field.default) for field in fields(GRPOConfig) if field.name in told}
    assert told == defaults | {"epsilon_high": "that of 'epsilon"}
    assert len(told) == 8


@pytest.mark.parametrize("name", sorted(TRL_DEFAULTS.keys() - OWN.keys()))
def test_help_of_a_field_that_only_presets_open_is_trls_with_its_default(name):
    stock, opened = GRPOConfig.__dataclass_fields__[name], GRPOVariantConfig.__dataclass_fields__[name]
    text = opened.metadata["help"]
    assert text.startswith(stock.metadata["help"].split("`")[0])
    assert text.endswith(f"If not set, the variant's value, or TRL's default, '{stock.default!r}'.")
    assert get_type_hints(GRPOVariantConfig)[name] == get_type_hints(GRPOConfig)[name]


@pytest.mark.parametrize("name", OWN)
def test_help_is_what_the_docstring_says(name):
    text = GRPOVariantConfig.__dataclass_fields__[name].metadata["help"]
    assert len(text) > 30 and "`" not in text and "](" not in text
    if name in ("advantage", "policy_loss", "importance_sampling_level", "trajectory_clip", "kl_estimator"):
        assert "Known values: '" in text


def test_help_shows_every_field():
    text = TrlParser(GRPOVariantConfig).format_help()
    for field in fields(GRPOVariantConfig):
        assert f"--{field.name}" in text
    assert "trl-variants list" in text


def test_users_register_their_own_variants():
    variant = Variant(name="mine", summary="", paper=get_variant("mirror").paper, settings={"mirror_beta": 0.7})
    register_variant(variant)
    try:
        assert config(variant="mine", num_iterations=2).mirror_beta == 0.7
        with pytest.raises(ValueError, match="'mine' is already registered"):
            register_variant(variant)
    finally:
        del _VARIANTS["mine"]


def test_an_older_anchor_of_a_frozen_gradient_is_accepted_in_silence():
    """It has a gradient at the policy that made the rollout, which the anchor of the rollout has not."""
    assert messages(variant="no_is_frozen", mirror_beta=0.1, mirror_sync_steps=64) == []


def test_a_stock_configuration_is_trls_to_judge():
    """A later TRL may know loss types and aggregations that are not known here."""
    later = dict.fromkeys(("loss_type", "scale_rewards", "multi_objective_aggregation"), "later")
    for settings in ({name: value} for name, value in (later | {"beta": -0.1}).items()):
        assert config(**settings).has_stock_objective


def test_numbers_of_other_libraries_are_numbers():
    assert config(mirror_beta=np.float32(0.25), mirror_sync_steps=np.int64(3)).mirror_beta == 0.25


def messages(**settings):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        config(**settings)
    return [str(w.message) for w in caught if w.category is UserWarning]


ONE_STEP = {"steps_per_generation": 1, "num_iterations": 1}
INERT = [
    ({"variant": "tic_grpo"} | ONE_STEP, "`importance_sampling_level='trajectory'` does nothing", False),
    ({"variant": "no_is"} | ONE_STEP, "`importance_sampling_level='none'` does nothing", True),
    ({"variant": "no_is_frozen"} | ONE_STEP, "`importance_sampling_level='none'` does nothing", True),
    ({"variant": "mirror"} | ONE_STEP, "`mirror_beta=0.1` does nothing", True),
    ({"variant": "grpo_upper_clip"} | ONE_STEP, "`delta=1.28` does nothing", True),
    ({"variant": "mirror", "mirror_sync_steps": 4}, "`mirror_sync_steps=4` does not outlive a rollout", False),
]


@pytest.mark.parametrize(("settings", "message", "schedule"), INERT)
def test_inert_settings_are_told_with_the_setting_to_change(settings, message, schedule):
    (told,) = messages(**settings)
    assert message in told
    if schedule:
        assert "`steps_per_generation`" in told
        assert "`num_iterations`" in told


def test_two_inert_terms_are_told_apart():
    assert len(messages(variant="tic_grpo", mirror_beta=0.1, **ONE_STEP)) == 2


@pytest.mark.parametrize("variant", ["tic_grpo", "tic_grpo_v2"])
def test_trajectories_that_are_passed_over_again_are_told(variant):
    (told,) = messages(variant=variant, num_iterations=4)
    assert "`num_iterations=4` passes over the same completions again" in told and "Lemma A.1" in told
    assert messages(variant="no_is", num_iterations=4) == messages(variant=variant, num_iterations=1) == []


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_not_inert(name):
    assert messages(variant=name, use_vllm=get_variant(name).needs_vllm) == []


def test_a_correction_for_an_engine_that_is_not_there_is_told():
    (told,) = messages(variant="icepop")
    assert "`variant='icepop'` does nothing" in told and "`use_vllm=True`" in told
    (told,) = messages(variant="mirror", vllm_importance_sampling_clip_max=2.0)
    assert "`vllm_importance_sampling_clip_max=2.0` does nothing" in told
    # A part of it that the loss needs with vLLM is not the user's choice; stock TRL is silent, and so is a stock run.
    assert messages(variant="vespo") == messages(vllm_importance_sampling_mode="token_mask") == []


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"variant": "gspo"}, "importance_sampling_level='sequence'"),
        ({"variant": "sapo"}, "loss_type='sapo'"),
        ({"variant": "dual_clip"}, "delta=3.0"),
        ({"variant": "off_policy_mask"}, "off_policy_mask_threshold=0.5"),
    ],
)
def test_what_only_a_ratio_makes_act_is_told_without_one(settings, name):
    (told,) = messages(**settings, steps_per_generation=1)
    assert f"`{name}` does nothing with one optimizer step per rollout" in told
    assert get_variant(settings["variant"]).inert_when.startswith("a rollout serves one optimizer step")


def test_the_engine_makes_an_off_policy_mask_act():
    assert messages(variant="off_policy_mask", steps_per_generation=1, use_vllm=True) == []


def test_a_cap_of_cispo_that_caps_every_ratio_is_told():
    (told,) = messages(variant="mirror", loss_type="cispo", epsilon_high=0.2)[1:]
    assert "`epsilon_high=0.2` caps every ratio at 0.2 with `loss_type='cispo'`" in told
    assert messages(variant="cispo") == []


def test_an_anchor_that_outlives_the_rollout_is_not_inert():
    assert messages(mirror_beta=0.1, mirror_sync_steps=2) == []


# ---- what an update costs ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, False),
        ({"variant": "grpo"}, False),
        ({"variant": "dual"}, True),
        ({"variant": "grpo_upper_clip"}, True),
        ({"mirror_beta": 0.1}, True),
        ({"importance_sampling_level": "trajectory", "loss_type": "dr_grpo"}, True),
    ],
    ids=str,
)
def test_savings_are_on_except_for_stock_grpo(settings, expected):
    args = config(steps_per_generation=2, **settings)
    assert (args.trim_padding, args.skip_inert_rows) == (expected, expected)
    assert args.pack_rollout is args.share_prompt is False
    assert args.stop_on_nonfinite is True
    explicit = config(steps_per_generation=2, **settings, trim_padding=not expected, skip_inert_rows=not expected)
    assert (explicit.trim_padding, explicit.skip_inert_rows) == (not expected, not expected)
    assert explicit.has_stock_objective == args.has_stock_objective


@pytest.mark.parametrize(
    "settings",
    [{"torch_compile": True}, {"torch_compile_backend": "eager"}, {"torch_compile_mode": "default"}],
    ids=lambda settings: next(iter(settings)),
)
def test_savings_are_off_for_compiled_models_unless_asked_for(settings, monkeypatch):
    # Which the configuration sets for accelerate.
    for name in ("ACCELERATE_DYNAMO_BACKEND", "ACCELERATE_DYNAMO_MODE"):
        monkeypatch.setenv(name, "")
    args = config(steps_per_generation=2, variant="dual", **settings)
    assert (args.trim_padding, args.skip_inert_rows) == (False, False)
    asked = config(steps_per_generation=2, variant="dual", **settings, trim_padding=True, skip_inert_rows=True)
    assert (asked.trim_padding, asked.skip_inert_rows) == (True, True)


def test_a_prefetched_rollout_is_of_an_earlier_policy(recwarn):
    settings = {"variant": "tic_grpo", "steps_per_generation": 1, "gradient_accumulation_steps": 1}
    assert config(**settings).is_on_policy
    assert any("the policy has not moved" in str(warning.message) for warning in recwarn)
    recwarn.clear()
    assert not config(**settings, prefetch_rollout=True, use_vllm=True, vllm_mode="server").is_on_policy
    assert not any("the policy has not moved" in str(warning.message) for warning in recwarn)
