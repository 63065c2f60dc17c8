# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The comparison of ways to choose prompts runs, and its table says what its runs say."""

import re
import sys
from pathlib import Path

import pytest

from trl_grpo_variants.runs.style import LIGHT


@pytest.fixture(scope="module")
def example():
    folder = str(Path(__file__).parents[2] / "examples" / "prompts")
    sys.path.insert(0, folder)
    import compare

    yield compare
    sys.path.remove(folder)
    sys.path.remove(str(compare.QUICKSTART))


@pytest.mark.parametrize("method", ["signal, unbiased", "refill"])
def test_a_run_ends_at_its_tokens(example, tmp_path, method):
    run = example.run("spread", method, 0, 1000, tmp_path)
    first, *_, last = run.curve
    assert (first.step, first.tokens) == (0, 0)
    assert last.step > 0 and 1000 <= last.tokens < 10_000
    assert 0.3 < first.success < 0.7


def test_the_table_is_that_of_the_curves(example, tmp_path, capsys):
    def made(method, seed, tokens):
        curve = [example.Point(10 * i, tokens * i, 0.5 + 0.1 * i) for i in range(6)]
        return example.Run("spread", method, seed, curve)

    runs = [made("TRL's order", 0, 1000), made("TRL's order", 1, 1000), made("signal", 0, 500), made("signal", 1, 700)]
    assert runs[0].tokens_to(0.8) == pytest.approx(3000) and runs[0].tokens_to(1.1) is None
    example.show(runs, tmp_path)
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("| signal"))
    assert (
        row
        == "| signal | 0.60 (0.50-0.70) | 0.60 (0.50-0.70) | 0.60 (0.50-0.70) | 0.60 (0.50-0.70) | 0.95 (0.95-0.95) | 3,000 | 50 |"
    )
    for name in ("prompts-light.svg", "prompts-dark.svg"):
        assert {"signal", "TRL's order"} <= set(re.findall(">([^<>]+)</text>", (tmp_path / name).read_text()))
    assert (tmp_path / "prompts.png").stat().st_size > 10_000


def test_the_figure_has_the_mean_as_far_as_all_seeds_go(example):
    def made(method, ends):
        return [
            example.Run("spread", method, seed, [example.Point(0, 0, 0.5), example.Point(10, end, 0.9)])
            for seed, end in enumerate(ends)
        ]

    tokens, steps = example.figure([*made("TRL's order", [1000, 800]), *made("signal", [500, 500])], LIGHT).axes
    order, signal = tokens.lines
    assert (order.get_xdata()[-1], signal.get_xdata()[-1]) == (800, 500)
    assert order.get_ydata()[-1] == pytest.approx((0.9 + 0.5 + 0.4 * 0.8) / 2)
    assert [line.get_ydata()[-1] for line in steps.lines] == pytest.approx([0.9, 0.9])
    assert [text.get_text() for text in steps.texts] == ["TRL's order", "signal"]
