# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Rollouts that a server makes while the one before is trained.

When a rollout is there, the server is given the policy as it is now and asked for the next one; only then is the first
scored and trained. So each rollout but a run's first is sampled by the policy of one rollout before, never an older one,
and that policy is kept until the rollout has been scored: its log-probs are the old ones.
"""

from typing import Any

import torch

from ..prompts.chosen import ChosenPrompts
from ..prompts.source import Draw
from ..snapshot import Anchors, PolicySnapshot


class PrefetchedRollout(ChosenPrompts):
    """
    Trainer that asks a vLLM server for a rollout before it trains on the one before.

    A thread of the main process waits for the answer and does nothing else: what processes do together they do in the
    same order as without it. A checkpoint holds the prompts that were asked for and the policy that was asked, and a run
    that resumes asks it again.
    """

    _anchors: Anchors
    vllm_generation: Any

    # Prompts that the policy of `_anchors.sampler` has been asked for, or in a run that resumes is to be.
    _ahead: Draw | None = None
    _is_asked = False
    # Whether the rollout in the making is one of an earlier policy.
    _is_late = False

    def _choose_prompts(self) -> None:
        super()._choose_prompts()
        if not self.args.prefetch_rollout:
            return
        media = {"image", "images"} & set(self.train_dataset.column_names)
        obstacle = (
            "`rollout_func` asks the engine itself"
            if getattr(self, "rollout_func", None) is not None
            else "`tools` take several turns"
            if self.tools
            else f"the training data has the column {media.pop()!r}"
            if media
            else None
        )
        if obstacle is not None:
            raise ValueError(
                f"`prefetch_rollout=True` asks for completions of text in a single turn, but {obstacle}; leave one of "
                "them unset."
            )

    def _next_prompts(self, groups: int) -> Draw:
        ahead, self._ahead = self._ahead, None
        return ahead or super()._next_prompts(groups)

    def _visit(self, groups: int) -> tuple[dict[str, Any], torch.Tensor]:
        self._is_late = is_late = self._ahead is not None
        try:
            visit = super()._visit(groups)
        finally:
            self._is_late = False
        sampler, frozen = self._anchors.sampler, self._anchors.frozen
        if sampler is not None:
            if frozen is not None and is_late:
                frozen.load_state_dict(sampler.state_dict())
            # Of a run that stops before its next step the rollout is made anew, by this policy then.
            sampler.refresh()
        return visit

    def _generate(self, prompts: list[Any]) -> Any:
        sampler = self._anchors.sampler
        if sampler is None or not self.model.training:
            return super()._generate(prompts)
        if not self._is_late:
            output = super()._generate(prompts)
        else:
            if not self._is_asked:
                with sampler.swapped_in():
                    self.vllm_generation.sync_weights()
                # The parent is to send the policy as it is now.
                self._last_loaded_step = None
                self._ask(prompts)
            with self.vllm_generation.answering():
                output = super()._generate(prompts)
        self._is_asked = False
        if not self._is_last_rollout():
            assert self._prompts is not None
            self._ahead = self._prompts.take(self.args.generation_batch_size // self.num_generations)
            self._ask([row["prompt"] for row in self._own_rows(self._ahead.prompts)])
        return output

    def _ask(self, prompts: list[Any]) -> None:
        prompt_ids, *_ = self._tokenize_prompts(prompts)
        self.vllm_generation.ask(prompt_ids, self.num_generations)
        self._is_asked = True

    def _is_last_rollout(self) -> bool:
        """Whether a run that is not stopped before ends with the rollout that begins at the current micro-batch."""
        accumulation = self.args.gradient_accumulation_steps
        left = (self.state.max_steps - self.state.global_step) * accumulation - self._step % accumulation
        return left <= self.args.steps_per_generation * self.num_iterations

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        rollout = super()._generate_and_score_completions(inputs)
        if self._is_late and "old_per_token_logps" not in rollout:
            # With one step per rollout the parent takes the policy for the one that made it.
            rollout["old_per_token_logps"] = self._score(rollout, self.model, "train")
        return rollout

    def _get_per_token_logps_and_entropies(self, model: Any, *args: Any, **kwargs: Any) -> Any:
        policy: Any | PolicySnapshot = model
        if self._is_late and model is self.model:
            policy = self._anchors.sampler
        return super()._get_per_token_logps_and_entropies(policy, *args, **kwargs)

    def _state_of_prompts(self) -> dict[str, Any] | None:
        state = super()._state_of_prompts()
        return state and state | {"ahead": self._ahead and self._ahead.state_dict()}

    def _restore_prompts(self, state: dict[str, Any] | None) -> None:
        super()._restore_prompts(state)
        # Not in what a version before this has saved.
        ahead = None if state is None else state.get("ahead")
        self._ahead = None if ahead is None else Draw.from_state_dict(ahead)
        self._is_asked = False
