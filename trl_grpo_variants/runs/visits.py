# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
The file of a run's visits to its prompts: one small Parquet file beside the checkpoints, and a journal of what has
been added since it was written. The first is only ever replaced as a whole and the second only ever added to, so that
a crash at any moment costs no more than the line that was being written.
"""

import json
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq


FILE_NAME = "success_monitor.parquet"
JOURNAL_NAME = "success_monitor.jsonl"
FORMAT = "trl_grpo_variants visits 1"

SCHEMA = pa.schema(
    [
        ("rollout", pa.int64()),  # from 0, over the whole run
        ("step", pa.int64()),  # optimizer steps taken before the rollout
        ("prompt_id", pa.string()),
        ("prompt", pa.string()),  # its beginning, at the first visit only
        ("visit", pa.int64()),  # from 1
        ("successes", pa.int64()),
        ("completions", pa.int64()),  # those that were scored
        ("groups", pa.int64()),
        ("groups_without_signal", pa.int64()),
        ("silent_all_succeed", pa.int64()),  # those of them in which every scored completion succeeds, or none does
        ("silent_none_succeeds", pa.int64()),
        ("success", pa.float64()),  # the share, with its 95 % interval
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("reference", pa.float64()),  # estimates from the first and from the last visit
        ("previous", pa.float64()),
        ("predicted", pa.float64()),  # for this visit, from earlier ones
        ("predicted_low", pa.float64()),
        ("predicted_high", pa.float64()),
        ("gap", pa.float64()),  # success - predicted
        ("signal", pa.float64()),  # mean Omega of the groups; null without a prediction for the next visit
    ]
)
NO_VISITS: pd.DataFrame = SCHEMA.empty_table().to_pandas()

# Earlier files do not say these.
REASONS = ["silent_all_succeed", "silent_none_succeeds"]
_COUNTS = [column.name for column in SCHEMA if column.type == pa.int64() and column.name not in REASONS]
_NEVER_NULL = [*_COUNTS, "prompt_id", "success", "low", "high"]


class Visits:
    """Writes the visits of a run to its output folder, with settings that the file says about it; by one process."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self._folder, self._path, self._journal = folder, folder / FILE_NAME, folder / JOURNAL_NAME
        self._settings = settings

    def update(self, **settings: Any) -> None:
        """Say more about the run, the next time that the file is written."""
        self._settings = self._settings | settings

    def start(self, visits: pd.DataFrame) -> None:
        """Make the file hold these visits, in the order in which they were made, and no others."""
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._path.with_suffix(".partial")
        with open(partial, "wb") as file:
            metadata = {"format": FORMAT, "settings": json.dumps(self._settings)}
            pq.write_table(_table(visits).replace_schema_metadata(metadata), file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, self._path)
        self._journal.unlink(missing_ok=True)

    def append(self, visits: pd.DataFrame) -> None:
        """Add the visits of one rollout, at a cost that does not depend on how many there are already."""
        lines = "".join(json.dumps(row) + "\n" for row in _table(visits).to_pylist())
        with open(self._journal, "a", encoding="utf-8") as file:
            file.write(lines)

    def merge(self) -> None:
        """Move the journal into the Parquet file, with what is said about the run by now."""
        if self._path.exists() or self._journal.exists():
            self.start(read_visits(self._folder)[0])


def read_visits(folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """
    Read the visits of a run from its output folder, whether it has ended, is running, or was cut off.

    Returns:
        `tuple[pandas.DataFrame, dict[str, Any]]`:
            Visits in the order in which they were made, with the columns of `SCHEMA`, and the settings of the run.

    Raises:
        `FileNotFoundError`: If the run has no such file.
        `ValueError`: If the file is not one of visits; one sentence.
    """
    path, journal = folder / FILE_NAME, folder / JOURNAL_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {FILE_NAME}; a run writes it with `success_monitor: true`.")
    try:
        table = pq.read_table(path)
        metadata = table.schema.metadata or {}
        known = metadata.get(b"format") == FORMAT.encode()
        settings = json.loads(metadata[b"settings"]) if known else {}
        for name in set(REASONS) - set(table.column_names):
            table = table.append_column(name, pa.nulls(table.num_rows, pa.int64()))
        visits = table.select(SCHEMA.names).cast(SCHEMA).to_pandas() if known else NO_VISITS
    except (OSError, KeyError, ValueError, RecursionError, pa.ArrowException) as error:
        raise ValueError(f"{path} cannot be read: it is truncated or no file of visits.") from error
    if not known:
        raise ValueError(f"{path} is no file of visits: its format is not {FORMAT!r}.")
    if not isinstance(settings, dict) or not _is_plausible(visits):
        raise ValueError(f"{path} is no file of visits: it has been edited.")
    try:
        added = pa.Table.from_pylist(_read_journal(journal), SCHEMA).to_pandas()
        if not _is_plausible(added):
            raise ValueError
    except (TypeError, ValueError, OverflowError, pa.ArrowException) as error:
        raise ValueError(f"{journal} is no journal of visits: it has been edited.") from error
    # A crash after the file was written and before the journal was removed leaves both.
    added = added[~added["rollout"].isin(visits["rollout"])]
    return _with_reasons(pd.concat([visits, added], ignore_index=True)), settings


def _with_reasons(visits: pd.DataFrame) -> pd.DataFrame:
    """Why groups have no signal, also where it is not said but follows from the success of all of a visit's groups."""
    silent, success = visits["groups_without_signal"], visits["success"]
    follows = success.isin((0.0, 1.0)) | (visits["groups"] == 1) | (silent == 0)
    told = [
        visits[name].fillna(silent.where(success == end, 0).where(follows))
        for name, end in zip(REASONS, (1.0, 0.0), strict=True)
    ]
    return visits.assign(**dict(zip(REASONS, told, strict=True)))


def _table(visits: pd.DataFrame) -> pa.Table:
    return pa.Table.from_pandas(visits, SCHEMA, preserve_index=False)


def _is_plausible(visits: pd.DataFrame) -> bool:
    """Whether each visit has its counts, they are counts, and what was predicted is a share."""
    if visits[_NEVER_NULL].isna().any(axis=None):
        return False
    successes, completions = visits["successes"], visits["completions"]
    silent, groups, predicted = visits["groups_without_signal"], visits["groups"], visits["predicted"]
    reasons = visits[REASONS].fillna(0)
    are_counts = successes.between(0, completions) & (completions > 0) & silent.between(0, groups) & (groups > 0)
    are_counts &= (reasons >= 0).all(axis=1) & (reasons.sum(axis=1) <= silent)
    return bool((are_counts & (predicted.isna() | predicted.between(0.0, 1.0))).all())


def _read_journal(path: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    # Whoever opens a pipe waits for its other end.
    if not path.is_file():
        return rows
    for line in path.read_bytes().split(b"\n"):
        try:
            row = json.loads(line)
            complete = row.keys() | set(REASONS) == set(SCHEMA.names)
        except (ValueError, AttributeError, RecursionError):
            # Empty, or cut off by a crash or a full disk.
            continue
        if complete:
            rows.append(row)
    return rows
