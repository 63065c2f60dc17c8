# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Intervals of success, what became of a prompt, the figure of the card, and the file of visits of an earlier version."""

import itertools
import json
import math

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from trl_grpo_variants.runs.figures import success_figure
from trl_grpo_variants.runs.intervals import (
    mean_with_interval,
    measured_success,
    wilson_interval,
)
from trl_grpo_variants.runs.trajectories import kind_of, trajectories
from trl_grpo_variants.runs.visits import FILE_NAME, JOURNAL_NAME, Visits, read_visits

from .report.made import SIZE, SUCCESSES, made_rows, visit


# ---- figures -------------------------------------------------------------------------------------------------------


def lines(axes):
    return {line.get_label(): line.get_xydata() for line in axes.get_lines()}


def test_the_figure_of_success_shows_the_numbers():
    over_steps, against = success_figure(pd.DataFrame(made_rows())).axes
    means = np.array([np.mean([counts[n] for counts in SUCCESSES.values()]) / SIZE for n in range(4)])
    drawn = lines(over_steps)
    np.testing.assert_allclose(drawn["measured, first visits"], [[0, means[0]]])
    np.testing.assert_allclose(drawn["measured, later visits"], np.stack([[4, 8, 12], means[1:]], axis=1))
    np.testing.assert_allclose(drawn["predicted for later visits"], [[4, 0.4], [8, 0.5], [12, 0.6]])
    np.testing.assert_allclose(
        against.collections[-1].get_offsets(), [[0.4, means[1]], [0.5, means[2]], [0.6, means[3]]]
    )
    assert (against.get_xlabel(), against.get_title(loc="left")) == ("predicted success", "measured against predicted")
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


def test_a_change_between_two_visits_is_clear_beyond_196_standard_deviations():
    for first, last in itertools.product(range(1, 20), repeat=2):
        p, q = (first + 1) / 22, (last + 1) / 22
        moved = (last - first) / 20 / math.sqrt(p * (1 - p) / 22 + q * (1 - q) / 22)
        kind = "amplified" if moved > 1.96 else "worsened" if moved < -1.96 else "unchanged"
        assert kind_of(np.array([first, last], float), np.array([20.0, 20.0])) == kind


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


# ---- files of earlier versions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("in_journal", [False, True], ids=["file", "journal"])
def test_why_groups_have_no_signal_is_derived_where_it_is_not_said(tmp_path, in_journal):
    """As far as the success of all of a visit's groups tells it, in a file that a run then goes on with."""
    several = {"groups": 2, "groups_without_signal": 1}
    rows = [visit(0, str(n), None, 1, successes) for n, successes in enumerate((SIZE, 0, 5))]
    rows += [visit(0, "equal", None, 1, 5) | {"groups_without_signal": 1}]
    rows += [visit(0, "both", None, 1, SIZE) | several | {"groups_without_signal": 2}]
    rows += [visit(0, "either", None, 1, 5) | several, visit(0, "neither", None, 1, 5) | {"groups": 2}]
    visits, store, reasons = pd.DataFrame(rows), Visits(tmp_path, {}), ["silent_all_succeed", "silent_none_succeeds"]
    store.start(visits[:0] if in_journal else visits)
    if in_journal:
        store.append(visits)
        lines = [json.loads(line) for line in (tmp_path / JOURNAL_NAME).read_text().splitlines()]
        earlier = [{name: value for name, value in line.items() if name not in reasons} for line in lines]
        (tmp_path / JOURNAL_NAME).write_text("".join(json.dumps(line) + "\n" for line in earlier))
    pq.write_table(pq.read_table(tmp_path / FILE_NAME).drop_columns(reasons), tmp_path / FILE_NAME)
    expected = [[1, 0], [0, 1], [0, 0], [0, 0], [2, 0], [np.nan, np.nan], [0, 0]]
    np.testing.assert_equal(read_visits(tmp_path)[0][reasons].to_numpy(), expected)
    store.merge()
    np.testing.assert_equal(read_visits(tmp_path)[0][reasons].to_numpy(), expected)
