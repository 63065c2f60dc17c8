# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What is minimised: pure functions of tensors, one idea per file. Nothing here knows TRL or a trainer."""
