# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The model card: what it says about a run, and that it says nothing else."""

import ast
import math
import re
import sys
from collections import OrderedDict
from contextvars import ContextVar
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import ModelCard
from peft import IA3Config, LoraConfig, get_peft_model
from tokenizers import Tokenizer, models
from transformers import BitsAndBytesConfig, PreTrainedTokenizerFast
from transformers.utils.quantization_config import QuantizationMethod

from trl_grpo_variants import GRPOVariantConfig, __version__, get_variant, list_variants
from trl_grpo_variants.card.coefficients import coefficients
from trl_grpo_variants.card.from_trainer import FIGURE_NAME, trainer_card
from trl_grpo_variants.card.rendering import Subject, model_card
from trl_grpo_variants.objective.formula import legend, objective_text
from trl_grpo_variants.prompts.settings import CONDITIONS
from trl_grpo_variants.runs.intervals import wilson_interval
from trl_grpo_variants.runs.success import success_rows


def config(tmp_path, **settings):
    return GRPOVariantConfig(str(tmp_path), use_cpu=True, bf16=False, **settings)


def objective(args):
    return objective_text(args.parts, vars(args))


def subject(**settings):
    return Subject(**{"name": "my-model", "base_model": "some/base", "model_id": "me/my-model"} | settings)


def blocks(card, language):
    return re.findall(rf"```{language}\n(.*?)```", card.content, flags=re.DOTALL)


# ---- what is minimised ---------------------------------------------------------------------------------------------

PPO = "-min(rho A, clip(rho, 0.8, 1.2) A)"
FORMULAS = {
    # What a preset leaves to TRL, and what it says of the fields that it sets.
    "gdpo": f"(1/N) sum_i sum_t [{PPO}],  A = batch-normalised sum_f weight_f (r_f - mean_f) / (std_f + 1e-4)",
    "two_grpo": f"mean_i (1/|o_i|) sum_t [{PPO}],  A = (r - mean) / (std + 1e-4)",
    "reference_reset": f"(1/N) sum_i sum_t [{PPO} + 0.1 KL(pi || pi_ref)],  A = (r - mean) / (std + 1e-4)",
    "tis": f"(1/N) sum_i sum_t [min(v, 3) ({PPO})],  A = (r - mean) / (std + 1e-4)",
    "mis": f"(1/N) sum_i sum_t [v 1(v <= 3) ({PPO})],  A = (r - mean) / (std + 1e-4)",
    "icepop": f"(1/N) sum_i sum_t [v 1(0.5 <= v <= 5) ({PPO})],  A = (r - mean) / (std + 1e-4)",
    "adaptive_entropy": f"(1/N) sum_i sum_t [{PPO}] - h mean_t H(pi),  A = (r - mean) / (std + 1e-4)",
    "high_entropy_tokens": "(1/N) sum_i sum_t [m_H (-min(rho A, clip(rho, 0.8, 1.28) A))],  A = (r - mean) / (std + 1e-4)",
    "off_policy_mask": f"mean_i (1/|o_i|) sum_t [m_off ({PPO}) + 0.001 KL(pi || pi_ref)],  A = (r - mean) / (std + 1e-4)",
    # `agg` of the preset is TRL's default loss type.
    "grpo": "(1/N) sum_i sum_t [-min(rho A, clip(rho, 0.8, 1.2) A)],  A = (r - mean) / (std + 1e-4)",
    "mean_only": "(1/N) sum_i sum_t [-min(rho A, clip(rho, 0.8, 1.2) A)],  A = r - mean",
    "no_is": "mean_i (1/|o_i|) sum_t [-A log pi],  A = (r - mean) / (std + 1e-4)",
    "no_is_frozen": "gradient at pi = pi_old of mean_i (1/|o_i|) sum_t [-A log pi],  A = (r - mean) / (std + 1e-4)",
    "tic_grpo": "(1/T) mean_i [-min(w, 1.28) A],  A = r - mean",
    "tic_grpo_v2": "(1/T) mean_i [-min(w A, clip(w, 0.8, 1.2) A)],  A = (r - mean) / (std + 1e-4)",
    "grpo_upper_clip": "(1/T) mean_i sum_t [-min(rho, 1.28) A],  A = r - mean",
}


