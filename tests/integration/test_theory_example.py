# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The real trainer does what the theory predicts, and each level's expected gradient is the one that it claims."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from trl_grpo_variants import theory
from trl_grpo_variants.objective.advantages import ADVANTAGES
from trl_grpo_variants.runs.style import DARK, LIGHT, save


@pytest.fixture(scope="module")
def example():
    folder = str(Path(__file__).parents[2] / "examples" / "theory")
    sys.path.insert(0, folder)
    import advantages
    import agreement
    import gradients

    yield agreement, gradients, advantages
    sys.path.remove(folder)


def test_a_trained_policy_has_the_predicted_success(example):
    agreement, *_ = example
    for case in (*agreement.exact_cases()[::2], *agreement.other_advantages()[::2]):
        outcome = agreement.run(agreement.replace(case, group=256, iterations=2, inner_steps=120))
        assert outcome.largest_gap <= 0.01, case
        # Iterations that did nothing would stay at the start.
        assert np.abs(np.diff(outcome.measured, axis=0)[0]).min() > 0.02
        expected = theory.success_path(
            case.p_ref,
            2,
            beta=case.beta,
            mirror_beta=case.mirror_beta,
            advantage=case.advantage,
            advantage_kwargs=case.advantage_kwargs,
        )
        np.testing.assert_allclose(outcome.predicted, expected)


def test_drawn_completions_leave_replicas_around_the_prediction(example):
    agreement, *_ = example
    case = agreement.replace(agreement.sampled_cases()[1], p_ref=(0.3,), iterations=1, inner_steps=120)
    outcome = agreement.run(case)
    ((half_width,),) = outcome.half_width[1:]
    assert 0 < half_width < 0.1
    assert outcome.largest_gap <= 2 * half_width


def test_the_figure_shows_what_was_measured(example):
    agreement, *_ = example
    case = agreement.Case("a run", "mean_only", beta=1.0, p_ref=(0.2, 0.4), iterations=2)
    outcome = agreement.Outcome(case, [[0.2, 0.4], [0.4, 0.6], [0.4, 0.7]], [[0.1, 0.1]] * 3, [[0.2, 0.4]] * 3)
    drawn = agreement.figure({"some": [outcome, outcome], "more": [outcome]}, LIGHT)
    assert {"some", "more"} < {text.get_text() for text in drawn.texts}
    assert len(drawn.axes) == 3
    panel = drawn.axes[-1]
    assert panel.get_title(loc="left") == "a run"
    lines = [line.get_ydata().tolist() for line in panel.lines if len(line.get_ydata()) == 3]
    assert [0.2, 0.2, 0.2] in lines and [0.4, 0.6, 0.7] in lines
    assert outcome.largest_gap == pytest.approx(0.3)
    assert outcome.share_inside == 0.0


def test_every_advantage_with_a_signal_is_on_one_line(example, tmp_path):
    *_, advantages = example
    drawn, without = advantages.lines()
    names = [name for line in drawn for name in line.names]
    assert sorted([*names, *without]) == sorted(ADVANTAGES)
    assert all(ADVANTAGES[name].omega is None or name == "best_of_group" for name in without)
    together = {frozenset(line.names) for line in drawn if len(line.names) > 1}
    assert any({"mean_only", "leave_one_out", "length_weighted", "success_weight"} <= line for line in together)
    assert any({"smoothed_std", "group_std", "quantile"} <= line for line in together)

    (light_axes, dark_axes) = (advantages.figure(drawn, colors).axes for colors in (LIGHT, DARK))
    left, right = light_axes
    texts = [text.get_text() for text in [*left.texts, *right.texts]]
    for line, signal, path in zip(drawn, left.lines, right.lines, strict=True):
        name = line.names[0]
        settings = {"advantage": name, "advantage_kwargs": advantages.SETTINGS.get(name)}
        expected = theory.success_path(0.1, 20, **advantages.COEFFICIENTS, **settings)
        np.testing.assert_allclose(path.get_ydata(), expected)
        shown = np.isfinite(signal.get_ydata())
        np.testing.assert_allclose(signal.get_ydata()[shown], theory.omega(signal.get_xdata()[shown], **settings))
        label = advantages.LOOKS[name].label
        assert f"{label} {expected[-1]:.2f}" in texts and label in texts
    assert right.lines[0].get_xdata().size == 21
    # The same marks, in other colors.
    for light, dark in zip(light_axes, dark_axes, strict=True):
        for one, other in zip(light.lines, dark.lines, strict=True):
            np.testing.assert_array_equal(one.get_ydata(), other.get_ydata())
            assert one.get_color() != other.get_color()

    save(lambda colors: advantages.figure(drawn, colors), tmp_path / "advantages")
    for name in ("advantages-light.svg", "advantages-dark.svg"):
        # As drawn now, and not by an older theory.
        kept = Path(advantages.__file__).with_name(name)
        written, stored = (re.findall(">([^<>]+)</text>", path.read_text()) for path in (tmp_path / name, kept))
        assert written == stored != [], name


def test_expected_gradients_of_the_levels(example):
    _, gradients, *_ = example
    errors = {error.level: error for error in gradients.measure(1, (0.05,))}
    assert errors.keys() == gradients.LEVELS.keys()
    # Exact up to float32, and only there.
    assert errors["trajectory"].current < 1e-5
    assert errors["none, frozen"].rollout < 1e-5
    for level, error in errors.items():
        assert level == "trajectory" or error.current > 0.05, level
        assert level == "none, frozen" or error.rollout > 0.05, level
    assert errors["trajectory, upper clip"].cosine > errors["trajectory, two-sided clip"].cosine

    panels = gradients.figure(list(errors.values()), LIGHT).axes
    for panel, name in zip(panels, ("current", "rollout"), strict=True):
        plotted = {line.get_label(): line.get_ydata()[0] for line in panel.lines}
        assert plotted == {level: getattr(error, name) for level, error in errors.items()}
        assert {text.get_text() for text in panel.texts} == errors.keys()
