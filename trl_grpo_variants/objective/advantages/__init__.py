# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""How rewards become advantages. Of several that the fields of a configuration fit, the first is meant."""

from ..terms import Advantage, registry
from .baselines import LEAVE_ONE_OUT, LENGTH_WEIGHTED, QUANTILE, SHIFTED
from .exponential import PARTITION, RISK_SENSITIVE
from .normalized import BATCH_STD, GROUP_STD, MEAN_ONLY, PER_REWARD, SMOOTHED_STD
from .rollouts import BETA_NORMALIZED, SIGNAL_SHARE, WHITENED
from .success import BEST_OF_GROUP, MAXIMUM_LIKELIHOOD, PASS_AT_K_ADVANTAGE, SUCCESS_WEIGHT


ADVANTAGES: dict[str, Advantage] = registry(
    *(PER_REWARD, SMOOTHED_STD, GROUP_STD, BATCH_STD, MEAN_ONLY, RISK_SENSITIVE),
    *(LEAVE_ONE_OUT, LENGTH_WEIGHTED, QUANTILE, SHIFTED),
    *(MAXIMUM_LIKELIHOOD, PASS_AT_K_ADVANTAGE, BEST_OF_GROUP, SUCCESS_WEIGHT),
    *(WHITENED, SIGNAL_SHARE, BETA_NORMALIZED, PARTITION),
)
