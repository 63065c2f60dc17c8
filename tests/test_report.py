# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The report on runs made by hand: its figures show the numbers, its page holds all of it, bad input is one sentence."""

import json
import os
import re
import subprocess
import sys
from base64 import b64decode
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trl_grpo_variants.cli import main
from trl_grpo_variants.objective.policies import POLICY_TERMS
from trl_grpo_variants.report.figures import (
    length_figure,
    metrics_figure,
    prompts_figure,
)
from trl_grpo_variants.report.page import facts, panels
from trl_grpo_variants.runs.figures import success_figure
from trl_grpo_variants.runs.folder import Run, TrainerState, read_run
from trl_grpo_variants.runs.intervals import mean_with_interval, measured_success, wilson_interval
from trl_grpo_variants.runs.trajectories import KINDS, kind_of, trajectories
from trl_grpo_variants.runs.visits import FILE_NAME, JOURNAL_NAME, NO_VISITS, SCHEMA, Visits, read_visits


SIZE = 20
SUCCESSES = {
    "amplified": [2, 6, 12, 18],
    "stuck at 0": [0, 0, 0, 0],
    "oscillating": [2, 16, 3, 17],
    "saturated": [20, 20, 20, 20],
    "worsened": [15, 12, 5, 4],
    "unchanged": [9, 10, 12, 10],
}
SETTINGS = {
    "variant": "dual",
    "beta": 0.25,
    "mirror_beta": 0.75,
    "num_generations": SIZE,
    "not_predicted_because": None,
}


def visit(rollout, prompt_id, prompt, number, successes, predicted=None):
    share = successes / SIZE
    row = dict.fromkeys(SCHEMA.names) | {
        "rollout": rollout,
        "step": 4 * rollout,
        "prompt_id": prompt_id,
        "prompt": prompt,
        "visit": number,
        "successes": successes,
        "completions": SIZE,
        "groups": 1,
        "groups_without_signal": int(successes in (0, SIZE)),
        "success": share,
        "low": max(0.0, share - 0.2),
        "high": min(1.0, share + 0.2),
    }
    if predicted is not None:
        row |= {"predicted": predicted, "predicted_low": predicted - 0.05, "predicted_high": predicted + 0.05}
        row |= {"gap": share - predicted, "reference": 0.5, "previous": 0.5}
    return row


def made_rows(has_predictions=True):
    """Every prompt at each of four rollouts, predicted to succeed in 0.1 n + 0.3."""
    return [
        visit(n, kind, f"<script>{kind}</script>" if n == 0 else None, n + 1, counts[n], predicted)
        for n in range(4)
        for predicted in [0.1 * n + 0.3 if n and has_predictions else None]
        for kind, counts in SUCCESSES.items()
    ]


def history():
    entries = [
        {
            "step": step,
            "loss": 0.1,
            "reward": 0.5,
            "kl": 0.01 * step,
            "mirror_kl": 0.002 * step,
            "trajectory/ess": 1.0 - 0.01 * step,
            "trajectory/clipped_positive": 0.02 * step,
            "trajectory/clipped_negative": 0.01 * step,
            "trajectory/log_weight_std": 0.1 * step,
            "trajectory/log_weight_std_per_sqrt_token": 0.03 * step,
            "completions/mean_length": 10.0 + step,
            "completions/min_length": 1.0 + step,
            "completions/max_length": 20.0 + step,
            "completions/clipped_ratio": 0.05 * step,
            "theory/groups_without_signal": 0.3,
            "success": 0.5,
            "success@2": 0.75,
            "generated_tokens": 100.0 * step,
            "generation_time": 3.0,
            "rewards_time": 1.0,
            "update_time": 4.0,
        }
        for step in range(1, 17)
    ]
    entries[3]["kl"] = None
    entries[4]["kl"] = float("nan")
    return entries


def write_state(folder, entries, step=16):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step, "log_history": entries}))


