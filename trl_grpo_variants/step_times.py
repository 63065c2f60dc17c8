# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What the time of an optimizer step goes to, and how many tokens a run has generated."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from transformers import TrainerCallback
from trl import GRPOTrainer

from .config import GRPOVariantConfig
from .metrics import RunningMeans


class StepClock(TrainerCallback):
    """
    Measures optimizer steps, from their first micro-batch until the optimizer is done.

    Scalars for the trainer's log, in seconds, as means over optimizer steps; their sum is the step:

    - `generation_time`: completions are generated, or waited for, after the engine has been given the weights.
    - `rewards_time`: reward functions score them; with several processes until the last one is done.
    - `update_time`: all else, which is forward passes, gradients and the optimizer.

    Unlike TRL's `step_time` they hold the optimizer. A clock of the process is read and nothing is waited for: what a
    GPU has been given to do counts where the process waits for it. Each process has its own times; those of the main
    one are logged.

    Args:
        means ([`RunningMeans`]):
            Take the scalars.
    """

    def __init__(self, means: RunningMeans) -> None:
        self._means = means
        self._begun: float | None = None
        self._seconds = {"generation": 0.0, "rewards": 0.0}

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self._begun = time.perf_counter()
        self._seconds = dict.fromkeys(self._seconds, 0.0)

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        if self._begun is None:
            return
        update = time.perf_counter() - self._begun - sum(self._seconds.values())
        for name, seconds in (self._seconds | {"update": update}).items():
            self._means.add("train", f"{name}_time", seconds, 1.0)
        self._begun = None

    @contextmanager
    def counting(self, part: str) -> Iterator[None]:
        """Count the time within the context as that of a part, `"generation"` or `"rewards"`."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[part] += time.perf_counter() - begun


class MeasuredSteps(GRPOTrainer):
    """Trainer that tells what its steps spend, around all that generates and scores completions."""

    args: GRPOVariantConfig
    _means: RunningMeans
    # None in a stock run.
    _clock: StepClock | None

    def _generate(self, prompts: list[Any]) -> Any:
        if self._clock is None or not self.model.training:
            return super()._generate(prompts)
        with self._clock.counting("generation"):
            output = super()._generate(prompts)
        # Of the completions of all processes, which the parent has gathered the lengths of.
        mean_length = self._metrics["train"]["completions/mean_length"][-1]
        tokens = round(mean_length * len(prompts) * self.accelerator.num_processes)
        self._means.add_up("train", "generated_tokens", tokens)
        return output

    def _calculate_rewards(self, *args: Any, **kwargs: Any) -> Any:
        if self._clock is None or not self.model.training:
            return super()._calculate_rewards(*args, **kwargs)
        with self._clock.counting("rewards"):
            return super()._calculate_rewards(*args, **kwargs)