@pytest.mark.parametrize("name", list_variants())
def test_the_formula_of_a_preset(tmp_path, name):
    args = config(tmp_path, variant=name, use_vllm=get_variant(name).needs_vllm)
    assert objective(args) == FORMULAS.get(name, get_variant(name).formula)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"variant": "dual", "beta": 0.02, "mirror_beta": 0.08}, "+ 0.02 KL(pi || pi_ref) + 0.08 KL(pi || pi_prev)]"),
        ({"variant": "tic_grpo", "epsilon_high": 0.5, "mirror_beta": 0.05}, "[-min(w, 1.5) A + sum_t 0.05 KL(pi ||"),
        ({"variant": "tic_grpo", "loss_type": "bnpo"}, "(1/N) sum_i [-min(w, 1.28) A]"),
        ({"variant": "tic_grpo", "trajectory_clip": "none"}, "[-w A]"),
        ({"variant": "mirror", "loss_type": "cispo", "epsilon_high": 5.0}, "[-sg(min(rho, 5)) A log pi + "),
        ({"variant": "mirror", "loss_type": "sapo"}, "(4/tau) sigmoid(tau (rho - 1)) A (tau = 1 if A > 0 else 1.05)"),
        ({"variant": "mirror", "loss_type": "vespo"}, "k = 2 if A >= 0 else 3, lambda = 3 if A >= 0 else 2"),
        ({"variant": "mirror", "delta": 2.0}, "-min(min(rho, 2) A, clip(rho, 0.8, 1.2) A)"),
        ({"variant": "mirror", "importance_sampling_level": "sequence"}, "-min(s A, clip(s, 0.8, 1.2) A)"),
        ({"variant": "rs_grpo", "advantage_kwargs": {"risk": 0.5}}, "A = (exp(0.5 r) / mean(exp(0.5 r)) - 1) / 0.5"),
        ({"variant": "asym_re", "advantage_kwargs": {"baseline_shift": 0.2}}, "A = r - (mean + 0.2)"),
        (
            {"variant": "beta_normalization", "advantage_kwargs": {"lowest": -1.0}},
            "A = (x - mean) / f(mean; a, b), x = (r + 1) / 2",
        ),
        ({"variant": "pass_at_k", "advantage_kwargs": {"k": 4}}, "F = C(n - c, 4) / C(n, 4)"),
        (
            {"length_weight_power": 1.0, "loss_type": "dr_grpo"},
            "A = u B, u = L^-1 / mean(L^-1 of the rollout), B = (r - mean) / (std + 1e-4)",
        ),
        ({"advantage": "risk_sensitive"}, "A = (exp(2 r) / mean(exp(2 r)) - 1) / 2"),
        ({"variant": "mirror", "entropy_coef": 0.01}, "] - 0.01 mean_t H(pi),  A ="),
        ({"variant": "mirror", "reward_variance_epsilon": 1e-3}, "A = (r - mean) / sqrt(var + 0.001)"),
        ({"mirror_beta": 0.1, "num_iterations": 2, "scale_rewards": "batch"}, "A = (r - mean) / (std of the batch + "),
    ],
)
def test_the_formula_has_the_coefficients_of_the_run(tmp_path, settings, expected):
    assert expected in objective(config(tmp_path, **settings))


@pytest.mark.parametrize(
    ("settings", "ids"),
    [
        ({"variant": "grpo"}, ["2402.03300"]),
        ({"variant": "tic_grpo"}, ["2508.02833"]),
        ({"variant": "mirror"}, ["2503.06639"]),
        ({"variant": "tic_grpo", "mirror_beta": 0.05}, ["2508.02833", "2503.06639"]),
        (
            {"variant": "dual", "importance_sampling_level": "trajectory", "group_preserving_split": False},
            ["2503.06639", "2508.02833"],
        ),
        ({"mirror_beta": 0.05, "num_iterations": 2}, ["2503.06639"]),
        ({"variant": "maxrl", "length_weight_power": 0.75}, ["2602.02710", "2509.07558"]),
    ],
)
def test_the_papers_of_what_is_used_are_cited(tmp_path, settings, ids):
    args = config(tmp_path, **settings)
    citations = blocks(model_card(args, subject()), "bibtex")
    assert re.findall(r"arXiv:([\d.]+)", "".join(citations[:-1])) == ids
    assert len(citations) == len(ids) + 1
    assert "vonwerra2020trl" in citations[-1]


