# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Success rates of prompts, read from a file: a table of rates, or the completions that a run of TRL logged."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..runs.folder import TrainerState, trainer_states
from ..runs.intervals import Array


if TYPE_CHECKING:
    import pandas as pd

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
    table = _read(path)
    for name in names:
        if name not in table:
            raise ValueError(f"{path} has no column {name!r}; its columns are {', '.join(table)}.")
    if {"prompt", "completion"} <= set(table):
        rates = _rates_of_completions(path, table, names or _reward_columns(path, table))
    elif len(names) > 1:
        raise ValueError(f"{path} has one row per prompt, so that one --column holds its rates; got {len(names)}.")
    else:
        rates = _numbers(path, table, names[0] if names else _rate_column(path, table)).tolist()
    if not rates:
        raise ValueError(f"{path} holds no success rate.")
    return rates


def read_rates_of_rows(path: str | Path, rows: int) -> list[float]:
    """
    Success rate of each row of a data set, NaN where it is not known, from a table with one rate per row, in its order.

    Raises a `ValueError` as [`read_success_rates`], if there are more or fewer rates than rows, and if one is no rate.
    """
    rates = read_success_rates(path)
    if {"prompt", "completion"} <= set(_read(Path(path))):
        raise ValueError(
            f"{path} holds completions, which are not in the order of the training data; give a table with one success "
            "rate per row of it."
        )
    if len(rates) != rows:
        raise ValueError(f"{path} has {len(rates)} success rates, but the training data has {rows} prompts.")
    wrong = [rate for rate in rates if rate < 0.0 or rate > 1.0]
    if wrong:
        raise ValueError(f"{path} has the success rate {wrong[0]:g}; a rate lies between 0 and 1.")
    return rates


def _read(path: Path) -> "pd.DataFrame":
    import pandas as pd

    rows = _rows(path)
    names = dict.fromkeys(name for row in rows for name in row)
    # Values as they were read: pandas would make numbers of whole columns, and fails at those that no float holds.
    return pd.DataFrame({name: [row.get(name) for row in rows] for name in names}, dtype=object)


def _rows(path: Path) -> list[dict[str, Any]]:
    if os.path.isdir(path):
        files = sorted(path.glob("completions_*.parquet")) or sorted(path.glob("completions/completions_*.parquet"))
        if not files:
            raise ValueError(
                f"{path} is a folder without completions; a run writes them with `log_completions: true`."
            )
        return [row for file in files for row in _parquet_rows(file)]
    if not os.path.exists(path):
        raise ValueError(f"{path} is neither a number nor a file.")
    if path.suffix == ".parquet":
        return _parquet_rows(path)
    if path.suffix in (".jsonl", ".ndjson", ".json"):
        return _json_rows(path)
    raise ValueError(f"{path} must be Parquet (.parquet) or JSON lines (.jsonl, .ndjson, .json).")


def _check_file(path: Path) -> None:
    # Whoever opens a pipe waits for its other end.
    if not os.path.isfile(path):
        raise ValueError(f"{path} is no file, but a folder, a pipe or a device.")


def _parquet_rows(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    _check_file(path)
    try:
        # Not by pandas, which takes the names of folders for columns and some columns for an index.
        table = pyarrow.parquet.ParquetFile(path).read()
        if len(set(table.column_names)) < table.num_columns:
            raise ValueError("two columns have one name")
        return table.to_pylist()
    except (OSError, ValueError, pyarrow.ArrowException) as error:
        raise ValueError(f"{path} cannot be read as Parquet: {_first_line(error)}") from error


def _json_rows(path: Path) -> list[dict[str, Any]]:
    _check_file(path)
    try:
        # A text may hold characters that Python ends a line at and JSON does not.
        lines = path.read_text(encoding="utf-8").split("\n")
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
        rows += [row] if row else []
    return rows


def _rate_column(path: Path, table: "pd.DataFrame") -> str:
    named = [name for name in _RATE_COLUMNS if name in table]
    numeric = [name for name in table if _is_numeric(table[name])]
    if len(named or numeric) != 1:
        raise ValueError(
            f"{path} must have one column of success rates; let it alone be called 'success', or in a plan name it with "
            f"--column. Its columns of numbers are: {', '.join(numeric) or 'none'}."
        )
    return (named or numeric)[0]


def _reward_columns(path: Path, table: "pd.DataFrame") -> list[str]:
    numeric = [name for name in table if name not in _LOG_COLUMNS and _is_numeric(table[name])]
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
    folder = (path if path.is_dir() else path.parent).resolve()
    folder = folder.parent if folder.name == "completions" else folder
    # What cannot be read does not count: another checkpoint will tell.
    states = [state for _, state in trainer_states(folder) if isinstance(state, TrainerState)]
    keys = {key for state in states for entry in state.history for key in entry}
    return {match[1] for key in keys if (match := _LOGGED_REWARD.fullmatch(key))}


def _rates_of_completions(path: Path, table: "pd.DataFrame", rewards: Sequence[str]) -> list[float]:
    import pandas as pd

    scores = np.stack([_numbers(path, table, name) for name in rewards], axis=1)
    steps = _numbers(path, table, "step") if "step" in table else np.zeros(len(table))
    if np.isnan(steps).any():
        raise ValueError(f"The column 'step' of {path} does not hold numbers.")
    completions = pd.DataFrame(
        {
            "prompt": [json.dumps(prompt, sort_keys=True, default=str) for prompt in table["prompt"]],
            "step": steps,
            "succeeds": (np.isnan(scores) | (scores >= 1.0)).all(axis=1),
        }
    )
    at_first = completions["step"] == completions.groupby("prompt")["step"].transform("min")
    counted = completions[at_first & ~np.isnan(scores).all(axis=1)]
    return counted.groupby("prompt", sort=False)["succeeds"].mean().tolist()


def _numbers(path: Path, table: "pd.DataFrame", name: str) -> Array:
    """A column of numbers, with NaN where there is none."""
    if not _is_numeric(table[name]):
        raise ValueError(f"The column {name!r} of {path} does not hold numbers.")
    return table[name].to_numpy(np.float64, na_value=np.nan)


def _is_numeric(column: "pd.Series") -> bool:
    present = [value for value in column if value is not None]
    # JSON's whole numbers may be too large for a float.
    sized = (isinstance(value, float) or (isinstance(value, int) and abs(value) < 10**300) for value in present)
    return bool(present) and all(sized)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".") + "."
