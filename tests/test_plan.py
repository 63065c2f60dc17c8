# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import json
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from trl_grpo_variants import GRPOVariantConfig, get_variant, theory
from trl_grpo_variants.cli import main
from trl_grpo_variants.plan.data import read_success_rates
from trl_grpo_variants.plan.figure import draw
from trl_grpo_variants.plan.prediction import CLIP, DEFAULT_VARIANCE_EPSILON, Prediction, paper_prediction

from .tiny import make_config, make_trainer


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")


def run(capsys, *arguments):
    assert main(["plan", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def run_json(capsys, *arguments):
    return json.loads(run(capsys, *arguments, "--json"))


def recipe(printed):
    """The lines to paste, which come last."""
    return yaml.safe_load(printed.partition("To paste into a recipe:")[2])


def cells(printed):
    """The printed tables: a list of the cells of each row."""
    return [
        [cell.strip() for cell in line.replace("┃", "│").strip("│").split("│")]
        for line in printed.splitlines()
        if line.startswith(("│", "┃"))
    ]


def test_coefficients_path_and_fixed_points_are_printed(capsys):
    printed = run(capsys, "--p-ref", 0.2, "--target", 0.7, "--group-size", 16)
    plan = theory.plan(0.2, 0.7)
    rows = {row[0]: row[1:] for row in cells(printed) if len(row) == 2}
    assert float(rows["beta"][0]) == pytest.approx(plan.beta, rel=1e-5)
    assert rows["end"] == ["0.7000 (stable fixed point)"]
    before, after = theory.zero_variance_probability([0.2, 0.7], 16)
    assert rows["groups of 16 without signal"] == [f"{before:.1%} at the start, {after:.1%} at the end"]
    points = [row for row in cells(printed) if len(row) == 3][1:]
    for (success, multiplier, stability), point in zip(points, theory.fixed_points(0.2, beta=plan.beta), strict=True):
        assert (float(success), float(multiplier)) == pytest.approx((point.p, point.multiplier), rel=1e-3, abs=1e-6)
        assert stability == ("stable" if point.stable else "unstable")
    exact = theory.success_path(0.2, 6, beta=plan.beta)
    clipped = theory.clipped_path(0.2, 6, beta=plan.beta, epsilon=0.2)
    groups = theory.success_path(0.2, 6, beta=plan.beta, num_generations=16)
    for n, row in enumerate([row for row in cells(printed) if len(row) == 4][1:]):
        assert [float(cell) for cell in row] == pytest.approx([n, exact[n], clipped[n], groups[n]], abs=5.1e-5)


def test_json_holds_the_same(capsys):
    told = run_json(capsys, "--p-ref", 0.2, "--target", 0.7, "--group-size", 16)
    plan = theory.plan(0.2, 0.7)
    assert (told["beta"], told["mirror_beta"], told["stable"], told["reached"]) == (plan.beta, 0.0, True, True)
    assert told["limit"] == {"kind": "fixed point", "period": 1, "points": [pytest.approx(0.7)]}
    assert [point["p"] for point in told["fixed_points"]] == [point.p for point in plan.fixed_points]
    assert told["path"]["exact"][: len(plan.path)] == plan.path.tolist()
    assert told["p_ref"] == {"prompts": 1, "mean": 0.2, "never_solved": 0, "always_solved": 0}


@pytest.mark.parametrize(
    ("arguments", "variant"),
    [
        (("--target", 0.7), "reference"),
        (("--target", 0.7, "--normalization", "mean"), "reference_mean_only"),
        (("--target", 0.7, "--mirror-steps", 4), "mirror"),
        (("--target", 0.7, "--mirror-steps", 4, "--normalization", "mean"), "mirror_mean_only"),
        (("--p-ref", 0.001, "--target", 0.02), "dual"),
        (("--target", 0.7, "--normalization", "trl_std"), "grpo"),
        (("--target", 0.7, "--normalization", "trl_std", "--mirror-steps", 4), "grpo"),
        (("--target", 0.7, "--variance-epsilon", 1e-6), "reference"),
    ],
)
def test_lines_to_paste_are_a_configuration_that_does_what_was_planned(arguments, variant, capsys, tmp_path):
    arguments = ("--p-ref", 0.2, "--group-size", 4, *arguments)
    fields = recipe(run(capsys, *arguments))
    told = run_json(capsys, *arguments)
    assert fields == told["config"]
    config = make_config(tmp_path, steps_per_generation=2, **fields)
    assert isinstance(config, GRPOVariantConfig)
    assert (config.variant, config.num_generations) == (variant, 4)
    assert config.beta == pytest.approx(told["beta"], rel=1e-5)
    assert config.mirror_beta == pytest.approx(told["mirror_beta"], rel=1e-5)
    scale = {"mean": "none", "mean_std": "group", "trl_std": "group"}[told["normalization"]]
    assert config.scale_rewards == scale
    epsilon = told["variance_epsilon"] if told["normalization"] == "mean_std" else None
    assert config.reward_variance_epsilon == epsilon
    assert (config.epsilon, config.loss_type) == (CLIP, "dr_grpo")


def test_default_smoothing_is_the_presets():
    assert get_variant("reference").settings["reward_variance_epsilon"] == DEFAULT_VARIANCE_EPSILON


def test_practice_is_set_against_the_theorys_own_prediction(capsys):
    predicted, after = paper_prediction()
    path = theory.success_path(0.21, 5, beta=0.1)
    assert predicted == pytest.approx(path[-1])
    assert abs(path[after] - predicted) < 1e-3 <= abs(path[after - 1] - predicted)
    printed = run(capsys, "--p-ref", 0.2, "--target", 0.7)
    assert f"from 21%) it predicts {predicted:.1%} after 1 iteration" in printed
    assert "ended at 37.5%" in printed


def test_target_beyond_the_fold_is_explained(capsys):
    printed = run(capsys, "--p-ref", 0.2, "--target", 0.9)
    plan = theory.plan(0.2, 0.9)
    end = theory.limit(0.2, beta=plan.beta).points[0]
    assert "unstable fixed point, not reached" in printed
    assert f"exact iteration ends at {end:.4g}" in printed
    assert f"can hold is {theory.highest_target(0.2):.3f}" in printed


def test_oscillation_is_reported_as_a_cycle_and_damped(capsys):
    plan = theory.plan(0.001, 0.02)
    cycle = theory.limit(0.001, beta=plan.beta)
    assert (cycle.kind, plan.mirror_beta > 0.0) == ("cycle", True)
    printed = run(capsys, "--p-ref", 0.001, "--target", 0.02)
    assert f"With beta alone exact iteration runs in a cycle of {cycle.period}, between" in printed


def test_mirror_plan_says_that_it_passes_through(capsys):
    printed = run(capsys, "--p-ref", 0.2, "--target", 0.7, "--mirror-steps", 4)
    assert "after 4 iterations and keeps rising" in printed
    assert cells(printed)[-1][:2] == ["4", "0.7000"]


def test_long_paths_are_abridged(capsys):
    printed = run(capsys, "--p-ref", 0.2, "--target", 0.7, "--mirror-steps", 40)
    shown = [row[0] for row in cells(printed) if len(row) == 4]
    assert shown[1:] == [*map(str, range(10)), "...", "39", "40"]


RATES = [0.0, 0.1, 0.3, 0.3, 0.85, 1.0]


def write(path, columns):
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    else:
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_plan_for_a_file_of_success_rates(suffix, capsys, tmp_path):
    path = write(tmp_path / f"rates{suffix}", {"question": list("abcdef"), "success_rate": RATES, "length": [7.0] * 6})
    told = run_json(capsys, "--p-ref", path, "--target", 0.6)
    plan = theory.plan(RATES, 0.6)
    assert told["p_ref"] == {"prompts": 6, "mean": pytest.approx(2.55 / 6), "never_solved": 1, "always_solved": 1}
    assert (told["beta"], told["mirror_beta"], told["end"]) == (plan.beta, plan.mirror_beta, plan.end.mean())
    assert told["histogram"]["before"] == [1, 1, 0, 2, 0, 0, 0, 0, 1, 1]
    tenths = np.minimum((plan.end * 10).astype(int), 9)
    assert told["histogram"]["after"] == np.bincount(tenths, minlength=10).tolist()
    path_of_mean = theory.success_path(RATES, 6, beta=plan.beta, mirror_beta=plan.mirror_beta).mean(axis=1)
    assert told["path"]["exact"][:7] == pytest.approx(path_of_mean)
    groups = theory.zero_variance_probability(RATES, 8).mean()
    assert told["without_signal"]["start"] == pytest.approx(groups)

    printed = run(capsys, "--p-ref", path, "--target", 0.6)
    assert "1 never solved, 1 always solved" in printed
    row = next(row for row in cells(printed) if row[0] == "0.3 - 0.4")
    assert (row[1], len(row[2])) == (
        "2",
        round(16 * 2 / max(told["histogram"]["before"] + told["histogram"]["after"])),
    )


def test_column_is_chosen(tmp_path):
    path = write(tmp_path / "rates.parquet", {"easy": [0.5, 0.6], "hard": [0.1, 0.2]})
    assert read_success_rates(path, "hard") == [0.1, 0.2]
    with pytest.raises(ValueError, match="name it with --column. Its columns of numbers are: easy, hard"):
        read_success_rates(path)


COMPLETIONS = {
    "step": [2, 2, 2, 2, 1, 1, 1, 1],
    "prompt": ["x", "x", "y", "y", "x", "x", "z", "z"],
    "completion": list("abcdefgh"),
    "correct": [1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, None],
    "format": [1.0, 1.0, 0.5, 1.0, 1.0, 1.0, 1.0, None],
    "advantage": [0.5] * 8,
}


def test_completions_are_counted_per_prompt_at_its_first_step(tmp_path):
    path = write(tmp_path / "completions.parquet", COMPLETIONS)
    # y: one fails by its format; x: one of two at step 1; z: the unscored completion does not count.
    assert read_success_rates(path) == [0.0, 0.5, 1.0]
    assert sorted(read_success_rates(path, "correct")) == [0.5, 0.5, 1.0]


def test_conversations_are_prompts_too(tmp_path):
    prompts = [[{"role": "user", "content": text}] for text in COMPLETIONS["prompt"]]
    path = write(tmp_path / "completions.jsonl", COMPLETIONS | {"prompt": prompts})
    assert sorted(read_success_rates(path)) == [0.0, 0.5, 1.0]


def test_plan_for_the_log_of_a_real_run(policy_path, capsys, tmp_path):
    make_trainer(policy_path, tmp_path, log_completions=True, max_steps=3).train()
    logged = [pq.read_table(file).to_pylist() for file in sorted(tmp_path.glob("completions/*.parquet"))]
    seen, successes = set(), {}
    for rows in logged:
        for row in rows:
            if row["prompt"] not in seen:
                successes.setdefault(row["prompt"], []).append(row["reward"] >= 1.0)
        seen |= {row["prompt"] for row in rows}
    rates = [np.mean(outcomes) for outcomes in successes.values()]
    assert len(logged) == 3
    for path in (tmp_path, tmp_path / "completions"):
        assert sorted(read_success_rates(path)) == sorted(rates)
    capsys.readouterr()
    told = run_json(capsys, "--p-ref", tmp_path, "--target", (np.mean(rates) + np.mean(np.array(rates) > 0.0)) / 2)
    assert told["p_ref"]["mean"] == pytest.approx(np.mean(rates))


def test_figure_of_one_prompt_shows_the_numbers():
    prediction = Prediction(np.array(0.2), 0.8, "mean_std", 1e-5, 16)
    left, right = draw(prediction).axes
    settings = {"beta": prediction.plan.beta}
    lines = {line.get_label(): line for line in left.get_lines()}
    before, after = lines["one exact iteration"].get_data()
    np.testing.assert_allclose(after, theory.success_step(before, 0.2, **settings))
    np.testing.assert_array_equal(*lines["no change"].get_data())
    corners = np.array(lines["path from p_ref"].get_data())
    # On the diagonal, then on the map, in turn.
    np.testing.assert_array_equal(corners[:, ::2], [prediction.exact, prediction.exact])
    np.testing.assert_array_equal(corners[:, 1::2], [prediction.exact[:-1], prediction.exact[1:]])
    stable = [point.p for point in theory.fixed_points(0.2, **settings) if point.stable]
    assert lines["stable fixed point"].get_xdata().tolist() == stable
    assert len(lines["unstable fixed point"].get_xdata()) == 1

    lines = {line.get_label(): line.get_ydata() for line in right.get_lines()}
    np.testing.assert_array_equal(lines["exact iteration"], theory.success_path(0.2, 6, **settings))
    np.testing.assert_array_equal(lines["with the clip of 0.2"], theory.clipped_path(0.2, 6, **settings))
    np.testing.assert_array_equal(
        lines["groups of 16, first order"], theory.success_path(0.2, 6, num_generations=16, **settings)
    )
    assert set(lines["target 0.8"]) == {0.8}
    for axes in (left, right):
        assert axes.get_xlabel() and axes.get_ylabel() and axes.get_legend() is not None


def test_figure_shows_small_success_in_log_odds():
    prediction = Prediction(np.array(0.001), 0.02, "mean_std", 1e-5, 8)
    left, right = draw(prediction).axes
    assert (left.get_xscale(), left.get_yscale(), right.get_yscale()) == ("logit", "logit", "logit")
    low, high = right.get_ylim()
    assert 0.0 < low < 0.001 and prediction.exact.max() < high < 1.0


def test_figure_of_many_prompts_shows_the_numbers():
    prediction = Prediction(np.array(RATES), 0.6, "mean_std", 1e-5, 8)
    left, right = draw(prediction).axes
    stairs = {patch.get_label(): patch.get_data().values for patch in left.patches}
    np.testing.assert_array_equal(stairs["reference"], [1, 1, 0, 2, 0, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(stairs["predicted at the end"], prediction.histogram[1])
    lines = {line.get_label(): line.get_ydata() for line in right.get_lines()}
    np.testing.assert_allclose(lines["exact iteration"], prediction.exact.mean(axis=1))


def test_figure_is_written(capsys, tmp_path):
    run(capsys, "--p-ref", 0.2, "--target", 0.7, "--figure", tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target", "0.1"], "`p_target` must lie above `p_ref`"),
        (["--target", "1"], "below 1"),
        (["--target", "high"], "invalid float value: 'high'"),
        (["--p-ref", "1.5"], "`p_ref` must be between 0 and 1; got 1.5"),
        (["--p-ref", "-0.5"], "`p_ref` must be between 0 and 1; got -0.5"),
        (["--p-ref", "nan"], "`p_ref` must be between 0 and 1; got nan"),
        (["--p-ref", "0"], "stays there under any coefficient"),
        (["--p-ref", "nowhere.parquet"], "nowhere.parquet is neither a number nor a file"),
        (["--normalization", "batch"], "must be one of 'mean_std', 'mean', 'trl_std'; got 'batch'"),
        (["--mirror-steps", "0"], "`mirror_steps` must be a whole number of at least 1"),
        (["--group-size", "1"], "`num_generations` must be a whole number of at least 2"),
        (["--variance-epsilon", "0"], "`variance_epsilon` must be a number greater than 0"),
        (["--column", "success"], "names a column of a file"),
        (["--colour", "red"], "Unrecognized arguments: --colour red"),
        (["--figure", "plan.xyz"], "'xyz' is not supported"),
        (["--figure", "nowhere/plan.png"], "cannot be written to nowhere/plan.png"),
    ],
)
def test_wrong_arguments_are_one_sentence_and_exit_code_two(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "--p-ref", "0.2", "--target", "0.5", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("trl-variants: ") and error.count("\n") == 1 and error.endswith(".\n")
    assert message in error


def test_missing_argument_is_one_sentence_and_exit_code_two(capsys):
    assert main(["plan", "--p-ref", "0.2"]) == 2
    error = capsys.readouterr().err
    assert "required: --target" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rates.parquet", b"no parquet", "cannot be read as Parquet"),
        ("rates.jsonl", b'{"success": 0.1}\nsuccess\n', "line 2 is not JSON"),
        ("rates.jsonl", b"0.1\n", "line 1 holds another value"),
        ("rates.jsonl", b"\xff\xfe", "cannot be read as JSON lines"),
        ("rates.jsonl", b"", "name it with --column. Its columns of numbers are: none"),
        ("rates.jsonl", b'{"success": 0.1}\n{"other": 1}\n', "must be between 0 and 1; got nan"),
        ("rates.jsonl", b'{"success": 7}\n', "must be between 0 and 1; got 7"),
        ("rates.jsonl", b'{"success": "high"}\n', "does not hold numbers"),
        ("rates.jsonl", b'{"prompt": "x", "completion": "y", "advantage": 0}\n', "no column of rewards"),
        ("rates.jsonl", b'{"prompt": "x", "completion": "y", "r": null, "s": NaN}\n', "holds no success rate"),
        ("rates.csv", b"success\n0.1\n", "must be Parquet (.parquet) or JSON lines"),
    ],
)
def test_unusable_files_are_one_sentence_and_exit_code_two(name, content, message, capsys, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert main(["plan", "--p-ref", str(tmp_path / name), "--target", "0.5"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error


def test_missing_columns_and_completions_are_one_sentence(capsys, tmp_path):
    assert main(["plan", "--p-ref", str(tmp_path), "--target", "0.5"]) == 2
    assert "is a folder without completions" in capsys.readouterr().err
    path = write(tmp_path / "rates.parquet", {"success": [0.1, 0.2]})
    assert main(["plan", "--p-ref", str(path), "--target", "0.5", "--column", "rate"]) == 2
    assert "has no column 'rate'; its columns are success" in capsys.readouterr().err


def test_missing_matplotlib_is_one_sentence(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["plan", "--p-ref", "0.2", "--target", "0.5", "--figure", "plan.png"]) == 2
    assert "needs matplotlib, which is not installed: `pip install matplotlib`." in capsys.readouterr().err
