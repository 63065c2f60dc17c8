# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""A run to look at: its numbers, the sentences that they allow, their drawings, and the page of these."""
