# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trl_grpo_variants import theory
from trl_grpo_variants.theory.logodds import probabilities
from trl_grpo_variants.theory.signal import make_signal

from .numerics import epsilons, known, quick


GRID = np.linspace(-40.0, 40.0, 80_001)
TRL_STD_EPSILON = 1e-4
# Whose slope rises from 0 to one peak and falls back to 0, on either side.
peaked = st.sampled_from(["smoothed_std", "group_std"])


def variance(log_odds):
    success, failure = probabilities(np.asarray(log_odds))
    return success * failure


def signal_of(name, epsilon):
    return make_signal(*known(name, epsilon).values())


def closed_slope(name, epsilon, log_odds):
    """dOmega/dL of the two, differentiated by hand."""
    v, tilt = variance(log_odds), np.tanh(log_odds / 2.0)
    if name == "smoothed_std":
        return 0.5 * v * tilt / (v + epsilon) ** 1.5
    return 0.5 * v**0.5 * tilt / (v**0.5 + TRL_STD_EPSILON) ** 2


@quick
@given(peaked, epsilons)
@example("smoothed_std", 1e-30)
@example("smoothed_std", 1e3)
def test_slope_is_the_closed_form_to_the_last_digits(name, epsilon):
    far = np.concatenate([GRID, np.linspace(-300.0, 300.0, 997)])
    np.testing.assert_allclose(
        signal_of(name, epsilon).slope(far), closed_slope(name, epsilon, far), rtol=1e-12, atol=1e-15
    )


def table(p):
    """A function that cannot be computed off the real line."""
    return np.interp(p, np.linspace(0.0, 1.0, 100_001), 1.0 / (1.0 + np.linspace(0.0, 1.0, 100_001)))


# The second takes the real part where it was not asked to, the third fails.
@pytest.mark.parametrize(
    ("function", "accuracy"),
    [(lambda p: 1.0 / (1.0 + p), 1e-15), (lambda p: 1.0 / (1.0 + abs(p)), 1e-11), (table, 1e-7)],
)
def test_slope_of_any_function(function, accuracy):
    log_odds = np.linspace(-6.0, 6.0, 41)
    p, rest = probabilities(log_odds)
    expected = -p * rest / (1.0 + p) ** 2
    np.testing.assert_allclose(make_signal(function).slope(log_odds), expected, rtol=accuracy, atol=accuracy)


@quick
@given(peaked, epsilons)
def test_slope_turns_where_closed_forms_say(name, epsilon):
    """Where the logarithmic derivative of the slope vanishes: a polynomial in the variance, or in its root."""
    signal = signal_of(name, epsilon)
    (peaks, troughs) = signal.turns
    assert len(peaks) == len(troughs) == 1
    assert troughs[0] == pytest.approx(-peaks[0], abs=1e-6)
    v = variance(peaks[0])
    if name == "smoothed_std":
        assert v * (1.0 + 12.0 * epsilon) == pytest.approx(2.0 * epsilon, rel=1e-6)
    else:
        assert 8.0 * TRL_STD_EPSILON * v + v**0.5 == pytest.approx(TRL_STD_EPSILON, rel=1e-6)


@quick
@given(peaked, epsilons, st.floats(2e-4, 0.9999))
@example("group_std", 1e-5, 2e-4)
@example("smoothed_std", 1e-5, 1.0 - 1e-9)
def test_level_is_crossed_at_the_turning_points_and_nowhere_else(name, epsilon, share):
    signal = signal_of(name, epsilon)
    highest = float(signal.slope(signal.turns[0])[0])
    level = share * highest
    crossings = np.flatnonzero(np.diff(closed_slope(name, epsilon, GRID) > level))
    found, above = signal.turning_points(level)
    assert len(found) == 2 and not above
    if share < 0.9999:
        assert found == pytest.approx(GRID[crossings], abs=2e-3)
    assert closed_slope(name, epsilon, found) == pytest.approx([level, level], rel=1e-12)
    assert len(signal.turning_points(highest * 1.0001)[0]) == 0


@quick
@given(peaked, epsilons, st.floats(-30.0, 30.0), st.floats(0.01, 30.0))
def test_least_slope_on_an_interval(name, epsilon, low, width):
    inside = closed_slope(name, epsilon, np.linspace(low, low + width, 20_001))
    found = signal_of(name, epsilon).least_slope(np.asarray(low), np.asarray(low + width))
    assert found == pytest.approx(inside.min(), rel=1e-3, abs=1e-9)


def wave(p):
    """Three narrow rises of the signal, each a fold for a coefficient that is small enough."""
    return 1.0 + sum(1.0 / (1.0 + np.exp(-40.0 * (p - middle))) for middle in (0.3, 0.5, 0.7))


@pytest.mark.parametrize("beta", [1.3, 1.6, 2.0, 4.0])
def test_a_signal_with_many_turns_has_all_its_fixed_points_found(beta):
    grid = np.linspace(-8.0, 8.0, 2_000_001)
    p = probabilities(grid)[0]
    most = 0
    for reference in np.linspace(-3.0, 0.0, 31):
        gap = reference + wave(p) / beta - grid
        scanned = grid[:-1][(gap[:-1] > 0.0) != (gap[1:] > 0.0)]
        found = theory.fixed_points(theory.sigmoid(reference), beta=beta, advantage=wave)
        assert [point.log_odds for point in found] == pytest.approx(scanned, abs=2e-5)
        assert [point.multiplier < 1.0 for point in found] == [True, False, True, False, True, False, True][
            : len(found)
        ]
        most = max(most, len(found))
    assert most == {1.3: 5, 1.6: 3, 2.0: 3, 4.0: 1}[beta]


def test_a_constant_signal_is_told():
    assert make_signal("mean_only").is_constant and make_signal(lambda p: 2.0 + 0.0 * p).is_constant
    assert not make_signal("smoothed_std").is_constant


def test_a_users_description_is_taken_by_itself_and_by_its_place(tmp_path, monkeypatch):
    text = (
        "from trl_grpo_variants import Advantage, Setting\n"
        "mine = Advantage('mine', lambda r, n, *, power=1.0: r, 'r', None, settings=(Setting('power', at_least=0.0),),"
        " omega=lambda success, failure, power: failure**power)\n"
        "silent = Advantage('silent', lambda r, n: r, 'r', None)\n"
    )
    (tmp_path / "own_signals.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    import own_signals

    for advantage in ("own_signals:mine", own_signals.mine):
        assert theory.omega(0.2, advantage=advantage, advantage_kwargs={"power": 3.0}) == pytest.approx(0.8**3)
        assert theory.omega(0.2, advantage=advantage) == pytest.approx(0.8)
        with pytest.raises(ValueError, match="`power` must be a number of at least 0; got -1"):
            theory.omega(0.2, advantage=advantage, advantage_kwargs={"power": -1.0})
    with pytest.raises(ValueError, match="`advantage='silent'` has no signal"):
        theory.omega(0.2, advantage="own_signals:silent")