@pytest.fixture
def folder(tmp_path):
    # Of a Parquet file, the name of a folder is no column.
    folder = tmp_path / "visit=1" / "run <1>"
    store = Visits(folder, SETTINGS)
    store.start(pd.DataFrame(made_rows()))
    write_state(folder / "checkpoint-16", history())
    write_state(folder / "checkpoint-8", history()[:8], step=8)
    return folder


class Page(HTMLParser):
    """Elements and text of a page; fails where elements are not closed in order."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.texts, self._open = [], [], []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if data.strip() and self._open[-1] != "style":
            self.texts.append(" ".join(data.split()))

    def attributes(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def report(folder, *arguments):
    assert main(["report", str(folder), *map(str, arguments)]) == 0
    return Page((folder / "report" / "index.html").read_text(encoding="utf-8"))


# ---- the page ------------------------------------------------------------------------------------------------------


def test_the_page_needs_nothing_but_itself(folder, capsys):
    page = report(folder)
    images = page.attributes("img")
    names = ["success", "prompts", "best_of", "price", "time", "signal", "divergence", "weights", "term", "length"]
    assert [section["id"] for section in page.attributes("section")] == names
    assert [image["alt"] for image in images] == [
        "Predicted and measured success",
        "Success of each prompt",
        "Success of the best of k",
        "Success against what it cost",
        "Where the time of a step goes",
        "Groups without signal",
        "KL to the anchors",
        "Weights of trajectories",
        "Policy term",
        "Completions",
    ]
    for image, name in zip(images, names, strict=True):
        kind, _, data = image["src"].partition(",")
        assert kind == "data:image/png;base64" and b64decode(data).startswith(b"\x89PNG")
        assert (folder / "report" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    text = (folder / "report" / "index.html").read_text()
    assert not re.search(r"(src|href)\s*=\s*[\"'](?!data:)|url\(|@import|https?:", text)
    assert "script" not in {tag for tag, _ in page.elements}
    assert str(folder.parent) not in text
    assert f"Wrote {folder / 'report' / 'index.html'} and 10 figures." in capsys.readouterr().out


def test_the_page_holds_the_numbers_and_the_prompts(folder):
    page = report(folder)
    shares = {kind: np.array(counts) / SIZE for kind, counts in SUCCESSES.items()}
    predicted = np.repeat([0.4, 0.5, 0.6], 6)
    measured = np.concatenate([[shares[kind][n] for kind in shares] for n in (1, 2, 3)])
    expected = {
        "variant": "dual",
        "beta": "0.25",
        "mirror_beta": "0.75",
        "logs until step": "16",
        "generated tokens": "1,600",
        "time of steps": "2.1 min",
        "share of generation": "38%",
        "share of rewards": "12%",
        "share of update": "50%",
        "rollouts": "4",
        "prompts": "6",
        "visits": "24",
        "success at first visits": f"{np.mean([s[0] for s in shares.values()]):.3f}",
        "success at last visits": f"{np.mean([s[-1] for s in shares.values()]):.3f}",
        "visits with a prediction": "18",
        "predicted success": "0.500",
        "measured success": f"{measured.mean():.3f}",
        "mean gap": f"{(measured - predicted).mean():+.3f}",
        "mean absolute gap": f"{np.abs(measured - predicted).mean():.3f}",
    }
    # Intervals of 0.2, cut at 0 and 1, and of 0.05 around the prediction.
    low, high = np.maximum(0.0, measured - 0.2), np.minimum(1.0, measured + 0.2)
    overlap = ((low <= predicted + 0.05) & (predicted - 0.05 <= high)).mean()
    expected["visits whose intervals overlap"] = f"{overlap:.1%}"
    found = facts(read_run(folder))
    assert {name: found[name] for name in expected} == expected
    at = [page.texts.index(name) for name in expected]
    assert [page.texts[index + 1] for index in at] == list(expected.values())
    assert page.texts.count("run <1>") == 1 and "run <1>: report" in page.texts
    for kind in KINDS:
        row = page.texts.index(f"<script>{kind}</script>")
        assert page.texts[row - 5 : row - 2] == [kind, "1", "4"]
        assert page.texts[row - 2 : row] == [f"{shares[kind][0]:.2f}", f"{shares[kind][-1]:.2f}"]
    assert any("Of 6 prompts, 0 were first visited after the first update" in text for text in page.texts)


def test_what_is_not_there_is_left_out_with_a_sentence(tmp_path, capsys):
    write_state(tmp_path, [{"step": 1, "reward": 0.5, "completions/mean_length": 3.0}], step=1)
    page = report(tmp_path)
    assert [section["id"] for section in page.attributes("section")] == ["length", "missing"]
    assert len(page.attributes("img")) == 1
    printed = capsys.readouterr().out
    for title, reason in {
        "Success": "the success of each prompt was not recorded; a run records it with `success_monitor: true`",
        "Success of each prompt": "the success of each prompt was not recorded",
        "KL to the anchors": "the logs hold no KL",
        "Weights of trajectories": "the logs hold none; weights are 1 where each rollout serves one optimizer step",
        "Policy term": "the logs hold no metric of one",
    }.items():
        assert any(text.startswith(f"{title}: {reason}") for text in page.texts)
        assert f"Left out: {title}, because {reason}" in printed
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == ["index.html", "length.png"]


def term(tmp_path, logged, settings=None):
    """Text of the panel of the policy term, and the titles in it."""
    entries = [{"step": 1, "reward": 0.5, "completions/mean_length": 3.0, "rewards/mine/mean": 1.0} | logged]
    run = Run("run", settings=settings or {}, logs=TrainerState(entries, 1))
    (panel,) = [panel for panel in panels(run) if panel.name == "term"]
    return panel.text, [] if panel.figure is None else [axes.get_title() for axes in panel.figure.axes]


OWN_METRICS = [pytest.param(part, id=part.name) for part in POLICY_TERMS.values() if part.metrics]


@pytest.mark.parametrize("part", OWN_METRICS)
def test_the_metrics_of_a_term_are_those_of_its_description(tmp_path, part):
    text, titles = term(tmp_path, dict.fromkeys(part.metrics, 0.5) | {"trajectory/ess": 1.0})
    assert titles == list(part.metrics)
    for name, meaning in part.metrics.items():
        assert f"{name}, {meaning}" in text


def test_a_users_term_is_shown_with_what_it_declares_and_else_by_name(tmp_path):
    settings = {"metrics": {"mine/ratio": "ratios"}}
    text, titles = term(tmp_path, {"mine/ratio": 0.5, "mine/rows": 0.1, "eval_mine/ratio": 0.2}, settings)
    assert titles == ["mine/ratio", "mine/rows"]
    assert text.endswith("of a step: mine/ratio, ratios.")
    assert term(tmp_path, {}, {"metrics": ["no", "mapping"]}) == (
        "Means over the tokens or completions of a step.",
        [],
    )


def test_a_run_without_predictions_says_why(tmp_path):
    settings = SETTINGS | {"not_predicted_because": "there is no KL term (`beta` is 0)"}
    Visits(tmp_path, settings).start(pd.DataFrame(made_rows(has_predictions=False)))
    page = report(tmp_path)
    assert "The theory predicts nothing for this run: there is no KL term (beta is 0)." in page.texts
    assert not {"predicted success", "mean gap"} & set(page.texts)
    assert "success at last visits" in page.texts
    assert len(success_figure(read_run(tmp_path).visits).axes) == 1


def test_a_run_that_was_cut_off_is_reported(tmp_path, capsys):
    """Nothing but the journal behind an empty file, and the newest checkpoint's state cut off."""
    store = Visits(tmp_path, SETTINGS)
    store.start(NO_VISITS)
    for n in range(4):
        store.append(pd.DataFrame([row for row in made_rows() if row["rollout"] == n]))
    with open(tmp_path / JOURNAL_NAME, "a") as journal:
        journal.write('{"rollout": 4, "st')
    write_state(tmp_path / "checkpoint-8", history()[:8], step=8)
    (tmp_path / "checkpoint-16").mkdir()
    (tmp_path / "checkpoint-16" / "trainer_state.json").write_text('{"global_step": 16, "log_hist')
    page = report(tmp_path)
    assert page.texts[page.texts.index("visits") + 1] == "24"
    assert page.texts[page.texts.index("logs until step") + 1] == "8"
    assert "Left out: checkpoint-16/trainer_state.json is truncated." in page.texts
    assert "Left out: checkpoint-16/trainer_state.json is truncated.\n" in capsys.readouterr().out
    # Reading it changes nothing.
    assert (tmp_path / JOURNAL_NAME).exists() and pq.read_table(tmp_path / FILE_NAME).num_rows == 0


