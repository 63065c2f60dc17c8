# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
What the papers predict, in NumPy and float64: success under exact iteration, its fixed points, and coefficients to
reach a target. Nothing here needs torch.
"""

from .clipping import clipped_path, clipped_step
from .dynamics import success_path, success_step
from .groups import group_omega, zero_variance_probability
from .limits import FixedPoint, Limit, fixed_points, limit
from .logodds import logit, sigmoid
from .phases import PhaseBoundaries, highest_target, phase_boundaries
from .planning import Plan, plan
from .signal import omega
from .tabular import optimal_policy, tabular_advantages


__all__ = [
    "FixedPoint",
    "Limit",
    "PhaseBoundaries",
    "Plan",
    "clipped_path",
    "clipped_step",
    "fixed_points",
    "group_omega",
    "highest_target",
    "limit",
    "logit",
    "omega",
    "optimal_policy",
    "phase_boundaries",
    "plan",
    "sigmoid",
    "success_path",
    "success_step",
    "tabular_advantages",
    "zero_variance_probability",
]
