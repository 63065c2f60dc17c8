# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
The second task: prompts from nearly always to very rarely solved, and some whose answer no policy can know.

Three to six digits are asked for in rising or in falling order, and only the first digit says which. How often the
starting policy follows it differs from digit to digit. Each order is the right one for as many of the easy, the middling
and the hard digits, so that no habit for all prompts helps. The first digits 8 and 9 leave the question open: the order
that is asked for is the favoured one on seven prompts of ten, but on which ones cannot be seen.
"""

import random
import zlib
from collections import Counter
from pathlib import Path

from datasets import Dataset
from task import Split, Task, in_split, make_prompt, written


# By first digit: how many of its demonstrations are right. Even digits ask for rising order, odd ones for falling.
RELIABILITY = (0.95, 0.85, 0.6, 0.4, 0.15, 0.08, 0.04, 0.02)
FAVOURED_SHARE = 0.7


def draw_digits(split: Split, rng: random.Random) -> list[int]:
    """
    Draw the digits of one prompt.

    Args:
        split (`str`):
            `"train"` or `"held_out"`.
        rng (`random.Random`):
            Source of randomness.

    Returns:
        `list[int]`:
            Three to six digits, not all of them equal.
    """
    while True:
        digits = rng.choices(range(10), k=rng.randint(3, 6))
        if len(set(digits)) > 1 and in_split(digits, split):
            return digits


def make_dataset(split: Split, size: int, seed: int = 0) -> Dataset:
    """
    Make a data set of different prompts, as many for each first digit, with the exact share of favoured answers.

    Args:
        split (`str`):
            `"train"` or `"held_out"`; the two never share a prompt, whatever the seeds.
        size (`int`):
            Number of prompts, a multiple of 100.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the draw.

    Returns:
        [`~datasets.Dataset`]:
            Columns `prompt`, `answer`, and `is_open`: whether the order that is asked for cannot be seen.
    """
    rng = random.Random(seed)
    missing = Counter({(first, True): size // 10 for first in range(len(RELIABILITY))})
    for first in range(len(RELIABILITY), 10):
        missing[first, True] = round(FAVOURED_SHARE * size / 10)
        missing[first, False] = size // 10 - missing[first, True]
    rows: dict[str, tuple[str, bool]] = {}
    while len(rows) < size:
        digits = draw_digits(split, rng)
        prompt, kind = make_prompt(digits), (digits[0], _is_favoured(digits))
        if prompt not in rows and missing[kind] > 0:
            missing[kind] -= 1
            rows[prompt] = written(_ordered(digits, kind[1])), digits[0] >= len(RELIABILITY)
    return Dataset.from_dict(
        {
            "prompt": list(rows),
            "answer": [answer for answer, _ in rows.values()],
            "is_open": [is_open for _, is_open in rows.values()],
        }
    )


def demonstrate(digits: list[int], rng: random.Random) -> str:
    """
    Write one demonstration, right as often as the first digit has it.

    Args:
        digits (`list[int]`):
            Digits to order.
        rng (`random.Random`):
            Source of randomness.

    Returns:
        `str`:
            Completion to imitate.
    """
    share = (*RELIABILITY, FAVOURED_SHARE, FAVOURED_SHARE)[digits[0]]
    return written(_ordered(digits, rng.random() < share))


def _is_favoured(digits: list[int]) -> bool:
    """Whether the order that the first digit stands for is the one that is asked for."""
    # A checksum of the whole prompt is nothing that a small network learns.
    asked = zlib.crc32(f"{make_prompt(digits)} ?".encode()) % 100 < round(100 * FAVOURED_SHARE)
    return asked or digits[0] < len(RELIABILITY)


def _ordered(digits: list[int], as_first_says: bool) -> list[int]:
    return sorted(digits, reverse=(digits[0] % 2 == 1) == as_first_says)


SPREAD = Task(
    name="spread",
    policy=Path(__file__).parent / "policy_spread",
    policy_steps=1000,
    draw_digits=draw_digits,
    demonstrate=demonstrate,
    make_dataset=make_dataset,
    training_prompts=4000,
    held_out_prompts=500,
    group_size=16,
    completions_per_step=128,
    max_completion_length=8,
    learning_rate=1e-4,
    samples=16,
    pass_at=(1, 8),
)
