# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trl_grpo_variants import theory
from trl_grpo_variants.theory.signal import make_signal
from trl_grpo_variants.theory.step import Step

from .numerics import coefficients, epsilons, known, names, prompts, quick


def gap(log_odds, p_ref, beta, **settings):
    """Log-odds that one reference-KL iteration would add, on a grid."""
    return theory.logit(p_ref) + theory.omega(theory.sigmoid(log_odds), **settings) / beta - log_odds


def scan(p_ref, beta, **settings):
    """Sign changes on a dense grid of log-odds. Beyond 30, where success rounds, it sees one change at most."""
    grid = np.linspace(theory.logit(p_ref), 30.0, 400_001)
    positive = gap(grid, p_ref, beta, **settings) > 0.0
    return grid[:-1][positive[:-1] != positive[1:]]


@quick
@given(prompts, st.floats(-1.5, 2.0).map(np.exp), names, epsilons)
@example(0.2, 0.9, "smoothed_std", 1e-5)
@example(0.01, 2.0, "group_std", 1e-5)
def test_fixed_points_are_those_of_a_dense_scan(p_ref, beta, name, epsilon):
    settings = known(name, epsilon)
    found = theory.fixed_points(p_ref, beta=beta, **settings)
    visible = [point.log_odds for point in found if point.log_odds < 29.9]
    scanned = [x for x in scan(p_ref, beta, **settings) if x < 29.9]
    # Rounding of 1 - p reaches 1e-3 in log-odds at 30.
    np.testing.assert_allclose(visible, scanned, atol=1e-2)
    assert len(found) % 2 == 1


@quick
@given(prompts, coefficients, st.one_of(st.just(0.0), coefficients), names, epsilons)
def test_fixed_points_stand_still_under_any_damping(p_ref, beta, mirror_beta, name, epsilon):
    settings = {"beta": beta, **known(name, epsilon)}
    found = theory.fixed_points(p_ref, mirror_beta=mirror_beta, **settings)
    assert [point.p for point in found] == [point.p for point in theory.fixed_points(p_ref, **settings)]
    assert [point.log_odds for point in found] == sorted(point.log_odds for point in found)
    for point in found:
        step = theory.success_step(point.p, p_ref, mirror_beta=mirror_beta, **settings)
        # One rounding of p moves the step by the multiplier.
        assert step == pytest.approx(point.p, abs=1e-13 * (1.0 + abs(point.multiplier)), rel=1e-9)
        assert point.stable == (abs(point.multiplier) < 1.0)
        assert point.p >= p_ref


