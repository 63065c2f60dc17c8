# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Advantages other than TRL's."""

from ..papers import (
    ASYM_RE,
    BNPO,
    DELTA_L,
    GPG,
    INFERENCE_TIME,
    MAXRL,
    NSR,
    OPO,
    PASS_AT_K,
    QAE,
    REINFORCE_PLUS_PLUS,
    RLOO,
    RS_GRPO,
)
from .shared import MEAN_ONLY, NO_KL, TOKEN
from .variant import Variant


_CLIPPED = TOKEN | NO_KL
_TOKEN_MEAN = _CLIPPED | {"loss_type": "dapo"}
_SEQUENCE_SUM = _CLIPPED | {"loss_type": "dr_grpo"}
_FOUR_STEPS = {"inner_steps": 4}
_NO_RATIO = NO_KL | {"importance_sampling_level": "none"} | _FOUR_STEPS

# Advantages of success and of failure, without a baseline.
_SAMPLE_WEIGHTS = (
    ("w_reinforce", "W-REINFORCE: a small constant for each success, -1 for each failure, no baseline.", 0.1, 1.0),
    ("psr", "PSR: successes alone are reinforced, all alike, without a baseline.", 1.0, 0.0),
    ("nsr", "NSR: failures alone are discouraged, all alike, without a baseline.", 0.0, 1.0),
)

ADVANTAGES = (
    Variant(
        "rs_grpo",
        "RS-GRPO: advantages of a risk-seeking objective, which favours the best completions of a group.",
        RS_GRPO,
        _SEQUENCE_SUM | _FOUR_STEPS | {"advantage": "risk_sensitive", "advantage_kwargs": {"risk": 2.0}},
    ),
    Variant(
        "maxrl",
        "MaxRL: advantages over the mean of the group, which maximise the likelihood of success. On policy.",
        MAXRL,
        _TOKEN_MEAN | {"advantage": "maximum_likelihood"},
    ),
    Variant(
        "pass_at_k",
        "Pass@k training: advantages of the objective that one of k completions succeeds.",
        PASS_AT_K,
        _TOKEN_MEAN | _FOUR_STEPS | {"advantage": "pass_at_k", "advantage_kwargs": {"k": 2}},
    ),
    Variant(
        "best_of_group",
        "The best of a group alone has an advantage, by how much it would be missed.",
        INFERENCE_TIME,
        _TOKEN_MEAN | _FOUR_STEPS | {"advantage": "best_of_group"},
    ),
    Variant(
        "opo",
        "OPO: the baseline of least variance, in which completions count by their lengths. On policy.",
        OPO,
        _TOKEN_MEAN | {"advantage": "length_weighted"},
    ),
    Variant(
        "qae",
        "QAE: a quantile of the group as the baseline, so that rare successes or rare failures alone count.",
        QAE,
        _TOKEN_MEAN | _FOUR_STEPS | {"advantage": "quantile", "advantage_kwargs": {"quantile": 0.4}},
    ),
    Variant(
        "leave_one_out",
        "RLOO's advantage: the baseline is the mean of the others of the group. On policy.",
        RLOO,
        _SEQUENCE_SUM | {"advantage": "leave_one_out"},
    ),
    Variant(
        "reinforce_plus_plus_baseline",
        "REINFORCE++-baseline: mean-only advantages, whitened over all tokens of the rollout.",
        REINFORCE_PLUS_PLUS,
        _TOKEN_MEAN | _FOUR_STEPS | {"advantage": "whitened"},
    ),
    Variant(
        "beta_normalization",
        "Beta Normalization: mean-only advantages over a Beta density fitted to the success of the rollout's prompts.",
        BNPO,
        _SEQUENCE_SUM | _FOUR_STEPS | {"epsilon_high": 0.28, "delta": 10.0, "advantage": "beta_normalization"},
    ),
    Variant(
        "gpg",
        "GPG: the policy gradient without a ratio, over the share of groups whose rewards differ.",
        GPG,
        _NO_RATIO | {"advantage": "signal_share", "loss_type": "grpo"},
    ),
    Variant(
        "asym_re",
        "AsymRE: the policy gradient without a ratio, with a baseline below the mean of the group.",
        ASYM_RE,
        _NO_RATIO | {"advantage": "shifted", "advantage_kwargs": {"baseline_shift": -0.1}, "loss_type": "dr_grpo"},
    ),
    *(
        Variant(
            name,
            summary,
            NSR,
            _TOKEN_MEAN
            | _FOUR_STEPS
            | {
                "advantage": "success_weight",
                "advantage_kwargs": {"success_weight": success, "failure_weight": failure},
            },
        )
        for name, summary, success, failure in _SAMPLE_WEIGHTS
    ),
    Variant(
        "delta_l",
        "Delta L Normalization: mean-only advantages, each over a power of its completion's length.",
        DELTA_L,
        MEAN_ONLY | _SEQUENCE_SUM | _FOUR_STEPS | {"length_weight_power": 0.75},
    ),
)
