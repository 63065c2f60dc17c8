# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What is known of a finished run. Nothing here needs PyTorch, so tables and figures are made without it."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


# Prompts by how hard they are for the starting policy, and those whose answer cannot be known.
CLASSES = ("easy", "middle", "hard", "open")


@dataclass(frozen=True)
class Estimate:
    """
    A mean over prompts with its 95 % interval.

    Parameters:
        mean (`float`):
            Mean over prompts.
        low (`float`):
            Lower end of the interval.
        high (`float`):
            Upper end of the interval.
    """

    mean: float
    low: float
    high: float

    @classmethod
    def over_prompts(cls, values: list[float]) -> "Estimate":
        # Samples of one prompt are not independent, so each prompt counts as one observation.
        mean = statistics.fmean(values)
        half_width = 1.96 * statistics.stdev(values) / math.sqrt(len(values))
        return cls(mean, mean - half_width, mean + half_width)

    def __str__(self) -> str:
        return f"{self.mean:.2f} [{self.low:.2f}, {self.high:.2f}]"


@dataclass(frozen=True)
class Point:
    """
    The policy after some optimizer steps, on the held-out prompts.

    Parameters:
        step (`int`):
            Optimizer steps so far.
        success (`Estimate`):
            Share of right completions at temperature 1.
        kl (`float`):
            KL to the starting policy, in nats per completion.
        length (`float`):
            Tokens per completion.
        passed (`dict[str, dict[str, float]]`):
            By class of prompts, pass@k by `"pass@k"`; empty where the task has no classes.
    """

    step: int
    success: Estimate
    kl: float
    length: float
    passed: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """
    A finished run.

    Parameters:
        variant (`str`):
            Name of the variant.
        lora (`bool`):
            Whether an adapter was trained instead of all weights.
        seed (`int`):
            Seed of training and of the evaluations.
        completions (`int`):
            Completions generated for training.
        curve (`list[Point]`):
            Evaluations, from the starting policy to the trained one.
        rise (`Estimate`):
            Difference in success between the two ends of the curve, paired by prompt.
        greedy_before (`Estimate`):
            Success of greedy decoding at the start.
        greedy_after (`Estimate`):
            Success of greedy decoding at the end.
        seconds (`float`):
            Wall time, evaluations included.
    """

    variant: str
    lora: bool
    seed: int
    completions: int
    curve: list[Point]
    rise: Estimate
    greedy_before: Estimate
    greedy_after: Estimate
    seconds: float

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Run":
        """The run that `dataclasses.asdict` has written."""
        curve = [Point(**point | {"success": Estimate(**point["success"])}) for point in values["curve"]]
        estimates = {name: Estimate(**values[name]) for name in ("rise", "greedy_before", "greedy_after")}
        return cls(**{**values, **estimates, "curve": curve})

    def after(self, completions: float) -> Point:
        """The last evaluation up to which training had used no more than so many completions."""
        per_step = self.completions / self.curve[-1].step
        return self.at(completions / per_step)

    def at(self, step: float) -> Point:
        """The last evaluation up to an optimizer step."""
        return [point for point in self.curve if point.step <= step][-1]


def by_variant(runs: list[Run]) -> dict[str, list[Run]]:
    """Runs by variant, the one with the highest success at the end first."""
    names = dict.fromkeys(run.variant for run in runs)
    members = {name: [run for run in runs if run.variant == name] for name in names}
    ends = {name: statistics.fmean(run.curve[-1].success.mean for run in its) for name, its in members.items()}
    return {name: members[name] for name in sorted(names, key=lambda name: -ends[name])}


def difficulty(success: float) -> str:
    """`"hard"`, `"middle"` or `"easy"`, by the success of the starting policy on a prompt."""
    return "hard" if success < 0.25 else "middle" if success <= 0.75 else "easy"
