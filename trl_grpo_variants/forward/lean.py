# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Forward passes of TRL's trainer that leave out what changes nothing, and that may be asked of an earlier policy."""

from typing import Any

import torch
from transformers import PreTrainedModel
from trl import GRPOTrainer
from trl.models.utils import disable_gradient_checkpointing

from ..compat import sharding_backend
from ..config import GRPOVariantConfig
from ..rollout import forward_inputs
from ..snapshot import PolicySnapshot
from .eligibility import are_exact, lines_for, trimmed_for


class LeanForward(GRPOTrainer):
    """Trainer whose forward passes are as short as its configuration asks for."""

    args: GRPOVariantConfig

    # Set while a loss is computed: its inputs, `"needed"` `(B,)` among them if rows can be left out.
    _loss_inputs: dict[str, Any] | None = None

    def _choose_forward(self) -> None:
        self._forward = trimmed_for(self.args, self.model.config, self.accelerator)
        self._untried_lines = lines_for(self.args, self.model, self._forward, self.accelerator.autocast)
        # A model that is sharded can compute when training begins.
        if sharding_backend(self.args) is None:
            self._try_lines()

    def _try_lines(self) -> None:
        """Score on lines from now on, if that is exact. To be called by all processes at once."""
        lines, self._untried_lines = self._untried_lines, None
        score = super()._get_per_token_logps_and_entropies
        if lines is not None and are_exact(lines, self.args, self.model, score, self.accelerator):
            self._forward = lines

    def _get_per_token_logps_and_entropies(
        self, model: PreTrainedModel | PolicySnapshot, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor | None]:
        if isinstance(model, PolicySnapshot):
            with model.swapped_in():
                # Not again through what has chosen that policy.
                return LeanForward._get_per_token_logps_and_entropies(self, self.model, *args, **kwargs)
        score = super()._get_per_token_logps_and_entropies
        if not self.args.trims_forward:
            return score(model, *args, **kwargs)
        needed = None if self._loss_inputs is None else self._loss_inputs.get("needed")
        return self._forward(score, model, *args, needed=needed, **kwargs)

    def _score(self, rollout: dict[str, Any], policy: PreTrainedModel | PolicySnapshot, mode: str) -> torch.Tensor:
        """Log-probs (B, T) of a rollout under a policy, without a gradient."""
        batch_size = self.args.per_device_train_batch_size if mode == "train" else self.args.per_device_eval_batch_size
        # As in the parent: without gradients, checkpointing would only warn.
        with torch.no_grad(), disable_gradient_checkpointing(self.model, self.args.gradient_checkpointing_kwargs):
            logps, *_ = self._get_per_token_logps_and_entropies(
                policy, batch_size=batch_size, **forward_inputs(rollout)
            )
        return logps
