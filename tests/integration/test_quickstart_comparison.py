# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The quickstart's second task, its measurements, and the bookkeeping of its comparison."""

import itertools
import math
import random
import sys
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from trl_grpo_variants import Variant, register_variant, variants
from trl_grpo_variants.objective.advantages import ADVANTAGES
from trl_grpo_variants.papers import GRPO_DYNAMICS
from trl_grpo_variants.runs.style import LIGHT


FOLDER = Path(__file__).parents[2] / "examples" / "quickstart"
sys.path.insert(0, str(FOLDER))

import comparison  # noqa: E402
import experiment  # noqa: E402
import figure  # noqa: E402
import measure  # noqa: E402
import predict  # noqa: E402
import results  # noqa: E402
import spread  # noqa: E402
import tables  # noqa: E402
import train  # noqa: E402


def a_run(variant, seed, success, completions=800, passed=0.5):
    """A run of 8 steps whose success rises in a line from 0.5."""
    classes = {name: {"pass@1": passed, "pass@8": (1 + passed) / 2} for name in results.CLASSES}
    estimate = results.Estimate(success, success, success)
    curve = [
        results.Point(step, replace(estimate, mean=0.5 + (success - 0.5) * step / 8), step / 10, 5.0, classes)
        for step in range(9)
    ]
    return results.Run(variant, False, seed, completions, curve, estimate, estimate, estimate, 1.0)


@pytest.fixture
def registered():
    """Registers variants that are gone after the test."""
    names = []

    def register(variant):
        register_variant(variant)
        names.append(variant.name)

    yield register
    for name in names:
        del variants._VARIANTS[name]


@pytest.mark.parametrize("samples, k", [(6, 1), (6, 2), (6, 4), (6, 6), (16, 8)])
def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample(samples, k):
    for right in range(0, samples + 1, 1 if samples < 10 else 5):
        drawn = [True] * right + [False] * (samples - right)
        subsets = list(itertools.combinations(drawn, k))
        expected = sum(map(any, subsets)) / len(subsets)
        assert measure.pass_at(k, [right / samples], samples) == pytest.approx(expected, abs=1e-12)
        assert measure.pass_at(k, [right / samples, 1.0], samples) == pytest.approx((expected + 1) / 2, abs=1e-12)


@pytest.mark.parametrize(
    "success, name", [(0.0, "hard"), (0.24, "hard"), (0.25, "middle"), (0.75, "middle"), (0.76, "easy"), (1.0, "easy")]
)
def test_difficulty(success, name):
    assert results.difficulty(success) == name


def test_spread_prompts_ask_for_what_the_first_digit_says_or_cannot_be_known():
    held_out, training = spread.make_dataset("held_out", 500), spread.make_dataset("train", 1000)
    assert not {*held_out["prompt"]} & {*training["prompt"]}
    follows = Counter()
    for row in itertools.chain(held_out, training):
        digits = row["prompt"].split()[1:-1]
        first = int(digits[0])
        assert row["answer"].split() in (sorted(digits), sorted(digits, reverse=True))
        assert row["is_open"] == (first >= 8)
        follows[first, row["answer"].split() == sorted(digits, reverse=first % 2 == 1)] += 1
    for first in range(8):
        assert (follows[first, True], follows[first, False]) == (150, 0)
    for first in (8, 9):
        assert (follows[first, True], follows[first, False]) == (105, 45)


@pytest.mark.parametrize("feature", ["second", "last", "length", "greatest"])
def test_the_order_of_open_prompts_cannot_be_told_from_a_digit(feature):
    favoured = {True: [], False: []}
    for row in spread.make_dataset("train", 4000):
        digits = row["prompt"].split()[1:-1]
        number = {"second": digits[1], "last": digits[-1], "length": len(digits), "greatest": max(digits)}[feature]
        if row["is_open"]:
            is_falling = row["answer"].split() == sorted(digits, reverse=True)
            favoured[int(number) % 2 == 0].append(is_falling == (int(digits[0]) % 2 == 1))
    for values in favoured.values():
        # Five standard errors of a share of 0.7.
        assert sum(values) / len(values) == pytest.approx(0.7, abs=5 * math.sqrt(0.21 / len(values)))


def test_spread_demonstrations_are_right_as_often_as_the_first_digit_has_it():
    rng = random.Random(0)
    shares = (*spread.RELIABILITY, spread.FAVOURED_SHARE, spread.FAVOURED_SHARE)
    for first, share in enumerate(shares):
        favoured = " ".join(map(str, sorted([first, 3, 5], reverse=first % 2 == 1)))
        right = sum(spread.demonstrate([first, 3, 5], rng) == favoured for _ in range(2000))
        assert right / 2000 == pytest.approx(share, abs=0.04)