# ---- coefficients --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list_variants())
def test_every_setting_of_the_variant_is_listed_as_resolved(tmp_path, name):
    args = config(tmp_path, variant=name)
    decisive, others = coefficients(args)
    assert not decisive.keys() & others.keys()
    for setting in get_variant(name).settings:
        if setting != "inner_steps":
            value = decisive[setting]
            assert value == "not used" or value == str(getattr(args, setting)).replace("e-0", "e-")


def test_settings_that_do_nothing_are_not_shown_as_if_they_did(tmp_path):
    decisive, others = coefficients(config(tmp_path, variant="tic_grpo"))
    assert decisive["epsilon"] == "not used"
    assert decisive["epsilon_high"] == "0.28"
    assert "no_is_gradient" not in decisive
    assert not [name for name in others if name.startswith(("sapo_", "vespo_", "vllm_"))]
    decisive, others = coefficients(config(tmp_path, variant="grpo"))
    assert decisive["epsilon_high"] == "0.2"  # TRL's: that of `epsilon`


@pytest.mark.parametrize(
    ("settings", "unused"),
    [
        ({"variant": "mirror"}, []),
        ({"variant": "no_is"}, ["epsilon", "epsilon_high", "delta"]),
        ({"variant": "tic_grpo"}, ["epsilon", "delta"]),
        ({"variant": "tic_grpo", "trajectory_clip": "none"}, ["epsilon", "epsilon_high", "delta"]),
        ({"variant": "tic_grpo_v2"}, ["delta"]),
        ({"variant": "mirror", "loss_type": "cispo", "epsilon_high": 5.0}, ["epsilon", "delta"]),
        ({"variant": "mirror", "loss_type": "sapo"}, ["epsilon", "epsilon_high", "delta"]),
    ],
    ids=str,
)
def test_bounds_that_do_not_act_are_marked(tmp_path, settings, unused):
    decisive, _ = coefficients(config(tmp_path, **settings))
    assert {name for name, value in decisive.items() if value == "not used"} == set(unused)


@pytest.mark.parametrize(
    ("settings", "shown", "left_out"),
    [
        ({}, {"num_train_epochs": "3.0", "processes": "1", "learning_rate": "1e-6"}, ("max_steps", "sapo_", "vespo_")),
        (
            {"max_grad_norm": 0.5, "weight_decay": 0.25, "optim": "sgd", "seed": 7},
            {"max_grad_norm": "0.5", "weight_decay": "0.25", "optim": "sgd", "seed": "7"},
            (),
        ),
        (
            {
                "per_device_train_batch_size": 16,
                "gradient_accumulation_steps": 2,
                "warmup_steps": 3,
                "adam_beta1": 0.8,
            },
            {
                "per_device_train_batch_size": "16",
                "gradient_accumulation_steps": "2",
                "warmup_steps": "3",
                "adam_beta1": "0.8",
                "adam_beta2": "0.999",
                "adam_epsilon": "1e-8",
                "lr_scheduler_type": "linear",
                "bf16": "False",
                "fp16": "False",
            },
            (),
        ),
        ({"max_steps": 1}, {"max_steps": "1"}, ("num_train_epochs",)),
        ({"loss_type": "sapo"}, {"sapo_temperature_neg": "1.05"}, ("vespo_", "vllm_", "ref_model_")),
        ({"loss_type": "vespo"}, {"vespo_k_pos": "2.0"}, ("sapo_",)),
        (
            {"use_vllm": True},
            {"vllm_importance_sampling_mode": "sequence_mask"},
            tuple(f"vllm_{what}_" for what in ("server", "group", "gpu", "tensor", "enable")),
        ),
        ({"sync_ref_model": True, "beta": 0.1}, {"ref_model_sync_steps": "512"}, ("entropy_coef_", "entropy_target")),
        ({"use_adaptive_entropy": True}, {"entropy_target": "0.2", "entropy_coef_max": "1.0"}, ("ref_model_",)),
        (
            {"log_completions": True, "success_monitor": True},
            {},
            ("log_", "num_completions", "success_monitor", "ds3_"),
        ),
    ],
    ids=str,
)
def test_other_settings_are_those_of_the_parts_that_are_used(tmp_path, settings, shown, left_out):
    _, others = coefficients(config(tmp_path, **{"variant": "mirror", "learning_rate": 1e-6} | settings))
    assert {name: others.get(name) for name in shown} == shown
    assert not [name for name in others if name.startswith(left_out)]


