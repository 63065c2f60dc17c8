# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What is logged is a mean over all that was counted since the last log, however it came in batches."""

import math
from collections import deque
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import GradientState

from .objective.divergences import STANDARD_ERROR, standard_error_over_groups
from .objective.ratio import ROLLOUT_END, TRAJECTORY_METRICS, effective_sample_size, std_per_sqrt_token
from .objective.rewards import length_counts, success_counts


# Sums over the whole run, which do not begin anew with a log.
LASTING = ("generated_tokens",)


class RunningMeans:
    """
    Sums and counts by name, for training and for evaluation.

    TRL averages the means of batches, in which a batch that is cut short or has few tokens weighs as much as any other.

    Args:
        accelerator ([`~accelerate.Accelerator`]):
            Knows the other processes, which count the same.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._totals: dict[str, dict[str, list[float]]] = {"train": {}, "eval": {}}
        # Of the micro-batches of the current optimizer step: values of each trajectory, by what they are counted for.
        self._trajectories: dict[str, list[torch.Tensor]] = {}

    def add(self, mode: str, name: str, total: float, count: float) -> None:
        """Count a batch of all processes: a sum over what it holds, and how much that is; 0 keeps the name."""
        totals = self._totals[mode].setdefault(name, [0.0, 0.0])
        totals[0] += total
        totals[1] += count

    def add_up(self, mode: str, name: str, amount: float) -> None:
        """Count what is logged as a sum."""
        # Which is the mean of one value.
        self._totals[mode].setdefault(name, [0.0, 1.0])[0] += amount

    @torch.no_grad()
    def count(self, mode: str, values: dict[str, torch.Tensor], mask: torch.Tensor) -> None:
        """
        Count values `(B, T)` of the tokens in a mask, or `(B,)` of the trajectories that have any.

        To be called in all processes, with the same names.
        """
        if not values:
            return
        counted = {2: mask.bool(), 1: mask.any(dim=1)}
        totals = [
            torch.stack([torch.where(counted[value.dim()], value, 0.0).sum(), counted[value.dim()].sum()]).float()
            for value in values.values()
        ]
        sums = self._accelerator.reduce(torch.stack(totals), reduction="sum").tolist()
        for name, (total, count) in zip(values, sums, strict=True):
            self.add(mode, name, total, count)

    def count_completions(
        self,
        mode: str,
        rewards_per_func: torch.Tensor,
        weights: torch.Tensor,
        num_generations: int,
        lengths: torch.Tensor,
    ) -> None:
        """
        Count completions and groups with full reward, see [`success_counts`], how many groups that were, and lengths, see
        [`length_counts`].

        Args:
            mode (`str`):
                `"train"` or `"eval"`.
            rewards_per_func (`torch.Tensor`):
                Rewards `(N, F)` of all processes.
            weights (`torch.Tensor`):
                Weights `(F,)` of the reward functions.
            num_generations (`int`):
                Group size.
            lengths (`torch.Tensor`):
                Tokens `(N,)` of the completions of all processes.
        """
        rows = rewards_per_func.size(0) if mode == "train" else distinct_rows(rewards_per_func.size(0))
        rewards_per_func = rewards_per_func[:rows]
        counts = success_counts(rewards_per_func, weights, num_generations)
        for name, (total, count) in (counts | length_counts(lengths[:rows], rewards_per_func, weights)).items():
            self.add(mode, name, total, count)
        self.add_up(mode, "success_prompts", counts["success_all"][1])

    @torch.no_grad()
    def count_trajectories(self, log_weights: torch.Tensor, mask: torch.Tensor, *, ends_rollout: bool = False) -> None:
        """
        Count a micro-batch of training; with the last one of an optimizer step, statistics over all its trajectories.

        Args:
            log_weights (`torch.Tensor`):
                Logarithms `(B,)` of the trajectories' weights.
            mask (`torch.Tensor`):
                Tokens `(B, T)` that count; a trajectory without any does not.
            ends_rollout (`bool`, *optional*, defaults to `False`):
                Whether the optimizer step is the last of several on its rollout.
        """
        rows = self._whole_step("weights", [log_weights, mask.sum(dim=1)])
        if rows is None:
            return
        rows = rows[rows[:, 1] > 0]
        if len(rows) == 0:
            rows = rows.new_full((1, rows.size(1)), torch.nan)
        log_weights, lengths = rows.unbind(dim=1)
        statistics = (
            effective_sample_size(log_weights),
            log_weights.std(correction=0),
            std_per_sqrt_token(log_weights, lengths),
        )
        for name, value in zip(TRAJECTORY_METRICS, statistics, strict=True):
            for prefix in ("", ROLLOUT_END)[: 1 + ends_rollout]:
                self.add("train", f"{prefix}{name}", value.nan_to_num().item(), float(not value.isnan()))

    @torch.no_grad()
    def count_spread(self, values: dict[str, torch.Tensor], mask: torch.Tensor, groups: torch.Tensor) -> None:
        """
        Count a micro-batch of training; with the last one of an optimizer step, how well the means over its tokens are
        known: see [`standard_error_over_groups`].

        Args:
            values (`dict[str, torch.Tensor]`):
                Values `(B, T)` by name.
            mask (`torch.Tensor`):
                Tokens `(B, T)` that count.
            groups (`torch.Tensor`):
                Number `(B,)` of the group of each completion, the same in all processes.
        """
        counted = mask.bool()
        sums = [torch.where(counted, value, 0.0).sum(dim=1).float() for value in values.values()]
        rows = self._whole_step("spread", [groups, counted.sum(dim=1), *sums])
        if rows is None:
            return
        groups, tokens, *sums = rows.unbind(dim=1)
        for name, total in zip(values, sums, strict=True):
            error = standard_error_over_groups(total, tokens, groups).item()
            # One group says nothing in any step, and trackers warn of values that are none.
            if not math.isnan(error):
                self.add("train", f"{name}{STANDARD_ERROR}", error, 1.0)

    def _whole_step(self, kind: str, columns: list[torch.Tensor]) -> torch.Tensor | None:
        """Columns `(B,)` of a micro-batch; with its last one, those `(N, columns)` of the optimizer step of all processes."""
        self._trajectories.setdefault(kind, []).append(torch.stack(columns, dim=1))
        if not self._accelerator.sync_gradients:
            return None
        return self._accelerator.gather(torch.cat(self._trajectories.pop(kind)))

    def start_run(self) -> None:
        """Leave out what is left of an earlier run of the same trainer."""
        self.forget_step()
        for name in LASTING:
            self._totals["train"].pop(name, None)

    def forget_step(self) -> None:
        """Leave out the trajectories of an optimizer step that was not finished."""
        self._trajectories = {}

    def pop(self, mode: str) -> dict[str, float]:
        """Means by name, after which counting begins anew; NaN, which TRL logs as `None`, where there is none."""
        totals = self._totals[mode]
        self._totals[mode] = {name: totals[name] for name in LASTING if name in totals}
        return {name: total / count if count else math.nan for name, (total, count) in totals.items()}

    def state_dict(self) -> dict[str, list[float]]:
        """Sums and counts of training since the last log, which a checkpoint may fall before."""
        return {name: list(totals) for name, totals in self._totals["train"].items()}

    def load_state_dict(self, state_dict: dict[str, list[float]]) -> None:
        """Go on from sums and counts that were saved."""
        self._totals["train"] = {name: list(totals) for name, totals in state_dict.items()}


def replace_last(logged: deque[float], values: list[float]) -> None:
    """Put values in the place of as many that have been logged last."""
    for _ in range(min(len(logged), len(values))):
        logged.pop()
    logged.extend(values)


def distinct_rows(rows: int) -> int:
    """
    Count the rows of an evaluation batch, of all processes, that are no repetition.

    Several processes get equal shares of the last batch, for which the first rows of the data are taken once more.
    Where the data has no length, all rows count.
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
