# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Policy terms. Of several that the fields of a configuration fit, the first is meant."""

from ..terms import PolicyTerm, registry
from .clipped import CLIPPED
from .geometric import GEOMETRIC
from .score import SCORE
from .trajectory import TRAJECTORY


POLICY_TERMS: dict[str, PolicyTerm] = registry(TRAJECTORY, SCORE, GEOMETRIC, CLIPPED)
