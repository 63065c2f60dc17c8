# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""How the advantage of a completion becomes those of its tokens. Without a name the first is meant."""

from ..terms import TokenAdvantage, registry
from .shaped import ENTROPY_SHAPED
from .weighted import PROBABILITY_WEIGHTED, UNIFORM


TOKEN_ADVANTAGES: dict[str, TokenAdvantage] = registry(UNIFORM, ENTROPY_SHAPED, PROBABILITY_WEIGHTED)
