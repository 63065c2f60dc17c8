# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_grpo_variants import theory

from .numerics import epsilons, known, names, quick
from .test_fixed_points import scan


@pytest.mark.parametrize("beta", [0.7, 1.0, 2.0, 5.0])
def test_interior_fixed_points_appear_below_the_fold(beta):
    _, fold = theory.phase_boundaries(beta, variance_epsilon=1e-4).three_fixed_points
    counted = {}
    for offset in (-1e-2, -1e-5, 1e-5, 1e-2):
        p_ref = float(theory.sigmoid(fold + offset))
        counted[offset] = len(theory.fixed_points(p_ref, beta=beta, **known("smoothed_std", 1e-4)))
        # The scan sees at least the pair that is 1e-5 from merging, and never one that is not there.
        assert len(scan(p_ref, beta, **known("smoothed_std", 1e-4))) >= (2 if offset < 0.0 else 0)
    assert counted == {-1e-2: 3, -1e-5: 3, 1e-5: 1, 1e-2: 1}


@pytest.mark.parametrize(("beta", "variance_epsilon"), [(5.0, 1e-3), (1.0, 1e-2)])
def test_far_end_of_the_region_of_three_fixed_points(beta, variance_epsilon):
    low, _ = theory.phase_boundaries(beta, variance_epsilon=variance_epsilon).three_fixed_points
    for offset, count in ((-1e-4, 1), (1e-4, 3)):
        p_ref = float(theory.sigmoid(low + offset))
        points = theory.fixed_points(p_ref, beta=beta, **known("smoothed_std", variance_epsilon))
        assert len(points) == count


@pytest.mark.parametrize("mirror_beta", [0.0, 0.4])
@pytest.mark.parametrize("beta", [2.0, 5.0])
def test_lowest_fixed_point_starts_to_oscillate_at_the_boundary(beta, mirror_beta):
    settings = {"beta": beta, "mirror_beta": mirror_beta}
    low, onset = theory.phase_boundaries(**settings, variance_epsilon=1e-5).oscillation
    for offset, grows in ((1e-2, False), (-1e-2, True)):
        p_ref = float(theory.sigmoid(onset + offset))
        lowest = theory.fixed_points(p_ref, **settings)[0]
        distance = 1e-4 * lowest.p
        path = theory.success_path(p_ref, 200, p_start=lowest.p + distance, **settings)
        assert (abs(path[200] - lowest.p) > distance) == grows
        assert lowest.stable != grows
    # The far end is where smoothing flattens Omega again.
    assert theory.fixed_points(float(theory.sigmoid(low - 1.0)), **settings)[0].stable
    assert not theory.fixed_points(float(theory.sigmoid(low + 1.0)), **settings)[0].stable


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
def test_closed_forms_are_the_limit_of_small_epsilon(beta):
    exact = theory.phase_boundaries(beta, mirror_beta=0.5)
    near = theory.phase_boundaries(beta, mirror_beta=0.5, variance_epsilon=1e-10)
    assert near.three_fixed_points[1] == pytest.approx(exact.three_fixed_points[1], abs=1e-6)
    assert near.oscillation[1] == pytest.approx(exact.oscillation[1], abs=1e-6)
    assert exact.three_fixed_points[0] == exact.oscillation[0] == -np.inf


def test_known_values():
    # From p_ref = 1/2 the fold is at beta = 1.5089; windows of a stable interior fixed point, arXiv 2503.06639.
    assert theory.phase_boundaries(1.5089).three_fixed_points[1] == pytest.approx(0.0, abs=1e-4)
    for beta, low, high in ((0.5, 0.0043, 0.029), (1.0, 0.010, 0.256), (2.0, 0.0059, 0.657), (5.0, 0.0013, 0.930)):
        boundaries = theory.phase_boundaries(beta)
        window = theory.sigmoid([boundaries.oscillation[1], boundaries.three_fixed_points[1]])
        assert window == pytest.approx([low, high], rel=0.03)


def test_strong_smoothing_has_no_boundaries():
    boundaries = theory.phase_boundaries(10.0, variance_epsilon=0.5)
    assert boundaries == theory.PhaseBoundaries(None, None)
    assert len(theory.fixed_points(0.01, beta=10.0, **known("smoothed_std", 0.5))) == 1


@quick
@given(st.floats(-7.0, 2.0), names, epsilons)
def test_highest_target_separates_stable_from_unstable(log_odds, name, epsilon):
    p_ref = float(theory.sigmoid(log_odds))
    settings = known(name, epsilon)
    highest = theory.highest_target(p_ref, **settings)
    assert p_ref < highest <= 1.0

    def multiplier(target):
        beta = theory.omega(target, **settings) / (theory.logit(target) - theory.logit(p_ref))
        points = theory.fixed_points(p_ref, beta=beta, **settings)
        return min(points, key=lambda point: abs(point.p - target)).multiplier

    if highest == 1.0:
        assert multiplier(1.0 - 0.3 * (1.0 - p_ref)) < 1.0
    else:
        below, above = theory.sigmoid(theory.logit(highest) + np.array([-1e-3, 1e-3]))
        assert multiplier(below) < 1.0 < multiplier(above)


@pytest.mark.parametrize("p_ref", [0.0, 1.0, [0.1, 0.2]])
def test_highest_target_needs_one_prompt_that_is_solved_sometimes(p_ref):
    with pytest.raises(ValueError, match="`p_ref` must be one number strictly between 0 and 1"):
        theory.highest_target(p_ref)
    with pytest.raises(ValueError, match="`p_ref` must be between 0 and 1; got 1.5"):
        theory.highest_target(1.5)


def test_boundaries_need_a_reference():
    with pytest.raises(ValueError, match="`beta` must be a number greater than 0; got 0"):
        theory.phase_boundaries(0.0)
