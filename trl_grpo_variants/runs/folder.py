# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What the folder of a run holds: the visits of the success monitor, and what the trainer has logged."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .columns import Columns, columns
from .visits import FILE_NAME, read_visits


_STATE_NAME = "trainer_state.json"
# One of these is in the logs of every GRPO run.
_LOGGED = ("completions/mean_length", "frac_reward_zero_std", "reward")


@dataclass(frozen=True)
class Run:
    """
    A run, finished or not.

    Parameters:
        name (`str`):
            Name of its folder.
        visits (`dict[str, np.ndarray]`, *optional*):
            Visits by column, `None` without a monitor.
        settings (`dict[str, Any]`):
            Settings as the monitor has kept them.
        history (`list[dict[str, Any]]`):
            What was logged.
        logged_until (`int`, *optional*):
            Optimizer step of the newest logs, `None` without any.
        unreadable (`tuple[str, ...]`):
            Which files with logs cannot be read and why, as parts of a sentence.
    """

    name: str
    visits: Columns | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    logged_until: int | None = None
    unreadable: tuple[str, ...] = ()

    def series(self, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """
        A metric over the run.

        Args:
            name (`str`):
                Name in the logs.

        Returns:
            `tuple[np.ndarray, np.ndarray]`:
                Optimizer steps and finite values, two arrays of one length; empty if it was not logged.
        """
        points = [(entry["step"], entry[name]) for entry in self.history if _is_number(entry.get(name))]
        steps, values = np.array(points, dtype=np.float64).reshape(-1, 2).T
        return steps, values


def read_run(folder: Path) -> Run:
    """
    Read a run.

    Args:
        folder (`Path`):
            Output folder of the run.

    Returns:
        [`Run`]:
            What there is of it.

    Raises:
        `ValueError`: If there is no such folder, or nothing of a GRPO run in it; one sentence.
    """
    if not os.path.isdir(folder):
        raise ValueError(f"{folder} is not a folder; give the output folder of a run.")
    try:
        table, settings = read_visits(folder)
    except FileNotFoundError:
        table, settings = None, {}
    history, step, unreadable = _newest_history(folder)
    if table is None and not any(name in entry for entry in history for name in _LOGGED):
        found = ", ".join(unreadable) or "no logs of a GRPO run are in it"
        raise ValueError(f"{folder} holds nothing to report: it has no {FILE_NAME}, and {found}.")
    return Run(
        name=folder.resolve().name,
        visits=None if table is None else columns(table),
        settings=settings,
        history=history,
        logged_until=step,
        unreadable=tuple(unreadable),
    )


def _newest_history(folder: Path) -> tuple[list[dict[str, Any]], int | None, list[str]]:
    """The longest history in the folder and its checkpoints; a crash may have cut the last one off."""
    newest: tuple[list[dict[str, Any]], int | None] = ([], None)
    unreadable = []
    for path in sorted([*folder.glob(_STATE_NAME), *folder.glob(f"checkpoint-*/{_STATE_NAME}")]):
        found = _read_state(path)
        if isinstance(found, str):
            unreadable.append(f"{path.relative_to(folder).as_posix()} {found}")
        elif newest[1] is None or found[1] > newest[1]:
            newest = found
    return *newest, unreadable


def _read_state(path: Path) -> tuple[list[dict[str, Any]], int] | str:
    """History and step of a trainer's state, or what is wrong with it."""
    # Whoever opens a pipe waits for its other end.
    if not path.is_file():
        return "is no file"
    try:
        content = path.read_bytes()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    try:
        state = json.loads(content)
    except (ValueError, RecursionError):
        return "is no JSON" if content.rstrip().endswith(b"}") else "is truncated"
    history: Any = state.get("log_history") if isinstance(state, dict) else None
    step: Any = state.get("global_step") if isinstance(state, dict) else None
    if not isinstance(history, list) or not _is_number(step):
        return "is no state of a trainer"
    return [entry for entry in history if isinstance(entry, dict) and _is_number(entry.get("step"))], int(step)


def _is_number(value: Any) -> bool:
    # JSON's whole numbers may be too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
