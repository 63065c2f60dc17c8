# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What is logged is a mean over all that was counted since the last log, however it came in batches."""

import math
from typing import Any

from accelerate.state import GradientState


class RunningMeans:
    """
    Sums and counts by name, for training and for evaluation.

    TRL averages the means of batches, in which a batch that is cut short or has few tokens weighs as much as any other.
    """

    def __init__(self) -> None:
        self._totals: dict[str, dict[str, list[float]]] = {"train": {}, "eval": {}}

    def add(self, mode: str, name: str, total: float, count: float) -> None:
        """
        Count a batch, of all processes.

        Args:
            mode (`str`):
                `"train"` or `"eval"`.
            name (`str`):
                Name of the metric.
            total (`float`):
                Sum over what the batch holds.
            count (`float`):
                How much it holds; 0 keeps the name in the log.
        """
        totals = self._totals[mode].setdefault(name, [0.0, 0.0])
        totals[0] += total
        totals[1] += count

    def pop(self, mode: str) -> dict[str, float]:
        """
        The means, after which counting begins anew.

        Args:
            mode (`str`):
                `"train"` or `"eval"`.

        Returns:
            `dict[str, float]`:
                Means by name; NaN, which TRL logs as `None`, where nothing was counted.
        """
        totals, self._totals[mode] = self._totals[mode], {}
        return {name: total / count if count else math.nan for name, (total, count) in totals.items()}

    def state_dict(self) -> dict[str, list[float]]:
        """Sums and counts of training since the last log, which a checkpoint may fall before."""
        return {name: list(totals) for name, totals in self._totals["train"].items()}

    def load_state_dict(self, state_dict: dict[str, list[float]]) -> None:
        """
        Go on from sums and counts that were saved.

        Args:
            state_dict (`dict[str, list[float]]`):
                What [`~RunningMeans.state_dict`] returned.
        """
        self._totals["train"] = {name: list(totals) for name, totals in state_dict.items()}


def distinct_rows(rows: int) -> int:
    """
    Count the rows of an evaluation batch that are no repetition.

    Several processes get equal shares of the last batch, for which the first rows of the data are taken once more.

    Args:
        rows (`int`):
            Rows of the batch in all processes.

    Returns:
        `int`:
            Rows, from the first on, that have not been there before. All of them where the data has no length.
    """
    state = GradientState()
    if not state.end_of_dataloader:
        return rows
    loader: Any = state.active_dataloader
    # Of several processes, each one's share of the batches is around the batches.
    batches = getattr(loader.batch_sampler, "batch_sampler", loader.batch_sampler)
    sampler: Any = getattr(batches, "sampler", None)
    if not hasattr(sampler, "__len__"):
        return rows
    return len(sampler) % loader.total_batch_size or rows
