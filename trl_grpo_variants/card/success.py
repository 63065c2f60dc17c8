# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Success before and after training, with intervals, from what a run has logged."""

import math
from dataclasses import dataclass
from typing import Any


_CONFIDENCE = 1.96  # standard deviations that hold 95 % of a normal distribution

# When, the share, and the ends of an interval that was logged with it.
_Measured = tuple[str, float, float | None, float | None]


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


def success_rows(
    history: list[dict[str, Any]], prompts_per_rollout: int, evaluation_prompts: dict[str, int | None] | None = None
) -> list[Success]:
    """
    First and last success in the logs of a run.

    A prompt counts as one observation however many completions it has: completions of one prompt are not independent,
    and the variance of a prompt's mean is at most that of a single completion. The intervals are thus rather too wide
    than too narrow. An evaluation that logs an interval of its own beside `eval_success`, as `eval_success_low` and
    `eval_success_high`, keeps it.

    Args:
        history (`list[dict[str, Any]]`):
            `log_history` of the trainer's state.
        prompts_per_rollout (`int`):
            Prompts of one rollout. Logs average over at least one.
        evaluation_prompts (`dict[str, int | None]`, *optional*):
            Prompts of an evaluation by its prefix (`"eval"`, or `"eval_NAME"` for one of several), `None` where it is
            not known.

    Returns:
        `list[Success]`:
            One row per source that was logged.
    """
    rows = []
    for prefix, prompts in {"eval": None, **(evaluation_prompts or {})}.items():
        key = f"{prefix}_success"
        seen = [
            (f"step {entry['step']}", entry[key], entry.get(f"{key}_low"), entry.get(f"{key}_high"))
            for entry in history
            if _is_share(entry.get(key))
        ]
        name = prefix.removeprefix("eval").removeprefix("_")
        source = " ".join(["evaluation", f"`{name}`" if name else ""]).strip()
        rows += _row(source, prompts, seen)

    rollouts: list[_Measured] = []
    previous_step = 0
    for entry in history:
        # What ends a run sums it up, so it is neither its beginning nor its end.
        if _is_share(entry.get("success")) and "loss" in entry:
            start = previous_step + 1
            steps = f"step {entry['step']}" if start >= entry["step"] else f"steps {start} to {entry['step']}"
            rollouts.append((steps, entry["success"], None, None))
        if "loss" in entry:
            previous_step = entry["step"]
    return rows + _row("training rollouts", prompts_per_rollout, rollouts, is_training=True)


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and 0.0 <= value <= 1.0


def _row(source: str, prompts: int | None, seen: list[_Measured], is_training: bool = False) -> list[Success]:
    if not seen:
        return []
    cells = []
    counted = None
    for when, share, low, high in (seen[0], seen[-1]):
        if (low is None or high is None) and prompts:
            low, high = wilson_interval(share, prompts)
            counted = prompts
        interval = "" if low is None or high is None else f" [{low:.2f}, {high:.2f}]"
        cells.append(f"{share:.2f}{interval} ({when})")
    if counted:
        source += f", {counted} prompts{' each' if is_training else ''}"
    return [Success(source, cells[0], cells[1] if len(seen) > 1 else None, counted, is_training)]
