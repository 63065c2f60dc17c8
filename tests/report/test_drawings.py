# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Marks stand where their numbers are."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from trl_grpo_variants.report import charts, rows, statistics
from trl_grpo_variants.report.statistics import Gap, Interval, Point, Silence
from trl_grpo_variants.report.svg import Plot, round_steps
from trl_grpo_variants.runs.trajectories import Trajectory


POINT, ONE = Point(0.0, Interval(0.2, 0.1, 0.3), 8), (np.array([0.0]), np.array([0.2]))


def marks(drawing, kind):
    """Paths of a class, as lists of points."""
    root = ElementTree.fromstring(drawing)
    found = [element for element in root.iter() if kind in element.get("class", "").split()]
    return [np.array(re.findall(r"(-?[\d.]+) (-?[\d.]+)", element.get("d", "")), float) for element in found]


def texts(drawing):
    return [element.text for element in ElementTree.fromstring(drawing).iter("text")]


@pytest.mark.parametrize(
    ("ends", "numbers"),
    [
        ((0.0, 1.0), [0, 0.25, 0.5, 0.75, 1]),
        ((0.0, 192.0), [0, 50, 100, 150]),
        ((-0.26, 0.26), [-0.2, -0.1, 0, 0.1, 0.2]),
        ((0.85, 1.0), [0.85, 0.9, 0.95, 1.0]),
        ((0.0, 3e-7), [0, 1e-7, 2e-7, 3e-7]),
        ((0.0, 1.0e6), [0, 250_000, 500_000, 750_000, 1_000_000]),
    ],
    ids=str,
)
def test_numbers_at_an_axis_are_round_and_few(ends, numbers):
    np.testing.assert_allclose(round_steps(*ends), numbers, atol=1e-12)


def test_axes_place_and_name_their_numbers():
    plot = Plot("a & b", (352, 190), (0.0, 100.0), (0.0, 0.4), name="step", percent=True)
    plot.ticks_across()
    assert float(plot.x(0.0)) == plot.left and float(plot.x(100.0)) == plot.right
    assert float(plot.y(0.0)) == plot.bottom and float(plot.y(0.4)) == plot.top and float(plot.y(9.0)) == plot.top
    expected = [f"{n}\xa0%" for n in (0, 10, 20, 30, 40)] + ["step", "0", "25", "50", "75", "100"]
    assert texts(plot.markup) == expected
    assert 'aria-label="a &amp; b"' in plot.markup
    signed = Plot("", (352, 190), (0.0, 1.0), (-0.1, 0.1))
    assert texts(signed.markup) == ["−0.1", "−0.05", "0", "+0.05", "+0.1"]
    upwards = Plot("", (352, 190), (0.0, 1.0), (-0.1, 0.1), magnitude=True, percent=True)
    assert texts(upwards.markup) == ["10\xa0%", "5\xa0%", "0\xa0%", "5\xa0%", "10\xa0%"]


def test_single_values_are_dots_and_their_means_a_line():
    values = np.arange(24.0)
    drawing = charts.trend("KL", (values, values), 24.0)
    (dots,), (line,) = marks(drawing, "dots"), marks(drawing, "line")
    assert len(dots) == 24 and len(line) == 12
    assert (np.diff(dots[:, 0]) > 0).all() and (np.diff(dots[:, 1]) < 0).all()
    np.testing.assert_allclose(line[0], (dots[0] + dots[1]) / 2, atol=0.6)
    many = charts.trend("KL", (np.arange(1000.0), np.arange(1000.0)), 1000.0)
    assert len(marks(many, "dots")[0]) == 334


def test_a_single_rollout_is_seen():
    drawing = charts.trend("KL", (np.array([0.0]), np.array([0.5])), 1.0)
    assert len(marks(drawing, "means")) == 1
    assert texts(drawing)[-3:] == ["optimizer step", "0", "1"]
    drawing = charts.success_chart("Success", (352, 250), charts.SuccessLines([POINT], [], ONE), 1.0)
    (band,) = marks(drawing, "band")
    assert np.ptp(band[:, 0]) == 7 and np.ptp(band[:, 1]) > 20


def test_what_lies_beyond_an_axis_is_at_its_end():
    drawing = charts.trend("norm", (np.arange(3.0), np.array([0.0, 1.0, 50.0])), 3.0, up=(0.0, 1.0))
    (dots,) = marks(drawing, "dots")
    assert dots[1, 1] == dots[2, 1] == 8.0


