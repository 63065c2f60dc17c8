# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Where the metrics of a run have been sent, as its folder keeps it."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


_FILE_NAME = "trackers.json"


@dataclass(frozen=True)
class Tracker:
    """
    A run in a tracker of experiments.

    Parameters:
        name (`str`):
            The tracker, such as `"Trackio"`.
        project (`str`, *optional*):
            Project or folder that holds the run there.
        address (`str`, *optional*):
            Page of the run, `None` of a local one.
    """

    name: str
    project: str | None = None
    address: str | None = None


def write_trackers(folder: Path, trackers: Sequence[Tracker]) -> None:
    """Keep where a run is sent to, if anywhere; of an earlier start of the run nothing is left."""
    if not trackers:
        (folder / _FILE_NAME).unlink(missing_ok=True)
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _FILE_NAME).write_text(json.dumps([asdict(tracker) for tracker in trackers], indent=2), encoding="utf-8")


def read_trackers(folder: Path) -> list[Tracker]:
    """Where a run has been sent to; empty if nothing is known of it."""
    try:
        content = json.loads((folder / _FILE_NAME).read_text(encoding="utf-8"))
        return [Tracker(**tracker) for tracker in content]
    except FileNotFoundError:
        return []
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(f"{folder / _FILE_NAME} cannot be read: {error}.") from error
