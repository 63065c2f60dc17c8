# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""TIC-GRPO, arXiv 2508.02833, and the ablations of that paper."""

from ..papers import TIC_GRPO
from .shared import MEAN_ONLY, NO_KL, TRL_STD
from .variant import Variant


_TRAJECTORY = {"importance_sampling_level": "trajectory", "loss_type": "dr_grpo"}
_NO_IS = {"importance_sampling_level": "none", "loss_type": "grpo", "inner_steps": 4}
_DISJOINT_PROMPTS = {"inner_steps": 4, "num_iterations": 1, "group_preserving_split": True}

TRAJECTORY = (
    Variant(
        "no_is",
        "Importance sampling removed; the gradient is the score at the current policy.",
        TIC_GRPO,
        TRL_STD | _NO_IS | NO_KL | {"no_is_gradient": "current"},
    ),
    Variant(
        "no_is_frozen",
        "Importance sampling removed; every inner step differentiates at the policy that made the rollout.",
        TIC_GRPO,
        TRL_STD | _NO_IS | NO_KL | {"no_is_gradient": "frozen"},
    ),
    Variant(
        "tic_grpo",
        "TIC-GRPO (v5): one importance weight per trajectory, capped from above for both signs of A.",
        TIC_GRPO,
        MEAN_ONLY | _TRAJECTORY | NO_KL | _DISJOINT_PROMPTS | {"trajectory_clip": "upper", "epsilon_high": 0.28},
    ),
    Variant(
        "tic_grpo_v2",
        "TIC-GRPO (v2): PPO's clip on one weight per trajectory, as in RLOO, with standardised advantages.",
        TIC_GRPO,
        TRL_STD
        | _TRAJECTORY
        | NO_KL
        | _DISJOINT_PROMPTS
        | {"trajectory_clip": "two_sided", "epsilon": 0.2, "epsilon_high": 0.2},
    ),
    Variant(
        "grpo_upper_clip",
        "TIC-GRPO's intermediate: token ratios capped from above for both signs of A. Stock TRL computes it.",
        TIC_GRPO,
        MEAN_ONLY
        | NO_KL
        | _DISJOINT_PROMPTS
        | {"importance_sampling_level": "token", "epsilon": 1.0, "epsilon_high": 0.28, "delta": 1.28}
        | {"loss_type": "dr_grpo"},
    ),
)
