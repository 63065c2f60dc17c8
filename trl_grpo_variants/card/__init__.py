# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The model card: what was trained, with which coefficients, how well, and how to load it."""
