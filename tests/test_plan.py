# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import json
import os
import sys
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from trl_grpo_variants import GRPOVariantConfig, get_variant, list_variants, theory
from trl_grpo_variants.cli import main
from trl_grpo_variants.monitor.forecast import Forecast
from trl_grpo_variants.objective.advantages import ADVANTAGES
from trl_grpo_variants.plan.data import read_success_rates
from trl_grpo_variants.plan.figure import draw
from trl_grpo_variants.plan.method import Method
from trl_grpo_variants.plan.prediction import Prediction, paper_prediction

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
    headings, *points = [row for row in cells(printed) if len(row) == 3]
    assert headings == ["success", "multiplier", "stability"]
    for (success, multiplier, stability), point in zip(points, theory.fixed_points(0.2, beta=plan.beta), strict=True):
        assert (float(success), float(multiplier)) == pytest.approx((point.p, point.multiplier), rel=1e-3, abs=1e-6)
        assert stability == ("stable" if point.stable else "unstable")
    exact = theory.success_path(0.2, 6, beta=plan.beta)
    clipped = theory.clipped_path(0.2, 6, beta=plan.beta, epsilon=0.2)
    groups = theory.success_path(0.2, 6, beta=plan.beta, num_generations=16)
    for n, row in enumerate([row for row in cells(printed) if len(row) == 4][1:]):
        assert [float(cell) for cell in row] == pytest.approx([n, exact[n], clipped[n], groups[n]], abs=5.1e-5)


# A short path and one that is shown as far as it is long.
@pytest.mark.parametrize("target", [0.7, 0.75])
def test_json_holds_the_same(capsys, target):
    told = run_json(capsys, "--p-ref", 0.2, "--target", target, "--group-size", 16)
    plan = theory.plan(0.2, target)
    assert (told["beta"], told["mirror_beta"], told["stable"], told["reached"]) == (plan.beta, 0.0, True, True)
    assert told["limit"] == {"kind": "fixed point", "period": 1, "points": [pytest.approx(target)]}
    assert [point["p"] for point in told["fixed_points"]] == [point.p for point in plan.fixed_points]
    assert told["path"]["exact"][: len(plan.path)] == plan.path.tolist()
    assert told["p_ref"] == {"prompts": 1, "mean": 0.2, "never_solved": 0, "always_solved": 0}