def test_a_gap_that_is_none_is_filled_and_another_a_ring():
    gaps = [Gap(2, 2, Interval(-0.2, -0.3, -0.1)), Gap(3, 5, Interval(0.0, -0.1, 0.1))]
    drawing = charts.gap_chart("gap", gaps)
    (hole,), points = marks(drawing, "hole"), marks(drawing, "point")
    assert len(hole) == 1 and {tuple(point) for path in points for point in path} >= {tuple(hole[0])}
    assert [len(path) for path in points] == [1, 1]
    assert "3–5" in texts(drawing) and "visit 2: −0.200 [−0.300, −0.100]; visit 3–5: 0.000" in drawing


def test_success_has_bands_lines_dots_and_names_at_their_ends():
    measured = [Point(0.0, Interval(0.2, 0.1, 0.3), 8), Point(10.0, Interval(0.6, 0.5, 0.7), 8)]
    predicted = [Point(10.0, Interval(0.6, 0.5, 0.7), 8)]
    rollouts = (np.array([0.0, 10.0]), np.array([0.2, 0.6]))
    held_out = (np.array([5.0, 10.0]), np.array([0.3, 0.4]))
    lines = charts.SuccessLines(measured, predicted, rollouts, held_out)
    wide = charts.success_chart("Success", (1120, 300), lines, 10.0)
    assert [text for text in texts(wide) if text.isalpha() or "-" in text] == ["measured", "predicted", "held-out"]
    heights = [float(y) for y in re.findall(r'y="([\d.]+)" class="name', wide)]
    assert min(np.diff(sorted(heights))) >= 15
    assert wide.count('class="diamond"') == 2
    narrow = charts.success_chart("Success", (352, 250), lines, 10.0)
    assert "measured" not in texts(narrow)


def test_visits_are_drawn_at_their_prediction_with_their_number():
    points = [Point(0.05, Interval(0.2, 0.1, 0.3), 5), Point(1.0, Interval(0.9, 0.8, 1.0), 20)]
    drawing = charts.prediction_chart("by prediction", points)
    (dots,) = marks(drawing, "point")
    # From where nothing succeeds as predicted to where everything does.
    ((left, bottom), (right, _)) = marks(drawing, "thin")[0]
    np.testing.assert_allclose((dots[:, 0] - left) / (right - left), [0.05, 1.0], atol=1e-3)
    bars = [e.attrib for e in ElementTree.fromstring(drawing).iter("rect")]
    assert [bar["height"] for bar in bars] == ["7.0", "28.0"]
    assert {float(bar["y"]) + float(bar["height"]) for bar in bars} == {bottom}
    assert {float(bar["width"]) for bar in bars} == {round((right - left) / 10 - 2, 1)}
    # A prediction of 1 belongs to the last tenth.
    assert float(bars[1]["x"]) == pytest.approx(left + 0.9 * (right - left) + 1, abs=0.1)
    assert texts(drawing).count("0.25") == 2 and "0.20" not in texts(drawing)
    assert "0.05: 0.20 at 5 visits; 1.00: 0.90 at 20 visits" in drawing


def test_lengths_lie_between_the_shortest_and_the_longest_below_the_limit():
    steps = np.arange(4.0)
    mean, low, high = ((steps, steps + by) for by in (5.0, 1.0, 9.0))
    drawing = charts.length_chart("length", mean, (low, high), 16.0, 4.0)
    (band,), lines = marks(drawing, "band"), marks(drawing, "line")
    (limit,) = marks(drawing, "limit")
    assert limit[0, 1] == limit[1, 1] < band[:, 1].min() and "limit 16" in texts(drawing)
    assert (band[:4, 1] > lines[0][:, 1]).all() and (band[4:, 1][::-1] < lines[0][:, 1]).all()
    bare = charts.length_chart("length", mean, None, None, 4.0)
    assert not marks(bare, "band") and not marks(bare, "limit")


def test_two_lines_have_their_names_at_their_ends():
    steps = np.arange(3.0)
    lines = {"k = 1": (steps, np.array([0.1, 0.2, 0.3])), "k = 8": (steps, np.array([0.8, 0.8, 0.9]))}
    drawing = charts.lines_chart("best", lines, (0.0, 2.0), (0.0, 1.0), "step")
    lower, upper = marks(drawing, "line")
    assert (lower[:, 1] > upper[:, 1]).all() and [len(dots) for dots in marks(drawing, "dots")] == [3, 3]
    names = {element.text: element.attrib for element in ElementTree.fromstring(drawing).iter("text")}
    for name, line in (("k = 1", lower), ("k = 8", upper)):
        assert float(names[name]["x"]) > line[:, 0].max()
        assert float(names[name]["y"]) == pytest.approx(line[-1, 1] + 4, abs=0.1)
    alone = charts.lines_chart("best", {"k = 1": lines["k = 1"]}, (0.0, 2.0), (0.0, 1.0), "step")
    assert "k = 1" not in texts(alone)


