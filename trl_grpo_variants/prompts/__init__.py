# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Which prompts a rollout holds: what is believed of each before it, and what is kept after it."""
