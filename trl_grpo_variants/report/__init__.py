# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""A run to look at: what its folder holds, as figures and one page."""
