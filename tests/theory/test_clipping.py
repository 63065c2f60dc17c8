# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from trl_grpo_variants import theory

from .numerics import coefficients, names, prompts, quick


def objective(pi, old, reference, rewards, low, high, beta, mirror_beta, advantage):
    """GRPO's clipped objective with both KL terms, over outputs on the last axis."""
    p = old @ rewards
    advantages = (rewards - p) * float(theory.omega(p, advantage=advantage))
    ratio = pi / old
    clipped = np.clip(ratio, 1.0 - low, 1.0 + high)
    value = (old * np.minimum(ratio * advantages, clipped * advantages)).sum(-1)
    for coefficient, anchor in ((beta, reference), (mirror_beta, old)):
        value = value - coefficient * (pi * np.log(pi / anchor)).sum(-1)
    return value


def best_success(p, q, low, high, beta, mirror_beta, advantage):
    """Success that maximises the objective over two outputs, by golden-section search in its log-odds."""

    def value(log_odds):
        success, failure = theory.sigmoid(log_odds), theory.sigmoid(-log_odds)
        return objective(
            np.array([success, failure]),
            np.array([p, 1.0 - p]),
            np.array([q, 1.0 - q]),
            np.array([1.0, 0.0]),
            low,
            high,
            beta,
            mirror_beta,
            advantage,
        )

    golden = (np.sqrt(5.0) - 1.0) / 2.0
    left, right = -30.0, 30.0
    for _ in range(80):
        a, b = right - golden * (right - left), left + golden * (right - left)
        left, right = (a, right) if value(a) < value(b) else (left, b)
    return float(theory.sigmoid((left + right) / 2.0))


rates = st.floats(0.02, 0.98)
clips = st.floats(0.01, 0.9)


@quick
@given(rates, rates, clips, clips, st.floats(-2.0, 2.0).map(np.exp), st.sampled_from([0.0, 0.5, 3.0]), names)
@example(0.3, 0.3, 0.2, 0.2, 1.0, 0.0, "smoothed_std")
@example(0.7, 0.3, 0.2, 0.28, 0.3, 0.5, "smoothed_std")
def test_clipped_step_is_the_numerical_maximum(p, q, low, high, beta, mirror_beta, name):
    settings = {"beta": beta, "mirror_beta": mirror_beta, "advantage": name}
    found = theory.clipped_step(p, q, epsilon=low, epsilon_high=high, **settings)
    assert found == pytest.approx(best_success(p, q, low, high, **settings), abs=2e-6)


@pytest.mark.parametrize(("p", "q"), [(0.2, 0.3), (0.6, 0.1), (0.85, 0.85)])
def test_no_policy_over_several_outputs_does_better(p, q):
    rng = np.random.default_rng(0)
    rewards = np.array([1.0, 1.0, 0.0, 0.0, 0.0])
    shares = np.array([0.3, 0.7, 0.5, 0.2, 0.3])

    def spread(success):
        return shares * np.where(rewards == 1.0, success, 1.0 - success)

    settings = {"beta": 0.4, "mirror_beta": 0.3, "advantage": "smoothed_std"}
    best = spread(theory.clipped_step(p, q, epsilon=0.2, epsilon_high=0.3, **settings))
    value = objective(best, spread(p), spread(q), rewards, 0.2, 0.3, **settings)
    # Concave, so that near policies are enough; far ones cost nothing.
    for distance in (1e-3, 1e-1, 1.0):
        others = best * np.exp(distance * rng.normal(size=(20_000, 5)))
        others /= others.sum(-1, keepdims=True)
        assert (objective(others, spread(p), spread(q), rewards, 0.2, 0.3, **settings) <= value + 1e-12).all()


@quick
@given(prompts, prompts, clips, coefficients, coefficients, names)
def test_clip_cuts_a_step_short_and_wide_clips_do_not(p, q, clip, beta, mirror_beta, name):
    settings = {"beta": beta, "mirror_beta": mirror_beta, "advantage": name}
    free = theory.success_step(p, q, **settings)
    assert theory.clipped_step(p, q, epsilon=clip, **settings) <= free
    # The weight of a failure cannot be clipped below 0, that of a success is at most 1/p.
    for low in (1.0, 1.5):
        wide = theory.clipped_step(p, q, epsilon=low, epsilon_high=1e9, **settings)
        assert wide == pytest.approx(free, rel=1e-12)


@quick
@given(prompts, st.floats(-1.0, 2.0).map(np.exp), clips, names)
def test_fixed_points_survive_the_clip(p_ref, beta, clip, name):
    for point in theory.fixed_points(p_ref, beta=beta, advantage=name):
        step = theory.clipped_step(point.p, p_ref, epsilon=clip, beta=beta, advantage=name)
        assert step == pytest.approx(point.p, abs=1e-12 * (1.0 + abs(point.multiplier)))


def test_clipped_path_repeats_the_step():
    path = theory.clipped_path([0.2, 0.5], 4, epsilon=0.1, epsilon_high=0.3, beta=0.5, p_start=[0.3, 0.4])
    assert path.shape == (5, 2)
    for before, after in zip(path, path[1:], strict=False):
        again = theory.clipped_step(before, [0.2, 0.5], epsilon=0.1, epsilon_high=0.3, beta=0.5)
        np.testing.assert_allclose(after, again, rtol=1e-12)


def test_clip_without_a_kl_term_is_refused():
    with pytest.raises(ValueError, match="both 0"):
        theory.clipped_step(0.2, 0.2)
    with pytest.raises(ValueError, match="`epsilon` must be a number of at least 0; got -0.2"):
        theory.clipped_step(0.2, 0.2, epsilon=-0.2, beta=1.0)
