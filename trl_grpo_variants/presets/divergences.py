# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""KL terms other than TRL's: squared log-ratios to the policy that made the rollout, and the KL in the reward."""

from ..papers import KIMI, PMD, RLOO
from .shared import MEAN_ONLY, TOKEN
from .variant import Variant


_SCORE = {"importance_sampling_level": "none", "no_is_gradient": "current", "inner_steps": 4}
_MIRROR_DESCENT = _SCORE | {
    "beta": 0.0,
    "mirror_beta": 0.01,
    "kl_estimator": "sequence_squared",
    "loss_type": "grpo",
}

DIVERGENCES = (
    Variant(
        "kimi",
        "Kimi k1.5, token by token: no ratio, mean-only advantages, half the squared log-ratio to the rollout's policy.",
        KIMI,
        MEAN_ONLY | _SCORE | {"beta": 0.0, "mirror_beta": 0.1, "kl_estimator": "squared", "loss_type": "dr_grpo"},
    ),
    Variant(
        "pmd_mean",
        "PMD-mean: the squared distance of a completion's log-ratio from its advantage, over its length.",
        PMD,
        _MIRROR_DESCENT | {"advantage": "leave_one_out"},
    ),
    Variant(
        "pmd_partition",
        "PMD-partition: as PMD-mean, with the soft maximum of the group's others as the baseline.",
        PMD,
        _MIRROR_DESCENT | {"advantage": "partition", "advantage_kwargs": {"partition_temperature": 0.01}},
    ),
    Variant(
        "kl_in_reward",
        "Mean-only advantages of rewards less their KL to the fixed reference, as RLOO places it.",
        RLOO,
        MEAN_ONLY | TOKEN | {"beta": 0.05, "mirror_beta": 0.0, "kl_placement": "reward", "loss_type": "dr_grpo"},
    ),
)