@pytest.mark.parametrize(
    ("settings", "symbols"),
    [
        ({"variant": "tic_grpo"}, ["pi", "w", "T", "A"]),
        ({"variant": "dual"}, ["pi", "rho", "pi_ref", "pi_prev", "KL", "T", "A"]),
        ({"variant": "no_is_frozen"}, ["pi", "pi_old", "A", "N"]),
        ({"variant": "mirror", "importance_sampling_level": "sequence", "entropy_coef": 0.1}, ["s", "H", "pi_prev"]),
        ({"variant": "mirror", "loss_type": "cispo", "epsilon_high": 5.0}, ["sg", "rho", "N"]),
    ],
    ids=str,
)
def test_every_symbol_of_the_formula_is_explained_and_no_other(tmp_path, settings, symbols):
    args = config(tmp_path, **settings)
    formula = objective(args)
    explained = [entry.split("`")[1] for entry in legend(args.parts, vars(args))]
    assert explained[0] == "pi" and len(explained) == len(set(explained))
    assert all(re.search(rf"\b{symbol}\b", formula) for symbol in explained[1:])
    assert set(explained) >= set(symbols) - {"N"} and ("N" in explained) == ("(1/N)" in formula)


@pytest.mark.parametrize(
    ("settings", "sentence", "is_dapos"),
    [
        ({"refill_groups": 2}, "conditional on signal, as DAPO's is, and not GRPO's", True),
        ({"prompt_sampling": "signal"}, "the objective weights prompts of middling success up", False),
        (
            {"prompt_sampling": "signal", "prompt_weights": "unbiased"},
            "expected gradient that of uniform draws",
            False,
        ),
        (
            {"prefetch_rollout": True, "use_vllm": True, "vllm_mode": "server"},
            "the policy that made it is one rollout older",
            False,
        ),
        ({}, None, False),
    ],
)
def test_what_the_choice_of_prompts_makes_of_the_objective_is_said(tmp_path, settings, sentence, is_dapos):
    content = model_card(config(tmp_path, variant="mean_only", loss_type="dr_grpo", **settings), subject()).content
    sentences = [condition.meaning for condition in CONDITIONS if condition.meaning in content]
    assert [sentence in found for found in sentences] == ([True] if sentence else [])
    assert ("2503.14476" in content) == is_dapos
    for name in ("prompt_sampling", "refill_groups"):
        assert (
            f"| `{name}` | {settings.get(name, 'not set' if name == 'refill_groups' else 'uniform')} |" in content
        ) == bool(settings)


@pytest.mark.parametrize("is_corrected", [True, False])
def test_the_legend_tells_whether_the_kl_is_corrected(tmp_path, is_corrected):
    args = config(tmp_path, variant="reference", use_bias_correction_kl=is_corrected)
    (entry,) = [entry for entry in legend(args.parts, vars(args)) if entry.startswith("`KL`")]
    assert ("`ratio (exp(d) - d - 1)`" in entry) == is_corrected == ("ratio (exp" in entry)
    assert "`exp(d) - d - 1`" in entry or is_corrected


def test_text_of_the_users_stays_out(tmp_path):
    secret = "hf_" + "secret"
    args = config(
        tmp_path,
        variant="mirror",
        hub_token=secret,
        model_init_kwargs={"token": secret},
        vllm_server_host=secret,
        vllm_server_base_url=f"http://{secret}",
        log_completions=True,
        log_completions_hub_repo=secret,
        run_name=secret,
        generation_kwargs={"stop": secret},
        reward_weights=[0.25, 0.75],
    )
    card = model_card(args, subject(base_model=str(tmp_path)))
    assert secret not in str(card)
    assert str(tmp_path) not in str(card)
    assert str(tmp_path.parent) not in str(card)
    assert "| `reward_weights` | [0.25, 0.75] |" in card.content


def test_a_departure_stands_beside_the_variants_value(tmp_path):
    card = model_card(config(tmp_path, variant="dual", beta=0.02), subject())
    assert "| `beta` | 0.02 | 0.05 |" in card.content
    assert "| `mirror_beta` | 0.05 | 0.05 |" in card.content
    args = config(tmp_path, variant="tic_grpo", gradient_accumulation_steps=2)
    steps = args.steps_per_generation
    assert f"| `steps_per_generation` | {steps} | {steps} |" in model_card(args, subject()).content
    assert "The run departs from the variant: `beta` is 0.02, not 0.05." in card.content
    for name in list_variants():
        assert "departs" not in model_card(config(tmp_path, variant=name), subject()).content


# ---- success -------------------------------------------------------------------------------------------------------


