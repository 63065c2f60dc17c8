# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Wires the variants into TRL's trainer. TRL computes all that it knows; only the new terms are added here."""

from contextlib import ExitStack
from typing import Any

import torch
from accelerate.utils import is_peft_model, parse_flag_from_env
from packaging.version import Version
from transformers import PreTrainedModel
from trl import GRPOTrainer
from trl import __version__ as trl_version
from trl.trainer.callbacks import SyncRefModelCallback

from .config import GRPOVariantConfig
from .objective.advantage import has_variance, normalized_advantages, success_rates, weighted_rewards
from .objective.aggregation import token_weight
from .objective.divergence import reverse_kl
from .objective.policy import score_policy_loss, trajectory_policy_loss
from .objective.ratio import bounded_anchor, effective_sample_size, trajectory_log_weight
from .rollout import split_by_group
from .snapshot import PolicySnapshot
from .variants import get_variant


# What a rollout holds besides the inputs of a forward pass. Anything that TRL adds and the forward does not accept
# fails there with a TypeError instead of being dropped from it.
_NOT_FORWARD_INPUTS = {
    "prompt_ids",
    "prompt_mask",
    "completion_ids",
    "completion_mask",
    "advantages",
    "num_items_in_batch",
    "old_per_token_logps",
    "ref_per_token_logps",
    "importance_sampling_ratio",
    "sampling_per_token_logps",
    "tool_mask",
}
_OVERRIDDEN = (
    "_calculate_rewards",
    "_compute_loss",
    "_generate_and_score_completions",
    "_get_per_token_logps_and_entropies",
    "_prepare_inputs",
    "training_step",
)


class _SyncSnapshotCallback(SyncRefModelCallback):
    """TRL's schedule of a moving reference, for one that is a [`PolicySnapshot`]."""

    @staticmethod
    def sync_target_model(model: torch.nn.Module, target_model: PolicySnapshot, alpha: float) -> None:
        target_model.refresh(mixup=alpha)


