# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Settings that several presets have."""

MEAN_ONLY = {"scale_rewards": "none"}
TRL_STD = {"scale_rewards": "group"}
SMOOTHED = {"scale_rewards": "group", "reward_variance_epsilon": 1e-5}
TOKEN = {"importance_sampling_level": "token", "epsilon": 0.2, "epsilon_high": 0.2}
NO_KL = {"beta": 0.0, "mirror_beta": 0.0}
