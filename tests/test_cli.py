# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import json
import re
import subprocess
import sys
from importlib.metadata import version

import pytest

from trl_grpo_variants import __version__, get_variant, list_variants, unregister
from trl_grpo_variants.cli import _columns, main
from trl_grpo_variants.papers import RS_GRPO, TIC_GRPO
from trl_grpo_variants.variants import Variant


@pytest.mark.parametrize("columns", [80, 200])
def test_list_has_one_line_per_variant_under_its_axis(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    axis, listed = None, {}
    for line in lines[:-1]:
        if line.startswith("  "):
            name, summary = line.split(maxsplit=1)
            listed[name] = axis, summary
        elif line:
            axis = line
    assert listed.keys() == set(list_variants())
    for name, (axis, summary) in listed.items():
        variant = get_variant(name)
        assert axis == variant.axis
        assert variant.summary.startswith(summary.removesuffix("…"))
        assert columns == 80 or summary == variant.summary


@pytest.mark.parametrize(
    ("name", "axis"),
    [
        ("rs_grpo", "advantages"),
        ("tic_grpo", "policy terms"),
        ("mirror", "KL terms"),
        ("reference_k2", "KL terms"),
        ("gspo", "stock TRL"),
        ("mean_only", "stock TRL"),
        ("icepop", "stock TRL"),
    ],
)
def test_the_axis_of_a_variant_is_that_of_its_own_part(name, axis):
    assert get_variant(name).axis == axis
    assert get_variant(name).is_stock == (axis == "stock TRL")


def test_a_part_that_a_method_takes_along_is_not_its_own():
    """A policy gradient without a ratio belongs to the paper of that ablation, and beside another's advantage to that."""
    settings = {"importance_sampling_level": "none", "advantage": "risk_sensitive"}
    assert Variant("mine", "", RS_GRPO, settings).axis == "advantages"
    assert Variant("mine", "", TIC_GRPO, settings).axis == "policy terms"
    assert Variant("mine", "", RS_GRPO, settings | {"mirror_beta": 0.1}).axis == "KL terms"


def test_list_as_json(capsys):
    assert main(["list", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert set(listed) == set(list_variants())
    assert listed["tic_grpo"]["settings"]["importance_sampling_level"] == "trajectory"
    assert listed["tic_grpo"]["paper"] == "https://arxiv.org/abs/2508.02833"
    assert (listed["tic_grpo"]["axis"], listed["tic_grpo"]["stock"]) == ("policy terms", False)
    assert (listed["gspo"]["axis"], listed["gspo"]["stock"]) == ("stock TRL", True)


@pytest.mark.parametrize("name", list_variants())
def test_show_tells_parts_formula_paper_and_when_it_is_inert(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["show", name]) == 0
    printed = capsys.readouterr().out
    variant = get_variant(name)
    for text in (variant.formula, variant.paper.title, variant.inert_when, _columns(variant)["advantage"]):
        assert text in printed
    labels = re.findall(r"^│ (\w.*?) +│", printed, re.MULTILINE)
    columns = [name for name, text in _columns(variant).items() if text]
    assert labels == ["axis", *columns, "objective", "sets", "inert when", "paper"]
    for setting, value in variant.settings.items():
        assert f"{setting}: {value}" in printed


def test_unknown_variant_is_one_sentence_and_exit_code_two(capsys):
    assert main(["show", "tic"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "Unknown variant 'tic'" in error


def test_version_names_the_package_and_trl(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert printed == f"trl_grpo_variants {__version__}, TRL {version('trl')}\n"


def test_without_a_command_help_is_printed(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    for command in ("list", "show", "grpo", "run", "plan", "report", "doctor", "--version"):
        assert command in printed


@pytest.mark.parametrize("command", ["run", "grpo", "plan", "report", "doctor"])
def test_each_command_has_a_help_of_its_own(command, capsys):
    try:
        assert main([command, "--help"]) == 0
    except SystemExit as ended:
        assert ended.code == 0
    finally:
        unregister()
    assert f"usage: trl-variants {command}" in capsys.readouterr().out


def test_console_script_and_module_are_the_command():
    for command in ([sys.executable, "-m", "trl_grpo_variants"], [f"{sys.prefix}/bin/trl-variants"]):
        shown = subprocess.run([*command, "show", "mirror"], capture_output=True, text=True, check=False)
        assert (shown.returncode, "previous policy" in shown.stdout) == (0, True), shown.stderr


def test_importing_the_package_and_listing_needs_no_torch():
    code = (
        "import sys, trl_grpo_variants, trl_grpo_variants.cli; trl_grpo_variants.list_variants(); "
        "assert not {'torch', 'trl', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_planning_needs_neither_torch_nor_matplotlib():
    code = (
        "import sys; from trl_grpo_variants.cli import main; main(['plan', '--p-ref', '0.2', '--target', '0.7']); "
        "assert not {'torch', 'trl', 'transformers', 'matplotlib', 'pandas', 'pyarrow', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_public_names_resolve():
    import trl_grpo_variants

    for name in trl_grpo_variants.__all__:
        assert getattr(trl_grpo_variants, name) is not None
        assert name in dir(trl_grpo_variants)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        trl_grpo_variants.nothing  # noqa: B018


STOCK_TERM = "-min(rho A, clip(rho, 1 - epsilon, 1 + epsilon_high) A)"
TRAJECTORY = {"importance_sampling_level": "trajectory"}
TOKEN = {"importance_sampling_level": "token"}


@pytest.mark.parametrize(
    ("settings", "column", "text"),
    [
        ({}, "advantage", "TRL's"),
        ({"scale_rewards": "group"}, "advantage", "(r - mean) / (std + 1e-4)"),
        ({"scale_rewards": "none"}, "advantage", "r - mean"),
        (
            {"scale_rewards": "group", "reward_variance_epsilon": 1e-3},
            "advantage",
            "(r - mean) / sqrt(var + 0.001)",
        ),
        ({}, "policy term", "TRL's"),
        (TOKEN, "policy term", "-min(rho A, clip(rho, 1 - epsilon, 1 + epsilon_high) A)"),
        (TOKEN | {"epsilon": 0.2}, "policy term", "-min(rho A, clip(rho, 0.8, 1.2) A)"),
        (
            TOKEN | {"epsilon": 0.2, "epsilon_high": 0.3, "delta": 2.0},
            "policy term",
            "-min(min(rho, 2) A, clip(rho, 0.8, 1.3) A)",
        ),
        (TRAJECTORY | {"trajectory_clip": "upper", "epsilon": 0.2}, "policy term", "-min(w, 1.2) A"),
        (TRAJECTORY | {"trajectory_clip": "upper", "epsilon_high": 0.3}, "policy term", "-min(w, 1.3) A"),
        (TRAJECTORY | {"trajectory_clip": "upper"}, "policy term", "-min(w, 1 + epsilon_high) A"),
        (TRAJECTORY | {"trajectory_clip": "none"}, "policy term", "-w A"),
        ({"importance_sampling_level": "none", "no_is_gradient": "frozen"}, "policy term", "-A log pi at pi_old"),
        ({}, "KL", "TRL's"),
        ({"beta": 0.0}, "KL", "none"),
        ({"beta": 0.1, "mirror_beta": 0.2}, "KL", "0.1 KL(pi || pi_ref) + 0.2 KL(pi || pi_prev)"),
        ({"mirror_beta": 0.2}, "KL", "0.2 KL(pi || pi_prev)"),
        ({"vllm_importance_sampling_mode": "token_truncate"}, "policy term", f"min(v, C) ({STOCK_TERM})"),
        (
            {"vllm_importance_sampling_mode": "sequence_mask", "vllm_importance_sampling_clip_max": 3.0},
            "policy term",
            f"v 1(v <= 3) ({STOCK_TERM})",
        ),
        ({"top_entropy_quantile": 0.2}, "policy term", f"m_H ({STOCK_TERM})"),
        ({"off_policy_mask_threshold": 0.5}, "policy term", f"m_off ({STOCK_TERM})"),
        ({"num_generations": 2, "loss_type": "grpo"}, "besides", "num_generations: 2"),
        ({"inner_steps": 4, "num_iterations": 3}, "steps per rollout", "12"),
        ({}, "steps per rollout", "1"),
        ({}, "schedule", "TRL's"),
        ({"num_iterations": 1}, "schedule", "1 pass"),
        (
            {"num_iterations": 2, "inner_steps": 4, "group_preserving_split": True},
            "schedule",
            "2 passes, 4 times the completions, whole groups",
        ),
    ],
)
def test_columns_of_a_variant_are_written_from_what_it_sets(settings, column, text):
    assert _columns(Variant("mine", "", TIC_GRPO, settings))[column] == text


ONE_STEP = "a rollout serves one optimizer step: raise num_iterations or steps_per_generation"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "never"),
        ({"beta": 0.1}, "never"),
        ({"mirror_beta": 0.1}, f"{ONE_STEP}, or set mirror_sync_steps"),
        ({"beta": 0.1, "mirror_beta": 0.1}, f"(mirror part only) {ONE_STEP}, or set mirror_sync_steps"),
        ({"delta": 1.28}, ONE_STEP),
        (TRAJECTORY, ONE_STEP),
    ],
)
def test_a_variant_tells_when_it_does_nothing(settings, text):
    assert Variant("mine", "", TIC_GRPO, settings).inert_when == text