class GRPOVariantTrainer(GRPOTrainer):
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
            Configuration. If not given, a default one.
        peft_config ([`~peft.PeftConfig`], *optional*):
            PEFT configuration, see [`GRPOTrainer`]. With it, and unlike in [`GRPOTrainer`], `sync_ref_model=True`
            works: the reference is a copy of the adapter.
        kwargs:
            Further arguments of [`GRPOTrainer`].

    Raises:
        `TypeError`: If `args` is not a [`GRPOVariantConfig`].
        `NotImplementedError`: If the backend cannot run a variant.
        `RuntimeError`: If [`GRPOTrainer`] has been replaced or lacks a method that is overridden here.
    """

    args: GRPOVariantConfig
    _buffered_inputs: list[dict[str, Any]] | None

    _tag_names = ["trl", "grpo", "trl-grpo-variants"]

    def __init__(
        self,
        model: Any,
        reward_funcs: Any = None,
        args: GRPOVariantConfig | None = None,
        *arguments: Any,
        peft_config: Any = None,
        **kwargs: Any,
    ):
        if args is None:
            model_name = model if isinstance(model, str) else model.config._name_or_path
            args = GRPOVariantConfig(f"{model_name.split('/')[-1]}-GRPO")
        if not isinstance(args, GRPOVariantConfig):
            raise TypeError(
                f"`args` must be a GRPOVariantConfig, got {type(args).__name__}: import it from trl_grpo_variants, it "
                "takes every argument of GRPOConfig."
            )
        _check_parent(args)

        uses_peft = peft_config is not None or (isinstance(model, torch.nn.Module) and is_peft_model(model))
        moves_adapter = args.sync_ref_model and uses_peft
        _check_backend(args, moves_adapter)

        # Read by the parent while it scores a rollout or computes a loss, so set before it is constructed.
        self._loss_inputs: dict[str, Any] | None = None
        self._until_backward = ExitStack()

        # The parent refuses to move a reference under PEFT, for lack of a place to keep it; here is one.
        args.sync_ref_model = args.sync_ref_model and not moves_adapter
        try:
            super().__init__(model, reward_funcs, args, *arguments, peft_config=peft_config, **kwargs)
        finally:
            args.sync_ref_model = args.sync_ref_model or moves_adapter

        self._owns_policy_term = args.importance_sampling_level in ("trajectory", "none")
        if self._owns_policy_term:
            # The level of the parent's remaining terms: its KL is weighted per token whatever the policy term is.
            self.importance_sampling_level = "token"
        self._frozen_policy = self._snapshot() if args.no_is_gradient == "frozen" else None
        self._mirror_anchor = self._snapshot() if args.mirror_sync_steps is not None else None
        self._mirror_synced_at: int | None = None
        if moves_adapter:
            self.ref_model = self._snapshot()
            self.add_callback(_SyncSnapshotCallback(ref_model=self.ref_model, accelerator=self.accelerator))

        if args.variant is not None:
            variant = get_variant(args.variant)
            self._name = f"GRPO (variant {variant.name})"
            self._paper = {
                "title": variant.paper.title,
                "id": variant.paper.id,
                "citation": variant.paper.citation,
            }

    def _snapshot(self) -> PolicySnapshot:
        return PolicySnapshot(self.accelerator.unwrap_model(self.model))

    # A forward pass of the parent may be asked of a snapshot, and the one inside its loss is where the log-probs of
    # the current policy become known.
    def _get_per_token_logps_and_entropies(
        self, model: PreTrainedModel | PolicySnapshot, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        if isinstance(model, PolicySnapshot):
            with model.swapped_in():
                return super()._get_per_token_logps_and_entropies(self.model, *args, **kwargs)
        output = super()._get_per_token_logps_and_entropies(model, *args, **kwargs)
        if self._loss_inputs is None:
            return output
        # In half precision neither a product of ratios nor a bounded one would be representable.
        logps = output[0].float()
        for anchor in ("old_per_token_logps", "ref_per_token_logps"):
            if self._loss_inputs.get(anchor) is not None:
                self._loss_inputs[anchor] = bounded_anchor(self._loss_inputs[anchor].float(), logps)
        self._loss_inputs["per_token_logps"] = logps
        self._loss_inputs["entropies"] = output[1]
        return logps, *output[1:]

    def _calculate_rewards(
        self, inputs: Any, prompts: Any, completions: Any, completion_ids_list: Any
    ) -> torch.Tensor:
        rewards_per_func = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        # Kept because the rollout that the parent returns holds advantages only.
        self._rewards_per_func = rewards_per_func
        return rewards_per_func

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> dict[str, Any]:
        if self.model.training:
            self._refresh_snapshots()
        rollout = super()._generate_and_score_completions(inputs)
        if self.args.is_stock:
            return rollout

        mode = "train" if self.model.training else "eval"
        num_generations = self.num_generations if mode == "train" else self.num_generations_eval
        weights = self.reward_weights.to(self._rewards_per_func.device)
        for name, share in success_rates(self._rewards_per_func, weights, num_generations).items():
            self._metrics[mode][name].append(share)

        rewards = weighted_rewards(self._rewards_per_func, weights)
        local_rows = rollout["advantages"].size(0)
        first_row = self.accelerator.process_index * local_rows
        local = slice(first_row, first_row + local_rows)
        if self.args.reward_variance_epsilon is not None:
            advantages = normalized_advantages(rewards, num_generations, self.args.reward_variance_epsilon)
            rollout["advantages"] = advantages[local]
            logged = self._logs["advantages"]
            for _ in range(min(len(logged), advantages.numel())):
                logged.pop()
            logged.extend(advantages.tolist())

        if self._mirror_anchor is not None:
            forward_inputs = {key: value for key, value in rollout.items() if key not in _NOT_FORWARD_INPUTS}
            with torch.no_grad():
                rollout["mirror_per_token_logps"], _, _ = self._get_per_token_logps_and_entropies(
                    self._mirror_anchor,
                    torch.cat([rollout["prompt_ids"], rollout["completion_ids"]], dim=1),
                    torch.cat([rollout["prompt_mask"], rollout["completion_mask"]], dim=1),
                    rollout["completion_ids"].size(1),
                    batch_size=self.args.per_device_train_batch_size
                    if mode == "train"
                    else self.args.per_device_eval_batch_size,
                    **forward_inputs,
                )

        if self.args.mask_zero_variance_groups:
            # `tool_mask` takes tokens out of every term of the loss and leaves attention and normalisers as they are.
            tool_mask = rollout.get("tool_mask", torch.ones_like(rollout["completion_mask"]))
            rollout["tool_mask"] = tool_mask * has_variance(rewards, num_generations)[local].unsqueeze(1)
        return rollout

    def _refresh_snapshots(self) -> None:
        if self._frozen_policy is not None:
            self._frozen_policy.refresh()
        if self._mirror_anchor is not None:
            step, synced_at = self.state.global_step, self._mirror_synced_at
            if synced_at is None or step - synced_at >= self.args.mirror_sync_steps:
                self._mirror_anchor.refresh()
                self._mirror_synced_at = step

    def _prepare_inputs(self, generation_batch: Any) -> dict[str, Any]:
        if not (self.args.group_preserving_split and self.model.training):
            return super()._prepare_inputs(generation_batch)
        generate_every = self.args.steps_per_generation * self.num_iterations
        if self._step % generate_every == 0 or self._buffered_inputs is None:
            rollout = self._generate_and_score_completions(generation_batch)
            self._buffered_inputs = split_by_group(rollout, self.args.steps_per_generation)
        return self._buffered_inputs[self._step % self.args.steps_per_generation]

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        with self._until_backward:
            return super().training_step(*args, **kwargs)

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> torch.Tensor:
        if self.args.is_stock:
            return super()._compute_loss(model, inputs)

        mode = "train" if self.model.training else "eval"
        if self._frozen_policy is not None and mode == "train":
            self._until_backward.enter_context(self._frozen_policy.swapped_in())

        self._loss_inputs = dict(inputs)
        if self._owns_policy_term:
            # Zero advantages take the parent's policy term out exactly; its other terms stay.
            self._loss_inputs["advantages"] = torch.zeros_like(inputs["advantages"])
        try:
            loss = super()._compute_loss(model, self._loss_inputs)
            logps, entropies = self._loss_inputs["per_token_logps"], self._loss_inputs["entropies"]
        finally:
            self._loss_inputs = None
        return loss + self._added_terms(inputs, logps, entropies, mode)

    def _added_terms(
        self, inputs: dict[str, Any], logps: torch.Tensor, entropies: torch.Tensor, mode: str
    ) -> torch.Tensor:
        """The terms that the parent's loss lacks, scaled for gradient accumulation, with their metrics."""
        old_logps = inputs.get("old_per_token_logps")
        old_logps = logps.detach() if old_logps is None else old_logps
        mask = inputs["completion_mask"] * inputs.get("tool_mask", 1)

        # As in the parent: `num_items_in_batch` counts a generation batch, and these loss types divide by the tokens of
        # one whole optimizer step, so they do not divide by the number of its micro-batches again.
        accumulation = self.current_gradient_accumulation_steps if mode == "train" else 1
        global_tokens = inputs["num_items_in_batch"].clamp(min=1.0) / self.accelerator.num_processes
        if mode == "train":
            global_tokens = global_tokens * accumulation / self.args.steps_per_generation
        if self.loss_type in ("dapo", "cispo", "vespo"):
            accumulation = 1
        weight = token_weight(
            self.loss_type, mask, max_completion_length=self.max_completion_length, global_tokens=global_tokens
        )

        terms = self._policy_term(inputs, logps, old_logps, entropies, mask, weight, mode)
        if self.args.mirror_beta != 0.0:
            old_logps = bounded_anchor(old_logps, logps)
            anchor_logps = inputs.get("mirror_per_token_logps")
            anchor_logps = old_logps if anchor_logps is None else bounded_anchor(anchor_logps, logps)
            per_token_kl = torch.where(mask.bool(), reverse_kl(logps, anchor_logps, old_logps), 0.0)
            terms = terms + self.args.mirror_beta * (per_token_kl * weight).sum()
            totals = torch.stack([per_token_kl.detach().sum(), mask.sum().float()])
            totals = self.accelerator.reduce(totals, reduction="sum")
            self._metrics[mode]["mirror_kl"].append((totals[0] / totals[1].clamp(min=1.0)).item())
        if self._entropy_bonus_enabled:
            self._metrics[mode]["policy_loss"][-1] += self.accelerator.gather(terms.detach()).nanmean().item()
        return terms / accumulation

    def _policy_term(
        self,
        inputs: dict[str, Any],
        logps: torch.Tensor,
        old_logps: torch.Tensor,
        entropies: torch.Tensor,
        mask: torch.Tensor,
        weight: torch.Tensor,
        mode: str,
    ) -> torch.Tensor:
        """The policy term where it is not the parent's, else zero; logs how far the trajectories have drifted."""
        advantages = inputs["advantages"]
        log_weights = trajectory_log_weight(logps, old_logps, mask)
        has_tokens = mask.any(dim=1)
        shares: dict[str, torch.Tensor] = {}
        loss = logps.new_zeros(())
        if self._owns_policy_term:
            # These would report on the parent's emptied policy term.
            for name in [name for name in self._metrics[mode] if name.startswith(("clip_ratio", "cispo", "vespo"))]:
                del self._metrics[mode][name]

            # What the parent multiplies its own policy term with, per sequence or per token.
            factor = inputs.get("importance_sampling_ratio", torch.ones_like(logps[:, :1]))
            if self.off_policy_mask_threshold is not None:
                factor = factor * self.get_off_policy_mask(
                    advantages=advantages.unsqueeze(1),
                    per_token_logps=logps,
                    sampling_per_token_logps=inputs.get("sampling_per_token_logps", old_logps),
                    mask=mask,
                    off_policy_threshold=self.off_policy_mask_threshold,
                )
            if self.args.importance_sampling_level == "trajectory":
                per_sequence_loss, clipped = trajectory_policy_loss(
                    log_weights,
                    advantages,
                    clip=self.args.trajectory_clip,
                    epsilon_low=self.epsilon_low,
                    epsilon_high=self.epsilon_high,
                )
                shares = {
                    "clipped_positive": clipped & (advantages > 0),
                    "clipped_negative": clipped & (advantages < 0),
                }
                loss = (torch.where(has_tokens, per_sequence_loss * factor.squeeze(1), 0.0) * weight).sum()
            else:
                per_token_loss = score_policy_loss(logps, advantages.unsqueeze(1)) * factor
                if self.top_entropy_quantile < 1.0:
                    per_token_loss = per_token_loss * self.get_high_entropy_mask(
                        entropies, mask, 1 - self.top_entropy_quantile
                    )
                loss = (torch.where(mask.bool(), per_token_loss, 0.0) * weight).sum()

        # The frozen gradient is taken where the weights are 1 by construction, whatever the live policy has become.
        if "old_per_token_logps" in inputs and self._frozen_policy is None:
            self._log_trajectories(log_weights.detach(), shares, has_tokens, mode)
        return loss

    def _log_trajectories(
        self, log_weights: torch.Tensor, shares: dict[str, torch.Tensor], counted: torch.Tensor, mode: str
    ) -> None:
        columns = self.accelerator.gather(torch.stack([log_weights, counted, *shares.values()], dim=1))
        log_weights, _, *gathered = columns[columns[:, 1] > 0].unbind(dim=1)
        if log_weights.numel() == 0:
            return
        statistics = {
            "log_weight_std": log_weights.std(correction=0),
            "ess": effective_sample_size(log_weights),
            **{name: column.mean() for name, column in zip(shares, gathered, strict=True)},
        }
        for name, value in statistics.items():
            self._metrics[mode][f"trajectory/{name}"].append(value.item())


