# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Success before and after training, with intervals, from what a run has logged."""

import math
from dataclasses import dataclass
from typing import Any


_CONFIDENCE = 1.96  # standard deviations that hold 95 % of a normal distribution


@dataclass(frozen=True)
class _Measured:
    """When, the share, on how many prompts, and the ends of an interval that was logged with it."""

    when: str
    share: float
    prompts: int | None
    low: float | None = None
    high: float | None = None


def wilson_interval(share: float, observations: int) -> tuple[float, float]:
    """
    Binomial 95 % interval of a share.

    Args:
        share (`float`):
            Observed share, in [0, 1].
        observations (`int`):
            Number of independent observations.

    Returns:
        `tuple[float, float]`:
            Lower and upper end.
    """
    z2 = _CONFIDENCE**2 / observations
    centre = share + z2 / 2
    half_width = math.sqrt(z2 * (share * (1 - share) + z2 / 4))
    return max(0.0, (centre - half_width) / (1 + z2)), min(1.0, (centre + half_width) / (1 + z2))


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
    evaluations: dict[str, list[_Measured]] = {}
    rollouts: list[_Measured] = []
    previous_step = 0
    for entry in history:
        if _is_share(entry.get("eval_success")):
            evaluations.setdefault(_data_set(entry), []).append(
                _Measured(
                    f"step {entry['step']}",
                    entry["eval_success"],
                    _whole(entry.get("eval_success_prompts")),
                    entry.get("eval_success_low"),
                    entry.get("eval_success_high"),
                )
            )
        # What ends a run sums it up, so it is neither its beginning nor its end.
        if _is_share(entry.get("success")) and "loss" in entry:
            start = previous_step + 1
            steps = f"step {entry['step']}" if start >= entry["step"] else f"steps {start} to {entry['step']}"
            rollouts.append(_Measured(steps, entry["success"], _whole(entry.get("success_prompts"))))
        if "loss" in entry:
            previous_step = entry["step"]
    rows = [_row(f"evaluation `{name}`" if name else "evaluation", seen) for name, seen in evaluations.items()]
    return rows + ([_row("training rollouts", rollouts, is_training=True)] if rollouts else [])


def _data_set(entry: dict[str, Any]) -> str:
    """Name of the data set of an evaluation, which TRL's metrics do not tell; those of the loop around it do."""
    names = [key for key in entry if key.startswith("eval_") and key.endswith("_runtime")]
    return names[0].removeprefix("eval_").removesuffix("runtime").removesuffix("_") if names else ""


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and 0.0 <= value <= 1.0


def _whole(count: Any) -> int | None:
    # A log holds numbers as they were averaged.
    return int(count) if isinstance(count, int | float) and count >= 1 else None


def _row(source: str, seen: list[_Measured], is_training: bool = False) -> Success:
    ends = [seen[0], seen[-1]][: len(seen)]
    cells, counted = [], []
    for measured in ends:
        low, high = measured.low, measured.high
        if (low is None or high is None) and measured.prompts:
            low, high = wilson_interval(measured.share, measured.prompts)
            counted.append(measured.prompts)
        interval = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
        cells.append(f"{measured.share:.2f}{interval} ({measured.when})")
    prompts = counted[0] if len(counted) == len(ends) else None
    if prompts is not None:
        same = len(set(counted)) == 1
        source += f", {counted[0] if same else ' and '.join(map(str, counted))} prompts"
        source += " each" if is_training and same and len(ends) > 1 else ""
    return Success(source, cells[0], cells[1] if len(ends) > 1 else None, prompts, is_training)