def test_the_shipped_policy_of_the_second_task_has_prompts_of_all_classes():
    task = experiment.SPREAD
    classes = experiment.classes_of_prompts(task, task.policy)
    firsts = [int(prompt.split()[1]) for prompt in task.make_dataset("held_out", task.held_out_prompts)["prompt"]]
    expected = ["easy"] * 2 + ["middle"] * 2 + ["hard"] * 4 + ["open"] * 2
    agreeing = sum(expected[first] == found for first, found in zip(firsts, classes, strict=True))
    assert agreeing > 0.95 * len(classes)


def test_the_command_knows_the_tasks():
    assert list(train.STEPS) == list(experiment.TASKS)


@pytest.mark.parametrize("p", [0.03, 0.5, 0.9])
def test_predicted_weight_is_that_of_the_advantages_of_all_groups(p, registered):
    size, kwargs = 6, {"risk": 1.5}
    registered(Variant("risky", "A test.", GRPO_DYNAMICS, {"advantage": "risk_sensitive", "advantage_kwargs": kwargs}))
    slope = 0.0
    for rewards in itertools.product((0.0, 1.0), repeat=size):
        probability = math.prod(p if reward else 1 - p for reward in rewards)
        advantages = ADVANTAGES["risk_sensitive"].function(torch.tensor(rewards, dtype=torch.float64), size, **kwargs)
        # d log probability of a completion / d log-odds of success
        scores = [1 - p if reward else -p for reward in rewards]
        slope += probability * sum(a * s for a, s in zip(advantages.tolist(), scores, strict=True)) / size
    assert predict._signal("risky", size)(np.array([p])) * p * (1 - p) == pytest.approx(slope, rel=1e-9)


def test_predictions_of_open_prompts():
    mean_only, grpo, risky = (predict.predict(name, 16, 0.7, (1, 8)) for name in ("mean_only", "grpo", "rs_grpo"))
    assert mean_only.weight == pytest.approx(1)
    assert mean_only.favoured == grpo.favoured == 1
    assert mean_only.passed == pytest.approx({"pass@1": 0.7, "pass@8": 0.7})
    # A large group's Omega is c / (1 + (e^2 - 1) p), whose balance is linear in the share.
    slope = math.expm1(2.0)
    rest = predict.predict("rs_grpo", 1000, 0.7, (1, 8))
    assert rest.favoured == pytest.approx((0.7 * (1 + slope) - 0.3) / slope, abs=1e-3)
    assert rest.passed["pass@8"] == pytest.approx(
        0.7 * (1 - (1 - rest.favoured) ** 8) + 0.3 * (1 - rest.favoured**8), abs=1e-9
    )
    assert risky.weight > grpo.weight > mean_only.weight
    # In a pair, one success is all that there can be to learn from, and its advantage is the same everywhere.
    assert predict.predict("two_grpo", 16, 0.7, (1, 8)).weight == pytest.approx(1)


def test_an_advantage_that_is_no_function_of_success_is_not_predicted(registered):
    registered(Variant("batch", "A test.", GRPO_DYNAMICS, {"scale_rewards": "batch"}))
    assert predict.predict("batch", 16, 0.7, (1, 8)) is None


def test_a_finished_run_is_read_again_only_on_its_own_basis(tmp_path):
    run, path = a_run("grpo", 0, 0.9), tmp_path / "runs" / "grpo-seed0.json"
    assert comparison.read(path, {"steps": 8}) is None
    comparison.write(path, {"steps": 8}, run)
    assert comparison.read(path, {"steps": 8}) == run
    assert comparison.read(path, {"steps": 9}) is None
    assert [file.name for file in path.parent.iterdir()] == ["grpo-seed0.json"]


def test_all_that_a_run_depends_on_is_in_its_basis(tmp_path, monkeypatch, registered):
    registered(Variant("mine", "A test.", GRPO_DYNAMICS, {"epsilon": 0.1}))
    job = comparison.Job("mine", 0, 8, False, "sort", None, tmp_path)
    basis = comparison._basis(job)
    assert comparison._basis(replace(job, folder=tmp_path / "elsewhere")) == basis
    for other in ({"seed": 1}, {"steps": 9}, {"lora": True}, {"task": "spread"}, {"policy": experiment.SPREAD.policy}):
        assert comparison._basis(replace(job, **other)) != basis, other
    del variants._VARIANTS["mine"]
    register_variant(Variant("mine", "A test.", GRPO_DYNAMICS, {"epsilon": 0.2}))
    assert comparison._basis(job) != basis
    monkeypatch.setitem(experiment.TASKS, "sort", replace(experiment.SORT, learning_rate=1e-3))
    assert comparison._basis(job)["task"]["learning_rate"] == 1e-3


