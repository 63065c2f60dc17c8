# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from trl_grpo_variants.objective.ratio import (
    bounded_anchor,
    effective_sample_size,
    importance_log_ratio,
    std_per_sqrt_token,
    trajectory_log_weight,
)


def test_trajectory_weight_is_the_product_of_the_token_ratios_under_the_mask():
    logps = torch.log(torch.tensor([[0.5, 0.2, 0.9], [0.1, 0.4, 0.3]]))
    old_logps = torch.log(torch.tensor([[0.25, 0.4, 0.1], [0.2, 0.1, 0.3]]))
    mask = torch.tensor([[1, 1, 0], [1, 0, 1]])

    weights = trajectory_log_weight(logps, old_logps, mask).exp()

    torch.testing.assert_close(weights, torch.tensor([0.5 / 0.25 * 0.2 / 0.4, 0.1 / 0.2 * 0.3 / 0.3]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_trajectory_weight_is_summed_in_float32(dtype):
    """256 ratios of 1 + 2^-6 multiply to e^4; summed in the low precision the logarithm would stall."""
    logps = torch.full((1, 256), -2.0, dtype=dtype)
    old_logps = logps - 2**-6

    log_weight = trajectory_log_weight(logps, old_logps, torch.ones(1, 256))

    assert log_weight.dtype == torch.float32
    assert log_weight.item() == pytest.approx(4.0)


def test_masked_infinities_do_not_reach_the_weight_or_its_gradient():
    logps = torch.tensor([[-1.0, -torch.inf]], requires_grad=True)

    log_weight = trajectory_log_weight(logps, torch.zeros(1, 2), torch.tensor([[1, 0]]))
    log_weight.sum().backward()

    assert log_weight.item() == -1.0
    assert logps.grad.tolist() == [[1.0, 0.0]]


def test_empty_trajectory_has_weight_one():
    assert trajectory_log_weight(torch.randn(1, 3), torch.randn(1, 3), torch.zeros(1, 3)).item() == 0


def test_bounded_anchor_is_the_anchor_within_the_limit_and_finite_beyond():
    logps = torch.tensor([-1.0, -1.0, -1e4, -1.0], requires_grad=True)
    anchor = torch.tensor([-3.1234567, -1e4, -1.0, -torch.inf])

    bounded = bounded_anchor(anchor, logps, 20.0)

    assert bounded[0] == anchor[0]
    assert bounded[1:].tolist() == [-21.0, -1e4 + 20, -21.0]
    assert not bounded.requires_grad


def test_importance_ratio_of_a_sequence_is_the_geometric_mean_of_its_tokens():
    logps = torch.tensor([[-1.0, -2.0, -torch.inf], [-1.0, -1.0, -1.0]], requires_grad=True)
    old_logps = torch.tensor([[-0.5, -3.5, 0.0], [-9.0, -9.0, -9.0]])
    mask = torch.tensor([[1, 1, 0], [0, 0, 0]])

    ratio = importance_log_ratio(logps, old_logps, mask, "sequence")
    ratio.sum().backward()

    assert ratio.tolist() == [[0.5], [0.0]]
    assert logps.grad.tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]
    assert torch.equal(importance_log_ratio(logps, old_logps, mask, "token"), logps - old_logps)


def test_effective_sample_size():
    assert effective_sample_size(torch.full((8,), 3.0)).item() == pytest.approx(1.0)
    assert effective_sample_size(torch.tensor([0.0, 1e4, 0.0, 0.0])).item() == pytest.approx(0.25)
    weights = torch.tensor([1.0, 2.0, 3.0])
    expected = weights.sum() ** 2 / (3 * (weights**2).sum())
    assert effective_sample_size(weights.log()).item() == pytest.approx(expected.item())


def test_spread_per_root_of_a_token_is_that_of_independent_tokens():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 400, (4000,), generator=generator)
    tokens = 0.03 * torch.randn(4000, 400, generator=generator) - 0.01
    log_weights = (tokens * (torch.arange(400) < lengths.unsqueeze(1))).sum(dim=1)
    assert std_per_sqrt_token(log_weights, lengths).item() == pytest.approx(0.03, rel=0.05)
    # A drift alone is no spread.
    assert std_per_sqrt_token(-0.01 * lengths, lengths).item() == pytest.approx(0.0, abs=1e-6)