@pytest.mark.parametrize(
    ("arguments", "variant"),
    [
        (("--target", 0.7), "reference"),
        (("--target", 0.7, "--advantage", "mean_only"), "reference_mean_only"),
        (("--target", 0.7, "--mirror-steps", 4), "mirror"),
        (("--target", 0.7, "--mirror-steps", 4, "--advantage", "mean_only"), "mirror_mean_only"),
        (("--p-ref", 0.001, "--target", 0.02), "dual"),
        (("--target", 0.7, "--advantage", "group_std"), "grpo"),
        (("--target", 0.7, "--advantage", "group_std", "--mirror-steps", 4), "grpo"),
        (("--target", 0.7, "--setting", "reward_variance_epsilon=1e-6"), "reference"),
        (("--p-ref", 0.001, "--target", 0.02, "--advantage", "group_std"), "grpo"),
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
    assert config.parts.advantage.name == told["advantage"]
    epsilon = told["advantage_kwargs"].get("reward_variance_epsilon", 1e-5)
    assert config.reward_variance_epsilon == (epsilon if told["advantage"] == "smoothed_std" else None)
    assert (config.epsilon, config.loss_type) == (0.2, "dr_grpo")
    # What the variant says already need not be pasted.
    assert all(get_variant(variant).settings.get(name) != value for name, value in fields.items())


METHOD = Method.named(None, None, {})
PLANS = [
    ("--p-ref", 0.2, "--target", 0.7),
    ("--p-ref", 0.2, "--target", 0.7, "--mirror-steps", 1),
    ("--p-ref", 0.2, "--target", 0.7, "--mirror-steps", 20),
    ("--p-ref", 0.001, "--target", 0.02),
    ("--p-ref", 0.5, "--target", 0.50001),
    ("--p-ref", 1e-300, "--target", 0.5),
]
EXTREMES = [
    *(PLANS[0] + ("--group-size", size) for size in (2, 3, 7, 16, 10_000)),
    *(PLANS[0] + ("--setting", f"reward_variance_epsilon={epsilon}") for epsilon in (1e-30, 1e6)),
    PLANS[0] + ("--mirror-steps", 500),
]


@pytest.mark.parametrize(
    "arguments",
    EXTREMES + [(*plan, "--advantage", name) for plan in PLANS for name in ("smoothed_std", "mean_only", "group_std")],
    ids=str,
)
def test_every_recipe_is_a_configuration(arguments, capsys, tmp_path):
    """As it stands, and without a word about settings that would do nothing."""
    fields = recipe(run(capsys, *arguments))
    assert fields["num_generations"] == dict(zip(arguments[::2], arguments[1::2], strict=True)).get("--group-size", 8)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        config = GRPOVariantConfig(str(tmp_path), use_cpu=True, bf16=False, report_to="none", **fields)
    assert (config.beta, config.mirror_beta) == (fields.get("beta", 0.0), fields.get("mirror_beta", 0.0))


@pytest.mark.filterwarnings("ignore:.*instead of|.*sets `beta`")
@pytest.mark.parametrize("steps", [(), ("--mirror-steps", 3)], ids=["reference", "mirror"])
@pytest.mark.parametrize("name", list_variants())
def test_every_preset_has_a_plan_that_is_a_configuration_or_a_sentence(name, steps, capsys, tmp_path):
    variant = get_variant(name)
    arguments = ("--variant", name, "--p-ref", 0.1, "--target", 0.3, "--group-size", 4, *steps)
    if main(["plan", *map(str, arguments), "--json"]) == 2:
        sentence = capsys.readouterr().err
        assert sentence.count("\n") == 1 and name in sentence or variant.parts.advantage.name in sentence
        return
    told = json.loads(capsys.readouterr().out)
    advantage = variant.parts.advantage or ADVANTAGES["group_std"]
    assert (told["variant"], told["advantage"]) == (name, advantage.name)
    config = make_config(tmp_path, **told["config"])
    assert (config.variant, config.parts.advantage) == (name, advantage)
    assert (config.beta, config.mirror_beta) == pytest.approx((told["beta"], told["mirror_beta"]), rel=1e-5)
    assert config.advantage_kwargs == variant.settings.get("advantage_kwargs")
    assert config.mirror_beta == 0.0 or not config.is_on_policy
    # What the monitor of that run will predict with.
    forecast = Forecast.from_config(config)
    p = 0.37
    assert forecast.signal.omega(theory.logit(p)) == pytest.approx(
        theory.omega(p, advantage=told["advantage"], advantage_kwargs=told["advantage_kwargs"])
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("--advantage", "risk_sensitive"),
        ("--advantage", "risk_sensitive", "--setting", "risk=0.5", "--mirror-steps", 2),
        ("--variant", "rs_grpo", "--setting", "risk=4"),
        ("--variant", "tic_grpo", "--advantage", "risk_sensitive", "--setting", "risk=3"),
        ("--variant", "tic_grpo", "--advantage", "smoothed_std", "--setting", "reward_variance_epsilon=0.01"),
        ("--variant", "reference", "--setting", "reward_variance_epsilon=0.01"),
    ],
    ids=str,
)
def test_an_advantage_and_its_settings_stand_in_the_recipe(arguments, capsys, tmp_path):
    told = run_json(capsys, "--p-ref", 0.1, "--target", 0.3, "--group-size", 4, *arguments)
    with warnings.catch_warnings():
        # That the preset's own advantage is replaced is told.
        warnings.simplefilter("ignore")
        config = make_config(tmp_path, **told["config"])
    assert config.parts.advantage.name == told["advantage"]
    settings = (config.advantage_kwargs or {}) | {"reward_variance_epsilon": config.reward_variance_epsilon}
    assert told["advantage_kwargs"].items() <= settings.items()
    given = dict(zip(arguments[::2], arguments[1::2], strict=True))
    for name, _, value in [text.partition("=") for text in (given.get("--setting"),) if text]:
        assert settings[name] == float(value)
    assert config.variant == given.get("--variant", "grpo")
    exact = theory.success_path(
        0.1,
        2,
        beta=config.beta,
        mirror_beta=config.mirror_beta,
        advantage=told["advantage"],
        advantage_kwargs=told["advantage_kwargs"],
    )
    assert told["path"]["exact"][:3] == pytest.approx(exact, rel=1e-4)


MODULE = """
from trl_grpo_variants import Advantage, Setting
shifted = Advantage("shifted", lambda r, n, *, shift=0.1: r, "r - shift", None, settings=(Setting("shift"),),
                    is_zero_without_variance=False, omega=lambda success, failure, *, shift: 0 * success + 1)
silent = Advantage("silent", lambda r, n: r, "r", None)
"""


def test_what_is_not_known_of_an_advantage_is_left_out_and_told(capsys, tmp_path, monkeypatch):
    (tmp_path / "own_plans.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    arguments = ("--p-ref", 0.1, "--target", 0.3, "--advantage", "own_plans:shifted")
    told = run_json(capsys, *arguments)
    assert told["path"].keys() == {"exact"}
    assert told["beta"] == pytest.approx(theory.plan(0.1, 0.3, advantage="mean_only").beta)
    constant, not_centred, practice = told["notes"]
    assert "exact iteration is that of mean-only advantages: its baseline cancels" in constant
    assert "do not add up to 0 in each group" in not_centred and "Practice is far" in practice
    printed = run(capsys, *arguments)
    assert "groups of 8 of equal rewards" in printed and ["iteration", "exact"] in cells(printed)
    fields = recipe(run(capsys, *arguments, "--setting", "shift=0.5"))
    assert (fields["advantage"], fields["advantage_kwargs"]) == ("own_plans:shifted", {"shift": 0.5})
    assert "`advantage='silent'` has no signal" in refused(capsys, *arguments[:4], "--advantage", "own_plans:silent")


def test_a_clip_that_is_not_the_theorys_is_left_out_and_told(capsys):
    told = run_json(capsys, "--p-ref", 0.1, "--target", 0.3, "--variant", "tic_grpo")
    assert told["path"].keys() == {"exact", "groups"}
    assert "which tic_grpo does not have" in " ".join(told["notes"])
    wide = run_json(capsys, "--p-ref", 0.1, "--target", 0.3, "--variant", "rs_grpo")
    assert wide["path"].keys() == {"exact", "clipped", "groups"}


def test_practice_is_set_against_the_theorys_own_prediction(capsys):
    predicted, after = paper_prediction()
    path = theory.success_path(0.21, 5, beta=0.1)
    assert predicted == pytest.approx(path[-1])
    assert abs(path[after] - predicted) < 1e-3 <= abs(path[after - 1] - predicted)
    printed = run(capsys, "--p-ref", 0.2, "--target", 0.7)
    assert f"from 21%) it predicts {predicted:.1%} after 1 iteration" in printed
    assert "ended at 37.5%" in printed


def refused(capsys, *arguments):
    """The one sentence, with nothing printed beside it."""
    assert main(["plan", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.startswith("trl-variants: ")
    assert printed.err.count("\n") == 1 and printed.err.endswith((".\n", "?\n"))
    return printed.err


@pytest.mark.parametrize("form", [(), ("--json",)])
def test_a_target_beyond_the_fold_is_refused(form, capsys):
    sentence = refused(capsys, "--p-ref", 0.2, "--target", 0.9, *form)
    end = theory.limit(0.2, beta=theory.plan(0.2, 0.9).beta).points[0]
    assert "No coefficient holds success at 0.9: that fixed point is unstable" in sentence
    assert f"exact iteration ends at {end:.4g}" in sentence
    assert f"can hold is {theory.highest_target(0.2):.3f}" in sentence


def test_a_mean_that_prompts_jump_over_is_refused(capsys, tmp_path):
    # Prompts that are all alike jump together.
    path = write(tmp_path / "rates.parquet", {"success": [0.2, 0.2, 0.2]})
    sentence = refused(capsys, "--p-ref", path, "--target", 0.9)
    nearest = theory.plan([0.2] * 3, 0.9).end.mean()
    assert f"the nearest that it can be held at is {nearest:.4f}" in sentence
    assert run_json(capsys, "--p-ref", path, "--target", round(nearest, 4))["end"] == pytest.approx(nearest, abs=1e-3)


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
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl"])
def test_plan_for_a_file_of_success_rates(suffix, capsys, tmp_path):
    path = write(
        tmp_path / f"rates{suffix}",
        {"question": ["a\u2028b", "\x85", *"cdef"], "success_rate": RATES, "length": [7.0] * 6},
    )
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


@pytest.mark.parametrize(
    ("rates", "target", "sentences"),
    [
        ([0.2, 0.25, 0.3], 0.6, []),
        ([0.001, 0.0015], 0.02, ["some prompts would oscillate"]),
        # A coefficient below 1 damps as well.
        ([0.01, 0.01], 0.2, ["some prompts would oscillate"]),
    ],
)
def test_notes_say_what_becomes_of_the_prompts(rates, target, sentences, capsys, tmp_path):
    path = write(tmp_path / "rates.jsonl", {"success": rates})
    notes = run_json(capsys, "--p-ref", path, "--target", target)["notes"]
    assert [sentence in note for sentence, note in zip(sentences, notes, strict=False)] == [True] * len(sentences)
    # And those on every plan with a reference, and on practice.
    assert len(notes) == len(sentences) + 2
    assert notes[-2].startswith("Groups without signal still feel") and notes[-1].startswith("Practice is far from")


def test_prompts_that_no_coefficient_moves_are_counted(capsys, tmp_path):
    path = write(tmp_path / "rates.jsonl", {"success": [0.0, 0.0, 0.0, 1.0, 0.3, 0.4]})
    told = run_json(capsys, "--p-ref", path, "--target", 0.4)
    assert (told["p_ref"]["never_solved"], told["p_ref"]["always_solved"]) == (3, 1)
    assert ["stuck", "3 never solved, 1 always solved"] in cells(run(capsys, "--p-ref", path, "--target", 0.4))


def test_damping_is_told_apart_from_a_plan_without(capsys):
    # A coefficient below 1 damps as well.
    assert 0.0 < theory.plan(0.01, 0.2).mirror_beta < 1.0
    damped = run(capsys, "--p-ref", 0.01, "--target", 0.2)
    assert "mirror_beta damps it" in damped and "stable fixed point)" in damped
    plain = run(capsys, "--p-ref", 0.2, "--target", 0.7)
    assert "damps" not in plain and "Groups without signal still feel the KL" in plain
    mirrored = run(capsys, "--p-ref", 0.2, "--target", 0.7, "--mirror-steps", 3)
    assert "Groups without signal still feel the KL" not in mirrored and "after 3 iterations; not a fixed" in mirrored


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


def log_rewards(folder, *names):
    """A checkpoint whose logs tell which of the columns are rewards."""
    (folder / "checkpoint-2").mkdir(parents=True)
    logs = [
        {"step": 1, "loss": 0.1},
        {"step": 2} | {f"rewards/{name}/{of}": 0.5 for name in names for of in ("mean", "std")},
    ]
    (folder / "checkpoint-2" / "trainer_state.json").write_text(json.dumps({"global_step": 2, "log_history": logs}))


def test_completions_are_counted_per_prompt_at_its_first_step(tmp_path):
    path = write(tmp_path / "completions.parquet", COMPLETIONS)
    log_rewards(tmp_path, "correct", "format")
    # y: one fails by its format; x: one of two at step 1; z: the unscored completion does not count.
    assert read_success_rates(path) == [0.0, 0.5, 1.0]
    assert sorted(read_success_rates(path, "correct")) == [0.5, 0.5, 1.0]
    assert read_success_rates(path, "correct", "format") == [0.0, 0.5, 1.0]


@pytest.mark.parametrize("place", ["completions", "completions/completions_00002.parquet", "."])
def test_only_rewards_of_the_run_are_rewards(place, tmp_path):
    """A reward function may log numbers of its own beside, here lengths and an answer."""
    (tmp_path / "completions").mkdir()
    extra = {"length": [0.5] * 8, "answer": list(range(8))}
    write(tmp_path / "completions" / "completions_00002.parquet", COMPLETIONS | extra)
    names = "correct, format, length, answer"
    with pytest.raises(ValueError, match=f"which of its columns are rewards.*with --column. .* are: {names}\\.$"):
        read_success_rates(tmp_path / place)
    assert read_success_rates(tmp_path / place, "correct", "format") == [0.0, 0.5, 1.0]
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "checkpoint-1" / "trainer_state.json").write_text('{"log_history": [{"rewards/length/me')
    log_rewards(tmp_path, "correct", "format")
    assert read_success_rates(tmp_path / place) == [0.0, 0.5, 1.0]
    assert sorted(read_success_rates(tmp_path / place, "correct")) == [0.5, 0.5, 1.0]


@pytest.mark.parametrize("numbers", [{}, {"prompt": [1, 1, 2, 2, 1, 1, 3, 3], "completion": list(range(8))}])
def test_the_only_column_of_numbers_is_the_reward(tmp_path, numbers):
    """Beside those that are of every log, whatever is in them."""
    columns = {k: v for k, v in (COMPLETIONS | numbers).items() if k != "format"}
    path = write(tmp_path / "completions.parquet", columns)
    assert sorted(read_success_rates(path)) == [0.5, 0.5, 1.0]


def test_conversations_are_prompts_too(tmp_path):
    messages = [{"role": "user", "content": text} for text in COMPLETIONS["prompt"]]
    # The same ones, whatever the order of their keys.
    prompts = [[dict(sorted(message.items())) if n % 2 else message] for n, message in enumerate(messages)]
    path = write(tmp_path / "completions.jsonl", COMPLETIONS | {"prompt": prompts})
    log_rewards(tmp_path, "correct", "format")
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
    prediction = Prediction(np.array(0.2), 0.8, METHOD, 16)
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
    for low, high in (left.get_xlim(), left.get_ylim(), right.get_ylim()):
        assert low < 0.0 and 1.0 < high
    for axes in (left, right):
        assert axes.get_xlabel() and axes.get_title(loc="left") and axes.get_legend() is not None


def test_figure_shows_small_success_in_log_odds():
    prediction = Prediction(np.array(0.001), 0.02, METHOD, 8)
    figure = draw(prediction)
    left, right = figure.axes
    coefficients = f"beta = {prediction.plan.beta:.4g}, mirror_beta = {prediction.plan.mirror_beta:.4g}"
    assert figure.texts[-1].get_text() == f"p_ref = 0.001, target 0.02: {coefficients} (smoothed_std)"
    assert left.get_position().x1 < right.get_position().x0
    assert (left.get_xscale(), left.get_yscale(), right.get_yscale()) == ("logit", "logit", "logit")
    low, high = right.get_ylim()
    # Three times as far from 0 and 1 as what is shown.
    assert (low, 1.0 - high) == pytest.approx((0.001 / 3, (1.0 - prediction.exact.max()) / 3))
    assert left.get_xlim() == left.get_ylim() == (low, high)
    seldom = Prediction(np.array(0.03), 0.5, METHOD, 8)
    assert [axes.get_yscale() for axes in draw(seldom).axes] == ["linear", "linear"]
    certain = Prediction(np.array(0.2), 0.99, METHOD, 8)
    _, right = draw(certain).axes
    assert right.get_yscale() == "logit" and 0.99 < right.get_ylim()[1] <= 1.0 - 1e-6


def test_figure_of_many_prompts_shows_the_numbers():
    prediction = Prediction(np.array(RATES), 0.6, METHOD, 8)
    left, right = draw(prediction).axes
    stairs = {patch.get_label(): patch.get_data().values for patch in left.patches}
    assert left.get_xlim()[0] < 0.0 and 1.0 < left.get_xlim()[1]
    np.testing.assert_array_equal(stairs["reference"], [1, 1, 0, 2, 0, 0, 0, 0, 1, 1])
    # The one is a surface and the other a line, so that both are seen where they are equal.
    assert [patch.get_fill() for patch in left.patches] == [True, False]
    np.testing.assert_array_equal(stairs["predicted at the end"], prediction.histogram[1])
    lines = {line.get_label(): line.get_ydata() for line in right.get_lines()}
    np.testing.assert_allclose(lines["exact iteration"], prediction.exact.mean(axis=1))
    np.testing.assert_allclose(lines["with the clip of 0.2"], prediction.clipped.mean(axis=1))
    (band,) = [band for band in right.collections if band.get_label() == "exact, 10 % to 90 %"]
    ends = band.get_paths()[0].vertices
    for iteration, outcomes in enumerate(prediction.exact):
        at = ends[ends[:, 0] == iteration, 1]
        assert (at.min(), at.max()) == pytest.approx(tuple(np.quantile(outcomes, (0.1, 0.9))))


def test_figure_is_written(capsys, tmp_path):
    run(capsys, "--p-ref", 0.2, "--target", 0.7, "--figure", tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


# Each on top of a plan that is right.
WRONG_ARGUMENTS = [
    (["--target", "0.1"], "`p_target` must lie above `p_ref`"),
    (["--target", "0.2"], "`p_target` must lie above `p_ref`"),
    (["--target", "1"], "below 1"),
    (["--target", "-1"], "`p_target` must be between 0 and 1; got -1"),
    (["--target", "nan"], "`p_target` must be between 0 and 1; got nan"),
    (["--target", "inf"], "`p_target` must be between 0 and 1; got inf"),
    (["--target", "high"], "invalid float value: 'high'"),
    (["--target", ""], "invalid float value: ''"),
    (["--target"], "expected one argument"),
    (["--target", "0.2000000001"], "is so near that beta would be 4e+09, and a configuration takes at most 1e+06"),
    (["--target", "0.2000000001", "--mirror-steps", "2"], "is so near that mirror_beta would be"),
    (["--target", "0.9999999999999999"], "No coefficient holds success at 0.9999999999999999"),
    (["--p-ref", "1.5"], "`p_ref` must be between 0 and 1; got 1.5"),
    (["--p-ref", "-0.5"], "`p_ref` must be between 0 and 1; got -0.5"),
    (["--p-ref", "nan"], "`p_ref` must be between 0 and 1; got nan"),
    (["--p-ref", "0"], "stays there under any coefficient"),
    (["--p-ref", "1"], "stays there under any coefficient"),
    (["--p-ref", ""], "An empty text is neither a number nor a file"),
    (["--p-ref", "20%"], "20% is neither a number nor a file"),
    (["--p-ref", "0,2"], "0,2 is neither a number nor a file"),
    (["--p-ref", "n" * 300], "is neither a number nor a file"),
    (["--p-ref", "nowhere.parquet"], "nowhere.parquet is neither a number nor a file"),
    (["--p-ref", "."], "is a folder without completions"),
    (["--p-ref", "pipe.parquet"], "pipe.parquet is no file, but a folder, a pipe or a device"),
    (["--p-ref", "pipe.jsonl"], "pipe.jsonl is no file, but a folder, a pipe or a device"),
    (["--p-ref", "piped"], "completions_00001.parquet is no file, but a folder, a pipe or a device"),
    (["--p-ref", "/dev/zero"], "must be Parquet (.parquet) or JSON lines"),
    (["--advantage", "batch"], "must be one of 'per_reward', 'smoothed_std'"),
    (["--advantage", ""], "a function of yours as 'module:function'; got ''"),
    (["--advantage", "batch_std"], "`advantage='batch_std'` has no signal that is a function of a prompt's success"),
    (["--variant", "mirorr"], "did you mean 'mirror'?"),
    (["--variant", "mirror"], "`--variant mirror` has a KL to the previous policy alone; give --mirror-steps"),
    (["--variant", "reference", "--mirror-steps", "3"], "`--variant reference` has a KL to the reference alone"),
    (["--mirror-steps", "0"], "`mirror_steps` must be a whole number of at least 1"),
    (["--mirror-steps", "-3"], "`mirror_steps` must be a whole number of at least 1"),
    (["--mirror-steps", "2.5"], "invalid int value: '2.5'"),
    (["--mirror-steps", "1000000"], "`--mirror-steps` must be at most 500; got 1000000"),
    (["--group-size", "1"], "`num_generations` must be a whole number of at least 2"),
    (["--group-size", "-8"], "`num_generations` must be a whole number of at least 2"),
    (["--group-size", "1e3"], "invalid int value: '1e3'"),
    (["--group-size", "1000000000"], "`--group-size` must be at most 10000; got 1000000000"),
    (["--setting", "reward_variance_epsilon=0"], "`reward_variance_epsilon` must be a number greater than 0"),
    (["--setting", "reward_variance_epsilon=nan"], "`reward_variance_epsilon` must be a number greater than 0"),
    (["--setting", "reward_variance_epsilon=inf"], "`reward_variance_epsilon` must be a number greater than 0"),
    (["--setting", "reward_variance_epsilon=1e-31"], "must be a number of at least 1e-30; got 1e-31"),
    (["--setting", "reward_variance_epsilon=1e7"], "must be a number of at most 1e+06; got 10000000.0"),
    (["--setting", "reward_variance_epsilon=small"], "must be a name and a number as NAME=NUMBER; got 'reward_"),
    (["--setting", "reward_variance_epsilon"], "must be a name and a number as NAME=NUMBER; got 'reward_"),
    (["--setting", "risk=1", "--advantage", "mean_only"], "sets `risk`, but `advantage='mean_only'` takes none"),
    (["--setting", "rsik=1", "--variant", "rs_grpo"], "takes `risk`; did you mean `risk`?"),
    (["--column", "success"], "names a column of a file"),
    (["--column", "success", "--column", "other"], "names a column of a file"),
    (["--colour", "red"], "Unrecognized arguments: --colour red"),
    (["0.3"], "Unrecognized arguments: 0.3"),
    (["--json=yes"], "ignored explicit argument 'yes'"),
    (["--figure"], "expected one argument"),
    (["--figure", ""], "`--figure` must be a file that ends in .png, .svg, .pdf; got ''"),
    (["--figure", "plan"], "`--figure` must be a file that ends in .png, .svg, .pdf; got 'plan'"),
    (["--figure", ".png"], "`--figure` must be a file that ends in .png, .svg, .pdf; got '.png'"),
    (["--figure", "plan.xyz"], "`--figure` must be a file that ends in .png, .svg, .pdf; got 'plan.xyz'"),
    (["--figure", "/dev/null"], "`--figure` must be a file that ends in .png, .svg, .pdf; got '/dev/null'"),
    (["--figure", "folder.png"], "`--figure` must be a file, but folder.png is something else"),
    (["--figure", "pipe.png"], "`--figure` must be a file, but pipe.png is something else"),
    (["--figure", "nowhere/plan.png"], "cannot be written to nowhere/plan.png"),
    (["--figure", "n" * 300 + ".png"], "cannot be written to nnn"),
    (["--figure", "plan.png", "--target", "0.9"], "No coefficient holds success at 0.9"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG_ARGUMENTS, ids=lambda value: str(value)[:40])
def test_wrong_arguments_are_one_sentence_and_exit_code_two(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("pipe.parquet", "pipe.jsonl", "pipe.png"):
        os.mkfifo(name)
    for name in ("folder.png", "piped"):
        os.mkdir(name)
    os.mkfifo("piped/completions_00001.parquet")
    before = sorted(tmp_path.iterdir())
    assert message in refused(capsys, "--p-ref", "0.2", "--target", "0.5", *arguments)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "message"), [(["--p-ref", "0.2"], "required: --target"), (["--target", "0.2"], "required: --p-ref")]
)
def test_missing_argument_is_one_sentence_and_exit_code_two(arguments, message, capsys):
    assert message in refused(capsys, *arguments)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rates.parquet", b"no parquet", "cannot be read as Parquet"),
        ("rates.parquet", b"", "cannot be read as Parquet"),
        ("rates.parquet", b"PAR1" * 20, "cannot be read as Parquet"),
        ("rates.jsonl", b'{"success": 0.1}\nsuccess\n', "line 2 is not JSON"),
        ("rates.jsonl", b'{"success": 0.1', "line 1 is not JSON"),
        ("rates.jsonl", b"[" * 100_000, "line 1 is not JSON"),
        ("rates.jsonl", b'{"success": ' + b"1" * 5000 + b"}", "line 1 is not JSON"),
        ("rates.jsonl", b'{"success": ' + b"1" * 400 + b"}", "does not hold numbers"),
        ("rates.jsonl", b"0.1\n", "line 1 holds another value"),
        ("rates.json", b'[{"success": 0.1}]', "line 1 holds another value"),
        ("rates.jsonl", b"\xff\xfe", "cannot be read as JSON lines"),
        ("rates.jsonl", b"", "name it with --column. Its columns of numbers are: none"),
        ("rates.jsonl", b"{}\n{}\n", "name it with --column. Its columns of numbers are: none"),
        ("rates.jsonl", b'{"success": 0.1}\n{"other": 1}\n', "must be between 0 and 1; got nan"),
        ("rates.jsonl", b'{"success": 7}\n', "must be between 0 and 1; got 7"),
        ("rates.jsonl", b'{"success": Infinity}\n', "must be between 0 and 1; got inf"),
        ("rates.jsonl", b'{"success": "high"}\n', "does not hold numbers"),
        ("rates.jsonl", b'{"success": [0.1]}\n', "does not hold numbers"),
        ("rates.jsonl", b'{"success": 0}\n', "below the share of prompts that are ever solved (0)"),
        ("rates.jsonl", b'{"success": 0.9}\n', "must lie above the mean of `p_ref` (0.9)"),
        ("rates.jsonl", b'{"success": 0.1, "p_ref": 0.2}\n', "Its columns of numbers are: success, p_ref"),
        ("rates.jsonl", b'{"prompt": "x", "completion": "y", "advantage": 0}\n', "no column of rewards"),
        ("rates.jsonl", b'{"prompt": "x", "completion": "y", "r": 1, "s": 1}\n', "are rewards, as there is no"),
        ("rates.jsonl", b'{"prompt": "x", "completion": "y", "r": null, "s": NaN}\n', "holds no success rate"),
        ("rates.jsonl", b'{"prompt": "x", "completion": "y", "r": 1, "step": "one"}\n', "'step' of"),
        ("rates.jsonl", b'{"prompt": "x", "completion": "y", "r": 1, "step": 1}\n' * 2 + b'{"r": 1}', "'step' of"),
        ("rates.csv", b"success\n0.1\n", "must be Parquet (.parquet) or JSON lines"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_unusable_files_are_one_sentence_and_exit_code_two(name, content, message, capsys, tmp_path):
    (tmp_path / name).write_bytes(content)
    assert message in refused(capsys, "--p-ref", tmp_path / name, "--target", "0.5")


@pytest.mark.parametrize(
    ("columns", "arguments", "message"),
    [
        ({"success": [0.1]}, ["--column", "rate"], "has no column 'rate'; its columns are success"),
        ({"success": [0.1]}, ["--column", ""], "has no column ''; its columns are success"),
        ({"success": [0.1], "p_ref": [0.1]}, ["--column", "success", "--column", "p_ref"], "that one --column holds"),
        ({"success": [0.1], "name": ["a"]}, ["--column", "name"], "'name' of"),
        (COMPLETIONS, ["--column", "prompt"], "'prompt' of"),
        (COMPLETIONS, ["--column", "correct", "--column", "other"], "has no column 'other'"),
        (COMPLETIONS, [], "name each with --column. Its columns of numbers are: correct, format"),
    ],
)
def test_wrong_columns_are_one_sentence(columns, arguments, message, capsys, tmp_path):
    path = write(tmp_path / "table.parquet", columns)
    assert message in refused(capsys, "--p-ref", path, "--target", "0.5", *arguments)


def test_a_table_with_a_column_twice_is_one_sentence(capsys, tmp_path):
    pq.write_table(pa.Table.from_arrays([pa.array([0.1]), pa.array([0.2])], ["a", "a"]), tmp_path / "twice.parquet")
    assert "cannot be read as Parquet" in refused(capsys, "--p-ref", tmp_path / "twice.parquet", "--target", "0.5")


def test_missing_matplotlib_is_one_sentence(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    sentence = refused(capsys, "--p-ref", "0.2", "--target", "0.5", "--figure", "plan.png")
    assert "needs matplotlib, which is not installed: `pip install matplotlib`." in sentence
