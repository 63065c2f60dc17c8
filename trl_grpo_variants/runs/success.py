# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Success before and after training, with intervals, from what a run has logged."""

from dataclasses import dataclass
from typing import Any

from .intervals import wilson_interval


@dataclass(frozen=True)
class Success:
    """
    Success as a run has logged it.

    Parameters:
        source (`str`):
            What it was measured on.
        first (`str`):
            First measurement, with its interval and its step.
        last (`str`, *optional*):
            Last measurement, or `None` where there is only one.
        prompts (`int`, *optional*):
            Prompts that the intervals count, `None` where these were logged or there are none.
        is_training (`bool`, *optional*, defaults to `False`):
            Whether it was measured on what the policy is trained with.
    """

    source: str
    first: str
    last: str | None
    prompts: int | None = None
    is_training: bool = False


def success_rows(history: list[dict[str, Any]]) -> list[Success]:
    """
    First and last success in the logs of a run.

    A prompt counts as one observation however many completions it has: completions of one prompt are not independent,
    and the variance of a prompt's mean is at most that of a single completion. The intervals are thus rather too wide
    than too narrow. An evaluation that logs an interval of its own beside `eval_success`, as `eval_success_low` and
    `eval_success_high`, keeps it.

    Args:
        history (`list[dict[str, Any]]`):
            `log_history` of the trainer's state, in which `success_prompts` and `eval_success_prompts` say how many
            prompts were counted.

    Returns:
        `list[Success]`:
            One row per source that was logged.
    """
    rollouts = []
    previous_step = 0
    for entry in training_logs(history):
        step = entry["step"]
        if _is_share(entry.get("success")):
            first = previous_step + 1
            rollouts.append((f"step {step}" if first >= step else f"steps {first} to {step}", entry))
        previous_step = step
    rows = [
        _row(source, "eval_", [(f"step {entry['step']}", entry) for entry in entries])
        for source, entries in evaluations(history).items()
    ]
    return rows + ([_row("training rollouts", "", rollouts)] if rollouts else [])


def training_logs(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was logged during training."""
    # What ends a run sums it up, so it is neither its beginning nor its end.
    return [entry for entry in history if "loss" in entry]


def evaluations(history: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """What evaluations have logged, by what they were made on, as words; those without a success are left out."""
    entries: dict[str, list[dict[str, Any]]] = {}
    for entry in history:
        if _is_share(entry.get("eval_success")):
            name = _data_set(entry)
            entries.setdefault(f"evaluation `{name}`" if name else "evaluation", []).append(entry)
    return entries


def share_with_interval(entry: dict[str, Any], prefix: str = "eval_") -> tuple[float, float | None, float | None]:
    """A success that was logged, with the ends of its interval: as they were logged, else over its prompts if counted."""
    share, prompts = entry[f"{prefix}success"], _whole(entry.get(f"{prefix}success_prompts"))
    low, high = entry.get("eval_success_low"), entry.get("eval_success_high")
    if (low is None or high is None) and prompts:
        low, high = map(float, wilson_interval(share, prompts))
    return share, low, high


def _data_set(entry: dict[str, Any]) -> str:
    """Name of the data set of an evaluation, which TRL's metrics do not tell; those of the loop around it do."""
    names = [key for key in entry if key.startswith("eval_") and key.endswith("_runtime")]
    return names[0].removeprefix("eval_").removesuffix("runtime").removesuffix("_") if names else ""


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and 0.0 <= value <= 1.0


def _whole(count: Any) -> int | None:
    # A log holds numbers as they were averaged.
    return int(count) if isinstance(count, int | float) and count >= 1 else None


def _row(source: str, prefix: str, seen: list[tuple[str, dict[str, Any]]]) -> Success:
    """From what was logged, and when."""
    cells, counted = [], []
    for when, entry in [seen[0], seen[-1]][: len(seen)]:
        share, low, high = share_with_interval(entry, prefix)
        prompts = _whole(entry.get(f"{prefix}success_prompts"))
        if prompts and (entry.get("eval_success_low") is None or entry.get("eval_success_high") is None):
            counted.append(prompts)
        interval = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
        cells.append(f"{share:.2f}{interval} ({when})")
    is_training, changes = not prefix, len(cells) > 1
    if len(counted) == len(cells):
        same = len(set(counted)) == 1
        source += f", {counted[0] if same else ' and '.join(map(str, counted))} prompts"
        source += " each" if is_training and same and changes else ""
    prompts = counted[0] if len(counted) == len(cells) else None
    return Success(source, cells[0], cells[1] if changes else None, prompts, is_training)
