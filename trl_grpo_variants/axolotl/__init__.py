# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""A plugin for axolotl, which is not installed along with this package."""

from .plugin import VariantInput as VariantInput
from .plugin import VariantPlugin as VariantPlugin
