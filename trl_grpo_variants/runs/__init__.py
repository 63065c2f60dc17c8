# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""A finished or running run, as its folder tells it: what monitor, report, plan and card share."""
