# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Success rates of prompts, read from a file: a table of rates, or the completions that a run of TRL logged."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any


Columns = dict[str, list[Any]]

_RATE_COLUMNS = ("success", "success_rate", "p_ref")
# What TRL writes around the columns of the reward functions.
_LOG_COLUMNS = ("step", "prompt", "completion", "advantage")


def read_success_rates(path: Path, column: str | None = None) -> list[float]:
    """
    Success rate of each prompt.

    A table has one row per prompt. Completions logged by TRL (`log_completions=True`) have one row per completion: a
    prompt's rate is the share of completions to which every reward function that scored them gave at least 1, at the
    prompt's first logged step, the one nearest to the reference.

    Args:
        path (`Path`):
            Parquet or JSON lines, a folder with a run's completions, or the run's output folder.
        column (`str`, *optional*):
            Column of the rates, or of the reward that counts. If not set: a column named `success`, `success_rate` or
            `p_ref`, else the only column of numbers; in completions, all reward functions.

    Returns:
        `list[float]`:
            Rates in the order of the prompts.

    Raises:
        `ValueError`: If the path cannot be read or has no such column; one sentence.
    """
    columns = _read(path)
    if column is not None and column not in columns:
        raise ValueError(f"{path} has no column {column!r}; its columns are {', '.join(columns)}.")
    if {"prompt", "completion"} <= columns.keys():
        rates = _rates_of_completions(columns, _reward_columns(path, columns, column))
    else:
        rates = _numbers(path, columns, column or _rate_column(path, columns))
    if not rates:
        raise ValueError(f"{path} holds no success rate.")
    return rates


def _read(path: Path) -> Columns:
    if path.is_dir():
        files = sorted(path.glob("completions_*.parquet")) or sorted(path.glob("completions/completions_*.parquet"))
        if not files:
            raise ValueError(
                f"{path} is a folder without completions; a run writes them with `log_completions: true`."
            )
        return _joined([_read_parquet(file) for file in files])
    if not path.exists():
        raise ValueError(f"{path} is neither a number nor a file.")
    if path.suffix == ".parquet":
        return _read_parquet(path)
    if path.suffix in (".jsonl", ".ndjson", ".json"):
        return _read_json_lines(path)
    raise ValueError(f"{path} must be Parquet (.parquet) or JSON lines (.jsonl, .ndjson, .json).")


def _read_parquet(path: Path) -> Columns:
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        table = pyarrow.parquet.read_table(path)
    except (OSError, pyarrow.ArrowException) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {_first_line(error)}") from error
    return {name: table.column(name).to_pylist() for name in table.column_names}


def _read_json_lines(path: Path) -> Columns:
    rows = []
    try:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if line.strip():
                rows.append(json.loads(line))
                if not isinstance(rows[-1], dict):
                    raise ValueError(f"{path} must hold one JSON object a line; line {number} holds another value.")
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} must hold one JSON object a line; line {number} is not JSON.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as JSON lines: {_first_line(error)}") from error
    return _joined([{name: [value] for name, value in row.items()} for row in rows])


def _joined(parts: list[Columns]) -> Columns:
    names = dict.fromkeys(name for part in parts for name in part)
    lengths = [len(next(iter(part.values()), [])) for part in parts]
    return {
        name: [value for part, length in zip(parts, lengths, strict=True) for value in part.get(name, [None] * length)]
        for name in names
    }


def _rate_column(path: Path, columns: Columns) -> str:
    named = [name for name in _RATE_COLUMNS if name in columns]
    numeric = [name for name, values in columns.items() if _is_numeric(values)]
    if len(named or numeric) != 1:
        raise ValueError(
            f"{path} must have one column of success rates; name it with --column. Its columns of numbers are: "
            f"{', '.join(numeric) or 'none'}."
        )
    return (named or numeric)[0]


def _reward_columns(path: Path, columns: Columns, column: str | None) -> list[list[float]]:
    names = [column] if column else [n for n, v in columns.items() if n not in _LOG_COLUMNS and _is_numeric(v)]
    if not names:
        raise ValueError(f"{path} has completions but no column of rewards.")
    return [_numbers(path, columns, name) for name in names]


def _rates_of_completions(columns: Columns, rewards: list[list[float]]) -> list[float]:
    prompts = [json.dumps(prompt, sort_keys=True, default=str) for prompt in columns["prompt"]]
    steps = columns.get("step", [0] * len(prompts))
    first: dict[str, Any] = {}
    for prompt, step in zip(prompts, steps, strict=True):
        first[prompt] = min(step, first.get(prompt, step))
    successes: dict[str, list[bool]] = {}
    for prompt, step, scores in zip(prompts, steps, zip(*rewards, strict=True), strict=True):
        scored = [score for score in scores if not math.isnan(score)]
        if scored and step == first[prompt]:
            successes.setdefault(prompt, []).append(all(score >= 1.0 for score in scored))
    return [sum(outcomes) / len(outcomes) for outcomes in successes.values()]


def _numbers(path: Path, columns: Columns, name: str) -> list[float]:
    if not _is_numeric(columns[name]):
        raise ValueError(f"The column {name!r} of {path} does not hold numbers.")
    return [math.nan if value is None else float(value) for value in columns[name]]


def _is_numeric(values: Iterable[Any]) -> bool:
    present = [value for value in values if value is not None]
    return bool(present) and all(isinstance(value, int | float) for value in present)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".") + "."
