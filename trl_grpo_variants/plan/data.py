# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Success rates of prompts, read from a file: a table of rates, or the completions that a run of TRL logged."""

import json
import math
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any


Columns = dict[str, list[Any]]

_RATE_COLUMNS = ("success", "success_rate", "p_ref")
# What TRL writes around the columns of the reward functions.
_LOG_COLUMNS = ("step", "prompt", "completion", "advantage")
# What it logs of each reward function, and of nothing else.
_LOGGED_REWARD = re.compile("(?:eval_)?rewards/(.+)/mean")


def read_success_rates(path: str | Path, *names: str) -> list[float]:
    """
    Success rate of each prompt.

    A table has one row per prompt. Completions logged by TRL (`log_completions=True`) have one row per completion: a
    prompt's rate is the share of completions to which every reward function that scored them gave at least 1, at the
    prompt's first logged step, the one nearest to the reference. Which columns are of reward functions and which are
    what these have logged beside (`log_extra`) is in the state of the run's checkpoints.

    Args:
        path (`str` or `Path`):
            Parquet or JSON lines, a folder with a run's completions, or the run's output folder.
        names (`str`):
            Column of the rates, or columns of the rewards that count. If none is given: a column named `success`,
            `success_rate` or `p_ref`, else the only column of numbers; in completions, all reward functions.

    Returns:
        `list[float]`:
            Rates in the order of the prompts.

    Raises:
        `ValueError`: If the path cannot be read or has no such column; one sentence.
    """
    if not str(path):
        raise ValueError("An empty text is neither a number nor a file.")
    path = Path(path)
    columns = _read(path)
    for name in names:
        if name not in columns:
            raise ValueError(f"{path} has no column {name!r}; its columns are {', '.join(columns)}.")
    if {"prompt", "completion"} <= columns.keys():
        rewards = [_numbers(path, columns, name) for name in names or _reward_columns(path, columns)]
        rates = _rates_of_completions(columns, _steps(path, columns), rewards)
    elif len(names) > 1:
        raise ValueError(f"{path} has one row per prompt, so that one --column holds its rates; got {len(names)}.")
    else:
        rates = _numbers(path, columns, names[0] if names else _rate_column(path, columns))
    if not rates:
        raise ValueError(f"{path} holds no success rate.")
    return rates


def _read(path: Path) -> Columns:
    if os.path.isdir(path):
        files = sorted(path.glob("completions_*.parquet")) or sorted(path.glob("completions/completions_*.parquet"))
        if not files:
            raise ValueError(
                f"{path} is a folder without completions; a run writes them with `log_completions: true`."
            )
        return _joined([_read_parquet(file) for file in files])
    if not os.path.exists(path):
        raise ValueError(f"{path} is neither a number nor a file.")
    if path.suffix == ".parquet":
        return _read_parquet(path)
    if path.suffix in (".jsonl", ".ndjson", ".json"):
        return _read_json_lines(path)
    raise ValueError(f"{path} must be Parquet (.parquet) or JSON lines (.jsonl, .ndjson, .json).")


def _check_file(path: Path) -> None:
    # Whoever opens a pipe waits for its other end.
    if not os.path.isfile(path):
        raise ValueError(f"{path} is no file, but a folder, a pipe or a device.")


def _read_parquet(path: Path) -> Columns:
    import pyarrow.parquet  # type: ignore[import-untyped]

    _check_file(path)
    try:
        # Not `read_table`, which takes the names of folders for columns.
        table = pyarrow.parquet.ParquetFile(path).read()
        return {name: table.column(name).to_pylist() for name in table.column_names}
    except (OSError, KeyError, ValueError, pyarrow.ArrowException) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {_first_line(error)}") from error


def _read_json_lines(path: Path) -> Columns:
    _check_file(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read as JSON lines: {_first_line(error)}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line) if line.strip() else {}
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path} must hold one JSON object a line; line {number} is not JSON.") from error
        if not isinstance(row, dict):
            raise ValueError(f"{path} must hold one JSON object a line; line {number} holds another value.")
        if row:
            rows.append(row)
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


def _reward_columns(path: Path, columns: Columns) -> list[str]:
    numeric = [name for name, values in columns.items() if name not in _LOG_COLUMNS and _is_numeric(values)]
    if not numeric:
        raise ValueError(f"{path} has completions but no column of rewards.")
    logged = _logged_rewards(path)
    rewards = [name for name in numeric if name in logged]
    # There is no run without a reward function.
    if len(numeric) > 1 and not rewards:
        raise ValueError(
            f"{path} does not tell which of its columns are rewards, as there is no checkpoint of its run; name each "
            f"with --column. Its columns of numbers are: {', '.join(numeric)}."
        )
    return rewards or numeric


def _logged_rewards(path: Path) -> set[str]:
    """Names of the reward functions in the logs of the run that the completions are of."""
    folder = path if path.is_dir() else path.parent
    folder = folder.resolve().parent if folder.resolve().name == "completions" else folder
    names = set()
    for state in [*folder.glob("trainer_state.json"), *folder.glob("checkpoint-*/trainer_state.json")]:
        try:
            entries = json.loads(state.read_bytes())["log_history"] if state.is_file() else []
            keys = [key for entry in entries for key in entry]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            # Another checkpoint will tell.
            continue
        names |= {found[1] for key in keys if (found := _LOGGED_REWARD.fullmatch(key))}
    return names


def _steps(path: Path, columns: Columns) -> list[float]:
    steps = columns.get("step", [0] * len(columns["prompt"]))
    if not _is_numeric(steps) or None in steps:
        raise ValueError(f"The column 'step' of {path} does not hold numbers.")
    return steps


def _rates_of_completions(columns: Columns, steps: list[float], rewards: list[list[float]]) -> list[float]:
    prompts = [json.dumps(prompt, sort_keys=True, default=str) for prompt in columns["prompt"]]
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
    return bool(present) and all(_is_number(value) for value in present)


def _is_number(value: Any) -> bool:
    # JSON's whole numbers may be too large for a float.
    return isinstance(value, float) or (isinstance(value, int) and abs(value) < 10**300)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".") + "."
