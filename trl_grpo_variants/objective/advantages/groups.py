# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What several advantages need of the groups of a rollout, of their scored completions alone."""

from __future__ import annotations

from typing import TYPE_CHECKING


if TYPE_CHECKING:
    import torch


def scored_count(grouped: torch.Tensor) -> torch.Tensor:
    """How many completions of each group were scored, `(P, 1)` for rewards `(P, G)`."""
    return (~grouped.isnan()).sum(dim=1, keepdim=True)


def sample_std(grouped: torch.Tensor) -> torch.Tensor:
    """Sample standard deviation of each group, `(P, 1)` for rewards `(P, G)`; NaN for fewer than two scored ones."""
    deviations = grouped - grouped.nanmean(dim=1, keepdim=True)
    return (deviations.square().nansum(dim=1, keepdim=True) / (scored_count(grouped) - 1)).sqrt()
