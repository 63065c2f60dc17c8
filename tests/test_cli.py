# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import json
import subprocess
import sys
from importlib.metadata import version

import pytest

from trl_grpo_variants import __version__, get_variant, list_variants, unregister
from trl_grpo_variants.cli import main
from trl_grpo_variants.variants import Advantage, Divergence, Ratio, Schedule


def test_list_names_every_variant(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert main(["list"]) == 0
    printed = capsys.readouterr().out
    for name in list_variants():
        assert name in printed
        assert get_variant(name).paper.id in printed


def test_list_as_json(capsys):
    assert main(["list", "--json"]) == 0
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert set(listed) == set(list_variants())
    assert listed["tic_grpo"]["settings"]["importance_sampling_level"] == "trajectory"
    assert listed["tic_grpo"]["paper"] == "https://arxiv.org/abs/2508.02833"


@pytest.mark.parametrize("name", list_variants())
def test_show_tells_parts_formula_paper_and_when_it_is_inert(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    assert main(["show", name]) == 0
    printed = capsys.readouterr().out
    variant = get_variant(name)
    for text in (variant.formula, variant.paper.title, variant.inert_when, str(variant.advantage)):
        assert text in printed
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
    for command in ("list", "show", "grpo", "run", "plan", "report", "--version"):
        assert command in printed


@pytest.mark.parametrize("command", ["run", "grpo", "plan", "report"])
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


@pytest.mark.parametrize(
    ("part", "text"),
    [
        (Advantage(), "TRL's"),
        (Advantage(scale_rewards="group"), "(r - mean) / (std + 1e-4)"),
        (Advantage(scale_rewards="none"), "r - mean"),
        (Advantage(scale_rewards="none", reward_variance_epsilon=1e-5), "(r - mean) / sqrt(var + 1e-05)"),
        (Ratio(), "TRL's"),
        (Ratio("token"), "token"),
        (Ratio("token", epsilon=0.2), "token, clip 0.8 to 1.2"),
        (Ratio("token", epsilon=0.2, epsilon_high=0.3, delta=2.0), "token, clip 0.8 to 1.3, delta 2"),
        (Ratio("token", epsilon_high=0.3), "token"),
        (Ratio("trajectory", trajectory_clip="upper", epsilon=0.2), "trajectory, capped at 1.2"),
        (Ratio("trajectory", trajectory_clip="upper", epsilon_high=0.3), "trajectory, capped at 1.3"),
        (Ratio("trajectory", trajectory_clip="upper"), "trajectory"),
        (Ratio("none", no_is_gradient="frozen"), "none, frozen gradient"),
        (Divergence(), "TRL's"),
        (Divergence(beta=0.0), "none"),
        (Divergence(beta=0.1, mirror_beta=0.2), "0.1 to reference + 0.2 to previous"),
        (Divergence(mirror_beta=0.2), "0.2 to previous"),
        (Schedule(), "TRL's"),
        (Schedule(num_iterations=1), "1 pass"),
        (Schedule(2, 4, True), "2 passes, 4 steps per rollout, whole groups"),
    ],
)
def test_parts_of_a_variant_are_written_with_what_they_set(part, text):
    assert str(part) == text
