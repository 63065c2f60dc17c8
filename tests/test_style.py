# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The style of the figures: places in pixels, letters that can be read, names that do not lie on each other."""

import itertools
import struct

import numpy as np
import pytest
from matplotlib.text import Text

from trl_grpo_variants.runs.style import DARK, LIGHT, LINES, NOTE, WIDTH, Sheet, points, save


def luminance(color):
    shares = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [s / 12.92 if s <= 0.04045 else ((s + 0.055) / 1.055) ** 2.4 for s in shares]
    return np.dot((0.2126, 0.7152, 0.0722), linear)


@pytest.mark.parametrize("colors", [LIGHT, DARK], ids=["light", "dark"])
def test_letters_and_lines_stand_out_from_their_ground(colors):
    assert colors.keys() == LIGHT.keys()
    for name in ("text", "muted", *LINES):
        low, high = sorted([luminance(colors[name]), luminance(colors["ground"])])
        assert (high + 0.05) / (low + 0.05) >= 4.5, name


def test_everything_is_placed_in_pixels_from_the_upper_left():
    sheet = Sheet(300, LIGHT)
    axes = sheet.add_panel(40, 90, 200, 120, title="up", across="along", grid="x")
    assert axes.bbox.extents == pytest.approx([40, 300 - 90 - 120, 240, 300 - 90])
    assert (axes.get_title(loc="left"), axes.get_xlabel()) == ("up", "along")
    assert [side for side, spine in axes.spines.items() if spine.get_visible()] == ["left"]
    sheet.write(16, 250, "words", NOTE, "blue")
    (words,) = sheet.figure.texts
    place = sheet.figure.transFigure.transform(words.get_position())
    assert place == pytest.approx([16, 50])
    assert (words.get_fontsize(), words.get_color()) == (points(NOTE), LIGHT["blue"])


@pytest.mark.parametrize("scale", ["linear", "logit"])
def test_names_of_lines_that_end_close_together_are_apart_and_in_their_order(scale):
    sheet = Sheet(300, LIGHT)
    axes = sheet.add_panel(40, 90, 200, 120)
    axes.set(xlim=(0, 1), yscale=scale, ylim=(0.01, 0.99))
    ends = {"low": 0.1, "third": 0.71, "first": 0.72, "second": 0.715}
    sheet.name_ends(axes, [(1.0, y, name, "blue") for name, y in ends.items()])
    sheet.figure.draw_without_rendering()
    # Of the words alone, without the lines that lead to them.
    places = {words.get_text(): Text.get_window_extent(words) for words in axes.texts}
    heights = {name: (place.y0 + place.y1) / 2 for name, place in places.items()}
    assert sorted(heights, key=heights.get) == ["low", "third", "second", "first"]
    for one, other in itertools.combinations(heights.values(), 2):
        assert abs(one - other) > NOTE
    assert all(place.x0 > axes.bbox.x1 for place in places.values())
    # What has room is where its line ends, and the others are around theirs.
    assert heights["low"] == pytest.approx(axes.transData.transform((1.0, 0.1))[1], abs=2)
    assert heights["second"] == pytest.approx(axes.transData.transform((1.0, 0.715))[1], abs=2)


def test_a_legend_is_below_its_axes():
    sheet = Sheet(300, LIGHT)
    axes = sheet.add_panel(40, 60, 200, 120, across="along")
    axes.plot([0, 1], [0, 1], label="a line")
    sheet.add_legend(axes, 1)
    sheet.figure.draw_without_rendering()
    assert 0 < axes.get_legend().get_window_extent().y1 < axes.xaxis.label.get_window_extent().y0


def test_a_figure_is_saved_light_and_dark_and_twice_as_large(tmp_path):
    def draw(colors):
        sheet = Sheet(300, colors)
        sheet.add_panel(40, 90, 200, 120).plot([0, 1], [0, 1], color=colors["blue"])
        sheet.add_heading("a title", "and more")
        return sheet.figure

    save(draw, tmp_path / "one")
    texts = {}
    for name, colors, others in (("light", LIGHT, DARK), ("dark", DARK, LIGHT)):
        texts[name] = (tmp_path / f"one-{name}.svg").read_text()
        for color in ("ground", "text", "muted", "blue"):
            assert colors[color].lower() in texts[name] and others[color].lower() not in texts[name]
        assert ">a title</text>" in texts[name]
    assert struct.unpack(">II", (tmp_path / "one.png").read_bytes()[16:24]) == (2 * WIDTH, 600)
    save(draw, tmp_path / "one")
    assert all((tmp_path / f"one-{name}.svg").read_text() == text for name, text in texts.items())
