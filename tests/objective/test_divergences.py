# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trl_grpo_variants.objective.divergences import (
    half_squared_log_ratio,
    reverse_kl,
    sequence_squared_log_ratio,
    squared_log_ratio,
    standard_error_over_groups,
)
from trl_grpo_variants.objective.ratio import (
    MAX_DIVERGENCE_LOG_RATIO,
    MAX_IMPORTANCE_LOG_RATIO,
    bounded_anchor,
)


def expectation(logits, anchor_logits, old_logits):
    """Exact expectation of the estimate over tokens of the old policy."""
    logps, anchor, old = (x.log_softmax(-1) for x in (logits, anchor_logits, old_logits))
    return (old.exp() * reverse_kl(logps, anchor, logps - old)).sum()


def exact_kl(logits, anchor_logits):
    logps, anchor = logits.log_softmax(-1), anchor_logits.log_softmax(-1)
    return (logps.exp() * (logps - anchor)).sum()


@given(st.integers(0, 10_000))
def test_expected_value_and_gradient_are_those_of_the_reverse_kl(seed):
    generator = torch.Generator().manual_seed(seed)
    logits, anchor, old = torch.randn(3, 6, generator=generator, dtype=torch.float64)
    estimated = torch.autograd.functional.jacobian(lambda x: expectation(x, anchor, old), logits)
    exact = torch.autograd.functional.jacobian(lambda x: exact_kl(x, anchor), logits)

    torch.testing.assert_close(expectation(logits, anchor, old), exact_kl(logits, anchor))
    torch.testing.assert_close(estimated, exact)


def test_rollout_anchor_gives_the_mirror_term():
    logps, old_logps = torch.randn(2, 3, 4, dtype=torch.float64)
    ratio = (logps - old_logps).exp()

    torch.testing.assert_close(reverse_kl(logps, old_logps, logps - old_logps), ratio * ratio.log() - ratio + 1)


def test_half_the_square_has_the_gradient_of_the_reverse_kl_token_by_token():
    logps, anchor, old = torch.randn(3, 6, dtype=torch.float64)
    values = half_squared_log_ratio(logps, anchor, logps - old)
    torch.testing.assert_close(values, (logps - old).exp() * (logps - anchor) ** 2 / 2)
    gradients = [
        torch.autograd.functional.jacobian(lambda x, estimate=estimate: estimate(x, anchor, x - old), logps)
        for estimate in (half_squared_log_ratio, reverse_kl)
    ]
    torch.testing.assert_close(*gradients)


def test_trls_corrected_k3_has_the_gradient_of_k2_on_and_off_policy():
    logps, anchor, old = torch.randn(3, 6, dtype=torch.float64)
    logps.requires_grad_()
    for before in (old, logps.detach()):
        trls = torch.exp(anchor - logps) - (anchor - logps) - 1
        (expected,) = torch.autograd.grad((trls * torch.exp(logps - before)).sum(), logps)
        (actual,) = torch.autograd.grad(half_squared_log_ratio(logps, anchor, logps - before).sum(), logps)
        torch.testing.assert_close(actual, expected)


def test_penalties_without_a_ratio_look_at_the_anchor_alone():
    logps, anchor = torch.randn(2, 2, 3, dtype=torch.float64)
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]])
    d = anchor - logps
    for log_ratio in (torch.zeros(()), torch.tensor(torch.nan)):
        torch.testing.assert_close(squared_log_ratio(logps, anchor, log_ratio), d * d / 2)
        total = d[0, 0] + d[0, 1]
        expected = torch.stack([total * total / 4, torch.zeros(()).double()])[:, None].expand(2, 3)
        torch.testing.assert_close(sequence_squared_log_ratio(logps, anchor, log_ratio, mask), expected)


@given(st.floats(-10, 10), st.floats(-10, 10))
def test_every_term_is_non_negative(log_ratio, d):
    logps = torch.tensor(0.0, dtype=torch.float64)
    assert reverse_kl(logps, logps + d, torch.tensor(log_ratio)) >= 0


def test_gradient_vanishes_at_the_anchor():
    logps = torch.randn(5, requires_grad=True)
    kl = reverse_kl(logps, logps.detach(), logps - logps.detach())
    kl.sum().backward()

    assert kl.tolist() == [0.0] * 5
    assert logps.grad.tolist() == [0.0] * 5


def test_small_divergences_keep_their_digits_in_float32():
    logps = torch.tensor(-1.0)
    assert reverse_kl(logps, logps + 1e-3, torch.zeros(())).item() == pytest.approx(0.5e-6, rel=2e-2)


@pytest.mark.parametrize("old", [-1e4, 0.0])
@pytest.mark.parametrize("anchor", [-1e4, 0.0, -torch.inf])
@pytest.mark.parametrize("current", [-1e4, 0.0])
def test_bounded_extremes_are_finite(old, anchor, current):
    logps = torch.tensor([current], requires_grad=True)
    kl = reverse_kl(
        logps,
        bounded_anchor(torch.tensor([anchor]), logps, MAX_DIVERGENCE_LOG_RATIO),
        logps - bounded_anchor(torch.tensor([old]), logps, MAX_IMPORTANCE_LOG_RATIO),
    )
    kl.sum().backward()

    assert kl.isfinite().all()
    assert logps.grad.isfinite().all()


def test_of_groups_of_one_size_the_error_is_that_of_the_mean_of_their_means():
    sums, groups = torch.tensor([1.0, 3.0, 2.0, 8.0, 9.0, 1.0]), torch.tensor([7, 2, 7, 2, 5, 5])
    means = torch.tensor([3.0, 11.0, 10.0]) / 4
    error = standard_error_over_groups(sums, torch.full((6,), 2), groups)
    torch.testing.assert_close(error, means.std() / 3**0.5)


def test_the_error_is_how_far_means_over_tokens_of_like_groups_spread():
    """Completions of a group are alike, and the longer the larger their values."""
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(50).repeat_interleave(4)
    means, errors = [], []
    for _ in range(400):
        difficulty = torch.rand(50, generator=generator)[groups]
        tokens = torch.randint(0, 8, (200,), generator=generator)
        sums = tokens * (difficulty + 0.1 * tokens + 0.2 * torch.randn(200, generator=generator))
        means.append(sums.sum() / tokens.sum())
        errors.append(standard_error_over_groups(sums, tokens, groups))
    torch.testing.assert_close(torch.stack(means).std(), torch.stack(errors).mean(), rtol=0.1, atol=0.0)


@pytest.mark.parametrize("tokens", [[0, 0, 0], [3, 2, 0]])
def test_less_than_two_groups_say_nothing_of_their_spread(tokens):
    error = standard_error_over_groups(torch.tensor([0.1, 0.7, 0.0]), torch.tensor(tokens), torch.tensor([0, 0, 1]))
    assert error.isnan()
