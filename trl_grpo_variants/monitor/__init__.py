# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Measured success beside what the theory predicts for it, while a run goes on."""
