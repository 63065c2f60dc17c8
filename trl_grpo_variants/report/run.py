# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What the folder of a run holds: the visits of the success monitor, and what the trainer has logged."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..monitor.visits import FILE_NAME, read_visits
from .columns import Columns, columns


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
            Checkpoints whose logs cannot be read.
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
    if not folder.is_dir():
        raise ValueError(f"{folder} is not a folder; give the output folder of a run.")
    try:
        table, settings = read_visits(folder)
    except FileNotFoundError:
        table, settings = None, {}
    history, step, unreadable = _newest_history(folder)
    if table is None and not any(name in entry for entry in history for name in _LOGGED):
        found = f"{', '.join(unreadable)} cannot be read" if unreadable else "no logs of a GRPO run are in it"
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
        try:
            state = json.loads(path.read_text(encoding="utf-8"))
            history = [entry for entry in state["log_history"] if _is_number(entry.get("step"))]
            step = int(state["global_step"])
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            unreadable.append(path.relative_to(folder).as_posix())
            continue
        if newest[1] is None or step > newest[1]:
            newest = (history, step)
    return *newest, unreadable


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