def test_areas_lie_on_each_other():
    parts = [Silence(0.0, 0.25, 0.25, 0.0, np.nan), Silence(10.0, 0.5, 0.25, 0.0, 0.9)]
    drawing = charts.silence_chart("signal", parts, 10.0)
    (all_succeed,), (none_succeeds,) = marks(drawing, "all_succeed"), marks(drawing, "none_succeeds")
    np.testing.assert_allclose(all_succeed[2:][::-1], none_succeeds[:2])
    assert marks(drawing, "others") == [] and "step 10: 75\xa0%" in drawing
    stacked = charts.stack_chart("time", np.array([0.0, 1.0]), [np.array([1.0, 2.0]), np.array([3.0, 4.0])], 1.0)
    assert len(marks(stacked, "area")) == 2


def test_clipped_shares_go_up_and_down():
    steps = np.array([0.0, 4.0])
    drawing = charts.clip_chart("clipped", (steps, np.array([0.1, 0.0])), (steps, np.array([0.05, 0.2])), 4.0)
    up, down = (re.findall(r'class="bar ' + kind + r'" d="([^"]+)"', drawing)[0] for kind in ("measured", "negative"))
    (start, end) = re.fullmatch(r"M[\d.]+ ([\d.]+)V([\d.]+)", up).groups()
    assert float(end) < float(start) and down.count("M") == 2
    assert {"A > 0", "A < 0"} <= set(texts(drawing))


def member(prompt, *successes):
    k = np.array(successes, float)
    return Trajectory(prompt, 4.0 * np.arange(len(k)), k, np.full(len(k), 10.0))


KINDS = {
    "amplified": [member("up", 0, 3, 7, 10), member("more", 2, 4, 8, 8)],
    "saturated": [member("sure", 10, 10, 10, 10)],
}


@pytest.mark.parametrize(("share", "number"), [(0, 0), (0.01, 1), (1 / 3, 1), (0.34, 2), (0.67, 3), (0.99, 3), (1, 4)])
def test_success_of_0_and_of_1_are_classes_of_their_own(share, number):
    assert rows.class_of(share) == number


def test_a_prompt_is_a_row_of_cells():
    found = statistics.rows_by_kind(KINDS, 60)
    drawing = rows.map_chart("map", found, 4, 16.0, width=730)
    strokes = {number: re.findall(rf'class="cell class-{number}" d="([^"]+)"', drawing) for number in range(5)}
    assert [path[0].count("M") if path else 0 for path in strokes.values()] == [1, 2, 1, 3, 5]
    assert strokes[0][0].startswith("M156.0 12.5H")
    assert {"better", "2", "always succeeds", "1", "optimizer step"} <= set(texts(drawing))
    hints = [element.text for element in ElementTree.fromstring(drawing).iter("title")]
    assert hints == ["up: 0.15 → 0.85", "more: 0.30 → 0.80", "sure: 1.00 → 1.00"]
    narrow = rows.map_chart("map", found, 4, 16.0, width=352)
    assert "better" not in texts(narrow) and "<title>" not in narrow


def test_the_halves_stand_at_the_height_of_their_rows():
    found = statistics.rows_by_kind(KINDS, 60)
    drawing = rows.change_chart("changes", found)
    (earlier,), (later,) = marks(drawing, "ring"), marks(drawing, "point")
    assert earlier[:, 1].tolist() == later[:, 1].tolist() == [12.5, 22.5, 42.5]
    np.testing.assert_allclose((later[:, 0] - 6) / 340, [0.85, 0.8, 1.0], atol=1e-3)
    np.testing.assert_allclose((earlier[:, 0] - 6) / 340, [0.15, 0.3, 1.0], atol=1e-3)
    assert "<title>up: 0.15 → 0.85</title>" in drawing and "success" in texts(drawing)


def test_where_not_all_rows_are_shown_the_map_says_how_many():
    found = statistics.rows_by_kind({"amplified": [member(str(n), 0, n % 9, 10) for n in range(1904)]}, 60)
    drawing = rows.map_chart("map", found, 2, 8.0, width=730)
    assert {"1,904", "every 32nd shown"} <= set(texts(drawing))


def test_a_sparkline_is_hidden_from_those_who_read_its_numbers():
    drawing = charts.sparkline(np.arange(500.0))
    assert 'aria-hidden="true"' in drawing and "aria-label" not in drawing
    assert 'width="120" height="24" viewBox="0 0 120 24"' in drawing
    assert len(marks(drawing, "line")[0]) <= 40
    assert len(marks(charts.sparkline(np.array([2.0])), "line")[0]) == 1