def _check_parent(args: GRPOVariantConfig) -> None:
    parent = GRPOVariantTrainer.__bases__[0]
    if (parent.__module__, parent.__name__) != ("trl.trainer.grpo_trainer", "GRPOTrainer"):
        raise RuntimeError(
            f"GRPOVariantTrainer builds on TRL's own GRPOTrainer, but `trl.GRPOTrainer` is "
            f"{parent.__module__}.{parent.__qualname__}, whose loss would run instead of the variant's. Import "
            "trl_grpo_variants before the package that replaces it, or do without that package."
        )
    missing = [name for name in _OVERRIDDEN if not hasattr(parent, name)]
    if missing:
        raise RuntimeError(
            f"TRL {trl_version} has no GRPOTrainer.{', '.join(missing)}, which the variants build on; install a "
            "version in the range that trl_grpo_variants declares."
        )
    if args.use_liger_kernel and not args.is_stock and Version(trl_version) < Version("1.14"):
        raise NotImplementedError(
            f"`use_liger_kernel=True` bypasses the loss that variants extend in TRL {trl_version}; use TRL 1.14 or "
            "newer, or leave it off."
        )


def _check_backend(args: GRPOVariantConfig, moves_adapter: bool) -> None:
    users = {
        "no_is_gradient='frozen'": args.no_is_gradient == "frozen",
        f"mirror_sync_steps={args.mirror_sync_steps}": args.mirror_sync_steps is not None,
        "sync_ref_model=True with PEFT": moves_adapter,
    }
    needs_snapshot = [name for name, uses in users.items() if uses]
    backend = (
        "DeepSpeed"
        if args.deepspeed_plugin is not None
        else "FSDP"
        if args.fsdp or parse_flag_from_env("ACCELERATE_USE_FSDP")
        else None
    )
    if needs_snapshot and backend is not None:
        raise NotImplementedError(
            f"`{needs_snapshot[0]}` keeps a copy of the trainable parameters, which {backend} shards; use one process "
            "or DDP."
        )
