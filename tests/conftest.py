# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import gc
import os
from collections.abc import Iterator


# Set before anything imports torch or a Hugging Face library.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

from .tiny import make_policy  # noqa: E402


# The same examples in every run, however busy the machine is.
settings.register_profile("tests", derandomize=True, deadline=None)
settings.load_profile("tests")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Iterator[None]:
    """A method that is refused with the TRL at hand has nothing to be tested; the refusal has a test of its own."""
    try:
        return (yield)
    except NotImplementedError as error:
        if "divides by another number in TRL" not in str(error):
            raise
        pytest.skip(str(error))


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
