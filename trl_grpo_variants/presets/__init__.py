# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The presets, as plain data, in the order in which they are listed."""

from .advantages import ADVANTAGES
from .divergences import DIVERGENCES
from .dynamics import DYNAMICS
from .policies import POLICIES
from .stock import STOCK
from .trajectory import TRAJECTORY


PRESETS = (*DYNAMICS, *TRAJECTORY, *POLICIES, *DIVERGENCES, *ADVANTAGES, *STOCK)
