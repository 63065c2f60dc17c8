# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
What the papers predict, in NumPy and float64: success under exact iteration, its fixed points, and coefficients to
reach a target. Nothing here needs torch.
"""

from .clipping import clipped_path, clipped_step
from .dynamics import FixedPoint, Limit, fixed_points, limit, omega, success_path, success_step
from .groups import group_omega, mirror_tail, zero_variance_probability
from .logodds import logit, sigmoid
from .phases import PhaseBoundaries, highest_target, phase_boundaries
from .planning import Plan, plan
from .tabular import optimal_policy, policy_gradient, tabular_advantages


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
    "mirror_tail",
    "omega",
    "optimal_policy",
    "phase_boundaries",
    "plan",
    "policy_gradient",
    "sigmoid",
    "success_path",
    "success_step",
    "tabular_advantages",
    "zero_variance_probability",
]
