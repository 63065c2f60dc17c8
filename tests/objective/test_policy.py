# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trl_grpo_variants.objective.divergences import sequence_squared_log_ratio, squared_log_ratio
from trl_grpo_variants.objective.policies import POLICY_TERMS
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


# ---- by hand --------------------------------------------------------------------------------------------------------

SETTINGS = {
    "binary_tv": {"epsilon": 0.15, "epsilon_high": 0.15},
    "binary_kl": {"epsilon": 0.05, "epsilon_high": 0.05},
    "preserving": {"epsilon": 0.2, "epsilon_high": 0.28},
    "dynamic": {"epsilon": 0.16, "epsilon_high": 0.2},
    "flipped": {"epsilon": 0.2, "epsilon_high": 0.2},
    "tapered": {"level": "token"},
}
# Old and new probability, and the derivative of the loss by the log-prob for an advantage of 1 and of -1.
DERIVATIVES = {
    (0.3, 0.5): {
        "binary_tv": (0, 1.6667),
        "binary_kl": (0, 1.6667),
        "preserving": (-1.28, 1.6667),
        "dynamic": (0, 1.6667),
        "flipped": (0, 1.6667),
        "tapered": (-1, 1),
        "squared": (-0.9489, 1.0511),
    },
    (0.3, 0.2): {
        "binary_tv": (-0.6667, 0.6667),
        "binary_kl": (-0.6667, 0.6667),
        "preserving": (-0.6667, 0.6),
        "dynamic": (-0.6667, 0.6667),
        "flipped": (-1.5, 0),
        "tapered": (-1, 0.6667),
        "squared": (-1.0405, 0.9595),
    },
    (0.5, 0.3): {
        "binary_tv": (-0.6, 0),
        "binary_kl": (-0.6, 0),
        "preserving": (-0.6, 0.6),
        "dynamic": (-0.6, 0.6),
        "flipped": (-1.6667, 0),
        "tapered": (-1, 0.6),
        "squared": (-1.0511, 0.9489),
    },
    (0.02, 0.05): {
        "binary_tv": (-2.5, 2.5),
        "binary_kl": (-2.5, 2.5),
        "preserving": (-1.28, 2.5),
        "dynamic": (-2.5, 2.5),
        "flipped": (0, 2.5),
        "tapered": (-1, 1),
        "squared": (-0.9084, 1.0916),
    },
    (0.05, 0.02): {
        "binary_tv": (-0.4, 0.4),
        "binary_kl": (-0.4, 0.4),
        "preserving": (-0.4, 0.6),
        "dynamic": (-0.4, 0),
        "flipped": (-2.5, 0),
        "tapered": (-1, 0.4),
        "squared": (-1.0916, 0.9084),
    },
    (0.9, 0.99): {
        "binary_tv": (-1.1, 1.1),
        "binary_kl": (0, 1.1),
        "preserving": (-1.1, 1.1),
        "dynamic": (-1.1, 1.1),
        "flipped": (-0.9091, 1.1),
        "tapered": (-1, 1),
        "squared": (-0.9905, 1.0095),
    },
    (0.99, 0.7): {
        "binary_tv": (-0.7071, 0),
        "binary_kl": (-0.7071, 0),
        "preserving": (-0.7071, 0.6),
        "dynamic": (-0.7071, 0),
        "flipped": (-1.4143, 0),
        "tapered": (-1, 0.7071),
        "squared": (-1.0347, 0.9653),
    },
}


def micro_batch(logps, old_logps, advantages, mask=None, entropies=None):
    ones = torch.ones_like(logps)
    return TermInputs(
        logps, old_logps, advantages, ones if mask is None else mask, ones if entropies is None else entropies
    )


def derivative(name, inputs, **settings):
    """Derivative of the summed losses of the counted tokens by the log-probs."""
    losses = POLICY_TERMS[name].function(inputs, **settings).losses
    return torch.autograd.grad((losses * inputs.mask).sum(), inputs.logps)[0]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("pair", DERIVATIVES, ids=str)
