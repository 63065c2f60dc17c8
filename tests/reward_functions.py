# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Reward functions for workers, which import this module and nothing else of the tests."""

import os
import time
from pathlib import Path
from typing import Any


def first_token(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [float(any(token in (2, 3) for token in ids[:3])) for ids in completion_ids]


def length(completions: list[str], **_: Any) -> list[float | None]:
    """Nothing for a completion of one character."""
    return [float(len(text)) if len(text) > 1 else None for text in completions]


def column(prompts: list[str], answer: list[int], scale: float = 1.0, **others: Any) -> list[float]:
    assert len(prompts) == len(answer) == 1 and set(others) == {"completions", "completion_ids", "text"}
    return [scale * answer[0]]


def process(**_: Any) -> list[float]:
    return [float(os.getpid())]


def meets(folder: str, name: str, other: str, **_: Any) -> list[float]:
    """Waits until a function of the other name is called too."""
    (Path(folder) / name).touch()
    deadline = time.monotonic() + 60
    while not (Path(folder) / other).exists():
        assert time.monotonic() < deadline, "alone"
        time.sleep(0.01)
    return [1.0]


def fails_on_b(prompts: list[str], **_: Any) -> list[float]:
    if prompts[0] == "b":
        raise ValueError("no\nb")
    return [1.0]


def hangs_on_b(prompts: list[str], **_: Any) -> list[float]:
    while prompts[0] == "b":
        time.sleep(0.1)
    return [1.0]


def dies_on_b(prompts: list[str], **_: Any) -> list[float]:
    if prompts[0] == "b":
        os._exit(7)
    return [1.0]


def fails_for_the_last_rank(completion_ids: list[list[int]], **_: Any) -> list[float]:
    if os.environ["RANK"] == "1":
        raise ValueError("no judge")
    return [1.0] * len(completion_ids)


def gives_two(**_: Any) -> list[float]:
    return [1.0, 2.0]


def logs(log_metric: Any, **_: Any) -> list[float]:
    return [1.0]


def logs_if_it_can(completions: list[str], log_extra: Any = None, **_: Any) -> list[float]:
    return [float(log_extra is None)]


async def waits(prompts: list[str], **_: Any) -> list[float]:
    return [1.0] * len(prompts)


def late_on_b(prompts: list[str], **_: Any) -> list[float]:
    if prompts[0] == "b":
        time.sleep(1.5)
        return [0.5]
    return [1.0]
