# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The real trainer does what the theory predicts, and each level's expected gradient is the one that it claims."""

import sys
from pathlib import Path

import numpy as np
import pytest

from trl_grpo_variants import theory


@pytest.fixture(scope="module")
def example():
    folder = str(Path(__file__).parents[2] / "examples" / "theory")
    sys.path.insert(0, folder)
    import agreement
    import gradients

    yield agreement, gradients
    sys.path.remove(folder)


def test_a_trained_policy_has_the_predicted_success(example):
    agreement, _ = example
    for case in agreement.exact_cases()[::2]:
        outcome = agreement.run(agreement.replace(case, group=256, iterations=2, inner_steps=120))
        assert outcome.largest_gap <= 0.01, case
        # Iterations that did nothing would stay at the start.
        assert np.abs(np.diff(outcome.measured, axis=0)[0]).min() > 0.02
        expected = theory.success_path(
            case.p_ref, 2, beta=case.beta, mirror_beta=case.mirror_beta, advantage=case.advantage
        )
        np.testing.assert_allclose(outcome.predicted, expected)


def test_drawn_completions_leave_replicas_around_the_prediction(example):
    agreement, _ = example
    case = agreement.replace(agreement.sampled_cases()[1], p_ref=(0.3,), iterations=1, inner_steps=120)
    outcome = agreement.run(case)
    ((half_width,),) = outcome.half_width[1:]
    assert 0 < half_width < 0.1
    assert outcome.largest_gap <= 2 * half_width


def test_the_figure_shows_what_was_measured(example):
    agreement, _ = example
    case = agreement.Case("a run", "mean_only", beta=1.0, p_ref=(0.2, 0.4), iterations=2)
    outcome = agreement.Outcome(case, [[0.2, 0.4], [0.4, 0.6], [0.4, 0.7]], [[0.1, 0.1]] * 3, [[0.2, 0.4]] * 3)
    (panel,) = agreement.figure([outcome]).axes
    assert panel.get_title() == "a run"
    lines = [line.get_ydata().tolist() for line in panel.lines if len(line.get_ydata()) == 3]
    assert [0.2, 0.2, 0.2] in lines and [0.4, 0.6, 0.7] in lines
    assert outcome.largest_gap == pytest.approx(0.3)
    assert outcome.share_inside == 0.0


def test_expected_gradients_of_the_levels(example):
    _, gradients = example
    errors = {error.level: error for error in gradients.measure(1, (0.05,))}
    assert errors.keys() == gradients.LEVELS.keys()
    # Exact up to float32, and only there.
    assert errors["trajectory"].current < 1e-5
    assert errors["none, frozen"].rollout < 1e-5
    for level, error in errors.items():
        assert level == "trajectory" or error.current > 0.05, level
        assert level == "none, frozen" or error.rollout > 0.05, level
    assert errors["trajectory, upper clip"].cosine > errors["trajectory, two-sided clip"].cosine

    panels = gradients.figure(list(errors.values())).axes
    plotted = {line.get_label(): line.get_ydata()[0] for line in panels[0].lines}
    assert plotted == {level: error.current for level, error in errors.items()}