@pytest.mark.parametrize("name", [*SETTINGS, "squared"])
def test_derivatives_are_those_by_hand(name, pair, dtype):
    q, p = (torch.full((2, 1), x, dtype=dtype).log() for x in pair)
    inputs = micro_batch(p.requires_grad_(), q, torch.tensor([1.0, -1.0], dtype=dtype))
    if name == "squared":
        penalty = 0.1 * squared_log_ratio(inputs.logps, q, inputs.logps - q).sum()
        actual = derivative("score", inputs) + torch.autograd.grad(penalty, inputs.logps)[0]
    else:
        actual = derivative(name, inputs, **SETTINGS[name])
    assert actual.flatten().tolist() == pytest.approx(DERIVATIVES[pair][name], abs=1e-4)


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_a_ratio_at_the_bound_is_not_clipped(advantage):
    """With a clip range of 0 that is the policy of the rollout."""
    log_weights, advantages = torch.zeros(3), torch.full((3,), advantage)
    for clip in ("upper", "two_sided"):
        assert not trajectory(log_weights, advantages, clip, epsilon=0.0, epsilon_high=0.0)[1].any()
    logps = torch.full((3, 1), 0.25).log()
    dynamic = POLICY_TERMS["dynamic"].function(
        micro_batch(logps, logps, advantages), epsilon=0.0, epsilon_high=0.0, max_ratio=10.0
    )
    assert not dynamic.metrics["dynamic/clipped"].any()


@pytest.mark.parametrize(("epsilon", "dropped"), [(4e-9, True), (8e-9, False)])
def test_a_probability_near_one_keeps_its_digits_in_float32(epsilon, dropped):
    """In float32 1 - 2e-8 is 1. The binary KL is 6e-9, and 1e-8 or more if other tokens are taken to be impossible."""
    old, now = torch.tensor([[-1e-8]]), torch.tensor([[-2e-8]], requires_grad=True)
    inputs = micro_batch(now, old, torch.tensor([-1.0]))
    assert (derivative("binary_kl", inputs, epsilon=epsilon, epsilon_high=0.1).item() == 0) == dropped


# ---- identities -----------------------------------------------------------------------------------------------------


def random_inputs(seed, spread=1.0):
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(3, 4, 6, generator=generator, dtype=torch.float64)
    logps = (-2 * spread * draws[0]).requires_grad_()
    mask = (torch.arange(6) < torch.tensor([[6], [3], [0], [1]])).double()
    advantages = torch.randn(4, generator=generator, dtype=torch.float64)
    return micro_batch(logps, -2 * spread * draws[1], advantages, mask, draws[2])


def token_ratio(inputs):
    losses = -(inputs.logps - inputs.old_logps).exp() * inputs.token_advantages
    return torch.autograd.grad((losses * inputs.mask).sum(), inputs.logps)[0]


SEEDS = st.integers(0, 10_000)


@given(SEEDS)
def test_without_a_share_beyond_the_clip_it_is_ppos_dual_clip(seed):
    inputs = random_inputs(seed)
    settings = {"epsilon": 0.2, "epsilon_high": 0.28, "keep_low": 0.0, "keep_high": 0.0, "dual_clip": 3.0}
    ratio, advantages = (inputs.logps - inputs.old_logps).exp(), inputs.token_advantages
    losses = torch.maximum(-ratio * advantages, -ratio.clamp(0.8, 1.28) * advantages)
    losses = torch.where(advantages < 0, torch.minimum(losses, -3 * advantages), losses)
    (expected,) = torch.autograd.grad((losses * inputs.mask).sum(), inputs.logps)
    torch.testing.assert_close(derivative("preserving", inputs, **settings), expected)


@given(SEEDS)
def test_what_drops_no_token_is_the_unclipped_ratio(seed):
    expected = token_ratio(random_inputs(seed))
    for name, settings in {
        "binary_tv": {"epsilon": 1.0, "epsilon_high": 1.0},
        "binary_kl": {"epsilon": 1e3, "epsilon_high": 1e3},
        "covariance": {"penalty": 0.0, "share": 0.5},
        "dynamic": {"epsilon": 1.0, "epsilon_high": 1.0, "max_ratio": 1e5},
    }.items():
        inputs = random_inputs(seed)
        # From below a bound of DCPO is never less than 1/2.
        if name != "dynamic" or (inputs.logps - inputs.old_logps).exp().min() > 0.5:
            torch.testing.assert_close(derivative(name, inputs, **settings), expected)


