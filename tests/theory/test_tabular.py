# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_grpo_variants import theory

from .numerics import advantages, known, maximise, names, policy_gradient, quick


def distributions(size):
    return st.lists(st.floats(-3.0, 3.0), min_size=size, max_size=size).map(
        lambda logits: np.exp(logits) / np.exp(logits).sum()
    )


REWARDS = st.sampled_from([[1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 0.0], [0.2, -1.0, 0.7, 3.0]]).map(np.array)
COEFFICIENTS = st.sampled_from([(1.0, 0.0), (0.0, 0.7), (0.6, 0.9), (3.0, 0.4)])


@quick
@given(distributions(4), distributions(4), REWARDS, COEFFICIENTS, names)
def test_optimal_policy_is_the_numerical_maximum(reference, previous, rewards, coefficients, name):
    beta, mirror_beta = coefficients
    settings = {"beta": beta, "mirror_beta": mirror_beta, **known(name, 1e-2)}
    found = theory.optimal_policy(reference, previous, rewards, **settings)
    np.testing.assert_allclose(found, maximise(reference, previous, rewards, **settings), atol=1e-6)


@quick
@given(distributions(4), distributions(4), REWARDS, COEFFICIENTS, names)
def test_gradient_of_the_objective_vanishes_at_the_optimal_policy(reference, previous, rewards, coefficients, name):
    beta, mirror_beta = coefficients
    best = theory.optimal_policy(reference, previous, rewards, beta=beta, mirror_beta=mirror_beta, advantage=name)
    values = (
        advantages(previous, rewards, name, 1e-5)
        - beta * np.log(best / reference)
        - mirror_beta * np.log(best / previous)
    )
    np.testing.assert_allclose(policy_gradient(best, values), 0.0, atol=1e-9)
    assert np.abs(policy_gradient(previous, advantages(previous, rewards, name, 1e-5))).max() > 1e-6


def test_dual_policy_from_another_start_has_the_renyi_correction_that_the_recurrence_leaves_out():
    reference, previous = np.array([0.1, 0.3, 0.2, 0.4]), np.array([0.3, 0.1, 0.3, 0.3])
    rewards, settings = np.array([1.0, 1.0, 0.0, 0.0]), {"beta": 1.0, "mirror_beta": 1.0, "advantage": "mean_only"}
    policy, gaps = previous, []
    for _ in range(6):
        expected = theory.success_step(policy @ rewards, reference @ rewards, **settings)
        policy = theory.optimal_policy(reference, policy, rewards, **settings)
        gaps.append(abs(policy @ rewards - expected))
    assert gaps[0] > 1e-2
    # It shrinks by (1 - alpha)^2 = 1/4 an iteration once it is small.
    assert gaps[5] / gaps[4] == pytest.approx(0.25, rel=0.1)


def test_prompts_are_a_leading_axis():
    reference = np.array([[0.2, 0.8, 0.0], [0.5, 0.25, 0.25]])
    rewards = np.array([1.0, 0.0, 0.0])
    batch = theory.optimal_policy(reference, reference, rewards, beta=0.5, mirror_beta=0.5)
    for row, policy in zip(reference, batch, strict=True):
        np.testing.assert_allclose(policy, theory.optimal_policy(row, row, rewards, beta=0.5, mirror_beta=0.5))
    assert batch[0, 2] == 0.0


def test_small_coefficients_do_not_overflow():
    best = theory.optimal_policy([0.2, 0.5, 0.3, 0.0], [0.2, 0.5, 0.3, 0.0], [1.0, 0.0, 1.0, 5.0], beta=1e-300)
    np.testing.assert_allclose(best, [0.4, 0.0, 0.6, 0.0], atol=1e-15)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pi_ref": [0.5, 0.6]}, "`pi_ref` must sum to 1 over the outputs; got 1.1"),
        ({"pi_ref": [[0.5, 0.5], [0.4, 0.2], [0.5, 0.6]]}, "`pi_ref` must sum to 1 over the outputs; got 0.6"),
        ({"pi_prev": [-0.5, 1.5]}, "`pi_prev` must be between 0 and 1"),
        ({"pi_prev": 1.0}, "`pi_prev` must have shape"),
        ({"rewards": [1.0, float("nan")]}, "must be finite"),
        ({"rewards": [1.0, 0.0, 0.0]}, "do not broadcast"),
        (
            {"pi_prev": [0.25, 0.25, 0.5], "rewards": [1.0]},
            r"do not broadcast.* `pi_ref` of shape \(2,\), `pi_prev` of shape \(3,\)",
        ),
        ({"pi_ref": [1.0, 0.0], "pi_prev": [0.0, 1.0], "mirror_beta": 1.0}, "No output is possible"),
        ({"advantage": "group"}, "`advantage` must be one of"),
        ({"beta": 0.0}, "both 0"),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        theory.optimal_policy(
            **({"pi_ref": [0.5, 0.5], "pi_prev": [0.5, 0.5], "rewards": [1.0, 0.0], "beta": 1.0} | arguments)
        )
    assert "\n" not in str(error.value)


def test_long_values_are_shortened_in_a_sentence():
    for length, shown in ((58, "'" + "x" * 58 + "'"), (59, "'" + "x" * 56 + "...")):
        with pytest.raises(ValueError) as error:
            theory.success_path(0.2, "x" * length, beta=1.0)
        assert str(error.value).endswith(f"; got {shown}.")
