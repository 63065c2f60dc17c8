# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What the folder of a run holds: the visits of the success monitor, and what the trainer has logged."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from .intervals import Array
from .trackers import Tracker, read_trackers
from .trajectories import Trajectory, trajectories


if TYPE_CHECKING:
    import pandas as pd

Series = tuple[Array, Array]

_STATE_NAME = "trainer_state.json"
# It is in the logs of every GRPO run.
_LOGGED = "reward"


@dataclass(frozen=True)
class TrainerState:
    """
    Entries that a trainer has logged, the optimizer step at which they were written and that at which training ends,
    each `None` where it is not known.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    step: int | None = None
    max_steps: int | None = None


@dataclass(frozen=True)
class Run:
    """
    A run, finished or not.

    Parameters:
        name (`str`):
            Name of its folder.
        visits (`pandas.DataFrame`, *optional*):
            Visits, `None` without a monitor.
        settings (`dict[str, Any]`):
            Settings as the monitor has kept them.
        logs ([`TrainerState`]):
            The longest history in the folder and its checkpoints: a crash may have cut the last one off.
        unreadable (`tuple[str, ...]`):
            Which files with logs cannot be read and why, as parts of a sentence.
        trackers (`tuple[Tracker, ...]`):
            Where its metrics have been sent.
    """

    name: str
    visits: "pd.DataFrame | None" = None
    settings: dict[str, Any] = field(default_factory=dict)
    logs: TrainerState = TrainerState()
    unreadable: tuple[str, ...] = ()
    trackers: tuple[Tracker, ...] = ()

    @cached_property
    def trajectories(self) -> dict[str, list[Trajectory]]:
        """The prompts that were visited at least twice, by what became of them."""
        return {} if self.visits is None else trajectories(self.visits)

    @property
    def step(self) -> int:
        """The newest optimizer step that is known of."""
        known = [self.logs.step, self.settings.get("global_step")]
        known += [int(self.visits["step"].max())] if self.visits is not None and len(self.visits) else []
        return max((int(step) for step in known if is_number(step)), default=0)

    @property
    def max_steps(self) -> int | None:
        """The optimizer step at which training ends; `None` where no file says so."""
        told = self.settings.get("max_steps", self.logs.max_steps)
        return int(told) if is_number(told) and told > 0 else None

    def series(self, name: str) -> Series:
        """Optimizer steps and finite values of a metric, two arrays of one length; empty if it was not logged."""
        points = [(entry["step"], entry[name]) for entry in self.logs.history if is_number(entry.get(name))]
        steps, values = np.array(points, dtype=np.float64).reshape(-1, 2).T
        return steps, values


def read_run(folder: Path) -> Run:
    """What there is of a run; a `ValueError` of one sentence without its folder, or anything of a GRPO run in it."""
    from .visits import FILE_NAME, read_visits

    if not os.path.isdir(folder):
        raise ValueError(f"{folder} is not a folder; give the output folder of a run.")
    try:
        visits, settings = read_visits(folder)
    except FileNotFoundError:
        visits, settings = None, {}
    states, unreadable = [], []
    for path, state in trainer_states(folder):
        if isinstance(state, TrainerState):
            states.append(state)
        else:
            unreadable.append(f"{path.relative_to(folder).as_posix()} {state}")
    logs = max(states, key=lambda state: state.step or 0, default=TrainerState())
    if visits is None and not any(_LOGGED in entry for entry in logs.history):
        reasons = ", ".join(unreadable) or "no logs of a GRPO run are in it"
        raise ValueError(f"{folder} holds nothing to report: it has no {FILE_NAME}, and {reasons}.")
    return Run(folder.resolve().name, visits, settings, logs, tuple(unreadable), tuple(read_trackers(folder)))


def trainer_states(folder: Path) -> Iterator[tuple[Path, TrainerState | str]]:
    """What a run has logged, by the files in its folder and its checkpoints; or what is wrong with a file."""
    for path in sorted([*folder.glob(_STATE_NAME), *folder.glob(f"checkpoint-*/{_STATE_NAME}")]):
        yield path, _read_state(path)


def _read_state(path: Path) -> TrainerState | str:
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
    if not isinstance(history, list) or not is_number(step):
        return "is no state of a trainer"
    entries = [entry for entry in history if isinstance(entry, dict) and is_number(entry.get("step"))]
    end: Any = state.get("max_steps")
    return TrainerState(entries, int(step), int(end) if is_number(end) else None)


def is_number(value: Any) -> TypeGuard[float]:
    """Whether a value of a log is a finite number."""
    # JSON's whole numbers may be too large for a float.
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