@pytest.mark.parametrize(
    "settings, reason",
    [
        ({"multi_objective_aggregation": "normalize_then_sum"}, "combines several rewards"),
        ({"vllm_importance_sampling_mode": "token_mask"}, "vLLM"),
        ({"loss_type": "nonsense"}, "loss_type"),
    ],
)
def test_a_variant_that_the_task_cannot_train_is_left_out_with_the_reason(tmp_path, registered, settings, reason):
    registered(Variant("unfit", "A test.", GRPO_DYNAMICS, settings))
    outcome = comparison.work(comparison.Job("unfit", 0, 4, False, "sort", None, tmp_path))
    assert (outcome.how, outcome.run) == ("left out", None)
    assert reason in outcome.reason
    assert not list(tmp_path.iterdir())


def test_a_variant_keeps_what_it_sets(tmp_path, registered):
    registered(Variant("pairs", "A test.", GRPO_DYNAMICS, {"num_generations": 2, "loss_type": "grpo"}))
    args = experiment.configure("pairs", tmp_path, seed=0, steps=4)
    assert (args.num_generations, args.steps_per_generation) == (2, 4)
    passes = experiment.configure("mirror", tmp_path, seed=0, steps=4)
    assert (passes.num_generations, passes.num_iterations, passes.steps_per_generation) == (8, 4, 1)


