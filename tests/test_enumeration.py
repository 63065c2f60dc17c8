# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Expected gradients by exact enumeration: a policy over three tokens and at most three steps, one of them the end token,
in float64, so that every trajectory and every group of two has a known probability.
"""

import itertools

import pytest
import torch

from trl_grpo_variants.objective.divergences import reverse_kl
from trl_grpo_variants.objective.policies.score import score_term
from trl_grpo_variants.objective.policies.trajectory import trajectory_term
from trl_grpo_variants.objective.terms import TermInputs


VOCAB, LENGTH, END = 3, 3, 0
PREFIXES = [()] + [p for n in range(1, LENGTH) for p in itertools.product(range(1, VOCAB), repeat=n)]
TRAJECTORIES = [
    o
    for n in range(1, LENGTH + 1)
    for o in itertools.product(range(VOCAB), repeat=n)
    if END not in o[:-1] and (o[-1] == END or n == LENGTH)
]
MASK = torch.tensor([[int(t < len(o)) for t in range(LENGTH)] for o in TRAJECTORIES])
REWARDS = torch.tensor([float(sum(o) % 2 == 0 and len(o) > 1) for o in TRAJECTORIES], dtype=torch.float64)


def token_logps(logits):
    """Log-probs (N, LENGTH) of the tokens of all trajectories; 0 behind the end."""
    table = dict(zip(PREFIXES, logits.log_softmax(-1), strict=True))
    zero = logits.new_zeros(())
    return torch.stack(
        [torch.stack([table[o[:t]][o[t]] if t < len(o) else zero for t in range(LENGTH)]) for o in TRAJECTORIES]
    )


def objective(logits):
    return (token_logps(logits).sum(-1).exp() * REWARDS).sum()


def gradient(function, logits):
    logits = logits.detach().requires_grad_()
    return torch.autograd.grad(function(logits), logits)[0]


def expected_loss(per_trajectory_loss, old_logits):
    """
    Expectation over groups of two drawn from the old policy, with advantages r - group mean.

    `per_trajectory_loss` maps advantages (N,) to losses (N,): the advantage is linear in the partner's reward, so the
    expectation over the partner is taken by looping over it.
    """
    probabilities = token_logps(old_logits).detach().sum(-1).exp()
    torch.testing.assert_close(probabilities.sum().item(), 1.0)
    total = 0.0
    for partner, probability in enumerate(probabilities):
        advantages = REWARDS - (REWARDS + REWARDS[partner]) / 2
        total = total + probability * (probabilities * per_trajectory_loss(advantages)).sum()
    return total


@pytest.fixture
def policies():
    generator = torch.Generator().manual_seed(3)
    old = torch.randn(len(PREFIXES), VOCAB, generator=generator, dtype=torch.float64)
    return old, old + 0.5 * torch.randn(old.shape, generator=generator, dtype=torch.float64)


def inputs(logps, old_logps, advantages):
    return TermInputs(logps, old_logps, advantages, MASK, torch.zeros_like(logps))


def tic_gradient(old, current, clip, epsilon_high=0.28):
    old_logps = token_logps(old)

    def loss(logits):
        return expected_loss(
            lambda advantages: (
                trajectory_term(
                    inputs(token_logps(logits), old_logps, advantages),
                    trajectory_clip=clip,
                    epsilon=0.2,
                    epsilon_high=epsilon_high,
                ).losses
            ),
            old,
        )

    return -gradient(loss, current)


def score_gradient(old, at, per_length=False):
    lengths = MASK.sum(-1) if per_length else 1
    return -gradient(
        lambda logits: expected_loss(
            lambda advantages: (
                (score_term(inputs(token_logps(logits), token_logps(old), advantages)).losses * MASK).sum(-1) / lengths
            ),
            old,
        ),
        at,
    )


def token_gradient(old, current):
    old_logps = token_logps(old)
    return -gradient(
        lambda logits: expected_loss(
            lambda advantages: -((token_logps(logits) - old_logps).exp() * MASK).sum(-1) * advantages, old
        ),
        current,
    )


def relative_error(estimate, target):
    return ((estimate - target).norm() / target.norm()).item()


def test_unclipped_trajectory_weight_is_unbiased_for_the_current_policy_up_to_the_group_mean(policies):
    """E = (1 - 1/G) grad J(theta), G = 2; paper 2508.02833, Lemma A.1 with the own sample in the mean."""
    old, current = policies
    assert relative_error(tic_gradient(old, current, "none"), gradient(objective, current) / 2) < 1e-12


def test_a_cap_that_nothing_reaches_changes_nothing(policies):
    old, current = policies
    capped = tic_gradient(old, current, "upper", epsilon_high=1e6)
    assert relative_error(capped, gradient(objective, current) / 2) < 1e-12


@pytest.mark.parametrize("clip", ["upper", "two_sided"])
def test_clipping_breaks_unbiasedness(policies, clip):
    """The cap is a trust region on trajectories; off policy the clipped estimator is not unbiased."""
    old, current = policies
    assert relative_error(tic_gradient(old, current, clip), gradient(objective, current) / 2) > 0.1


def test_frozen_score_is_unbiased_for_the_old_policy_and_not_for_the_current_one(policies):
    old, current = policies
    frozen = score_gradient(old, at=old)
    assert relative_error(frozen, gradient(objective, old) / 2) < 1e-12
    assert relative_error(frozen, gradient(objective, current) / 2) > 0.1


def test_current_score_is_the_gradient_of_a_covariance_and_biased_for_both_policies(policies):
    old, current = policies
    probabilities = token_logps(old).sum(-1).exp()
    baseline = (probabilities * REWARDS).sum()
    covariance = gradient(
        lambda logits: (probabilities * token_logps(logits).sum(-1) * (REWARDS - baseline)).sum(), current
    )
    score = score_gradient(old, at=current)

    assert relative_error(score, covariance / 2) < 1e-12
    assert relative_error(score, gradient(objective, current) / 2) > 0.1
    assert relative_error(score, gradient(objective, old) / 2) > 0.01


def test_token_ratio_is_the_gradient_of_the_surrogate_and_of_neither_objective(policies):
    """The unclipped token ratio keeps the old policy's states and continuations (TRPO's surrogate)."""
    old, current = policies
    old_logps = token_logps(old)
    probabilities = old_logps.sum(-1).exp()

    def surrogate(logits):
        ratios = (token_logps(logits) - old_logps).exp() * MASK
        return (probabilities * ratios.sum(-1) * (REWARDS - (probabilities * REWARDS).sum())).sum()

    token = token_gradient(old, current)
    assert relative_error(token, gradient(surrogate, current) / 2) < 1e-12
    assert relative_error(token, gradient(objective, current) / 2) > 0.05
    assert relative_error(token, gradient(objective, old) / 2) > 0.05


def test_all_levels_agree_on_policy(policies):
    old, _ = policies
    target = gradient(objective, old) / 2
    for estimate in (
        tic_gradient(old, old, "upper"),
        tic_gradient(old, old, "two_sided"),
        score_gradient(old, at=old),
        token_gradient(old, old),
    ):
        assert relative_error(estimate, target) < 1e-12


def test_dividing_by_the_length_of_each_response_turns_the_gradient_even_on_policy(policies):
    old, _ = policies
    per_length, target = score_gradient(old, at=old, per_length=True), gradient(objective, old)
    cosine = torch.nn.functional.cosine_similarity(per_length.flatten(), target.flatten(), dim=0)
    assert cosine < 0.99


def test_mirror_term_is_the_token_level_kl_to_the_old_policy(policies):
    """
    On samples of the old policy the sum of the per-token terms is sum_t E[KL(pi_theta(. | s_t) || pi_old(. | s_t))]
    over prefixes of the old policy: the token form, in value and gradient.
    """
    old, current = policies
    old_logps = token_logps(old)
    probabilities = old_logps.sum(-1).exp()
    reached = {
        prefix: sum(
            p
            for p, o in zip(probabilities, TRAJECTORIES, strict=True)
            if o[: len(prefix)] == prefix and len(o) > len(prefix)
        )
        for prefix in PREFIXES
    }

    def estimated(logits):
        logps = token_logps(logits)
        return (probabilities * (reverse_kl(logps, old_logps, logps - old_logps) * MASK).sum(-1)).sum()

    def exact(logits):
        logps, anchor = logits.log_softmax(-1), old.log_softmax(-1)
        per_prefix = (logps.exp() * (logps - anchor)).sum(-1)
        return sum(reached[prefix] * kl for prefix, kl in zip(PREFIXES, per_prefix, strict=True))

    torch.testing.assert_close(estimated(current), exact(current))
    assert relative_error(gradient(estimated, current), gradient(exact, current)) < 1e-10
