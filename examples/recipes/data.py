# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Bring a data set into the columns that TRL's `accuracy_reward` reads: a conversational `prompt` and a `solution`.

    python examples/recipes/data.py gsm8k        # writes runs/data/gsm8k/{train,test}.jsonl
    python examples/recipes/data.py dapo_math    # writes runs/data/dapo_math/train.jsonl
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import load_dataset


# The reward looks for a boxed answer. Neither paper states its prompt; this one is a choice.
INSTRUCTION = "Reason step by step, and put your final answer within \\boxed{}."


def _row(question: str, solution: str) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": f"{question.strip()}\n\n{INSTRUCTION}"}], "solution": solution}


def gsm8k(row: dict[str, Any]) -> dict[str, Any]:
    """The answers of GSM8K are worked solutions that end in `#### 1,234`."""
    return _row(row["question"], row["answer"].rsplit("####", 1)[1].strip().replace(",", ""))


def dapo_math(row: dict[str, Any]) -> dict[str, Any]:
    return _row(row["prompt"], str(row["solution"]).strip())


@dataclass(frozen=True)
class Source:
    """A data set of the Hub and how to read a row of it."""

    path: str
    config: str
    splits: tuple[str, ...]
    convert: Callable[[dict[str, Any]], dict[str, Any]]


SOURCES = {
    "gsm8k": Source("openai/gsm8k", "main", ("train", "test"), gsm8k),
    # The original repeats every problem many times; this version of it holds each once.
    "dapo_math": Source("open-r1/DAPO-Math-17k-Processed", "all", ("train",), dapo_math),
}


def prepare(name: str, folder: Path) -> None:
    """Write the splits of a data set as JSON lines, which `dataset_name: FOLDER` loads."""
    source = SOURCES[name]
    for split in source.splits:
        rows = load_dataset(source.path, source.config, split=split)
        rows = rows.map(source.convert, remove_columns=rows.column_names)
        folder.mkdir(parents=True, exist_ok=True)
        rows.to_json(folder / f"{split}.jsonl")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SOURCES)
    parser.add_argument("--folder", type=Path, help="where to write; runs/data/NAME by default")
    arguments = parser.parse_args()
    prepare(arguments.name, arguments.folder or Path("runs/data") / arguments.name)