@pytest.mark.parametrize("name", [name for name, part in POLICY_TERMS.items() if part.is_inert_on_policy])
@given(seed=SEEDS)
def test_at_the_policy_of_the_rollout_it_is_the_plain_policy_gradient(name, seed):
    inputs = random_inputs(seed)
    old = inputs.logps.detach()
    inputs = micro_batch(inputs.logps, old, inputs.advantages, inputs.mask, inputs.entropies)
    settings = {"epsilon": 0.2, "epsilon_high": 0.2, "trajectory_clip": "two_sided"}
    own = {key: value for key, value in settings.items() if POLICY_TERMS[name].takes(key)}
    losses = POLICY_TERMS[name].function(inputs, **own).losses
    total = losses.sum() if losses.dim() == 1 else (losses * inputs.mask).sum()
    (actual,) = torch.autograd.grad(total, inputs.logps)
    torch.testing.assert_close(actual, -inputs.token_advantages * inputs.mask)


@given(SEEDS, st.sampled_from([0.01, 0.5]))
def test_the_square_of_pmd_and_its_expansion_have_the_same_gradient(seed, tau):
    inputs = random_inputs(seed)
    lengths = inputs.mask.sum(1).clamp(min=1)
    total = ((inputs.logps - inputs.old_logps) * inputs.mask).sum(1)
    square = (tau * (inputs.advantages / tau - total) ** 2 / 2 / lengths)[inputs.mask.any(1)].sum()
    (expected,) = torch.autograd.grad(square, inputs.logps)
    penalty = tau * sequence_squared_log_ratio(inputs.logps, inputs.old_logps, total, inputs.mask)
    losses = (score_term(inputs).losses + penalty) * inputs.mask / lengths[:, None]
    (actual,) = torch.autograd.grad(losses.sum(), inputs.logps)
    torch.testing.assert_close(actual, expected)


@given(SEEDS)
def test_kimis_penalty_is_the_mirror_term_up_to_the_ratio(seed):
    inputs = random_inputs(seed)
    log_ratio = inputs.logps - inputs.old_logps
    (squared,) = torch.autograd.grad(
        squared_log_ratio(inputs.logps, inputs.old_logps, log_ratio).sum(), inputs.logps, retain_graph=True
    )
    mirror = log_ratio.exp() * log_ratio - log_ratio.exp() + 1
    (expected,) = torch.autograd.grad(mirror.sum(), inputs.logps)
    torch.testing.assert_close(squared * log_ratio.detach().exp(), expected)


def test_the_covariance_holds_the_share_of_counted_tokens_with_the_largest_one():
    logps = torch.tensor([[-0.1, -3.0, -9.0], [-0.2, -2.0, -0.1]], requires_grad=True)
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    inputs = micro_batch(logps, logps.detach() - 0.5, torch.tensor([1.0, -1.0]), mask)
    for share, expected in {0.002: [[1, 0], [0, 0]], 0.4: [[1, 0], [0, 1]], 0.6: [[1, 0], [1, 1]]}.items():
        held = POLICY_TERMS["covariance"].function(inputs, share=share).metrics["covariance/penalty"] > 0
        assert held[:, :2].int().tolist() == expected, share
        assert not held[0, 2]


@pytest.mark.parametrize(("drift", "slope"), [(3e-7, 0.0), (-3e-7, 0.0), (1e-3, 2.0), (-1e-3, -2.0)])
def test_rounding_between_two_forward_passes_has_no_direction(drift, slope):
    logps = torch.tensor([[-1.0]], requires_grad=True)
    inputs = micro_batch(logps, logps.detach() - drift, torch.zeros(1))
    assert derivative("covariance", inputs, penalty=2.0).item() == slope
