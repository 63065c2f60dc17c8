# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""How rewards become advantages. Of several that the fields of a configuration fit, the first is meant."""

from ..terms import Advantage, registry
from .exponential import RISK_SENSITIVE
from .normalized import BATCH_STD, GROUP_STD, MEAN_ONLY, PER_REWARD, SMOOTHED_STD


ADVANTAGES: dict[str, Advantage] = registry(PER_REWARD, SMOOTHED_STD, GROUP_STD, BATCH_STD, MEAN_ONLY, RISK_SENSITIVE)
