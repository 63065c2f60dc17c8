# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import gc
import os


# Set before anything imports torch or a Hugging Face library.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import pytest  # noqa: E402

from .tiny import make_policy  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def lasting_objects_are_not_visited() -> None:
    """
    Whatever the libraries have loaded stays; accelerate looks for garbage after every run, and looking through all of it
    each time takes up to half of the time of a test that trains.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def policy_path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Folder of a tiny untrained Llama with its tokenizer."""
    path = tmp_path_factory.mktemp("policy")
    make_policy(path)
    return str(path)