def exact_coverage(p, n):
    inside = 0.0
    for k in range(n + 1):
        low, high = wilson_interval(k / n, n)
        inside += math.comb(n, k) * p**k * (1 - p) ** (n - k) * (low <= p <= high)
    return inside


def test_the_interval_is_wilsons():
    # Brown, Cai, DasGupta (2001) give the form; these are its values.
    low, high = wilson_interval(0.5, 100)
    assert (round(low, 4), round(high, 4)) == (0.4038, 0.5962)
    assert wilson_interval(0.0, 10)[0] == 0.0
    assert wilson_interval(1.0, 10)[1] == 1.0
    coverage = [exact_coverage(p / 50, 40) for p in range(5, 46)]
    assert 0.94 < sum(coverage) / len(coverage) < 0.965


def test_success_comes_from_the_logs():
    history = [
        {"step": 0, "eval_success": 0.25, "eval_success_prompts": 100.0},
        {"step": 10, "success": 0.3, "success_prompts": 16, "loss": 0.1},
        {"step": 20, "loss": 0.1},
        {"step": 30, "success": 0.5, "success_prompts": 16, "loss": 0.1},
        {"step": 30, "eval_success": 0.75, "eval_success_prompts": 100.0},
        {"step": 30, "success": 0.4, "success_prompts": 16, "train_runtime": 3.0},
    ]
    evaluation, rollouts = success_rows(history)
    assert evaluation.source == "evaluation, 100 prompts"
    assert evaluation.first == "0.25 [0.18, 0.34] (step 0)"
    assert evaluation.last == "0.75 [0.66, 0.82] (step 30)"
    assert rollouts.source == "training rollouts, 16 prompts each"
    assert rollouts.first.startswith("0.30 [") and rollouts.first.endswith("(steps 1 to 10)")
    assert rollouts.last.startswith("0.50 [") and rollouts.last.endswith("(steps 21 to 30)")


def test_what_was_not_measured_is_not_reported(tmp_path):
    nothing = [{"step": 1, "loss": 0.1}, {"step": 2, "success": math.nan, "loss": 0.1}]
    assert success_rows(nothing) == []
    assert "## Success" not in model_card(config(tmp_path, variant="mirror"), subject()).content
    # One measurement is no rise, and without a count there is no interval.
    (row,) = success_rows([{"step": 5, "eval_success": 0.5}])
    assert (row.source, row.first, row.last) == ("evaluation", "0.50 (step 5)", None)
    # What is no share, a reward of that name for one, is no success.
    assert success_rows([{"step": 5, "eval_success": value} for value in (-0.1, 1.5)]) == []
    (row,) = success_rows([{"step": step, "eval_success": value} for step, value in ((1, 0.0), (2, 1.0))])
    assert (row.first, row.last) == ("0.00 (step 1)", "1.00 (step 2)")


def test_an_interval_is_that_of_the_prompts_that_were_counted():
    history = [
        {"step": 1, "success": 0.25, "success_prompts": 16, "loss": 0.1},
        {"step": 2, "success": 0.25, "success_prompts": 4, "loss": 0.1},
    ]
    (row,) = success_rows(history)
    assert row.source == "training rollouts, 16 and 4 prompts"
    for cell, prompts in ((row.first, 16), (row.last, 4)):
        low, high = wilson_interval(0.25, prompts)
        assert f"0.25 [{low:.2f}, {high:.2f}]" in cell


def test_a_logged_interval_is_kept():
    entry = {"step": 0, "eval_success": 0.5, "eval_success_low": 0.4, "eval_success_high": 0.6}
    for history in ([entry], [entry | {"eval_success_prompts": 10}]):
        (row,) = success_rows(history)
        assert (row.source, row.first) == ("evaluation", "0.50 [0.40, 0.60] (step 0)")


def test_several_evaluation_sets_are_told_apart():
    history = [
        {"step": step, "eval_success": share, f"eval_{name}_runtime": 1.0, "eval_policy_loss": 0.1}
        for step in (1, 2)
        for name, share in (("easy", 0.9), ("hard", 0.1))
    ]
    rows = success_rows(history)
    assert [row.source for row in rows] == ["evaluation `easy`", "evaluation `hard`"]
    assert [(row.first, row.last) for row in rows] == [
        ("0.90 (step 1)", "0.90 (step 2)"),
        ("0.10 (step 1)", "0.10 (step 2)"),
    ]


