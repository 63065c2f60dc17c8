# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""TRL's own policy terms: the clipped ratio of tokens or sequences, and the loss types that weight tokens by it."""

import math
from collections.abc import Mapping
from typing import Any

from ...checks import MAX_COEFFICIENT
from ...papers import DEEPSEEKMATH
from ..terms import PolicyTerm, Setting, upper_range, written


# Loss types that are a term of their own, and not only a way to sum one.
WEIGHTING_LOSS_TYPES = ("cispo", "sapo", "vespo")
_CLIPPED = (None, "grpo", "dr_grpo", "dapo", "bnpo", "luspo")


def _formula(values: Mapping[str, Any]) -> str:
    ratio = "s" if values.get("importance_sampling_level") == "sequence" else "rho"
    loss_type, delta = values.get("loss_type"), values.get("delta")
    high_name = upper_range(values)
    if loss_type == "cispo":
        return f"-sg(min({ratio}, {written(values, high_name)})) A log pi"
    if loss_type == "sapo":
        temperatures = (
            f"{written(values, 'sapo_temperature_pos')} if A > 0 else {written(values, 'sapo_temperature_neg')}"
        )
        return f"-(4/tau) sigmoid(tau ({ratio} - 1)) A (tau = {temperatures})"
    if loss_type == "vespo":
        k, lambda_ = (
            f"{written(values, f'vespo_{name}_pos')} if A >= 0 else {written(values, f'vespo_{name}_neg')}"
            for name in ("k", "lambda")
        )
        return f"-sg(exp(lambda + k log w - lambda w)) A log pi (k = {k}, lambda = {lambda_})"
    low, high = written(values, "epsilon", 1, -1), written(values, high_name, 1)
    if delta is None:
        return f"-min({ratio} A, clip({ratio}, {low}, {high}) A)"
    if low == "0" and math.isclose(delta, 1 + (values.get(high_name) or 0.0)):
        return f"-min({ratio}, {high}) A"
    return f"-min(min({ratio}, {delta:g}) A, clip({ratio}, {low}, {high}) A)"


def off_policy_settings(values: Mapping[str, Any]) -> list[str]:
    """Fields of TRL's that act through the ratio alone, so only where the policy has moved away from the rollout."""
    acts = {
        "importance_sampling_level": values.get("importance_sampling_level") == "sequence",
        "loss_type": values.get("loss_type") in WEIGHTING_LOSS_TYPES,
        "delta": values.get("delta") is not None,
        "off_policy_mask_threshold": values.get("off_policy_mask_threshold") is not None,
    }
    return [name for name, is_set in acts.items() if is_set]


CLIPPED = PolicyTerm(
    name="clipped",
    function=None,
    formula=_formula,
    paper=DEEPSEEKMATH,
    settings=(
        # A lower bound of `1 - epsilon` below 0 bounds nothing.
        Setting("epsilon", at_least=0.0, at_most=1.0, only_with={"loss_type": _CLIPPED}),
        Setting("epsilon_high", at_least=0.0, at_most=MAX_COEFFICIENT, only_with={"loss_type": (*_CLIPPED, "cispo")}),
        # A bound of 1 or less would take the gradient of every token that has become likelier.
        Setting("delta", greater_than=1.0, at_most=MAX_COEFFICIENT, only_with={"loss_type": _CLIPPED}),
    ),
    symbols={
        "s": "geometric mean of the token ratios of a completion to the policy that made the rollout",
        "w": "product of the token ratios of a completion to the policy that made the rollout",
        "sg": "no gradient is taken of it",
    },
    fields={},
    is_inert_on_policy=False,
)
