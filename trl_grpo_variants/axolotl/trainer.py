# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The trainer that axolotl builds."""

from axolotl.core.trainers.grpo.trainer import AxolotlGRPOTrainer

from ..trainer import GRPOVariantTrainer


class AxolotlGRPOVariantTrainer(GRPOVariantTrainer, AxolotlGRPOTrainer):
    """The [`GRPOVariantTrainer`] with the optimizers and schedules that axolotl adds to TRL's trainer."""

    _tag_names = [*GRPOVariantTrainer._tag_names, "axolotl"]
