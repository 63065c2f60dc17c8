# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What the visits and the logs of made runs say, in numbers."""

import math

import numpy as np
import pandas as pd
import pytest

from trl_grpo_variants.report import statistics
from trl_grpo_variants.report.series import errors_of_means, last, means, quarter, worst_high, worst_low
from trl_grpo_variants.runs.intervals import Z, measured_success
from trl_grpo_variants.runs.parts import even_parts, parts_of_run
from trl_grpo_variants.runs.trajectories import Trajectory, trajectories

from .made import SIZE, made, visits_of


def frame(counts, predicted=None, **others):
    return pd.DataFrame(visits_of(counts, predicted, **others))


def members(counts):
    return [member for kind in trajectories(frame(counts)).values() for member in kind]


# ---- change --------------------------------------------------------------------------------------------------------


def test_a_change_is_that_of_the_prompts_with_two_visits():
    counts = {"a": [2, 5, 10], "b": [4, 19], "c": [6, 6], "once": [20]}
    found = statistics.change(members(counts))
    differences = np.array([8, 15, 0]) / SIZE
    half = Z * differences.std(ddof=1) / math.sqrt(3)
    assert (found.first, found.last, found.prompts) == (pytest.approx(12 / 60), pytest.approx(35 / 60), 3)
    assert found.change == pytest.approx((differences.mean(), differences.mean() - half, differences.mean() + half))


def test_prompts_that_change_alike_have_the_interval_of_their_completions():
    found = statistics.change(members({"a": [5, 10], "b": [5, 10]}))
    ends = [measured_success(np.full(2, float(k)), np.full(2, float(SIZE))) for k in (5, 10)]
    half = math.hypot(*(mean - low for mean, low, _ in ends))
    assert found.change == pytest.approx((0.25, 0.25 - half, 0.25 + half))
    assert statistics.change([]) is None


def test_a_visit_of_fewer_completions_counts_its_own():
    member = Trajectory("a", np.arange(3.0), np.array([2.0, 9, 3]), np.array([8.0, 20, 4]))
    found = statistics.change([member])
    assert (found.first, found.last) == (0.25, 0.75)


def test_a_series_changes_by_more_than_its_neighbours_differ():
    values = np.array([0.0, 0.2] * 10 + [1.0, 0.8] * 10)
    found = statistics.change_of_series(values)
    assert found.prompts == 0
    assert (found.first, found.last) == (pytest.approx(0.1), pytest.approx(0.9))
    half = Z * math.sqrt(np.square(np.diff(values)).mean() / 4)
    assert found.change == pytest.approx((0.8, 0.8 - half, 0.8 + half))
    assert statistics.change_of_series(values[:2]) is None


# ---- predictions ---------------------------------------------------------------------------------------------------


def test_gaps_are_grouped_by_the_number_of_the_visit():
    counts = {str(n): [10] * 25 for n in range(4)}
    predicted = {str(n): [None] + [0.4 + 0.02 * n] * 24 for n in range(4)}
    found = statistics.gaps(frame(counts, predicted))
    assert len(found) == 10
    assert [(gap.first_visit, gap.last_visit) for gap in found[:4]] == [(2, 4), (5, 7), (8, 10), (11, 13)]
    assert found[-1].last_visit == 25
    values = np.tile(0.5 - np.array([0.4, 0.42, 0.44, 0.46]), 3)
    half = Z * values.std(ddof=1) / math.sqrt(12)
    assert found[0].value == pytest.approx((0.07, 0.07 - half, 0.07 + half))


def test_a_gap_is_a_mean_over_at_least_four_visits():
    counts = {"a": [10, 10, 10], "b": [10, 10, 10], "c": [10, 10, 10]}
    predicted = {prompt: [None, 0.4, 0.6] for prompt in counts}
    (gap,) = statistics.gaps(frame(counts, predicted))
    assert (gap.first_visit, gap.last_visit) == (2, 3) and gap.value.holds_zero
    assert statistics.gaps(frame({"a": [10, 10]}, {"a": [None, 0.5]})) == []


@pytest.mark.parametrize(
    ("completions", "p"), [(8, 0.9), (8, 0.03), (16, 0.5), (1, 0.3), (5, 1.0), (5, 0.0), (4, 0.25)]
)
def test_what_sampling_alone_is_off_by(completions, p):
    k = np.arange(completions + 1)
    weights = np.array([math.comb(completions, int(i)) * p**i * (1 - p) ** (completions - i) for i in map(int, k)])
    expected = (weights * np.abs(k / completions - p)).sum()
    counts = {"a": [0, 0], "b": [0, 0]}
    found = statistics.agreement(frame(counts, dict.fromkeys(counts, [None, p]), size=completions))
    assert found.by_sampling == pytest.approx(expected, abs=1e-12)