def test_a_run_that_fails_leaves_no_result(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("out of luck")

    monkeypatch.setattr(experiment, "run", fail)
    outcome = comparison.work(comparison.Job("grpo", 0, 4, False, "sort", None, tmp_path))
    assert (outcome.how, outcome.reason) == ("failed", "RuntimeError: out of luck")
    assert not list(tmp_path.iterdir())


def test_a_run_of_the_second_task_measures_every_class(tmp_path):
    task = replace(experiment.SPREAD, completions_per_step=32, training_prompts=100)
    with train.Progress(disable=True) as progress:
        run = experiment.run(
            "rs_grpo", task.policy, tmp_path, seed=0, steps=2, lora=False, progress=progress, verbose=False, save=False,
            task=task,
        )  # fmt: skip
    assert run.completions == 128
    for point in run.curve:
        assert set(point.passed) == set(results.CLASSES)
        for passed in point.passed.values():
            assert 0 <= passed["pass@1"] <= passed["pass@8"] <= 1
    start = {name: passed["pass@1"] for name, passed in run.curve[0].passed.items()}
    assert start["hard"] < 0.15 < 0.35 < start["middle"] < 0.65 < 0.8 < start["easy"]
    assert start["open"] == pytest.approx(0.7 * 0.7 + 0.3 * 0.3, abs=0.05)
    assert results.Run.from_dict(comparison.json.loads(comparison.json.dumps(asdict(run)))) == run


def test_ties_are_where_ranges_overlap():
    assert tables.standing([0.6, 0.7], [0.7, 0.8]) == "tie"
    assert tables.standing([0.6, 0.9], [0.7, 0.8]) == "tie"
    assert tables.standing([0.81, 0.9], [0.7, 0.8]) == "above"
    assert tables.standing([0.6, 0.69], [0.7, 0.8]) == "below"


def test_a_lone_seed_is_not_held_to_another():
    assert tables.standing([0.9], [0.7, 0.8]) == tables.standing([0.7, 0.8], [0.9]) == ""
    assert tables.caution([a_run("grpo", 0, 0.7), a_run("other", 0, 0.8)], "grpo").startswith("One seed")


def test_the_table_holds_mean_and_spread_best_first_and_equal_completions():
    runs = [a_run("grpo", 0, 0.7), a_run("grpo", 1, 0.8), a_run("other", 0, 0.9), a_run("other", 1, 1.0)]
    runs += [a_run("few", seed, 0.74, completions=200) for seed in (0, 1)]
    table = tables.table_of_success(runs, "grpo")
    assert table.headers == ["variant", "after 200 completions", "after 8 steps", "against grpo", "completions"]
    assert table.rows == [
        ["other", "0.61 (0.60-0.62)", "0.95 (0.90-1.00)", "above", "800"],
        ["grpo", "0.56 (0.55-0.57)", "0.75 (0.70-0.80)", "", "800"],
        ["few", "0.74 (0.74-0.74)", "0.74 (0.74-0.74)", "tie", "200"],
    ]
    assert "| `other` | 0.61" in table.markdown
    # Two seeds against two: of 6 orders of four numbers, 2 have no overlap.
    assert "probability 0.33, so that of these 2 comparisons with grpo about 0.7" in tables.caution(runs, "grpo")
    assert "probability" not in tables.caution(runs[2:4], "grpo")


def test_equal_completions_are_no_column_of_their_own():
    table = tables.table_of_success([a_run("grpo", 0, 0.7), a_run("other", 0, 0.8)], "grpo")
    assert table.headers == ["variant", "after 8 steps", "against grpo", "completions"]


def test_tables_of_classes_stand_beside_their_predictions():
    runs = [a_run("mean_only", seed, 0.7, passed=0.4 + 0.2 * seed) for seed in (0, 1)]
    for k, expected in zip(("pass@1", "pass@8"), ("0.50 (0.40-0.60)", "0.75 (0.70-0.80)"), strict=True):
        prediction = predict.Prediction(1.0, 1.0, {"pass@1": 0.7, "pass@8": 0.71})
        table = next(t for t in tables.tables_of_classes(runs, {"mean_only": prediction}) if t.title.startswith(k))
        assert table.headers == ["variant", "easy", "middle", "hard, step 2", "hard", "open", "open, predicted"]
        assert table.rows[-1] == ["mean_only", *[expected] * 5, f"{prediction.passed[k]:.2f}"]
        assert len(table.rows[0]) == len(table.headers)
        (unpredicted,) = [
            t.rows[-1][-1] for t in tables.tables_of_classes(runs, {"mean_only": None}) if t.title.startswith(k)
        ]
        assert unpredicted == ""


def test_the_ranking_has_a_dot_per_seed_and_marks_what_differs():
    runs = [a_run(f"v{i}", seed, 0.6 + 0.02 * i + 0.01 * seed) for i in range(9) for seed in (0, 1)]
    runs += [a_run("grpo", seed, 0.704 + 0.01 * seed, completions=900) for seed in (0, 1)]
    drawn = figure.ranking(runs, "grpo", LIGHT)
    names = [text.get_text() for text in drawn.texts if text.get_text() in {run.variant for run in runs}]
    assert names == ["v8", "v7", "v6", "grpo", "v5", "v4", "v3", "v2", "v1", "v0"]
    (axes,) = drawn.axes
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    for place, (name, line) in enumerate(zip(names, dots, strict=True)):
        ends = [run.curve[-1].success.mean for run in runs if run.variant == name]
        assert (line.get_xdata().tolist(), line.get_ydata().tolist()) == (ends, [place, place])
        # From 0.704 to 0.714, grpo meets the range of v5 only.
        color = {"grpo": "text", "v5": "grey"}.get(name, "blue")
        assert line.get_color() == LIGHT[color], name
    assert [text.get_text() for text in axes.texts].count("800 completions") == 9


def test_the_figure_of_classes_has_a_panel_for_each_class_and_k():
    runs = [a_run("mean_only", seed, 0.7, passed=0.4 + 0.2 * seed) for seed in (0, 1)] + [a_run("grpo", 0, 0.8)]
    predictions = {"mean_only": predict.Prediction(1.0, 1.0, {"pass@1": 0.7, "pass@8": 0.71}), "grpo": None}
    panels = {axes.get_title(loc="left"): axes for axes in figure.figure_of_classes(runs, predictions, LIGHT).axes}
    assert list(panels) == [f"{name}, {k}" for k in ("pass@1", "pass@8") for name in results.CLASSES]
    for title, axes in panels.items():
        mean_only, *predicted, grpo = axes.lines
        assert mean_only.get_ydata()[-1] == pytest.approx(0.75 if "pass@8" in title else 0.5)
        assert (mean_only.get_color(), grpo.get_color()) == (LIGHT["grey"], LIGHT["blue"])
        expected = [0.71 if "pass@8" in title else 0.7] if "open" in title else []
        assert [line.get_ydata()[0] for line in predicted] == expected
        assert [text.get_text() for text in axes.texts] == (["mean_only", "grpo"] if "open" in title else [])


def test_the_figure_of_runs_has_their_means_and_a_lone_run_its_interval():
    runs = [a_run("grpo", 0, 0.7), a_run("grpo", 1, 0.8), a_run("tic_grpo", 0, 0.9)]
    success, kl, length = figure.figure_of_runs(runs, LIGHT).axes
    assert [line.get_ydata()[-1] for line in success.lines] == pytest.approx([0.75, 0.9])
    assert [text.get_text() for text in success.texts] == ["grpo 0.75", "tic_grpo 0.90"]
    assert kl.lines[0].get_ydata()[-1] == 0.8 and length.lines[0].get_ydata()[-1] == 5.0
    assert figure_ends(success.collections[0]) == pytest.approx((0.7, 0.8))
    wide = replace(runs[0].curve[-1], success=results.Estimate(0.7, 0.6, 0.85))
    success, *_ = figure.figure_of_runs([replace(runs[0], curve=[*runs[0].curve[:-1], wide])], LIGHT).axes
    assert figure_ends(success.collections[-1]) == pytest.approx((0.6, 0.85))
    assert [text.get_text() for text in success.texts] == ["0.70"]


def figure_ends(band):
    """The lowest and the highest of a band at its last step."""
    vertices = band.get_paths()[0].vertices
    at = vertices[vertices[:, 0] == 8, 1]
    return at.min(), at.max()
