# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What trackers of experiments are told of a run beside its metrics and arguments, and what the run keeps of them."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.integrations import TensorBoardCallback

from .objective.formula import objective_text
from .runs.trackers import Tracker, write_trackers


def open_trackers() -> Iterator[Tracker]:
    """Trackers, other than TensorBoard, to which this process sends a run."""
    from trl.trainer.utils import get_comet_experiment_url, get_trackio_space_url

    # None has a run unless its module has been imported.
    wandb, trackio = sys.modules.get("wandb"), sys.modules.get("trackio")
    if trackio is not None and trackio.context_vars.current_run.get() is not None:
        yield Tracker("Trackio", trackio.context_vars.current_project.get(), get_trackio_space_url())
    if (comet := get_comet_experiment_url()) is not None:
        yield Tracker("Comet", address=comet)
    if wandb is not None and wandb.run is not None:
        yield Tracker("Weights & Biases", wandb.run.project, wandb.run.url)


class TrackedObjective(TrainerCallback):
    """
    A [`~transformers.TrainerCallback`] that adds what is minimised, as a formula, to the configuration that Trackio and
    Weights & Biases hold of a run and to the texts of TensorBoard, under `objective`; and keeps where the run is sent to.

    Args:
        handler ([`~transformers.trainer_callback.CallbackHandler`]):
            The trainer's, in which the trackers come before this callback.
    """

    def __init__(self, handler: Any) -> None:
        self._handler = handler

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        text = objective_text(args.parts, vars(args))
        trackers = list(open_trackers())
        modules = {"Trackio": "trackio", "Weights & Biases": "wandb"}
        for name in {tracker.name for tracker in trackers} & modules.keys():
            sys.modules[modules[name]].config.update({"objective": text}, allow_val_change=True)
        for callback in self._handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
                callback.tb_writer.add_text("objective", text)
                # tensorboardX, which transformers takes too, names the attribute itself otherwise.
                trackers.append(Tracker("TensorBoard", str(callback.tb_writer.file_writer.get_logdir())))
        write_trackers(Path(args.output_dir), trackers)
