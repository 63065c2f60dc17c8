# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The model card: what was trained, with which coefficients, how well, and how to load it."""

from .from_trainer import FIGURE_NAME, trainer_card


__all__ = ["FIGURE_NAME", "trainer_card"]
