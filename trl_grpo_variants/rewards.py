# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The rewards of a rollout and its advantages, which are those of all processes, and reward functions that raise."""

import functools
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from trl.trainer import grpo_trainer

from .combinations import part_label
from .forward.lean import LeanForward
from .guards import check_advantages, check_domain
from .metrics import replace_last
from .objective.loss import Objective, counted_tokens
from .objective.rewards import reward_differences, weighted_rewards, without_infinite_groups
from .reward_workers import RewardFunctionError, RewardWorkers


class LoggedRewards:
    """Columns of rewards as TRL logs them, one per reward function; functions may have one name."""

    def __init__(self) -> None:
        self.columns: list[tuple[str, list[float]]] = []

    def __getitem__(self, name: str) -> list[float]:
        self.columns.append((name, []))
        return self.columns[-1][1]

    def by_function(self) -> torch.Tensor:
        """Rewards `(N, F)` of all processes' completions, on the CPU."""
        return torch.tensor([column for _, column in self.columns], dtype=torch.float32).T.contiguous()


@contextmanager
def logged_rewards(logs: dict[str, Any]) -> Iterator[LoggedRewards]:
    """
    The rewards of the rollout that is made within the context, of which TRL returns the advantages only.

    They are what a subclass or a user's hook has made of them. TRL's logs are cut to the size of a training rollout,
    which an evaluation may exceed, so that others take their place for as long.
    """
    usual, whole = logs["rewards"], LoggedRewards()
    logs["rewards"] = whole
    try:
        yield whole
    finally:
        logs["rewards"] = usual
        for name, column in whole.columns:
            usual[name].extend(column)


def rewards_or_failure(
    calculate: Callable[[], torch.Tensor], size: tuple[int, int], accelerator: Accelerator
) -> torch.Tensor:
    """
    Calculate rewards `(N, F)` in all processes, or raise in all of them.

    A process whose reward function raises would leave the others waiting for its rewards for ever. The last act of
    `calculate` is to gather them, and nothing that it does before involves another process; `size` is the number of
    this process's rows and of reward functions. Alone, a process raises the function's own exception.
    """
    if accelerator.num_processes == 1:
        return calculate()
    failure = None
    try:
        rewards = calculate()
    except Exception as error:
        failure = error
        # What the other processes are waiting for.
        rewards = accelerator.gather(torch.full(size, torch.nan, device=accelerator.device))
    sentences = gather_object([None if failure is None else _sentence(failure)])
    failed = [process for process, sentence in enumerate(sentences) if sentence is not None]
    if failed:
        processes = f"process{'es' if len(failed) > 1 else ''} {', '.join(map(str, failed))}"
        raise RewardFunctionError(
            f"A reward function failed on {processes} of {accelerator.num_processes}: {sentences[failed[0]]}"
        ) from failure
    return rewards


def _sentence(error: Exception) -> str:
    """An error and the place where TRL's code was left for the user's."""
    if isinstance(error, RewardFunctionError):
        # Of a worker, which has said it all.
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    last = max(i for i, frame in enumerate(frames) if frame.filename in (grpo_trainer.__file__, __file__))
    place = frames[min(last + 1, len(frames) - 1)]
    return f"{type(error).__name__}: {error} (in `{place.name}`, {Path(place.filename).name}, line {place.lineno})."


class ScoredRollout(LeanForward):
    """Trainer whose rollouts have the rewards and the advantages of its configuration."""

    _method: Objective
    _reward_workers: RewardWorkers
    # Tokens that the policy has produced in each of this process's completions, also those that the loss leaves out.
    _lengths: list[int]

    def train(self, *args: Any, **kwargs: Any) -> Any:
        with self._reward_workers:
            return super().train(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> Any:
        with self._reward_workers:
            return super().evaluate(*args, **kwargs)

    def _generate(self, prompts: list[Any]) -> Any:
        output = super()._generate(prompts)
        _, completion_ids, tool_mask, *_ = output
        self._lengths = [len(ids) for ids in completion_ids] if tool_mask is None else [sum(row) for row in tool_mask]
        return output

    def _calculate_rewards(self, inputs: Any, prompts: Any, *args: Any) -> torch.Tensor:
        calculate = functools.partial(super()._calculate_rewards, inputs, prompts, *args)
        return rewards_or_failure(calculate, (len(prompts), len(self.reward_funcs)), self.accelerator)

    def _final_advantages(
        self, rows: Any, rollout: dict[str, Any], rewards_per_func: torch.Tensor, num_generations: int, mode: str
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Advantages (N,) of all processes, and whether the rewards of a completion's group differ, both on the CPU: not
        every device has the double precision that some advantages need.
        """
        weights = self.reward_weights
        each = self.multi_objective_aggregation == "normalize_then_sum"
        scope = "function" if each else "batch" if self.scale_rewards == "batch" else "group"
        penalties: Any = 0.0
        if self._method.penalty != 0.0:
            score = functools.partial(self._score, rollout, self.model, mode)
            penalties = self.accelerator.gather(self._method.reward_penalties(rollout, score)).cpu()
            self._metrics[mode]["kl_penalty"].append(penalties.mean().item())
        varies, zero_std = reward_differences(rewards_per_func, weights, num_generations, scope, penalties)
        lengths = None
        if self._method.takes_lengths or self._method.length_weights is not None:
            lengths = self.accelerator.gather(counted_tokens(rollout).sum(dim=1)).cpu()
        if self._method.advantage is None:
            advantages = self.accelerator.gather(rollout["advantages"]).cpu()
        else:
            rewards = without_infinite_groups(weighted_rewards(rewards_per_func, weights), num_generations) - penalties
            check_domain(
                rewards, self._method.domain, part_label(self.args, "advantage"), self.reward_func_names, rows
            )
            given = {"lengths": lengths} if self._method.takes_lengths else {}
            advantages = self._method.advantage(rewards, num_generations, **given)
            check_advantages(advantages, rewards)
            advantages = torch.where(rewards.isnan(), 0.0, advantages.to(rollout["advantages"].dtype))
        keeps_rounding = self._method.is_trls and not (self.args.skip_inert_rows or self.args.chooses_prompts)
        if self.args.mask_zero_variance_groups or (self._method.is_zero_without_variance and not keeps_rounding):
            # What rounding leaves of equal rewards is no advantage, except of what TRL alone computes.
            advantages = torch.where(varies, advantages, 0.0)
        if self._method.length_weights is not None:
            advantages = advantages * self._method.length_weights(lengths).to(advantages.dtype)
        # What the parent has logged of its own.
        self._metrics[mode]["frac_reward_zero_std"][-1:] = [zero_std.float().mean().item()]
        replace_last(self._logs["advantages"], advantages.tolist())
        return advantages, varies