@quick
@given(st.floats(0.01, 0.9), st.floats(-1.0, 1.5).map(np.exp), st.floats(0.0, 3.0), names)
def test_multiplier_is_the_derivative_of_the_map(p_ref, beta, mirror_beta, name):
    settings = {"beta": beta, "mirror_beta": mirror_beta, **known(name, 1e-3)}
    for point in theory.fixed_points(p_ref, **settings):
        width = 1e-4 * point.p * (1.0 - point.p)
        if width > 1e-9:
            low, high = theory.success_step([point.p - width, point.p + width], p_ref, **settings)
            assert (high - low) / (2.0 * width) == pytest.approx(point.multiplier, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("mirror_beta", [1.0, 5.0])
@pytest.mark.parametrize("name", ["smoothed_std", "mean_only"])
def test_mirror_alone_rests_only_at_the_ends(mirror_beta, name):
    settings = {"mirror_beta": mirror_beta, **known(name, 0.05)}
    zero, one = theory.fixed_points(0.3, **settings)
    assert (zero.p, zero.stable, one.p, one.stable) == (0.0, False, 1.0, True)
    near = 1e-9
    assert theory.success_step(near, 0.3, **settings) / near == pytest.approx(zero.multiplier, rel=1e-5)
    assert (1.0 - theory.success_step(1.0 - near, 0.3, **settings)) / near == pytest.approx(one.multiplier, rel=1e-5)


def test_fixed_points_of_several_prompts_are_those_of_each():
    """Of which some have three and others one, whatever their order."""
    step = Step(0.3, 0.0, make_signal("smoothed_std", {"reward_variance_epsilon": 1e-2}))
    references = theory.logit(np.array([0.6, 0.02, 0.2, 0.001]))
    roots = step.roots(references)
    assert len({np.isfinite(row).sum() for row in roots}) > 1
    for reference, row in zip(references, roots, strict=True):
        np.testing.assert_array_equal(row, step.roots(reference[None])[0])
        finite = row[np.isfinite(row)]
        assert (np.diff(finite) > 0).all() and np.isfinite(row[: finite.size]).all()


def test_an_end_at_which_the_signal_vanishes_is_not_called_stable():
    """Of the best of two, Omega is 0 where all succeed, so that the distance to 1 falls by less and less."""
    _, one = theory.fixed_points(0.3, mirror_beta=1.0, advantage="pass_at_k", advantage_kwargs={"k": 2})
    assert (one.p, one.multiplier, one.stable) == (1.0, 1.0, False)


def test_reference_that_never_or_always_succeeds_is_its_own_fixed_point():
    for end in (0.0, 1.0):
        (point,) = theory.fixed_points(end, beta=1.0)
        assert (point.p, point.multiplier, point.stable) == (end, 0.0, True)


def test_fixed_points_and_limits_are_of_one_prompt():
    with pytest.raises(ValueError, match="`p_ref` must be one number"):
        theory.fixed_points([0.1, 0.2], beta=1.0)
    with pytest.raises(ValueError, match="`p_start` must be one number"):
        theory.limit(0.1, beta=1.0, p_start=[0.1, 0.2])


def test_limits_of_known_cases():
    # A fixed point at once: the reference term with mean-only advantages.
    assert theory.limit(0.2, beta=1.0, advantage="mean_only").points[0] == pytest.approx(
        np.e / (np.e + 4.0), rel=1e-12
    )
    cycle = theory.limit(0.001, beta=5.0)
    assert (cycle.kind, cycle.period) == ("cycle", 2)
    assert cycle.points == pytest.approx((0.0023, 0.0587), abs=5e-5)
    assert theory.limit(1e-4, beta=5.0, p_start=0.1).kind == "aperiodic"
    assert theory.limit(1e-4, beta=5.0).kind == "fixed point"
    assert theory.limit(0.3, mirror_beta=5.0) == theory.Limit("absorbed", 1, (1.0,))
    assert theory.limit(0.0, beta=5.0) == theory.Limit("absorbed", 1, (0.0,))


def test_mirror_term_turns_a_cycle_into_the_fixed_point_of_the_same_beta():
    lowest = theory.fixed_points(0.001, beta=5.0)[0]
    assert lowest.multiplier < -1.0
    damped = theory.limit(0.001, beta=5.0, mirror_beta=5.0)
    assert damped.kind == "fixed point"
    assert damped.points[0] == pytest.approx(lowest.p, rel=1e-9)


@pytest.mark.parametrize(("offset", "kind"), [(1e-6, "fixed point"), (-1e-6, "cycle"), (-1e-3, "cycle")])
def test_slow_convergence_is_told_from_a_cycle_on_either_side_of_period_doubling(offset, kind):
    onset = theory.phase_boundaries(2.0, variance_epsilon=1e-5).oscillation[1]
    p_ref = float(theory.sigmoid(onset + offset))
    lowest = theory.fixed_points(p_ref, beta=2.0)[0]
    assert abs(lowest.multiplier + 1.0) < abs(offset)
    ended = theory.limit(p_ref, beta=2.0)
    assert ended.kind == kind
    assert np.mean(ended.points) == pytest.approx(lowest.p, rel=1e-2)


def test_slow_iterations_are_followed_to_their_end():
    # Ten million iterations would be needed to see it.
    ended = theory.limit(0.2, beta=1e-3, mirror_beta=1e4, advantage="mean_only")
    assert ended.points == (theory.fixed_points(0.2, beta=1e-3, advantage="mean_only")[0].p,)


@quick
@given(prompts, st.floats(-1.0, 2.0).map(np.exp), st.sampled_from([0.0, 0.1, 1.0]), prompts)
@example(0.0023, 3.0, 0.0, 0.0023)
@example(0.003, 2.5, 0.0, 0.003)
def test_limit_agrees_with_a_long_iteration(p_ref, beta, mirror_beta, p_start):
    settings = {"beta": beta, "mirror_beta": mirror_beta, "p_start": p_start}
    ended = theory.limit(p_ref, **settings)
    tail = theory.success_path(p_ref, 3000, **settings)[-128:]
    if ended.kind == "fixed point":
        assert ended.points[0] in [point.p for point in theory.fixed_points(p_ref, beta=beta, mirror_beta=mirror_beta)]
        assert np.ptp(tail) < 1e-3
        assert tail[-1] == pytest.approx(ended.points[0], abs=1e-3)
    elif ended.kind == "cycle":
        first = int(np.argmin(np.abs(tail - ended.points[0])[: ended.period]))
        followed = tail[first : first + ended.period]
        np.testing.assert_allclose(followed, ended.points, atol=1e-5)
    else:
        assert np.ptp(tail) > 1e-3