def test_agreement_is_that_of_the_visits_with_a_prediction():
    counts = {"a": [4, 10, 16], "b": [4, 12, 16]}
    predicted = {"a": [None, 0.9, 0.8], "b": [None, 0.8, 0.4]}
    found = statistics.agreement(frame(counts, predicted))
    assert (found.measured, found.predicted, found.at_visit) == (pytest.approx(0.55), pytest.approx(0.85), 2)
    assert found.distance.mean == pytest.approx(np.mean([0.4, 0.2, 0.0, 0.4]))
    # Intervals of 0.2 to each side of what was measured, and of 0.05 of what was predicted.
    assert found.overlap == 0.5
    assert statistics.agreement(frame({"a": [4, 10]}, {"a": [None, 0.5]})) is None


def test_visits_are_set_against_their_prediction_in_tenths():
    """A prediction of 1 belongs to the last tenth."""
    predictions, counts = [0.05, 0.15, 0.85, 0.95, 1.0], [2, 4, 16, 18, 19]
    rows = visits_of(
        {str(n): [0, k] for n, k in enumerate(counts)}, {str(n): [None, p] for n, p in enumerate(predictions)}
    )
    found = statistics.by_prediction(pd.DataFrame(rows))
    assert [(round(point.at, 4), point.visits) for point in found] == [(0.05, 1), (0.15, 1), (0.85, 1), (0.975, 2)]
    assert [point.value.mean for point in found] == pytest.approx([0.1, 0.2, 0.8, 0.925])
    ends = measured_success(np.array([18.0, 19.0]), np.array([20.0, 20.0]))
    assert found[-1].value == pytest.approx((ends[0], ends[1], min(1.0, ends[2])))


# ---- signal --------------------------------------------------------------------------------------------------------


def test_groups_without_signal_are_told_by_why_and_beside_what_was_predicted():
    counts = {"a": [10, 20], "b": [10, 0], "c": [20, 10], "d": [10, 20]}
    predicted = dict.fromkeys(counts, [None, 0.9])
    first, second = statistics.silences(frame(counts, predicted))
    assert (first.all_succeed, first.none_succeeds, first.others) == (0.25, 0.0, 0.0)
    assert (second.all_succeed, second.none_succeeds, second.total) == (0.5, 0.25, 0.75)
    assert math.isnan(first.predicted) and second.predicted == pytest.approx(0.9**SIZE + 0.1**SIZE)


def test_a_part_in_which_some_have_no_prediction_has_none():
    counts = {"a": [10, 20], "b": [10, 0], "c": [20, 10], "d": [10, 20]}
    predicted = {"a": [None, 0.9], "b": [None, 0.9], "c": [None, 0.9]}
    assert all(math.isnan(part.predicted) for part in statistics.silences(frame(counts, predicted)))


def test_equal_rewards_that_are_neither_right_nor_wrong_are_told_apart():
    rows = [row | {"groups_without_signal": 1} for row in visits_of({str(n): [10] for n in range(4)})]
    (part,) = statistics.silences(pd.DataFrame(rows))
    assert (part.all_succeed, part.none_succeeds, part.others) == (0.0, 0.0, 1.0)


def test_several_groups_of_a_visit_have_reasons_of_their_own():
    several = {"groups": 3, "groups_without_signal": 2, "silent_all_succeed": 1, "silent_none_succeeds": 1}
    rows = [row | several for row in visits_of({str(n): [10] for n in range(4)})]
    (part,) = statistics.silences(pd.DataFrame(rows))
    assert (part.all_succeed, part.none_succeeds, part.others) == (1 / 3, 1 / 3, 0.0)


# ---- prompts -------------------------------------------------------------------------------------------------------


def test_halves_leave_a_middle_visit_out():
    member = Trajectory("a", np.arange(5.0), np.array([1.0, 2, 9, 4, 5]), np.full(5, 10.0))
    successes, completions = member.halves
    assert successes.tolist() == [3, 9] and completions.tolist() == [20, 20]
    assert member.change == pytest.approx(0.3)


def test_cells_pool_the_visits_of_a_part_of_the_run():
    member = Trajectory("a", np.array([0.0, 4, 8, 39]), np.array([1.0, 3, 8, 9]), np.array([10.0, 10, 10, 10]))
    found = statistics.cells(member, 4, 40.0)
    assert found[:1].tolist() == [0.4] and found[3] == 0.9 and np.isnan(found[1:3]).all()
    assert statistics.cells(member, 4, 39.0)[3] == 0.9


def test_at_most_so_many_prompts_are_shown_of_each_kind_by_its_share():
    def some(number, change):
        return [
            Trajectory(f"{change} {n}", np.arange(2.0), np.array([50.0, 50 + change * n / number]), np.full(2, 100.0))
            for n in range(number)
        ]

    found = statistics.rows_by_kind(
        {"amplified": some(900, 50), "worsened": some(90, -50), "saturated": some(1, 0)}, 60
    )
    assert [(rows.total, len(rows.shown)) for rows in found] == [(900, 52), (90, 6), (1, 1)]
    changes = [member.change for member in found[0].shown]
    assert (
        changes == sorted(changes, reverse=True)
        and changes[-1] == 0.0
        and changes[0] == pytest.approx(0.4994, abs=1e-3)
    )
    assert np.ptp(np.diff(changes)) < 2e-3
    few = statistics.rows_by_kind({"amplified": some(3, 50)}, 60)
    assert len(few[0].shown) == 3


