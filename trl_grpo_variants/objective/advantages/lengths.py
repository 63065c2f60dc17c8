# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Weights of completions by their lengths, a factor of any advantage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...checks import MAX_COEFFICIENT
from ...papers import DELTA_L
from ..terms import Part, Setting, written


if TYPE_CHECKING:
    import torch


def length_weights(lengths: torch.Tensor, *, length_weight_power: float) -> torch.Tensor:
    """
    Weights L^-power / mean(L^-power) of completions, with the mean over the rollout.

    Sums over tokens vary the more the longer they are; with these weights their mean varies less
    ([paper](https://huggingface.co/papers/2509.07558)). A power of 0 leaves all alike.

    Args:
        lengths (`torch.Tensor`):
            Tokens of each completion of all processes that count in the loss, of shape `(N,)`.
        length_weight_power (`float`):
            Power, at least 0.

    Returns:
        `torch.Tensor`:
            Weights of shape `(N,)`, whose mean over completions that have a token is 1; 0 for the others.
    """
    has_token = lengths > 0
    # Relative to the shortest no power underflows for all of them.
    shortest = lengths.double().masked_fill(~has_token, float("inf")).amin()
    powers = ((lengths.double() / shortest) ** -length_weight_power).masked_fill(~has_token, 0.0)
    return powers * has_token.sum() / powers.sum().clamp(min=1)


def _formula(values: Mapping[str, Any]) -> str:
    power = written(values, "length_weight_power")
    return f"L^-{power} / mean(L^-{power} of the rollout)"


LENGTH_WEIGHTS = Part(
    name="length_weights",
    function=length_weights,
    formula=_formula,
    paper=DELTA_L,
    settings=(Setting("length_weight_power", at_least=0.0, at_most=MAX_COEFFICIENT),),
)
