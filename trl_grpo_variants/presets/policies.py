# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Policy terms and token advantages other than TRL's."""

from ..papers import (
    ADVANTAGE_REWEIGHTING,
    ASPO,
    CE_GPPO,
    DCPO,
    DPPO,
    ENTROPY_MECHANISM,
    ENTROPY_SHAPED,
    GMPO,
    GPPO,
    TOPR,
)
from .shared import MEAN_ONLY, NO_KL, TOKEN, TRL_STD
from .variant import Variant


_CLIP_HIGHER = {"epsilon": 0.2, "epsilon_high": 0.28}
_TOKEN_MEAN = {"loss_type": "dapo", "inner_steps": 4}
_PRESERVING = {"policy_loss": "preserving"} | _CLIP_HIGHER | _TOKEN_MEAN

POLICIES = (
    Variant(
        "gmpo",
        "GMPO: the geometric mean of the token ratios of a completion, each clipped in log space.",
        GMPO,
        TRL_STD
        | NO_KL
        | {"policy_loss": "geometric", "epsilon": 0.4, "epsilon_high": 0.4, "loss_type": "grpo", "inner_steps": 4},
    ),
    Variant(
        "dppo_tv",
        "DPPO: a token is dropped where its probability would move by more than a bound; the binary total variation.",
        DPPO,
        TRL_STD | NO_KL | {"policy_loss": "binary_tv", "epsilon": 0.15, "epsilon_high": 0.15} | _TOKEN_MEAN,
    ),
    Variant(
        "dppo_kl",
        "DPPO: a token is dropped where its probability would leave a trust region; the binary KL.",
        DPPO,
        TRL_STD | NO_KL | {"policy_loss": "binary_kl", "epsilon": 0.05, "epsilon_high": 0.05} | _TOKEN_MEAN,
    ),
    Variant(
        "ce_gppo",
        "CE-GPPO: tokens beyond the clip keep a bounded gradient, less of it below than above.",
        CE_GPPO,
        TRL_STD
        | NO_KL
        | _PRESERVING
        | {"policy_loss_kwargs": {"keep_low": 0.75, "keep_high": 1.0, "dual_clip": 10.0}},
    ),
    Variant(
        "gppo",
        "GPPO: tokens beyond the clip keep the gradient of the bound.",
        GPPO,
        TRL_STD | NO_KL | _PRESERVING | {"policy_loss_kwargs": {"keep_low": 1.0, "keep_high": 1.0, "dual_clip": 10.0}},
    ),
    Variant(
        "dcpo",
        "DCPO's clip: bounds that are wider the less likely a token was. Its smoothed advantages are no part of it.",
        DCPO,
        TRL_STD
        | NO_KL
        | {"policy_loss": "dynamic", "policy_loss_kwargs": {"max_ratio": 10.0}, "epsilon": 0.16, "epsilon_high": 0.2}
        | {"loss_type": "grpo", "inner_steps": 4},
    ),
    Variant(
        "topr",
        "TOPR: no ratio where the advantage is positive, the trajectory's, capped at 1, where it is not.",
        TOPR,
        MEAN_ONLY
        | NO_KL
        | {"policy_loss": "tapered", "policy_loss_kwargs": {"level": "trajectory"}}
        | {"loss_type": "dr_grpo", "inner_steps": 4},
    ),
    Variant(
        "kl_cov",
        "KL-Cov: the tokens of a micro-batch that would lower the entropy most are held to the rollout's policy.",
        ENTROPY_MECHANISM,
        TRL_STD
        | NO_KL
        | {"policy_loss": "covariance", "policy_loss_kwargs": {"penalty": 1.0, "share": 0.002}}
        | _TOKEN_MEAN,
    ),
    Variant(
        "aspo",
        "ASPO: tokens with a positive advantage are weighted by the inverse of their ratio; wider clip at high entropy.",
        ASPO,
        TRL_STD
        | NO_KL
        | {"policy_loss": "flipped", "policy_loss_kwargs": {"quantile": 0.8, "max_weight": 3.0}}
        | {"epsilon": 0.2, "epsilon_high": 0.4}
        | _TOKEN_MEAN,
    ),
    Variant(
        "entropy_shaped",
        "Advantages that are raised at tokens of high entropy; clip-higher.",
        ENTROPY_SHAPED,
        TRL_STD
        | NO_KL
        | {"importance_sampling_level": "token", "token_advantage": "entropy_shaped"}
        | {"token_advantage_kwargs": {"alpha": 0.4, "kappa": 2.0}}
        | _CLIP_HIGHER
        | _TOKEN_MEAN,
    ),
    Variant(
        "advantage_reweighting",
        "Advantages that are lowered at tokens that were unlikely.",
        ADVANTAGE_REWEIGHTING,
        TRL_STD
        | NO_KL
        | TOKEN
        | {"token_advantage": "probability_weighted", "token_advantage_kwargs": {"weight": 0.2}}
        | _TOKEN_MEAN,
    ),
)
