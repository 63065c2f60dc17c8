# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Wires the variants into TRL's trainer. TRL computes all that it knows; only the new terms are added here."""

from typing import Any

import torch
from accelerate.utils import is_peft_model
from trl import GRPOTrainer
from trl.trainer import grpo_trainer

from .checks import check_model
from .compat import check_backend, check_parent
from .config import GRPOVariantConfig, GRPOVariantFields
from .forward.lean import LeanForward
from .guards import FiniteGuard, NonFiniteError, RewardDomainError, check_rewards
from .hub import PublishedRun
from .metrics import RunningMeans
from .monitor.about import subject_of
from .monitor.callback import SuccessMonitor
from .objective.aggregation import token_weight
from .objective.divergences import ANCHORS, KL_METRICS
from .objective.loss import counted_tokens, term_inputs
from .objective.ratio import ROLLOUT_END, trajectory_log_weight
from .objective.terms import TermInputs
from .replaced import replaced
from .resume import ExactResume
from .reward_workers import RewardWorkers
from .rewards import ScoredRollout, logged_rewards
from .rollout import arrange, carries_gradient, check_prompts, split_by_group
from .runs.prompts import identify
from .snapshot import Anchors, SyncSnapshotCallback
from .step_times import MeasuredSteps, StepClock
from .tracking import TrackedObjective
from .vllm.adapter import adapter_generation
from .vllm.client import GenerationServerError
from .warn import warnings_at_the_user