def test_a_run_that_has_just_begun_is_reported(tmp_path):
    Visits(tmp_path, SETTINGS).start(NO_VISITS)
    page = report(tmp_path)
    assert "Success: no rollout was recorded." in page.texts
    assert "Success of each prompt: no prompt was visited twice." in page.texts


def test_another_folder_may_be_named(tmp_path):
    write_state(tmp_path / "run", [{"step": 1, "reward": 0.5, "completions/mean_length": 3.0}])
    assert main(["report", str(tmp_path / "run"), "--output", str(tmp_path / "a" / "b")]) == 0
    assert (tmp_path / "a" / "b" / "index.html").exists() and not (tmp_path / "run" / "report").exists()


def test_the_command_does_without_torch(folder):
    script = (
        "import sys; from trl_grpo_variants.cli import main; "
        f"assert main(['report', {str(folder)!r}]) == 0; "
        "assert not {'torch', 'trl', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


# ---- figures -------------------------------------------------------------------------------------------------------


def lines(axes):
    return {line.get_label(): line.get_xydata() for line in axes.get_lines()}


def test_the_figure_of_success_shows_the_numbers(folder):
    over_steps, against = success_figure(read_run(folder).visits).axes
    means = np.array([np.mean([counts[n] for counts in SUCCESSES.values()]) / SIZE for n in range(4)])
    drawn = lines(over_steps)
    np.testing.assert_allclose(drawn["measured, first visits"], [[0, means[0]]])
    np.testing.assert_allclose(drawn["measured, later visits"], np.stack([[4, 8, 12], means[1:]], axis=1))
    np.testing.assert_allclose(drawn["predicted for later visits"], [[4, 0.4], [8, 0.5], [12, 0.6]])
    np.testing.assert_allclose(
        against.collections[-1].get_offsets(), [[0.4, means[1]], [0.5, means[2]], [0.6, means[3]]]
    )
    assert (against.get_xlabel(), against.get_ylabel()) == ("predicted success", "measured success")
    # Six intervals of 0.05 to each side make one of 0.05/sqrt(6).
    bars = over_steps.collections[-1].get_segments()
    np.testing.assert_allclose(
        [bar[:, 1] for bar in bars], [[c - 0.05 / 6**0.5, c + 0.05 / 6**0.5] for c in (0.4, 0.5, 0.6)]
    )


def test_visits_are_set_against_their_prediction_in_tenths():
    """A prediction of 1 belongs to the last tenth."""
    predictions, counts = [0.05, 0.15, 0.85, 0.95, 1.0], [2, 4, 16, 18, 19]
    rows = [visit(n, str(n), None, 2, counts[n], predictions[n]) for n in range(5)]
    against = success_figure(pd.DataFrame(rows)).axes[1]
    expected = [(0.05, 0.1), (0.15, 0.2), (0.85, 0.8), (0.975, 0.925)]
    assert lines(against)["as predicted"].tolist() == [[0.0, 0.0], [1.0, 1.0]]
    np.testing.assert_allclose(against.collections[-1].get_offsets(), expected)
    ends = [segment[:, 1] for segment in against.collections[0].get_segments()]
    groups = [[2], [4], [16], [18, 19]]
    intervals = [measured_success(np.array(k, float), np.full(len(k), float(SIZE)))[1:] for k in groups]
    np.testing.assert_allclose(ends, np.clip(intervals, 0.0, 1.0))


def test_many_rollouts_become_forty_points_with_bands():
    rows = [visit(n, str(n % 50), None, 1 + n // 50, n % 21, 0.5 if n >= 50 else None) for n in range(130)]
    axes = success_figure(pd.DataFrame(rows)).axes[0]
    drawn = lines(axes)
    bins = np.array_split(np.arange(130), 40)
    expected = [(4 * b[b >= 50].mean(), (b[b >= 50] % 21).mean() / SIZE) for b in bins if (b >= 50).any()]
    np.testing.assert_allclose(drawn["measured, later visits"], expected)
    assert len(drawn["measured, first visits"]) == sum((b < 50).any() for b in bins)


def test_an_interval_of_a_mean_is_the_root_of_the_squares():
    values, low, high = np.array([0.2, 0.6]), np.array([0.17, 0.2]), np.array([0.5, 1.0])
    half = 0.5 * (0.165**2 + 0.4**2) ** 0.5
    assert mean_with_interval(values, low, high) == pytest.approx((0.4, 0.4 - half, 0.4 + half))


@pytest.mark.parametrize("size", [2, 8])
@pytest.mark.parametrize("success", [0.02, 0.3, 0.98])
def test_the_interval_of_measured_success_holds_the_truth_on_both_sides(success, size):
    """Also of prompts that are hardly ever solved, whose own intervals begin at their estimates."""
    generator = np.random.default_rng(0)
    beyond = np.zeros(2)
    for _ in range(1000):
        mean, low, high = measured_success(generator.binomial(size, success, 64).astype(float), np.full(64, size))
        assert mean - low == pytest.approx(high - mean)
        beyond += [success < low, success > high]
    assert (beyond / 1000 < 0.04).all() and (success != 0.3 or beyond.sum() > 20)


def test_the_spread_of_few_completions_is_estimated_without_bias():
    """From n completions with k successes k(n - k)/(n^2 (n - 1)); a single one may be spread by 1/4."""
    mean, _, high = measured_success(np.array([1.0, 2.0, 1.0]), np.array([2.0, 5.0, 1.0]))
    variance = (1 / 4 + 2 * 3 / (25 * 4) + 1 / 4) / 9
    assert mean == pytest.approx((0.5 + 0.4 + 1.0) / 3)
    assert (high - mean) ** 2 == pytest.approx(1.96**2 * variance + (1.96**2 / (8 + 1.96**2)) ** 2)


def test_without_any_success_the_interval_is_wilsons():
    mean, _, high = measured_success(np.zeros(4), np.array([8.0, 8.0, 4.0, 12.0]))
    assert (mean, high) == (0.0, pytest.approx(wilson_interval(0.0, 32)[1]))
    mean, low, _ = measured_success(np.array([8.0]), np.array([8.0]))
    assert (mean, low) == (1.0, pytest.approx(wilson_interval(1.0, 8)[0]))


def test_the_figure_of_prompts_shows_each_by_its_kind(folder):
    found = read_run(folder).trajectories
    assert list(found) == list(KINDS) and found.keys() == SUCCESSES.keys()
    figure = prompts_figure(found)
    for axes, kind in zip(figure.axes, KINDS, strict=True):
        assert axes.get_title() == f"{kind}: 1 prompt"
        (line,) = axes.get_lines()
        np.testing.assert_allclose(
            line.get_xydata(), np.stack([[0, 4, 8, 12], np.array(SUCCESSES[kind]) / SIZE], axis=1)
        )
    assert [axes.get_ylabel() for axes in figure.axes] == ["success", "", "", "success", "", ""]
    for kinds, columns in ((1, 1), (2, 2), (3, 3), (4, 2), (5, 3)):
        some = prompts_figure(dict(list(found.items())[:kinds]))
        assert some.axes[0].get_gridspec().ncols == columns
    many = prompts_figure({"amplified": found["amplified"] * 60})
    assert many.axes[0].get_title() == "amplified: 60 prompts, 25 shown" and len(many.axes[0].get_lines()) == 25


def test_the_figures_of_logs_show_the_numbers(folder):
    run = read_run(folder)
    panels = {"KL": {"kl": "a", "mirror_kl": "b"}, "nothing": {"none": ""}}
    figure = metrics_figure(run, panels, lowest=-1.0)
    (axes,) = figure.axes
    assert axes.get_ylim()[0] == -1.0
    known = [step for step in range(1, 17) if step not in (4, 5)]
    np.testing.assert_allclose(lines(axes)["a"], [[step, 0.01 * step] for step in known])
    np.testing.assert_allclose(lines(axes)["b"], [[step, 0.002 * step] for step in range(1, 17)])
    lengths, cut = length_figure(run).axes
    np.testing.assert_allclose(lines(lengths)["mean"], [[step, 10 + step] for step in range(1, 17)])
    band = lengths.collections[0].get_paths()[0].vertices
    assert (band[:, 1].min(), band[:, 1].max()) == (2.0, 36.0)
    np.testing.assert_allclose(cut.get_lines()[0].get_xydata(), [[step, 0.05 * step] for step in range(1, 17)])
    assert cut.get_ylim()[0] < 0.0 and 1.0 < cut.get_ylim()[1]


def test_a_run_that_recorded_no_visits_is_in_numbers_too():
    run = Run("run", settings={"beta": 0.1, "variant": None}, logs=TrainerState([], 3))
    assert facts(run) == {"beta": "0.1", "logs until step": "3"}


def test_kls_and_weights_are_shown_from_zero(folder):
    shown = {panel.name: panel.figure for panel in panels(read_run(folder))}
    for name in ("divergence", "weights"):
        assert {axes.get_ylim()[0] for axes in shown[name].axes} == {0.0}


# ---- what became of a prompt ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("successes", "completions", "kind"),
    [
        *((counts, SIZE, kind) for kind, counts in SUCCESSES.items()),
        ([0, 1], 2, "unchanged"),
        ([0, 4], 4, "amplified"),
        ([4, 0], 4, "worsened"),
        ([0, 0, 0, 0, 1], 16, "unchanged"),
        ([1, 15, 1], 16, "unchanged"),
        ([1, 15, 1, 15], 16, "oscillating"),
        ([15, 1, 15, 1], 16, "oscillating"),
        ([8, 14, 2, 13, 3], 16, "oscillating"),
        ([2, 5, 4, 8, 7, 11, 10, 14], 16, "amplified"),
        ([16, 15, 16], 16, "unchanged"),
        # From 0.12 to 0.88, and back, with halves that differ less.
        ([1, 6, 2, 7], 8, "amplified"),
        ([7, 2, 6, 1], 8, "worsened"),
        ([1, 7], 8, "amplified"),
        ([1, 4, 4, 4, 4, 7], 8, "amplified"),
        # Worse by halves, but better at the end.
        ([4, 15, 15, 6, 2, 14], 16, "oscillating"),
    ],
    ids=str,
)
def test_kinds(successes, completions, kind):
    assert kind_of(np.array(successes, float), np.full(len(successes), float(completions))) == kind


def test_prompts_that_were_visited_once_have_no_trajectory():
    rows = [visit(0, "once", "a", 1, 5), visit(0, "twice", "b", 1, 0), visit(1, "twice", None, 2, 0)]
    found = trajectories(pd.DataFrame(rows))
    assert {kind: [member.prompt for member in members] for kind, members in found.items()} == {"stuck at 0": ["b"]}


def test_a_prompt_has_changed_from_its_first_visit_to_its_last():
    rows = [visit(n, "a", "a", n + 1, successes) for n, successes in enumerate((2, 16, 8))]
    ((member,),) = trajectories(pd.DataFrame(rows)).values()
    assert member.change == pytest.approx(6 / SIZE)


def test_what_sampling_alone_does_is_rarely_a_kind_of_its_own():
    generator = np.random.default_rng(0)
    drawn = generator.binomial(16, 0.5, size=(500, 8)).astype(float)
    found = [kind_of(successes, np.full(8, 16.0)) for successes in drawn]
    assert found.count("unchanged") > 0.9 * len(found)
    assert found.count("oscillating") < 0.02 * len(found)


# ---- bad input -----------------------------------------------------------------------------------------------------


def foreign_parquet(folder):
    pq.write_table(pa.table({"a": [1]}), folder / FILE_NAME)


def cut_parquet(folder):
    Visits(folder, {}).start(NO_VISITS)
    (folder / FILE_NAME).write_bytes((folder / FILE_NAME).read_bytes()[:-30])


def state(text):
    return lambda folder: (folder / "trainer_state.json").write_text(text)


def pipe(name):
    return lambda folder: os.mkfifo(folder / name)


def edited(**columns):
    """A file of visits with other values in it."""

    def make(folder):
        Visits(folder, SETTINGS).start(pd.DataFrame([row | columns for row in made_rows()]))

    return make


def edited_journal(**columns):
    def make(folder):
        Visits(folder, SETTINGS).start(NO_VISITS)
        (folder / JOURNAL_NAME).write_text(json.dumps(made_rows()[0] | columns))

    return make


def foreign_settings(folder):
    Visits(folder, [1]).start(NO_VISITS)


def foreign_state(folder):
    write_state(folder, [{"step": 1, "loss": 0.5, "eval_accuracy": 0.7}])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: None, f"holds nothing to report: it has no {FILE_NAME}, and no logs of a GRPO run are in it."),
        (foreign_parquet, f"{FILE_NAME} is no file of visits: its format is not 'trl_grpo_variants visits 1'."),
        (cut_parquet, f"{FILE_NAME} cannot be read: it is truncated or no file of visits."),
        (state('{"log_history": ['), f"it has no {FILE_NAME}, and trainer_state.json is truncated."),
        (state(""), "trainer_state.json is truncated."),
        (state('{"log_history": [], "global_step": 1}}'), "trainer_state.json is no JSON."),
        (state("[" * 100_000), "trainer_state.json is truncated."),
        (state("[1]"), "trainer_state.json is no state of a trainer."),
        (state('{"log_history": []}'), "trainer_state.json is no state of a trainer."),
        (state('{"log_history": {}, "global_step": 1}'), "trainer_state.json is no state of a trainer."),
        (state('{"log_history": [], "global_step": Infinity}'), "trainer_state.json is no state of a trainer."),
        (state('{"log_history": [], "global_step": "1"}'), "trainer_state.json is no state of a trainer."),
        (state('{"log_history": [1, {"step": "a"}], "global_step": 1}'), "no logs of a GRPO run are in it."),
        (pipe("trainer_state.json"), "trainer_state.json is no file."),
        (pipe(FILE_NAME), "no logs of a GRPO run are in it."),
        (foreign_state, "no logs of a GRPO run are in it."),
        (foreign_settings, f"{FILE_NAME} is no file of visits: it has been edited."),
        (edited(completions=0), f"{FILE_NAME} is no file of visits: it has been edited."),
        (edited(successes=-1), f"{FILE_NAME} is no file of visits: it has been edited."),
        (edited(successes=SIZE + 1), f"{FILE_NAME} is no file of visits: it has been edited."),
        (edited(step=None), f"{FILE_NAME} is no file of visits: it has been edited."),
        (edited_journal(rollout="0"), f"{JOURNAL_NAME} is no journal of visits: it has been edited."),
        (edited_journal(rollout=None), f"{JOURNAL_NAME} is no journal of visits: it has been edited."),
        (edited_journal(step=10**30), f"{JOURNAL_NAME} is no journal of visits: it has been edited."),
        (edited_journal(prompt=[1]), f"{JOURNAL_NAME} is no journal of visits: it has been edited."),
    ],
)
def test_a_folder_that_is_no_run_gives_one_sentence(tmp_path, capsys, make, sentence):
    make(tmp_path)
    assert_refused(capsys, [str(tmp_path)], sentence)
    assert not (tmp_path / "report").exists()


