# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Attributes of others, replaced for a while."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def replaced(owner: Any, **values: Any) -> Iterator[None]:
    """Replace attributes of a module, a class or an object within the context."""
    own = {name: value for name, value in vars(owner).items() if name in values}
    try:
        for name, value in values.items():
            setattr(owner, name, value)
        yield
    finally:
        for name in values:
            # What it has from its class is not made its own.
            if name in own:
                setattr(owner, name, own[name])
            else:
                delattr(owner, name)
