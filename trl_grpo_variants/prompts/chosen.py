# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Rollouts of prompts that the trainer chooses itself, in place of those that the dataloader has fetched before."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from accelerate.logging import get_logger
from accelerate.utils import send_to_device
from torch.utils.data import IterableDataset
from trl import GRPOTrainer

from ..config import GRPOVariantConfig
from ..metrics import RunningMeans
from ..objective.loss import counted_tokens
from ..objective.rewards import full_reward
from ..plan.data import read_rates_of_rows
from .refill import chosen_groups, further_groups, gathered, have_signal, joined, rows_of, selected
from .source import Draw, PromptSource


logger = get_logger(__name__)


class ChosenPrompts(GRPOTrainer):
    """
    Trainer that draws prompts by the signal that is expected of them, and replaces groups that turn out to have none.

    A dataloader fetches rows ahead, before it is known what the last rollout tells of them. Here its rows only count
    the steps, and those of a rollout are taken from the data set when it begins. What is decided is decided in all
    processes from the same gathered numbers.
    """

    args: GRPOVariantConfig
    _means: RunningMeans

    _prompts: PromptSource | None = None
    # The rows of the data as the dataloader has them.
    _rows: Any = None
    # Completes rows of the data set and gives them their final advantages, and all else that the loss takes; and the
    # rewards (N, F) of all processes' completions.
    _scored_rollout: Callable[[list[dict[str, Any]]], tuple[dict[str, Any], torch.Tensor]]
    # Scores a rollout under a policy.
    _score: Callable[[dict[str, Any], Any, str], torch.Tensor]
    # Groups with signal that the last rollout had no place for, all processes' alike.
    _kept: dict[str, torch.Tensor] | None = None
    # Groups without signal since the last one that had any.
    _silent_groups = 0

    def _choose_prompts(self) -> None:
        """Take the choice of prompts over, if the configuration asks for it; a `ValueError` where that cannot be."""
        if not self.args.chooses_prompts:
            return
        by_signal, refills = self.args.prompt_sampling == "signal", self.args.refill_groups is not None
        field = "prompt_sampling" if by_signal else "refill_groups" if refills else "prefetch_rollout"
        user = f"`{field}={getattr(self.args, field)!r}`"
        if isinstance(self.train_dataset, IterableDataset):
            raise ValueError(
                f"{user} needs prompts that it can go back to, but the training data is an iterable data set; give a "
                "`Dataset`, or leave it unset."
            )
        if getattr(self, "environment_factories", None) or getattr(self, "environments", None):
            raise ValueError(
                f"{user} chooses rows of the data, but with `environment_factory` prompts come from the environments; "
                "leave it unset."
            )
        media = {"image", "images"} & set(self.train_dataset.column_names)
        if refills and media:
            raise ValueError(
                f"`refill_groups={self.args.refill_groups}` takes rollouts of text apart, but the training data has the "
                f"column {media.pop()!r}; leave it unset."
            )
        size, path = len(self.train_dataset), self.args.prompt_success_rates
        self._prompts = PromptSource(
            size,
            self.num_generations,
            seed=self.args.seed if self.shuffle_dataset else None,
            by_signal=by_signal,
            least_variance=self.args.prompt_weights == "unbiased",
            rates=None if path is None else np.array(read_rates_of_rows(path, size)),
        )

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        self._rows = self.train_dataset if dataset is None else dataset
        return super()._get_train_sampler(dataset)

    def _chosen_rollout(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        """A rollout of the rows that are given, or, in training, of those that are chosen instead."""
        if self._prompts is None or not self.model.training:
            return self._scored_rollout(inputs)[0]
        groups = self.args.generation_batch_size // self.num_generations
        if self.args.refill_groups is None:
            return self._visit(groups)[0]
        return self._refilled(groups, self.args.refill_groups)

    def _visit(self, groups: int) -> tuple[dict[str, Any], torch.Tensor]:
        """A rollout of so many prompts, this process's part of it, and which of all its groups have signal."""
        assert self._prompts is not None
        prompts, weights, expected = self._next_prompts(groups)
        rollout, rewards_per_func = self._scored_rollout(self._own_rows(prompts))
        flags = full_reward(rewards_per_func, self.reward_weights)
        successes, completions = (flag.view(-1, self.num_generations).sum(dim=1) for flag in flags)
        has_signal = have_signal(self.accelerator.gather(rollout["advantages"]), self.num_generations)
        self._means.add("train", "prompts/with_signal", int(has_signal.sum()), groups)
        if self._prompts.by_signal:
            self._prompts.learn(prompts, successes, completions, has_signal)
            self._means.add("train", "prompts/expected_signal", float(expected.sum()), groups)
        if self.args.prompt_weights == "unbiased":
            own = torch.tensor(weights[self._own_places(groups)], dtype=torch.float32)
            rollout["prompt_weights"] = own.to(self.accelerator.device)
        return rollout, has_signal

    def _next_prompts(self, groups: int) -> Draw:
        assert self._prompts is not None
        return self._prompts.take(groups)

    def _own_places(self, groups: int) -> list[int]:
        """The group of each of this process's completions."""
        own = rows_of(range(groups), self.num_generations).chunk(self.accelerator.num_processes)
        return (own[self.accelerator.process_index] // self.num_generations).tolist()

    def _own_rows(self, prompts: list[int]) -> list[dict[str, Any]]:
        """Rows of the data set that this process completes."""
        data = self.train_dataset if self._rows is None else self._rows
        rows = [data[prompts[place]] for place in self._own_places(len(prompts))]
        return send_to_device(rows, self.accelerator.device)

    def _refilled(self, groups: int, most_further: int) -> dict[str, Any]:
        """This process's part of a rollout of so many groups, with signal as far as there are such."""
        assert self._prompts is not None
        parts, has_signal = ([], []) if self._kept is None else ([self._kept], [True] * self._count(self._kept))
        self._kept = None
        processes, rank = self.accelerator.num_processes, self.accelerator.process_index
        multiple = processes // math.gcd(processes, self.num_generations)
        generations = drawn = found = 0
        exhausted = False
        while generations <= most_further and sum(has_signal) < groups and not exhausted:
            missing = groups - sum(has_signal)
            rollout, new = self._visit(further_groups(missing, drawn, found, most=groups, multiple=multiple))
            if self.args.surplus_groups == "keep" and "old_per_token_logps" not in rollout:
                # A group that waits for the next rollout meets a policy that has moved.
                rollout["old_per_token_logps"] = self._score(rollout, self.model, "train")
            parts.append(gathered(rollout, self.accelerator, self._padding))
            has_signal += new.tolist()
            generations, drawn, found = generations + 1, drawn + len(new), found + int(new.sum())
            # Of few prompts a few groups prove nothing.
            enough = max(len(self.train_dataset), groups * (1 + most_further))
            exhausted = self._ends_without_signal(new.tolist(), enough)
        self._metrics["train"]["prompts/generations"].append(generations)
        whole = joined(parts, self._padding)
        chosen, surplus = chosen_groups(has_signal, groups)
        if self.args.surplus_groups == "keep" and surplus:
            self._kept = selected(whole, rows_of(surplus, self.num_generations))
        whole = selected(whole, rows_of(chosen, self.num_generations))
        tokens = counted_tokens(whole).sum()
        return {name: value.chunk(processes)[rank] for name, value in whole.items()} | {"num_items_in_batch": tokens}

    def _count(self, rollout: dict[str, torch.Tensor]) -> int:
        return rollout["advantages"].size(0) // self.num_generations

    @property
    def _padding(self) -> int:
        tokenizer: Any = getattr(self.processing_class, "tokenizer", self.processing_class)
        return tokenizer.pad_token_id

    def _ends_without_signal(self, has_signal: list[bool], enough: int) -> bool:
        """Whether so many groups, one after the other, have had no signal, which ends the run."""
        silent = has_signal[::-1].index(True) if True in has_signal else self._silent_groups + len(has_signal)
        self._silent_groups = silent
        exhausted = silent >= enough
        if exhausted:
            logger.warning(
                f"The training ends at step {self.state.global_step + 1}: the last {silent} groups had no signal, of "
                f"{len(self.train_dataset)} prompts, so that the data has nothing more to teach this policy."
            )
            self.control.should_training_stop = True
        return exhausted

    def _state_of_prompts(self) -> dict[str, Any] | None:
        """What the prompts of the next rollout depend on."""
        if self._prompts is None:
            return None
        return self._prompts.state_dict() | {"kept": self._kept, "silent": self._silent_groups}

    def _restore_prompts(self, state: dict[str, Any] | None) -> None:
        """Go on from a state that was saved, unless this run or that one leaves the choice to TRL."""
        if self._prompts is not None and state is not None:
            self._prompts.load_state_dict(state)
            self._kept, self._silent_groups = state["kept"], state["silent"]
