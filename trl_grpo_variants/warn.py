# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Warnings that point at the user's line, whatever lies between it and the line that warns."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from .replaced import replaced


# Code that the user calls, and that calls this package or TRL in turn.
_LIBRARIES = {"trl_grpo_variants", "trl", "transformers", "dataclasses"}


def warn_user(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Warn of something that the user has written."""
    # From the frame of this function, which is the first.
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in _LIBRARIES:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, category, stacklevel=level)


@contextmanager
def warnings_at_the_user(module: Any) -> Iterator[None]:
    """
    Within the context, warnings that a module addresses to its caller point at the user's line.

    TRL counts frames up to the line that constructs its class, between which and the user lie those of a subclass.
    """
    with replaced(module, warnings=_Warnings(module.warnings)):
        yield


class _Warnings:
    """The module `warnings`, whose `warn` looks for the user itself."""

    def __init__(self, original: ModuleType) -> None:
        self._original = original

    def warn(self, message: Any, category: Any = None, stacklevel: int = 1, **options: Any) -> None:
        if stacklevel > 1:
            warn_user(message, UserWarning if category is None else category)
        else:
            self._original.warn(message, category, stacklevel=2, **options)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)
