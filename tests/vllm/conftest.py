# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import os

import pytest


# Before the engine is imported: a gigabyte of cache, and no progress reports.
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

from ..tiny import make_policy  # noqa: E402


@pytest.fixture(scope="session")
def policy(tmp_path_factory):
    """Wide enough for adapters and for 4-bit kernels, which work on blocks."""
    path = tmp_path_factory.mktemp("vllm_policy")
    make_policy(path, hidden_size=64)
    return path