# ---- the card ------------------------------------------------------------------------------------------------------

LORA = LoraConfig(r=8, target_modules=["q_proj", "v_proj"])


@pytest.mark.parametrize("peft_config", [None, LORA], ids=["full", "lora"])
@pytest.mark.parametrize("name", list_variants())
def test_metadata_are_valid_and_complete(tmp_path, name, peft_config):
    card = model_card(
        config(tmp_path, variant=name),
        subject(peft_config=peft_config),
        datasets=["some/data", str(tmp_path)],
        tags=["license:apache-2.0", "math"],
    )
    data = ModelCard(str(card)).data  # parsed again from the text
    assert data.base_model == "some/base"
    assert data.library_name == ("transformers" if peft_config is None else "peft")
    assert data.license == "apache-2.0"
    assert data.datasets == ["some/data"]
    assert data.pipeline_tag == "text-generation"
    assert {"trl", "grpo", "trl-grpo-variants", name, "math"} <= set(data.tags)
    assert ({"peft", "lora"} <= set(data.tags)) == (peft_config is not None)
    assert len(data.tags) == len(set(data.tags))


def test_what_is_not_known_is_left_out(tmp_path):
    data = ModelCard(str(model_card(config(tmp_path, variant="mirror"), Subject("my-model")))).data
    assert data.base_model is None and data.datasets is None and data.license is None
    card = model_card(config(tmp_path, variant="mirror"), subject())
    assert "None" not in card.content and "![" not in card.content
    assert "![Success over the optimizer steps](success.png)" in (
        model_card(config(tmp_path, variant="mirror"), subject(), figure="success.png").content
    )


@pytest.mark.parametrize(
    ("settings", "method"),
    [
        ({"variant": "mirror"}, "the GRPO variant `mirror`."),
        ({}, "GRPO."),
        ({"mirror_beta": 0.1, "num_iterations": 2}, "GRPO and terms that TRL's `GRPOTrainer` does not have."),
    ],
    ids=str,
)
def test_the_card_names_method_and_versions(tmp_path, settings, method):
    content = model_card(config(tmp_path, **settings), subject()).content
    assert f", trained with {method}" in content
    assert f"\n- trl_grpo_variants {__version__}\n- trl {version('trl')}\n" in content


@pytest.mark.parametrize(("top_k", "sampled_from"), [(None, 0), (0, 0), (20, 20)])
def test_snippets_sample_as_the_run_did(tmp_path, top_k, sampled_from):
    settings = {"temperature": 0.5, "top_k": top_k, "max_completion_length": 9}
    card = model_card(config(tmp_path, variant="mirror", **settings), subject())
    assert f"    temperature=0.5,\n    top_k={sampled_from},\n    max_new_tokens=9,\n" in card.content


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"has_chat_template": True},
        {"peft_config": LORA},
        {"peft_config": LORA, "has_chat_template": True},
        {"peft_config": LORA, "model_id": None, "base_model": None},
        {"peft_config": LoraConfig(use_dora=True, target_modules="all-linear")},
        {"peft_config": IA3Config(target_modules=["k_proj"], feedforward_modules=[])},
        {"model_class": "AutoModelForImageTextToText"},
    ],
)
def test_snippets_are_valid_code(tmp_path, settings):
    snippets = blocks(model_card(config(tmp_path, variant="mirror"), subject(**settings)), "python")
    assert len(snippets) == 2
    defined = set()
    for snippet in snippets:
        tree = ast.parse(snippet)
        imported = {alias.name for node in tree.body if isinstance(node, ast.ImportFrom) for alias in node.names}
        assigned = {
            node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        }
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
        defined |= imported | assigned
        assert used <= defined | {"print"}
        assert imported <= used


@pytest.mark.parametrize(
    ("peft_config", "rank"),
    [
        (LoraConfig(r=8), 8),
        (LoraConfig(r=12), 16),
        (LoraConfig(r=8, rank_pattern={"q_proj": 100}), 128),
        (LoraConfig(r=8, use_dora=True), None),
        (LoraConfig(r=8, modules_to_save=["lm_head"]), None),
        (LoraConfig(r=8, bias="all"), None),
        (LoraConfig(r=1024), None),
    ],
)
def test_vllm_is_given_room_for_the_rank(tmp_path, peft_config, rank):
    card = model_card(config(tmp_path, variant="mirror"), subject(peft_config=peft_config))
    if rank is None:
        assert "enable_lora" not in card.content
        assert "merge_and_unload" in card.content
    else:
        assert f"enable_lora=True, max_lora_rank={rank})" in card.content


