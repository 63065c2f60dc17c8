# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

from types import SimpleNamespace

import pytest
import torch

from trl_grpo_variants.objective.aggregation import token_weight

from ..reference import aggregate


# Completions of one token, of several and of none.
MASK = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 0.0, 0.0]], dtype=torch.float64)


@pytest.mark.parametrize("mask", [MASK, torch.zeros_like(MASK)], ids=["some", "none"])
@pytest.mark.parametrize("loss_type", ["grpo", "sapo", "bnpo", "dr_grpo", "dapo", "cispo", "vespo", "luspo"])
def test_a_token_weighs_what_the_loss_type_divides_by(loss_type, mask):
    terms = torch.randn(mask.shape, dtype=torch.float64)
    weight = token_weight(loss_type, mask, max_completion_length=7, global_tokens=torch.tensor(5.5))
    batch = SimpleNamespace(max_completion_length=7, tokens_per_step=5.5)
    counted = [[*row[kept.bool()]] for row, kept in zip(terms, mask, strict=True)]
    torch.testing.assert_close(
        (terms * mask * weight).sum(), aggregate(counted, loss_type, batch), rtol=1e-6, atol=0.0
    )
    assert torch.isfinite(weight).all()


def test_a_loss_type_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match="No aggregation is known for loss_type='later'"):
        token_weight("later", MASK, max_completion_length=7, global_tokens=torch.tensor(5.5))