class GRPOVariantTrainer(MeasuredSteps, ExactResume, PublishedRun, ScoredRollout, LeanForward, GRPOTrainer):
    """
    Trainer for published variants of Group Relative Policy Optimization (GRPO).

    Takes the arguments of [`GRPOTrainer`], with a [`GRPOVariantConfig`] as `args`. Without a variant and with default
    parameters it is the [`GRPOTrainer`].

    Example:

    ```python
    from datasets import load_dataset
    from trl.rewards import accuracy_reward
    from trl_grpo_variants import GRPOVariantConfig, GRPOVariantTrainer

    trainer = GRPOVariantTrainer(
        model="Qwen/Qwen2.5-0.5B-Instruct",
        reward_funcs=accuracy_reward,
        args=GRPOVariantConfig(output_dir="qwen-tic", variant="tic_grpo"),
        train_dataset=load_dataset("trl-lib/DeepMath-103K", split="train"),
    )
    trainer.train()
    ```

    Args:
        model (`str` or [`~transformers.PreTrainedModel`] or [`~peft.PeftModel`]):
            Policy to train, see [`GRPOTrainer`].
        reward_funcs (`RewardFunc` or `list[RewardFunc]`, *optional*):
            Reward functions, see [`GRPOTrainer`].
        args ([`GRPOVariantConfig`], *optional*):
            Configuration, or another subclass of [`GRPOConfig`] with [`GRPOVariantFields`]. If not given, a default one.
        peft_config ([`~peft.PeftConfig`], *optional*):
            PEFT configuration. With it, unlike in [`GRPOTrainer`], `sync_ref_model=True` works, on a copy of the adapter.
        kwargs:
            Further arguments of [`GRPOTrainer`].

    Raises:
        `TypeError`: If `args` has no [`GRPOVariantFields`], or `model` neither a model nor a `str`.
        `NotImplementedError`: If the backend cannot run a variant.
        `RuntimeError`: If [`GRPOTrainer`] has been replaced or lacks a method that is overridden here.
    """

    args: GRPOVariantConfig
    ref_model: Any

    _tag_names = ["trl", "grpo", "trl-grpo-variants"]
    # Where an engine is gone or a number not as it has to be, the weights are still those of the last step.
    _interruptions = (GenerationServerError, NonFiniteError, RewardDomainError)

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: GRPOVariantConfig | None = None,
        *arguments: Any,
        peft_config: Any = None,
        **kwargs: Any,
    ):
        check_model(model)
        if args is None:
            model_name = model if isinstance(model, str) else model.config._name_or_path
            args = GRPOVariantConfig(f"{model_name.split('/')[-1]}-GRPO")
        if not isinstance(args, GRPOVariantFields):
            raise TypeError(
                f"`args` must be a GRPOVariantConfig, got {type(args).__name__}: import it from trl_grpo_variants, it "
                "takes every argument of GRPOConfig; a framework's configuration needs GRPOVariantFields as a base."
            )
        args.check_changes()
        check_parent(GRPOVariantTrainer.__bases__[-1], args)
        if args.extends_trl:
            check_prompts(kwargs.get("train_dataset", arguments[0] if arguments else None), args)

        uses_peft = peft_config is not None or (isinstance(model, torch.nn.Module) and is_peft_model(model))
        moves_adapter = args.sync_ref_model and uses_peft
        check_backend(args, moves_adapter)

        # The parent refuses to move a reference under PEFT, for lack of a place to keep it; here is one.
        fixed_reference = replaced(args, sync_ref_model=args.sync_ref_model and not moves_adapter)
        self._reward_workers = RewardWorkers(args.reward_num_workers, args.reward_timeout)
        reward_funcs = self._reward_workers.take(reward_funcs)
        generation = adapter_generation(args, model, peft_config, kwargs.get("quantization_config"))
        with fixed_reference, generation, warnings_at_the_user(grpo_trainer):
            super().__init__(model, reward_funcs, args, *arguments, peft_config=peft_config, **kwargs)

        self._method = args.objective
        if self._method.policy is not None:
            # TRL knows no other; of its terms there is none left that has a ratio.
            self.importance_sampling_level = "token"
        # Whether a term of the loss looks at the rows of a micro-batch together.
        self._relates_rows = args.relates_rows or self.aux_loss_enabled
        self._choose_forward()
        self._choose_prompts()
        self._anchors = Anchors(args, self.accelerator, self.model, self.ref_model, copies_adapter=moves_adapter)
        if moves_adapter:
            self.ref_model = self._anchors.reference
            self.add_callback(SyncSnapshotCallback(ref_model=self.ref_model, accelerator=self.accelerator))
        self._means = RunningMeans(self.accelerator)
        self._clock = StepClock(self._means) if args.extends_trl else None
        self._monitor = SuccessMonitor(args, self.reward_weights, subject_of(self)) if args.success_monitor else None
        self._guard = FiniteGuard(self.accelerator) if args.extends_trl and args.stop_on_nonfinite else None
        tracked = TrackedObjective(self.callback_handler) if args.extends_trl else None
        for callback in (self._clock, self._monitor, self._guard, tracked):
            if callback is not None:
                self.add_callback(callback)

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if not self.args.extends_trl:
            return super()._generate_and_score_completions(inputs)
        rollout = self._chosen_rollout(inputs)
        # Of an optimizer step that is not all of one rollout, groups are not told apart.
        whole_steps = self._micro_batches % self.args.gradient_accumulation_steps == 0
        if self.model.training and self._method.anchors and whole_steps:
            groups = self._own_places(self.args.generation_batch_size // self.num_generations)
            rollout["group"] = torch.tensor(groups, device=self.accelerator.device)
        return rollout

    def _scored_rollout(self, inputs: list[dict[str, Any]]) -> tuple[dict[str, Any], torch.Tensor]:
        mode = "train" if self.model.training else "eval"
        # Before the rollout, which may change the rows.
        prompts = [identify(row) for row in inputs] if self._monitor is not None and mode == "train" else []
        with logged_rewards(self._logs) as logged:
            rollout = super()._generate_and_score_completions(inputs)
        rewards_per_func = logged.by_function()
        check_rewards(rewards_per_func, self.reward_func_names, inputs, stop=self.args.stop_on_nonfinite)
        if mode == "train":
            # Not before there is a rollout: without one the run is saved as it is.
            self._anchors.refresh(self.state.global_step)
        num_generations = self.num_generations if mode == "train" else self.num_generations_eval
        lengths = self.accelerator.gather(torch.tensor(self._lengths, device=self.accelerator.device)).cpu()
        self._means.count_completions(mode, rewards_per_func, self.reward_weights, num_generations, lengths)
        advantages, varies = (
            values.chunk(self.accelerator.num_processes)[self.accelerator.process_index].to(self.accelerator.device)
            for values in self._final_advantages(inputs, rollout, rewards_per_func, num_generations, mode)
        )
        rollout["advantages"] = advantages
        if self.args.mask_zero_variance_groups and mode == "train":
            rollout["has_variance"] = varies
        if self.args.skip_inert_rows and mode == "train" and not self._relates_rows:
            has_divergence = bool(self._method.coefficients)
            rollout["needed"] = carries_gradient(
                rollout["advantages"], counted_tokens(rollout), rollout.get("has_variance"), has_divergence
            )
        if self._anchors.mirror is not None:
            rollout["mirror_per_token_logps"] = self._score(rollout, self._anchors.mirror, mode)
        if self._monitor is not None and mode == "train":
            scalars = self._monitor.observe(
                self.state.global_step, prompts, rollout, rewards_per_func, num_generations, self.accelerator
            )
            for name, value in scalars.items():
                self._metrics[mode][name].append(value)
        return rollout, rewards_per_func

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        if not self.model.training or not (self.args.group_preserving_split or self.args.trims_forward):
            return super()._prepare_inputs(generation_batch)
        self._try_lines()
        if self._step % self._micro_batches == 0 or self._buffered_inputs is None:
            if self.args.group_preserving_split:
                rollout = self._generate_and_score_completions(generation_batch)
                self._buffered_inputs = split_by_group(rollout, self.args.steps_per_generation)
            else:
                super()._prepare_inputs(generation_batch)
            # Where the loss is no mean over a micro-batch's own tokens, a row counts the same in each micro-batch.
            if self.args.trims_forward and self.loss_type != "bnpo" and not self._relates_rows:
                self._buffered_inputs = arrange(
                    self._buffered_inputs, self.args.gradient_accumulation_steps, by_prompt=self.args.share_prompt
                )
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self._computed_loss = False
        with self._anchors.training_step():
            loss = super().training_step(*args, **kwargs)
        # Before the gradient reaches the weights.
        if not self._computed_loss and not self.args.has_stock_objective:
            raise RuntimeError(
                f"`{self.compute_loss.__qualname__}` runs instead of the loss of the variant; leave `compute_loss` to "
                "TRL's GRPOTrainer, or leave the variant unset."
            )
        return loss

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        if not self.args.extends_trl:
            return super()._compute_loss(model, inputs)
        mode = "train" if self.model.training else "eval"
        if mode == "train":
            self._anchors.freeze()
        self._computed_loss = True
        self._loss_inputs = dict(inputs)
        try:
            loss = super()._compute_loss(model, self._loss_inputs)
            scored, terms = self._loss_inputs, self._loss_inputs["terms"]
        finally:
            self._loss_inputs = None

        # Metrics are those of the rows that have been computed, and a KL acts on groups that are not masked.
        computed = terms.mask if "needed" not in inputs else terms.mask * inputs["needed"].unsqueeze(1)
        kept = computed if "has_variance" not in inputs else computed * inputs["has_variance"].unsqueeze(1)
        metrics: dict[str, torch.Tensor] = {}
        if not self.args.has_stock_objective:
            weight, accumulation = self._token_weight(inputs, terms.mask, mode)
            added, metrics = self._method.added_loss(
                terms,
                factor=self._policy_factor(terms, scored),
                weight=weight,
                kept=kept.bool(),
                prompt_weights=inputs.get("prompt_weights"),
                # An evaluation scores completions of the policy itself.
                on_policy=mode == "eval" or inputs.get("old_per_token_logps") is None,
            )
            loss = loss + added / accumulation
            self._correct_metrics(added.detach(), mode)
        elif self.args.trims_forward:
            with torch.no_grad():
                metrics = {ANCHORS[name].metric: value for name, value in self._method.divergences(terms).items()}
        if self.args.trims_forward or not self.args.has_stock_objective:
            metrics["entropy"] = terms.entropies
        if mode == "eval" and "mirror_per_token_logps" not in inputs:
            # In an evaluation the previous policy of the rollout is the policy itself.
            metrics.pop("mirror_kl", None)
        serves_several_steps = self.args.gradient_accumulation_steps < self._micro_batches
        ends_rollout = mode == "train" and serves_several_steps and self._is_last_step
        prefix = ROLLOUT_END if ends_rollout else ""
        divergences = {f"{prefix}{name}": metrics[name] for name in KL_METRICS if name in metrics}
        self._means.count(mode, metrics | divergences, computed)
        if "group" in inputs and divergences and self._is_last_step:
            self._means.count_spread(divergences, computed, inputs["group"])
        # The frozen gradient is taken where the weights are 1 by construction, whatever the live policy has become.
        if mode == "train" and inputs.get("old_per_token_logps") is not None and self._anchors.frozen is None:
            log_weights = trajectory_log_weight(terms.logps, terms.old_logps, terms.mask)
            self._means.count_trajectories(log_weights, computed, ends_rollout=ends_rollout)
        if self._guard is not None and mode == "train":
            self._guard.watch(loss, self.state.global_step)
        return loss

    @property
    def _micro_batches(self) -> int:
        """How many micro-batches a rollout serves."""
        return self.args.steps_per_generation * self.num_iterations

    @property
    def _is_last_step(self) -> bool:
        """Whether the micro-batch is of the last optimizer step on its rollout."""
        return self._step % self._micro_batches >= self._micro_batches - self.args.gradient_accumulation_steps

    # The forward pass inside the parent's loss is where the log-probs of the current policy become known.
    def _get_per_token_logps_and_entropies(
        self, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        output: Any = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        inputs = self._loss_inputs
        if inputs is None:
            return output
        logps, entropies, aux_loss = output
        if "needed" in inputs and inputs.get("old_per_token_logps") is not None:
            # A ratio of 1, which is finite, where the advantage is 0.
            logps = torch.where(inputs["needed"].unsqueeze(1), logps, inputs["old_per_token_logps"].to(logps.dtype))
        if self.args.has_stock_objective:
            inputs["terms"] = term_inputs(inputs, logps, entropies)
        else:
            # In half precision neither a product of ratios nor a bounded one would be representable.
            logps = logps.float()
            inputs.update(self._method.scored(inputs, logps, entropies))
        return logps, entropies, aux_loss

    def _token_weight(self, inputs: dict[str, Any], mask: torch.Tensor, mode: str) -> tuple[torch.Tensor, int]:
        """Weight of a token as the parent's loss type has it, and the number of micro-batches to divide by."""
        accumulation = self.current_gradient_accumulation_steps if mode == "train" else 1
        # `num_items_in_batch` counts the tokens of a whole generation batch.
        global_tokens = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
        if mode == "train":
            global_tokens = global_tokens * accumulation / self.args.steps_per_generation
        weight = token_weight(
            self.loss_type, mask, max_completion_length=self.max_completion_length, global_tokens=global_tokens
        )
        # Divided by the tokens of the whole optimizer step, a micro-batch is not divided by their number again.
        return weight, 1 if self.loss_type in ("dapo", "cispo", "vespo") else accumulation

    def _policy_factor(self, terms: TermInputs, scored: dict[str, Any]) -> torch.Tensor:
        """What the parent multiplies its own policy term with, (B, 1) or (B, T)."""
        factor = self._method.correction(terms, scored)
        if self._method.policy is None:
            return factor
        if self.off_policy_mask_threshold is not None:
            sampled = scored.get("sampling_per_token_logps", scored.get("old_per_token_logps", terms.logps.detach()))
            factor = factor * self.get_off_policy_mask(
                advantages=terms.token_advantages,
                per_token_logps=terms.logps,
                sampling_per_token_logps=sampled,
                mask=terms.mask,
                off_policy_threshold=self.off_policy_mask_threshold,
            )
        if self.top_entropy_quantile < 1.0:
            factor = factor * self.get_high_entropy_mask(terms.entropies, terms.mask, 1 - self.top_entropy_quantile)
        return factor

    def _correct_metrics(self, terms: torch.Tensor, mode: str) -> None:
        """Make the parent's metrics of its loss those of the whole loss."""
        metrics = self._metrics[mode]
        if self._entropy_bonus_enabled:
            metrics["policy_loss"][-1] += self.accelerator.gather(terms).nanmean().item()
        if self._method.policy is not None:
            # They would report on the policy term that has been taken out.
            for name in [name for name in metrics if name.startswith("clip_ratio/")]:
                del metrics[name]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        mode = "train" if self.model.training else "eval"
        # In place of what the parent has counted under the same name.
        self._metrics[mode].update({name: [mean] for name, mean in self._means.pop(mode).items()})
        super().log(logs, start_time)