def test_an_inert_run_says_so(tmp_path):
    with pytest.warns(UserWarning, match="does nothing"):
        args = config(tmp_path, variant="tic_grpo", steps_per_generation=1, group_preserving_split=True)
    assert "had no effect on this run" in model_card(args, subject()).content
    assert "had no effect on this run" not in model_card(config(tmp_path, variant="tic_grpo"), subject()).content


@pytest.mark.parametrize("name", list_variants())
def test_a_run_without_importance_sampling_says_what_it_needs(tmp_path, name):
    content = model_card(config(tmp_path, variant=name), subject()).content
    settings = get_variant(name).settings
    is_bounded = settings.get("importance_sampling_level") != "none" or bool(settings.get("mirror_beta"))
    assert ("Without importance sampling nothing bounds an update" in content) != is_bounded


def test_a_quantised_base_is_mentioned(tmp_path):
    args = config(tmp_path, variant="mirror")
    card = model_card(args, subject(peft_config=LORA, quantization="4 bits (nf4)"))
    assert "the base was quantised to 4 bits (nf4)" in card.content


# ---- of a trainer --------------------------------------------------------------------------------------------------


def trainer_stub(tmp_path, *, chat_template=None, is_text=True, peft_config=None, quantization=None, **attributes):
    """What the card reads of a trainer."""
    args = config(
        tmp_path / "my-run",
        variant="mirror",
        per_device_train_batch_size=8,
        steps_per_generation=2,
        num_generations=4,
        hub_model_id="me/from-args",
    )
    model = torch.nn.Sequential(OrderedDict(q_proj=torch.nn.Linear(2, 2)))
    if peft_config is not None:
        model = get_peft_model(model, peft_config)
    model.config = SimpleNamespace(_name_or_path="some/base", quantization_config=quantization)
    tokenizer = (
        PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel())) if is_text else SimpleNamespace()
    )
    tokenizer.chat_template = chat_template
    history = [
        {"step": 0, "eval_success": 0.25, "eval_success_prompts": 10.0},
        {"step": 1, "success": 0.5, "success_prompts": 4.0, "loss": 0.1},
        {"step": 2, "success": 0.75, "success_prompts": 4.0, "loss": 0.1},
    ]
    return SimpleNamespace(
        **{
            "args": args,
            "state": SimpleNamespace(log_history=history, global_step=2),
            "model": "wrapped",
            "accelerator": SimpleNamespace(unwrap_model=lambda wrapped: {"wrapped": model}[wrapped]),
            "processing_class": tokenizer,
            "hub_model_id": None,
            "_tag_names": ["trl", "trackio:https://old"],
        }
        | attributes
    )


def test_the_card_of_a_trainer_names_its_run(tmp_path, monkeypatch):
    card = trainer_card(trainer_stub(tmp_path), dataset_name="some/data", tags="math")
    assert card.data.model_name == "my-run" and "# my-run\n" in card.content
    assert card.data.base_model == "some/base" and card.data.datasets == ["some/data"]
    assert card.data.pipeline_tag == "text-generation"
    assert {"math", "trl", "mirror", "trackio:https://old"} <= set(card.data.tags)
    assert not {"unsloth", "hf_jobs"} & set(card.data.tags)
    assert "for 2 optimizer steps" in card.content
    assert "| evaluation, 10 prompts | 0.25 [" in card.content
    assert "| training rollouts, 4 prompts each | 0.50 [" in card.content
    assert 'AutoModelForCausalLM.from_pretrained("me/from-args")' in card.content
    assert "apply_chat_template" not in card.content and "![" not in card.content
    assert "](https://old)" not in card.content and "Weights & Biases" not in card.content

    (tmp_path / "my-run").mkdir()
    (tmp_path / "my-run" / FIGURE_NAME).touch()
    monkeypatch.setenv("JOB_ID", "1")
    monkeypatch.setattr("trl.trainer.utils.get_trackio_space_url", lambda: "https://new")
    opened = SimpleNamespace(current_run=ContextVar("run", default="open"), current_project=ContextVar("", default=""))
    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(context_vars=opened))
    wandb_run = SimpleNamespace(url="https://wandb", project="mine")
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=wandb_run))
    trainer = trainer_stub(tmp_path, hub_model_id="me/from-trainer", chat_template="{{ messages }}")
    trainer.accelerator.unwrap_model("wrapped").config.unsloth_version = "1"
    card = trainer_card(trainer, model_name="named")
    assert card.data.model_name == "named"
    assert {"unsloth", "hf_jobs", "trackio:https://new"} <= set(card.data.tags)
    assert "trackio:https://old" not in card.data.tags
    assert "[Trackio](https://new)" in card.content and "[Weights & Biases](https://wandb)" in card.content
    assert 'from_pretrained("me/from-trainer")' in card.content and "apply_chat_template" in card.content
    assert f"]({FIGURE_NAME})" in card.content


