# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trl_grpo_variants import theory
from trl_grpo_variants.theory.logodds import bernoulli_variance
from trl_grpo_variants.theory.signal import TRL_STD_EPSILON, make_signal

from .numerics import epsilons, quick


GRID = np.linspace(-40.0, 40.0, 80_001)
peaked = st.sampled_from(["mean_std", "trl_std"])


@pytest.mark.parametrize("normalization", ["mean_std", "mean", "trl_std"])
def test_slope_is_the_derivative_of_omega_in_log_odds(normalization):
    signal = make_signal(normalization, 1e-3)
    near = GRID[np.abs(GRID) < 20.0]
    numerical = (signal.omega(near + 1e-5) - signal.omega(near - 1e-5)) / 2e-5
    np.testing.assert_allclose(signal.slope(near), numerical, atol=1e-5)
    np.testing.assert_allclose(
        signal.omega(near),
        theory.omega(theory.sigmoid(near), normalization=normalization, variance_epsilon=1e-3),
        rtol=1e-5,
    )


@quick
@given(peaked, epsilons)
def test_slope_has_one_peak_where_it_says(normalization, epsilon):
    signal = make_signal(normalization, epsilon)
    right = GRID[GRID >= 0.0]
    slopes = signal.slope(right)
    assert signal.peak == pytest.approx(right[slopes.argmax()], abs=2e-3)
    rising = np.diff(slopes[slopes > 1e-9]) > 0.0
    assert (np.diff(rising.astype(int)) <= 0).all()


@quick
@given(epsilons)
def test_peaks_have_closed_forms(epsilon):
    """Where the logarithmic derivative of the slope vanishes: a polynomial in the variance, or in its root."""
    variance = bernoulli_variance(np.asarray(make_signal("mean_std", epsilon).peak))
    assert variance * (1.0 + 12.0 * epsilon) == pytest.approx(2.0 * epsilon, rel=1e-10)
    deviation = np.sqrt(bernoulli_variance(np.asarray(make_signal("trl_std", epsilon).peak)))
    assert 8.0 * TRL_STD_EPSILON * deviation**2 + deviation == pytest.approx(TRL_STD_EPSILON, rel=1e-10)


@quick
@given(peaked, epsilons, st.floats(2e-4, 0.9999))
@example("trl_std", 1e-5, 2e-4)
def test_level_is_crossed_at_the_turning_points_and_nowhere_else(normalization, epsilon, share):
    signal = make_signal(normalization, epsilon)
    level = share * float(signal.slope(np.asarray(signal.peak)))
    crossings = np.flatnonzero(np.diff(signal.slope(GRID) > level))
    assert signal.turning_points(level) == pytest.approx(tuple(GRID[crossings]), abs=2e-3)
    assert signal.turning_points(float(signal.slope(np.asarray(signal.peak))) * 1.0001) is None


@quick
@given(peaked, epsilons, st.floats(-30.0, 30.0), st.floats(0.01, 30.0))
def test_least_slope_on_an_interval(normalization, epsilon, low, width):
    signal = make_signal(normalization, epsilon)
    inside = signal.slope(np.linspace(low, low + width, 20_001))
    found = signal.least_slope(np.asarray(low), np.asarray(low + width))
    assert found == pytest.approx(inside.min(), rel=1e-3, abs=1e-9)
