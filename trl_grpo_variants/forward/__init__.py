# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Forward passes over completions: trimmed to what the answer depends on, or several on one line."""
