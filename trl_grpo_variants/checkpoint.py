# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What the next step needs that TRL's checkpoint lacks: the rollout in progress and the policy snapshots."""

import os
import pickle
from pathlib import Path
from typing import Any

import torch


FORMAT = "trl_grpo_variants rollout 1"


def state_path(checkpoint: str | os.PathLike, process_index: int) -> Path:
    """
    Path of one process's state within a checkpoint.

    Args:
        checkpoint (`str` or `os.PathLike`):
            Folder of the checkpoint.
        process_index (`int`):
            Rank of the process.

    Returns:
        `Path`:
            Path of the file.
    """
    return Path(checkpoint) / f"rollout_state_{process_index}.pt"


def save_state(state: dict[str, Any], schedule: dict[str, int], path: Path) -> None:
    """
    Write a state in one step: a reader finds all of it or nothing.

    Args:
        state (`dict[str, Any]`):
            Tensors, numbers and strings, nested in dicts and lists.
        schedule (`dict[str, int]`):
            Settings under which the state means something.
        path (`Path`):
            File to write; its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    torch.save({"format": FORMAT, "schedule": schedule, "state": state}, partial)
    os.replace(partial, path)


def load_state(path: Path, schedule: dict[str, int], device: torch.device) -> dict[str, Any] | None:
    """
    Read a state. Nothing in the file is executed.

    Args:
        path (`Path`):
            File to read.
        schedule (`dict[str, int]`):
            Settings of the run that resumes.
        device (`torch.device`):
            Device for the tensors.

    Returns:
        `dict[str, Any]` or `None`:
            State as it was saved, or `None` where the checkpoint was not saved by a variant.

    Raises:
        `ValueError`: If the file is truncated, is no such state, or belongs to other settings.
    """
    if not path.exists():
        if any(path.parent.glob("rollout_state_*.pt")):
            raise ValueError(
                f"The checkpoint {path.parent} was saved by fewer processes: there is no {path.name}. Resume with as "
                "many processes as it was saved with."
            )
        return None
    try:
        # Several processes on a CPU have it as device `cpu:0`, which is no location that can be loaded to.
        saved = torch.load(path, map_location="cpu" if device.type == "cpu" else device, weights_only=True)
        known = saved["format"] == FORMAT
    except (OSError, EOFError, RuntimeError, TypeError, KeyError, IndexError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} cannot be read: it is truncated or not the state of a rollout. Resume from another checkpoint."
        ) from error
    if not known:
        raise ValueError(f"{path} has the format {saved['format']!r}, but {FORMAT!r} is needed.")
    changed = [
        f"{name} was {saved['schedule'].get(name)} and is {value}"
        for name, value in schedule.items()
        if saved["schedule"].get(name) != value
    ]
    if changed:
        raise ValueError(
            f"The checkpoint {path.parent} was saved under other settings, with which its rollout cannot be continued: "
            f"{', '.join(changed)}. Resume with the settings that it was saved with."
        )
    return saved["state"]
