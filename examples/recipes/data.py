# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Bring a data set into the columns that TRL's `accuracy_reward` reads: a conversational `prompt` and a `solution`.

    python examples/recipes/data.py gsm8k        # writes runs/data/gsm8k/{train,test}.jsonl
    python examples/recipes/data.py gsm8k_tools  # the same problems for a policy that submits its answer by a tool
    python examples/recipes/data.py dapo_math    # writes runs/data/dapo_math/train.jsonl
    python examples/recipes/data.py multimodal_open_r1  # problems with an image: runs/data/multimodal_open_r1/train.parquet
"""

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Image, load_dataset


# The reward looks for a boxed answer. Neither paper states its prompt; this one is a choice.
INSTRUCTION = "Reason step by step, and put your final answer within \\boxed{}."

# Pixels of a side.
LARGEST_IMAGE = 512


def _row(question: str, solution: str, instruction: str = INSTRUCTION) -> dict[str, Any]:
    content = f"{question.strip()}\n\n{instruction}".strip()
    return {"prompt": [{"role": "user", "content": content}], "solution": solution}


def gsm8k(row: dict[str, Any], instruction: str = INSTRUCTION) -> dict[str, Any]:
    """The answers of GSM8K are worked solutions that end in `#### 1,234`."""
    return _row(row["question"], row["answer"].rsplit("####", 1)[1].strip().replace(",", ""), instruction)


def gsm8k_tools(row: dict[str, Any]) -> dict[str, Any]:
    """What to do with the problem is told by the environment, with its tools."""
    return gsm8k(row, instruction="")


def multimodal_open_r1(row: dict[str, Any]) -> dict[str, Any]:
    """The answer stands in a tag of its own after a worked solution, where there is one; it may be a letter."""
    tagged = re.search(r"<answer>(.*?)</answer>", row["solution"], re.DOTALL)
    answer = (tagged[1] if tagged else row["solution"]).strip()
    return _row(row["problem"], f"\\boxed{{{answer}}}")


def dapo_math(row: dict[str, Any]) -> dict[str, Any]:
    return _row(row["prompt"], str(row["solution"]).strip())


@dataclass(frozen=True)
class Source:
    """A data set of the Hub and how to read a row of it."""

    path: str
    config: str
    splits: tuple[str, ...]
    convert: Callable[[dict[str, Any]], dict[str, Any]]
    has_images: bool = False


SOURCES = {
    "gsm8k": Source("openai/gsm8k", "main", ("train", "test"), gsm8k),
    "gsm8k_tools": Source("openai/gsm8k", "main", ("train", "test"), gsm8k_tools),
    # The original repeats every problem many times; this version of it holds each once.
    "dapo_math": Source("open-r1/DAPO-Math-17k-Processed", "all", ("train",), dapo_math),
    "multimodal_open_r1": Source(
        "lmms-lab/multimodal-open-r1-8k-verified", "default", ("train",), multimodal_open_r1, has_images=True
    ),
}


def prepare(name: str, folder: Path) -> None:
    """Write the splits of a data set as JSON lines, with images as Parquet, which `dataset_name: FOLDER` loads."""
    source = SOURCES[name]
    folder.mkdir(parents=True, exist_ok=True)
    for split in source.splits:
        rows = load_dataset(source.path, source.config, split=split)
        kept = {"image"} if source.has_images else set()
        if source.has_images:
            rows = rows.cast_column("image", Image(mode="RGB")).filter(is_small, input_columns="image")
        rows = rows.map(source.convert, remove_columns=[name for name in rows.column_names if name not in kept])
        if source.has_images:
            rows.to_parquet(folder / f"{split}.parquet")
        else:
            rows.to_json(folder / f"{split}.jsonl")


def is_small(image: Any) -> bool:
    """Whether an image takes few tokens of the prompt."""
    return max(image.size) < LARGEST_IMAGE


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=SOURCES)
    parser.add_argument("--folder", type=Path, help="where to write; runs/data/NAME by default")
    arguments = parser.parse_args()
    prepare(arguments.name, arguments.folder or Path("runs/data") / arguments.name)
