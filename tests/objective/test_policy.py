# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trl_grpo_variants.objective.policy import score_policy_loss, trajectory_policy_loss


def gradient(log_weight, advantage, **settings):
    """Loss and its derivative by the logarithm of the weight."""
    log_weights = torch.tensor([log_weight], dtype=torch.float64, requires_grad=True)
    term = trajectory_policy_loss(
        log_weights, torch.tensor([advantage], dtype=torch.float64), epsilon_low=0.2, epsilon_high=0.28, **settings
    )
    term.loss.sum().backward()
    return term.loss.item(), log_weights.grad.item(), term.clipped.item()


@given(st.floats(-3, 3), st.sampled_from([-1.5, 0.7]))
def test_upper_clip_caps_the_weight_for_both_signs(log_weight, advantage):
    loss, slope, clipped = gradient(log_weight, advantage, clip="upper")
    weight = math.exp(log_weight)

    if weight > 1.28:
        assert (loss, slope, clipped) == (pytest.approx(-1.28 * advantage, rel=1e-6), 0.0, True)
    else:
        assert (loss, slope, clipped) == (
            pytest.approx(-weight * advantage),
            pytest.approx(-weight * advantage),
            False,
        )


@given(st.floats(-3, 3), st.sampled_from([-1.5, 0.7]))
def test_two_sided_clip_is_ppos(log_weight, advantage):
    loss, slope, clipped = gradient(log_weight, advantage, clip="two_sided")
    weight = math.exp(log_weight)
    bounded = min(max(weight, 0.8), 1.28)

    assert loss == pytest.approx(-min(weight * advantage, bounded * advantage))
    assert clipped == (weight > 1.28 if advantage > 0 else weight < 0.8)
    assert slope == (0.0 if clipped else pytest.approx(-weight * advantage))


@pytest.mark.parametrize("clip", ["none", "two_sided"])
@pytest.mark.parametrize("log_weight", [2.0, 12.0, 39.0])
def test_what_is_not_clipped_is_unbounded(log_weight, clip):
    weight = pytest.approx(math.exp(log_weight))
    assert gradient(log_weight, -1.0, clip=clip) == (weight, weight, False)


def test_a_large_cap_is_the_cap():
    term = trajectory_policy_loss(torch.tensor([9.0]), torch.ones(1), clip="upper", epsilon_low=0.2, epsilon_high=5e3)
    assert term.loss.item() == pytest.approx(-5001.0) and term.clipped.item()
    term = trajectory_policy_loss(torch.tensor([8.0]), torch.ones(1), clip="upper", epsilon_low=0.2, epsilon_high=5e3)
    assert term.loss.item() == pytest.approx(-math.exp(8.0)) and not term.clipped.item()


@pytest.mark.parametrize("clip", ["upper", "two_sided", "none"])
@pytest.mark.parametrize("log_weight", [-1e4, 1e4])
@pytest.mark.parametrize("advantage", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_weights_give_finite_loss_and_gradient(clip, log_weight, advantage, dtype):
    log_weights = torch.tensor([log_weight], dtype=dtype, requires_grad=True)
    term = trajectory_policy_loss(
        log_weights, torch.tensor([advantage], dtype=dtype), clip=clip, epsilon_low=0.2, epsilon_high=0.28
    )
    term.loss.sum().backward()

    assert term.loss.isfinite().all()
    assert log_weights.grad.isfinite().all()


@pytest.mark.parametrize("clip", ["two_sided", "none"])
def test_a_weight_that_would_overflow_is_reported_as_clipped(clip):
    loss, slope, clipped = gradient(41.0, -1.0, clip=clip)
    assert (slope, clipped) == (0.0, True)


def test_a_trajectory_has_one_advantage():
    with pytest.raises(ValueError, match=r"shape \(B,\); got shape \(2, 2\)"):
        trajectory_policy_loss(torch.zeros(2), torch.zeros(2, 2), clip="upper", epsilon_low=0.2, epsilon_high=0.2)


def test_unknown_clip_is_refused():
    with pytest.raises(ValueError, match="'lower'"):
        trajectory_policy_loss(torch.zeros(2), torch.zeros(2), clip="lower", epsilon_low=0.2, epsilon_high=0.2)


def test_score_loss_has_the_value_of_ratio_one_and_the_gradient_of_the_score():
    logps = torch.randn(3, 4, requires_grad=True)
    advantages = torch.randn(3, 1)

    loss = score_policy_loss(logps, advantages)
    loss.sum().backward()

    torch.testing.assert_close(loss, -advantages.expand(3, 4))
    torch.testing.assert_close(logps.grad, -advantages.expand(3, 4))
