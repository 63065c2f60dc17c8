# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Where the prompts of a run come from: the same in all processes, and from a checkpoint as if it had gone on."""

from typing import Any, NamedTuple

import numpy as np
import torch

from ..runs.intervals import Array
from .belief import after_visit, signal_of_prompts, visit_counts
from .draw import draw, draw_probabilities, passes


class Draw(NamedTuple):
    """
    Prompts of a rollout.

    Parameters:
        prompts (`list[int]`):
            Numbers of the prompts.
        weights (`np.ndarray`):
            Weight of each, 1/(N q), with which the expected gradient is that of uniform draws.
        expected_signal (`np.ndarray`):
            Expected signal of each, NaN where none is known.
    """

    prompts: list[int]
    weights: Array
    expected_signal: Array

    def state_dict(self) -> dict[str, list[Any]]:
        """What a checkpoint can hold."""
        return {
            name: list(map(float if name != "prompts" else int, values)) for name, values in self._asdict().items()
        }

    @classmethod
    def from_state_dict(cls, state_dict: dict[str, list[Any]]) -> "Draw":
        return cls(state_dict["prompts"], *(np.array(state_dict[name]) for name in ("weights", "expected_signal")))


class PromptSource:
    """
    Gives the prompts of one rollout after the other, by their numbers in the data set.

    Args:
        size (`int`):
            Number of prompts N of the data set.
        num_generations (`int`):
            Group size G.
        seed (`int`, *optional*):
            Seed of the orders or draws; `None` for the order of the data.
        by_signal (`bool`):
            Whether prompts are drawn by their expected signal, else in passes over the data.
        least_variance (`bool`, *optional*, defaults to `False`):
            Whether the draws are those that suit weights of 1/(N q), see [`draw_probabilities`].
        rates (`np.ndarray`, *optional*):
            Success rates `(N,)` that are known beforehand, NaN where there is none; each counts as one group.
    """

    def __init__(
        self,
        size: int,
        num_generations: int,
        *,
        seed: int | None,
        by_signal: bool,
        least_variance: bool = False,
        rates: Array | None = None,
    ) -> None:
        self._size, self._num_generations, self._seed = size, num_generations, seed
        self.by_signal, self._least_variance = by_signal, least_variance
        self._taken = 0
        # In single precision, which every device can hold a checkpoint's tensors in.
        self._counts: Array = np.zeros((size, 2), dtype=np.float32)
        if rates is not None:
            known = ~np.isnan(rates)
            self._counts[known, 0] = num_generations * rates[known]
            self._counts[known, 1] = num_generations

    def take(self, count: int) -> Draw:
        """The next prompts, by what is known now."""
        start, self._taken = self._taken, self._taken + count
        if not self.by_signal:
            return Draw(passes(start, count, self._size, self._seed), np.ones(count), np.full(count, np.nan))
        signal = signal_of_prompts(self._counts, self._num_generations)
        probabilities = draw_probabilities(signal, least_variance=self._least_variance)
        drawn = draw(probabilities, count, np.random.default_rng([self._seed or 0, start]))
        return Draw(drawn.tolist(), 1.0 / (self._size * probabilities[drawn]), signal[drawn])

    def learn(
        self, prompts: list[int], successes: torch.Tensor, completions: torch.Tensor, has_signal: torch.Tensor
    ) -> None:
        """
        Take note of a rollout: successes and scored completions `(M,)` of the group of each prompt, and which had signal.
        """
        visit = visit_counts(*(values.cpu().numpy() for values in (successes, completions, has_signal)))
        self._counts = after_visit(self._counts, prompts, visit.astype(np.float32))

    def state_dict(self) -> dict[str, Any]:
        """What the next prompts depend on."""
        return {"taken": self._taken, "counts": torch.from_numpy(self._counts)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a state that was saved; a `ValueError` if it is that of another number of prompts."""
        counts = state_dict["counts"].cpu().numpy()
        if len(counts) != self._size:
            raise ValueError(
                f"The checkpoint's training data has {len(counts)} prompts and that of the run that resumes has "
                f"{self._size}: the prompts that come next cannot be told. Resume with the same data."
            )
        self._taken, self._counts = state_dict["taken"], counts
