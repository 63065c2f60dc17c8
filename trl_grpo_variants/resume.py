# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""A run that is stopped, wherever that is, goes on from its checkpoint as if it had never been."""

import functools
import json
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate.logging import get_logger
from accelerate.utils import broadcast_object_list, send_to_device
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl.trainer.utils import RepeatSampler

from .checkpoint import (
    SHARED,
    CheckpointError,
    agree,
    choose_checkpoint,
    clear,
    load_state,
    objective_changes,
    objective_of,
    save_state,
    state_path,
)
from .compat import sharding_backend
from .config import GRPOVariantConfig
from .metrics import RunningMeans
from .monitor.callback import SuccessMonitor
from .rollout import start_epoch
from .snapshot import Anchors
from .vllm.prefetch import PrefetchedRollout


logger = get_logger(__name__)


class _StepBegin(NamedTuple):
    """Where an optimizer step began, to which a run that stops within it goes back."""

    step: int
    progress: dict[str, Any]


class _UnloggedLoss(NamedTuple):
    """The sum of a run's losses since its last log, and the step of that."""

    total: torch.Tensor
    logged_at: int


class ExactResume(PrefetchedRollout):
    """
    Trainer whose checkpoints hold all that the next step depends on.

    TRL's hold the policy, the optimizer and the random states; a rollout outlives a step, and so do earlier policies and
    what is known of the prompts.
    Only whole checkpoints are resumed from, and errors that have left the weights as they were end a run with one.
    """

    args: GRPOVariantConfig
    _buffered_inputs: Any
    _anchors: Anchors
    _means: RunningMeans
    _monitor: SuccessMonitor | None

    # Errors that end a run with a checkpoint.
    _interruptions: tuple[type[Exception], ...] = ()

    # The optimizer step in progress.
    _step_begin: _StepBegin | None = None
    # Of the run that is resumed, until the first step.
    _unlogged_loss: _UnloggedLoss | None = None
    # Folder of the checkpoint, if one has been saved since the last step.
    _saved_to: Path | None = None

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        self._step_begin = self._saved_to = self._unlogged_loss = None
        self._means.start_run()
        if resume_from_checkpoint and self.args.extends_trl:
            resume_from_checkpoint = self._whole_checkpoint(resume_from_checkpoint)
        try:
            return super().train(resume_from_checkpoint, *args, **kwargs)
        except self._interruptions as error:
            if self.args.save_only_model:
                raise
            try:
                end = f"The run is saved: `resume_from_checkpoint={self._save_interrupted()!r}`."
            except Exception as saving:
                # What stopped the run may be in the way of that too, and is what has to be told.
                end = f"The run could not be saved either ({type(saving).__name__}: {saving})."
            raise type(error)(f"{error} {end}") from error

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        sampler = super()._get_train_sampler(*args, **kwargs)
        # The dataloader tells a sampler the epoch if it can; TRL's then orders it as if it had gone through those before.
        if self.args.extends_trl and isinstance(sampler, RepeatSampler):
            sampler.set_epoch = functools.partial(start_epoch, sampler)
        return sampler

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        # The parent looks whether it is done after a step, so a finished run that resumes would take one more.
        if self.args.extends_trl and self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return [], None
        return super().get_batch_samples(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        if self._unlogged_loss is not None:
            # Where the parent begins to count anew, what was not logged before the checkpoint would be lost.
            self._tr_loss += self._unlogged_loss.total.to(self._tr_loss.device)
            self._globalstep_last_logged = self._unlogged_loss.logged_at
            self._unlogged_loss = None
        if self._step_begin is None or self._step_begin.step != self.state.global_step:
            self._step_begin = _StepBegin(self.state.global_step, self._progress())
        return super().training_step(*args, **kwargs)

    def _whole_checkpoint(self, asked: Any) -> str | bool | None:
        """What to resume from, the same in all processes."""
        chosen: list[Any] = [None, None, None]
        if self.accelerator.is_main_process:
            holds_all_states = not self.args.save_on_each_node
            chosen = list(choose_checkpoint(asked, self.args.output_dir, holds_all_states=holds_all_states))
        checkpoint, warning, error = broadcast_object_list(chosen)
        if error is not None:
            raise ValueError(error)
        if warning is not None:
            logger.warning(warning)
        return checkpoint

    def _save_interrupted(self) -> str:
        """Save a run that stopped within a step, and return the checkpoint's folder."""
        folder = self._checkpoint_folder()
        # One that has been saved after the last step is not risked by writing it again.
        if self._saved_to != folder:
            # The weights are those after `global_step` optimizer steps. Gradients that have been accumulated since are
            # lost, and the step begins anew at its first micro-batch; a failed evaluation lies between two steps.
            if self._step_begin is not None and self._step_begin.step == self.state.global_step:
                self._restore_progress(self._step_begin.progress)
                self._tr_loss = self._step_begin.progress["loss"][0]
            self._save_checkpoint(self.model, None)
        return str(folder)

    def _checkpoint_folder(self, trial: Any = None) -> Path:
        return Path(self._get_output_dir(trial=trial)) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = self._checkpoint_folder(trial)
        self._saved_to = None
        try:
            if self.args.should_save:
                clear(folder)
            if self.args.extends_trl:
                agree(None, CheckpointError)
            super()._save_checkpoint(model, trial)
        except CheckpointError:
            raise
        except Exception as error:
            # Where the parent's own saving waits for all processes, the others are not there to be told.
            if self.args.extends_trl and sharding_backend(self.args) is None and not self.state.best_global_step:
                with suppress(CheckpointError):
                    agree(f"The checkpoint {folder} could not be saved by another process: {error}", CheckpointError)
            raise
        if self.args.extends_trl:
            agree(None, CheckpointError)
        self._saved_to = folder

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if self.args.extends_trl:
            self._save_state(output_dir)
            # Only now may the last file of the checkpoint follow, which tells that it is whole.
            agree(None, CheckpointError)

    def _save_state(self, folder: str) -> None:
        anchors: dict[bool, dict[str, Any]] = {True: {}, False: {}}
        for name, anchor in self._anchors.named().items():
            anchors[anchor.is_sharded][name] = anchor.state_dict()
        about = self._schedule(), self._objective()
        if anchors[False] and self.args.should_save:
            save_state({"anchors": anchors[False]}, *about, state_path(folder, SHARED))
        state = self._progress() | self._anchors.state_dict()
        state |= {"entropy": [self.entropy_coef, self._last_world_entropy]}
        state |= {"anchors": anchors[True], "has_shared": bool(anchors[False])}
        save_state(state, *about, state_path(folder, self.accelerator.process_index))

    def _progress(self) -> dict[str, Any]:
        """Where a run is within a rollout and between two logs."""
        unlogged = self._unlogged_loss
        # Outside of `train` the parent counts no loss.
        if unlogged is None and hasattr(self, "_tr_loss"):
            unlogged = _UnloggedLoss(self._tr_loss.clone(), self._globalstep_last_logged)
        between_rollouts = self._step % (self.args.steps_per_generation * self.num_iterations) == 0
        return {
            "step": self._step,
            "micro_batches": None if between_rollouts else self._buffered_inputs,
            "metrics": {name: list(values) for name, values in self._metrics["train"].items()},
            "means": self._means.state_dict(),
            "loss": unlogged and tuple(unlogged),
            "prompts": self._state_of_prompts(),
        }

    def _restore_progress(self, progress: dict[str, Any]) -> None:
        self._step, self._buffered_inputs = progress["step"], progress["micro_batches"]
        self._metrics["train"].clear()
        self._metrics["train"].update(progress["metrics"])
        self._means.load_state_dict(progress["means"])
        # Not in what a version before these has saved.
        self._restore_prompts(progress.get("prompts"))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        # Of the parent's last file, if the run was killed while it was written: the state has what that would have held.
        with suppress(json.JSONDecodeError):
            super()._load_optimizer_and_scheduler(checkpoint)
        if self._monitor is not None:
            self._monitor.checkpoint = checkpoint
        if checkpoint is None:
            return
        saved, anchors, changes = self._read_state(checkpoint)
        if saved is None:
            if self.args.extends_trl:
                logger.warning(
                    f"The checkpoint {checkpoint} holds no state of a GRPO variant: the rollout in progress is generated "
                    "anew and earlier policies start from the resumed one, so the run will not be the one that it "
                    "continues."
                )
            return
        if changes is not None:
            logger.warning(f"{changes} The rollout in progress is generated anew.")
            saved["micro_batches"] = None
            saved["prompts"] = saved.get("prompts") and saved["prompts"] | {"kept": None}
        self._restore_progress(send_to_device(saved, self.accelerator.device))
        self._unlogged_loss = saved["loss"] and _UnloggedLoss(*saved["loss"])
        if self.use_adaptive_entropy:
            self.entropy_coef, self._last_world_entropy = saved["entropy"]
        self._anchors.load_state_dict(saved)
        problem = None
        for name, anchor in self._anchors.named().items():
            try:
                if name in anchors or changes is None:
                    anchor.load_state_dict(anchors.get(name, {}))
            except ValueError as error:
                problem = str(error)
        agree(problem, ValueError)

    def _read_state(self, checkpoint: str) -> tuple[dict[str, Any] | None, dict[str, Any], str | None]:
        """State of this process, all anchors, and what has changed in the objective since, if that is allowed."""
        saved, anchors, changes, problem = None, {}, None, None
        try:
            content = load_state(state_path(checkpoint, self.accelerator.process_index), self._schedule())
            if content is not None:
                saved = content["state"]
                anchors = saved.pop("anchors")
                changes = objective_changes(checkpoint, content["objective"], self._objective())
            if saved is not None and saved["has_shared"]:
                shared = load_state(state_path(checkpoint, SHARED), self._schedule())
                anchors |= shared["state"]["anchors"] if shared is not None else {}
        except ValueError as error:
            problem = str(error)
        if problem is None and changes is not None and not self.args.allow_objective_change:
            problem = f"{changes} Resume with the objective that it was saved under, or set `allow_objective_change`."
        agree(problem, ValueError)
        return saved, anchors, changes

    def _objective(self) -> dict[str, Any]:
        return objective_of(self.args, list(zip(self.reward_func_names, self.reward_weights.tolist(), strict=True)))

    def _schedule(self) -> dict[str, int]:
        return {
            "num_processes": self.accelerator.num_processes,
            "per_device_train_batch_size": self.args.per_device_train_batch_size,
            "gradient_accumulation_steps": self.args.gradient_accumulation_steps,
            "steps_per_generation": self.args.steps_per_generation,
            "num_iterations": self.num_iterations,
            "num_generations": self.num_generations,
        }
