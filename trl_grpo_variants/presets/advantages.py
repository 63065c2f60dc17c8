# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Advantages other than TRL's."""

from ..papers import RS_GRPO
from .shared import NO_KL, TOKEN
from .variant import Variant


ADVANTAGES = (
    Variant(
        "rs_grpo",
        "RS-GRPO: advantages of a risk-seeking objective, which favours the best completions of a group.",
        RS_GRPO,
        TOKEN
        | NO_KL
        | {"advantage": "risk_sensitive", "advantage_kwargs": {"risk": 2.0}, "loss_type": "dr_grpo", "inner_steps": 4},
    ),
)
