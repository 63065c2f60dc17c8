# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Ends a process, or acts as if, at a chosen write to the disk."""

import builtins
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any

import peft.peft_model
import pytest
import torch
import transformers.modeling_utils


class Killed(BaseException):
    """Nothing but a test may catch it."""


def die() -> None:
    raise Killed


def _writes(call: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> bool:
    mode = options.get("mode", arguments[1] if len(arguments) > 1 else "r")
    return call != "open" or (isinstance(mode, str) and not mode.startswith("r"))


@contextmanager
def killed_at(
    chosen: int, *, within: bool = False, kill: Callable[[], None] = die, where: str = ""
) -> Iterator[list[str]]:
    """
    Within the context, the chosen write to the disk is the last: it does not happen, or it leaves half a file.

    Yields what has been written or made, moved or removed so far, by the names of the calls and files. Calls on files
    without `where` in their path are not counted.
    """
    seen: list[str] = []

    def watched(name: str, call: Callable) -> Callable:
        @wraps(call)
        def write(*arguments: Any, **options: Any) -> Any:
            target = next((a for a in arguments if isinstance(a, (str, os.PathLike))), "")
            if not _writes(name, arguments, options) or where not in str(target):
                return call(*arguments, **options)
            seen.append(f"{name} {Path(target).name}")
            if len(seen) - 1 != chosen:
                return call(*arguments, **options)
            if within and name in ("open", "save", "safe_save_file"):
                written = call(*arguments, **options)
                if name == "open":
                    written.write("{" if "b" not in written.mode else b"{")
                    written.close()
                else:
                    os.truncate(target, os.path.getsize(target) // 2)
            kill()
            raise AssertionError("The process lives on.")

        return write

    with pytest.MonkeyPatch.context() as patch:
        for owner, name in (
            (builtins, "open"),
            (os, "mkdir"),
            (os, "replace"),
            (os, "unlink"),
            (os, "rmdir"),
            (torch, "save"),
            (transformers.modeling_utils, "safe_save_file"),
            (peft.peft_model, "safe_save_file"),
        ):
            patch.setattr(owner, name, watched(name, getattr(owner, name)))
        yield seen
