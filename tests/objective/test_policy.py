# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trl_grpo_variants.objective.policies.score import score_term
from trl_grpo_variants.objective.policies.trajectory import trajectory_term
from trl_grpo_variants.objective.terms import TermInputs


def trajectory(log_weights, advantages, clip, epsilon=0.2, epsilon_high=0.28):
    """Losses of trajectories of one token, whose ratio is the weight, and where they are clipped."""
    logps = log_weights.unsqueeze(1)
    inputs = TermInputs(logps, torch.zeros_like(logps), advantages, torch.ones_like(logps), torch.zeros_like(logps))
    output = trajectory_term(inputs, trajectory_clip=clip, epsilon=epsilon, epsilon_high=epsilon_high)
    positive, negative = (output.metrics[f"trajectory/clipped_{sign}"] for sign in ("positive", "negative"))
    assert not (positive & (advantages <= 0)).any() and not (negative & (advantages >= 0)).any()
    return output.losses, positive | negative


def gradient(log_weight, advantage, clip):
    """Loss and its derivative by the logarithm of the weight."""
    log_weights = torch.tensor([log_weight], dtype=torch.float64, requires_grad=True)
    losses, clipped = trajectory(log_weights, torch.tensor([advantage], dtype=torch.float64), clip)
    losses.sum().backward()
    return losses.item(), log_weights.grad.item(), clipped.item()


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
    losses, clipped = trajectory(torch.tensor([9.0]), torch.ones(1), "upper", epsilon_high=5e3)
    assert losses.item() == pytest.approx(-5001.0) and clipped.item()
    losses, clipped = trajectory(torch.tensor([8.0]), torch.ones(1), "upper", epsilon_high=5e3)
    assert losses.item() == pytest.approx(-math.exp(8.0)) and not clipped.item()


@pytest.mark.parametrize("clip", ["upper", "two_sided", "none"])
@pytest.mark.parametrize("log_weight", [-1e4, 1e4])
@pytest.mark.parametrize("advantage", [-1.0, 0.0, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_extreme_weights_give_finite_loss_and_gradient(clip, log_weight, advantage, dtype):
    log_weights = torch.tensor([log_weight], dtype=dtype, requires_grad=True)
    losses, _ = trajectory(log_weights, torch.tensor([advantage], dtype=dtype), clip)
    losses.sum().backward()

    assert losses.isfinite().all()
    assert log_weights.grad.isfinite().all()


@pytest.mark.parametrize("clip", ["two_sided", "none"])
def test_a_weight_that_would_overflow_is_reported_as_clipped(clip):
    loss, slope, clipped = gradient(41.0, -1.0, clip=clip)
    assert (slope, clipped) == (0.0, True)


def test_a_trajectory_has_one_advantage():
    inputs = TermInputs(*[torch.zeros(2, 2)] * 5)
    with pytest.raises(ValueError, match=r"shape \(B,\); got shape \(2, 2\)"):
        trajectory_term(inputs, trajectory_clip="upper", epsilon=0.2, epsilon_high=0.2)


@pytest.mark.parametrize("advantages", [torch.randn(3), torch.randn(3, 4)], ids=["per trajectory", "per token"])
def test_score_loss_has_the_value_of_ratio_one_and_the_gradient_of_the_score(advantages):
    logps = torch.randn(3, 4, requires_grad=True)
    per_token = advantages if advantages.dim() == 2 else advantages.unsqueeze(1).expand(3, 4)

    losses = score_term(TermInputs(logps, *[torch.zeros(3, 4)] * 1, advantages, *[torch.ones(3, 4)] * 2)).losses
    losses.sum().backward()

    torch.testing.assert_close(losses, -per_token)
    torch.testing.assert_close(logps.grad, -per_token)