# ---- parts and rollouts --------------------------------------------------------------------------------------------


def test_parts_hold_equally_many_rollouts():
    assert parts_of_run([0, 0, 1, 2, 2, 3, 4], 2).tolist() == [0, 0, 0, 0, 0, 1, 1]
    assert parts_of_run([5, 6], 12).tolist() == [0, 1]
    assert parts_of_run([], 12).tolist() == []
    assert [even_parts(number, 12) for number in (0, 1, 12, 13, 19, 24, 25, 48)] == [0, 1, 12, 7, 10, 12, 9, 12]


def test_a_mean_of_success_is_over_at_least_four_visits():
    visits = frame({"a": [5] * 9})
    assert [point.visits for point in statistics.measured_points(visits)] == [5, 4]
    assert [point.at for point in statistics.measured_points(visits)] == [8.0, 26.0]


def test_means_are_those_of_twelfths_and_quarters():
    series = (np.arange(24.0), np.arange(24.0) ** 2)
    steps, values = means(series)
    assert steps.tolist() == [2 * n + 0.5 for n in range(12)] and values[1] == (4 + 9) / 2
    assert quarter(series, 0) == pytest.approx(np.mean(np.arange(6.0) ** 2))


def test_the_error_of_a_mean_is_the_root_of_the_squares_over_their_number():
    steps = np.array([0.0, 4, 8, 12, 16, 20, 24, 28, 32, 36, 40, 44, 48])
    errors = (steps[:-1], np.arange(12.0))
    found = errors_of_means((steps, np.zeros(13)), errors)
    assert found.tolist()[:3] == [0.5, math.hypot(2, 3) / 2, math.hypot(4, 5) / 2] and math.isnan(found[-1])
    assert np.isnan(errors_of_means((steps, steps), (steps[:0], steps[:0]))).all()


def rollout_logs(**others):
    """Three rollouts of four steps, logged at each step."""
    return [
        {"step": step, "loss": 0.1, "kl": float(step % 5)}
        | ({"completions/mean_length": 5.0} if step % 4 == 1 else {})
        for step in range(1, 13)
    ]


@pytest.mark.parametrize("rows", [None, visits_of({"a": [1, 2, 3]})], ids=["logs", "visits"])
def test_a_rollout_has_its_last_or_its_worst_step(rows):
    logs = made(rows, rollout_logs()).logs
    steps, values = logs.by_rollout("kl", last)
    assert steps.tolist() == [3, 7, 11] and values.tolist() == [4, 3, 2]
    assert logs.by_rollout("kl", worst_high)[1].tolist() == [4, 3, 4]
    assert logs.by_rollout("kl", worst_low)[1].tolist() == [1, 0, 0]


def test_logs_of_several_steps_tell_no_place_within_a_rollout():
    entries = [entry for entry in rollout_logs() if entry["step"] % 2 == 0]
    logs = made(visits_of({"a": [1, 2, 3]}), entries).logs
    assert not logs.is_each_step
    assert logs.by_rollout("kl", last)[1].tolist() == [entry["kl"] for entry in entries]
    assert not logs.tells_end("kl")


def test_what_was_logged_of_the_ends_of_rollouts_is_taken_where_the_place_is_not_known():
    entries = [entry | {"rollout_end/kl": 9.0} for entry in rollout_logs() if entry["step"] % 4 == 0]
    logs = made(None, entries).logs
    assert logs.tells_end("kl") and logs.by_rollout("kl", last)[1].tolist() == [9.0] * 3
    assert made(None, rollout_logs()).logs.by_rollout("kl", last)[1].tolist() == [4, 3, 2]


@pytest.mark.parametrize("prefix", ["", "rollout_end/"])
def test_the_error_of_a_kl_is_that_of_the_last_step_on_a_rollout(prefix):
    entries = [entry | {f"{prefix}kl_standard_error": 0.1} for entry in rollout_logs() if entry["step"] % 4 == 0]
    steps, values = made(None, entries).logs.standard_errors("kl")
    assert steps.tolist() == [3, 7, 11] and values.tolist() == [0.1] * 3
    assert not made(None, rollout_logs()).logs.standard_errors("kl")[0].size


def test_an_evaluation_is_of_the_policy_after_its_step_and_a_rollout_before_it():
    logs = made(None, [{"step": 4, "success@2": 0.5}, {"step": 4, "eval_success@2": 0.6}]).logs
    assert (logs.series("success@2")[0].tolist(), logs.series("eval_success@2")[0].tolist()) == ([3.0], [4.0])