def test_the_card_of_a_trainer_tells_images_from_text(tmp_path):
    card = trainer_card(trainer_stub(tmp_path, is_text=False))
    assert "AutoModelForImageTextToText" in card.content and card.data.pipeline_tag is None


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [
        ({"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "4 bits (nf4)"),
        (
            BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True),
            "4 bits (nf4, doubly quantised)",
        ),
        ({"load_in_8bit": True}, "8 bits"),
        ({"quant_method": "gptq"}, "gptq"),
        ({"quant_method": QuantizationMethod.AWQ}, "awq"),
    ],
    ids=["nf4", "nf4-double", "int8", "gptq", "awq"],
)
def test_the_card_of_a_trainer_names_the_quantisation(tmp_path, quantization, expected):
    card = trainer_card(trainer_stub(tmp_path, peft_config=LORA, quantization=quantization))
    assert f"the base was quantised to {expected}" in card.content


def test_the_card_of_a_trainer_describes_its_adapter(tmp_path):
    adapter = LoraConfig(r=8, lora_alpha=12, target_modules=["q_proj"], use_rslora=True, task_type=None)
    card = trainer_card(trainer_stub(tmp_path, peft_config=adapter))
    assert card.data.library_name == "peft"
    for name, value in {
        "type": "LORA",
        "r": 8,
        "lora_alpha": 12,
        "use_rslora": True,
        "target_modules": "q_proj",
    }.items():
        assert f"| adapter: `{name}` | {value} |" in card.content
    assert "use_dora" not in card.content and "modules_to_save" not in card.content


# ---- the cards of the repository -----------------------------------------------------------------------------------

CARDS = Path(__file__).parents[1] / "model_cards"


@pytest.mark.parametrize("name", sorted(path.name for path in CARDS.iterdir() if path.is_dir()))
def test_the_quickstarts_adapters_have_cards(tmp_path, name):
    card = ModelCard((CARDS / name / "README.md").read_text())
    assert {name, "peft", "trl-grpo-variants"} <= set(card.data.tags)
    assert f"\n{objective(config(tmp_path, variant=name))}\n" in card.content
    assert re.search(r"\| evaluation \| 0\.\d\d \[.*\(step 0\) \| 0\.\d\d \[.*\(step 200\) \|", card.content)
    assert (CARDS / name / FIGURE_NAME).is_file()
    assert str(CARDS.parent) not in card.content


ODD_NAMES = [
    'a "quoted" name',
    "it's",
    "two\nlines",
    "ünïcödé 模型 🚀",
    "key: value",
    "# heading",
    "{{ 7 * 7 }}",
    "---\nlicense: mit",
]
ODD_NAMES += ["null", "123", "back\\slash", "not UTF-8 \udcff", "C:\\new", "%s {}"]


@pytest.mark.parametrize("name", ODD_NAMES, ids=ascii)
@pytest.mark.parametrize("peft_config", [None, LoraConfig(r=8)], ids=["model", "adapter"])
def test_odd_names_break_neither_metadata_nor_snippets(tmp_path, name, peft_config):
    about = Subject(name=name, base_model=name, model_id=name, peft_config=peft_config)
    card = model_card(config(tmp_path, variant="tic_grpo"), about, datasets=["a/b", name], tags=[name, 5])
    card.save(tmp_path / "README.md")
    read = ModelCard.load(tmp_path / "README.md")
    printed = " ".join(name.encode("utf-8", "replace").decode().split())
    assert read.data.model_name == printed
    assert read.data.tags[-2:] == ["5", name] or read.data.tags[-2:] == [name, "5"]
    assert "a/b" in read.data.datasets
    assert read.data.license is None
    assert f"\n# {printed}\n" in read.content
    strings = {
        node.value
        for code in blocks(read, "python")
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Constant)
    }
    assert printed in strings
