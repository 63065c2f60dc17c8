# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Policy terms other than TRL's."""

from ..papers import GMPO
from .shared import NO_KL, TRL_STD
from .variant import Variant


POLICIES = (
    Variant(
        "gmpo",
        "GMPO: the geometric mean of the token ratios of a completion, each clipped in log space.",
        GMPO,
        TRL_STD
        | NO_KL
        | {"policy_loss": "geometric", "epsilon": 0.4, "epsilon_high": 0.4, "loss_type": "grpo", "inner_steps": 4},
    ),
)
