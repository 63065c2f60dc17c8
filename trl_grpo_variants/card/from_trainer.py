# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The card of what a trainer has trained: where a trainer holds the facts."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from accelerate.utils import is_peft_model
from huggingface_hub import ModelCard
from transformers import PreTrainedTokenizerBase

from ..runs.effort import price
from ..runs.folder import Run, TrainerState
from ..runs.success import success_rows
from ..tracking import open_trackers
from .rendering import Subject, as_list, model_card


# Drawn by whoever has something to draw; in the output folder, it is shown on the card and uploaded.
FIGURE_NAME = "success.png"


def trainer_card(
    trainer: Any,
    model_name: str | None = None,
    dataset_name: str | None = None,
    tags: str | Iterable[str] | None = None,
) -> ModelCard:
    """
    The card, with its metadata, of what a trainer has trained; before, during or after training.

    The name of the model is that of the output folder unless another is given.
    """
    from trl.trainer.utils import get_config_model_id

    args, state = trainer.args, trainer.state
    model = trainer.accelerator.unwrap_model(trainer.model)
    processing_class = trainer.processing_class
    is_text = isinstance(processing_class, PreTrainedTokenizerBase)
    quantization = getattr(model.config, "quantization_config", None)
    subject = Subject(
        name=model_name or Path(args.output_dir).absolute().name,
        base_model=get_config_model_id(model.config) or None,
        model_id=trainer.hub_model_id or args.hub_model_id,
        model_class="AutoModelForCausalLM" if is_text else "AutoModelForImageTextToText",
        has_chat_template=getattr(processing_class, "chat_template", None) is not None,
        peft_config=model.peft_config[model.active_adapter] if is_peft_model(model) else None,
        quantization=None if quantization is None else _quantization(quantization),
    )

    # The tags that TRL adds as well.
    further = [*as_list(tags), *trainer._tag_names]
    if hasattr(model.config, "unsloth_version"):
        further.append("unsloth")
    if "JOB_ID" in os.environ:
        further.append("hf_jobs")
    links = {tracker.name: tracker.address for tracker in open_trackers() if tracker.address is not None}
    if "Trackio" in links:
        further = [tag for tag in further if not tag.startswith("trackio:")] + [f"trackio:{links['Trackio']}"]

    return model_card(
        args,
        subject,
        datasets=dataset_name,
        tags=further,
        success=success_rows(state.log_history),
        price=price(Run(subject.name, logs=TrainerState(state.log_history))),
        steps=state.global_step,
        figure=FIGURE_NAME if (Path(args.output_dir) / FIGURE_NAME).is_file() else None,
        links=links.items(),
    )


def _quantization(config: Any) -> str:
    settings = config if isinstance(config, dict) else config.to_dict()
    if settings.get("load_in_4bit"):
        double = ", doubly quantised" if settings.get("bnb_4bit_use_double_quant") else ""
        return f"4 bits ({settings.get('bnb_4bit_quant_type')}{double})"
    if settings.get("load_in_8bit"):
        return "8 bits"
    return str(getattr(settings.get("quant_method"), "value", settings.get("quant_method")))