WRONG_ARGUMENTS = [
    ([], "The following arguments are required: RUN_DIR; see `trl-variants report --help`."),
    ([""], "Argument RUN_DIR: an empty text is no folder; see"),
    (["none"], "none is not a folder; give the output folder of a run."),
    (["n" * 300], "is not a folder; give the output folder of a run."),
    (["file"], "file is not a folder; give the output folder of a run."),
    (["pipe"], "pipe is not a folder; give the output folder of a run."),
    (["/dev/null"], "/dev/null is not a folder; give the output folder of a run."),
    (["empty"], "empty holds nothing to report"),
    (["RUN", "RUN"], "Unrecognized arguments: "),
    (["RUN", "--colour"], "Unrecognized arguments: --colour"),
    (["RUN", "--output"], "Argument --output: expected one argument; see"),
    (["RUN", "--output", ""], "Argument --output: an empty text is no folder; see"),
    (["RUN", "--output", "file"], "The report cannot be written to file: File exists."),
    (["RUN", "--output", "file/below"], "The report cannot be written to file/below: Not a directory."),
    (["RUN", "--output", "pipe"], "The report cannot be written to pipe: File exists."),
    (["RUN", "--output", "n" * 300], "File name too long."),
    (["RUN", "--output", "blocked"], "The report cannot be written to blocked: Is a directory."),
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG_ARGUMENTS, ids=lambda value: str(value)[:40])
def test_wrong_arguments_give_one_sentence(folder, tmp_path, capsys, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    os.mkfifo("pipe")
    (tmp_path / "empty").mkdir()
    (tmp_path / "blocked" / "index.html").mkdir(parents=True)
    assert_refused(capsys, [str(folder) if argument == "RUN" else argument for argument in arguments], sentence)


def test_what_is_in_the_way_of_a_report_is_replaced(folder):
    """A page of an earlier run, or a pipe, which would wait for a reader."""
    (folder / "report").mkdir()
    os.mkfifo(folder / "report" / "index.html")
    report(folder)
    assert not list((folder / "report").glob("*.partial"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"global_step": 16, "log_hist', "trainer_state.json is truncated"),
        ('{"global_step": 16, "log_history": [{"step": 1, "kl": 1e999999, "mirror_kl": 1' + "0" * 400 + "}]}", None),
        (None, "there are no logs; a run writes them with its checkpoints"),
    ],
    ids=["truncated", "numbers out of range", "none"],
)
def test_logs_that_cannot_be_read_are_not_logs_without_a_kl(tmp_path, capsys, text, reason):
    Visits(tmp_path, SETTINGS).start(pd.DataFrame(made_rows()))
    if text is not None:
        (tmp_path / "trainer_state.json").write_text(text)
    report(tmp_path)
    told = reason or "the logs hold no KL; there is one where `beta` or `mirror_beta` is not 0"
    assert f"Left out: KL to the anchors, because {told}.\n" in capsys.readouterr().out


def test_without_matplotlib_it_says_what_to_install(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert_refused(
        capsys, [str(folder)], "A figure needs matplotlib, which is not installed: `pip install matplotlib`."
    )


def test_help_names_the_arguments(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["report", "--help"])
    assert stop.value.code == 0
    assert {"RUN_DIR", "--output"} <= set(capsys.readouterr().out.split())


def assert_refused(capsys, arguments, sentence):
    assert main(["report", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1
    assert output.err.startswith("trl-variants: ") and sentence in output.err


def test_visits_of_a_missing_file_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="a run writes it with `success_monitor: true`"):
        read_visits(tmp_path)
