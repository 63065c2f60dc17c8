# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Rollouts by vLLM: a server that is watched, and adapters beside the base."""
