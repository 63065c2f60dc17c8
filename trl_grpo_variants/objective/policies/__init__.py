# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Policy terms. Of several that the fields of a configuration fit, the first is meant."""

from ..terms import PolicyTerm, registry
from .clipped import CLIPPED
from .covariance import COVARIANCE
from .dynamic import DYNAMIC
from .flipped import FLIPPED
from .geometric import GEOMETRIC
from .preserving import PRESERVING
from .score import SCORE
from .tapered import TAPERED
from .trajectory import TRAJECTORY
from .trust_region import BINARY_KL, BINARY_TV


POLICY_TERMS: dict[str, PolicyTerm] = registry(
    TRAJECTORY,
    SCORE,
    GEOMETRIC,
    CLIPPED,
    BINARY_TV,
    BINARY_KL,
    PRESERVING,
    DYNAMIC,
    TAPERED,
    COVARIANCE,
    FLIPPED,
)
