# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What a push to the Hub uploads: the model and its card, and nothing else."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from functools import wraps
from glob import escape
from pathlib import Path
from typing import Any

import transformers.trainer
from transformers import TrainingArguments
from trl import GRPOTrainer

from .card.from_trainer import FIGURE_NAME, trainer_card
from .config import GRPOVariantConfig
from .monitor.callback import SuccessMonitor
from .replaced import replaced


_MODEL_FILES = (
    "README.md",
    FIGURE_NAME,
    "adapter_config.json",
    "adapter_model.safetensors",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-?????-of-?????.safetensors",
)
# What a checkpoint holds and the Hub must not: rollouts and earlier policies, a pickle of the arguments with paths of
# the machine, the reference adapter of TRL, and the draft of a card that PEFT writes.
_PRIVATE_FILES = ("rollout_state_*", "training_args.bin", "ref/*", "README.md", "completions/*")


def public_files(folder: str | os.PathLike, processing_class: Any = None, *, has_own_code: bool = False) -> list[str]:
    """
    Files of an output folder that make up a model, relative to it: what is not known to belong to one is left out.

    Those of the tokenizer or processor count, and Python modules if the model has its own code.
    """
    expected = {*_MODEL_FILES, *(["*.py"] if has_own_code else [])}
    own: set[str] = set()
    if processing_class is not None:
        # Which files it has depends on its kind; asking it is exact.
        with tempfile.TemporaryDirectory() as empty:
            processing_class.save_pretrained(empty)
            own = {path.relative_to(empty).as_posix() for path in Path(empty).rglob("*") if path.is_file()}
    folder = Path(folder)
    top = [path.name for path in folder.iterdir() if path.is_file()]
    found = {name for name in top if any(fnmatch(name, pattern) for pattern in expected)}
    return sorted(found | {name for name in own if (folder / name).is_file()})


@contextmanager
def without_token(args: TrainingArguments) -> Iterator[str | None]:
    """Within the context, which yields the token, arguments that are saved hold none."""
    token = args.hub_token
    with replaced(args, hub_token=None):
        yield token


@contextmanager
def publishing(trainer: Any) -> Iterator[None]:
    """
    Within the context, pushes of `transformers`' trainer upload the model and its card and nothing else.

    Of a run that is stock TRL the same files are uploaded as without this package, but for the token in them. Raises a
    `RuntimeError` if this version of `transformers` uploads in a way that is not known.
    """
    args = trainer.args

    def selected(upload: Callable) -> Callable:
        @wraps(upload)
        def select_and_upload(**options: Any) -> Any:
            options["token"] = options.get("token") or token
            if not args.extends_trl:
                return upload(**options)
            if options.get("path_in_repo") is None:
                own_code = getattr(getattr(trainer.model, "config", None), "auto_map", None) is not None
                names = public_files(options["folder_path"], trainer.processing_class, has_own_code=own_code)
                return upload(**options | {"allow_patterns": [escape(name) for name in names]})
            # A checkpoint is asked for by its `hub_strategy`, to resume from: it keeps its optimizer and states.
            ignored = [*(options.get("ignore_patterns") or []), *_PRIVATE_FILES]
            return upload(**options | {"ignore_patterns": ignored})

        return select_and_upload

    def authorised(create: Callable) -> Callable:
        @wraps(create)
        def create_with_token(*positional: Any, **options: Any) -> Any:
            return create(*positional, **options | {"token": options.get("token") or token})

        return create_with_token

    # The client that all of `transformers` shares, or, in older versions, the module that the functions were imported to.
    module: Any = transformers.trainer
    client = module.hf_api() if hasattr(module, "hf_api") else module
    with without_token(args) as token:
        if not (hasattr(client, "upload_folder") and hasattr(client, "create_repo")):
            raise RuntimeError(
                f"transformers {transformers.__version__} uploads in a way that this package does not know, so it "
                "cannot keep private files from the Hub. Use another version, or upload the folder yourself."
            )
        upload, create = selected(client.upload_folder), authorised(client.create_repo)
        with replaced(client, upload_folder=upload, create_repo=create):
            yield


class PublishedRun(GRPOTrainer):
    """
    Trainer that describes a run in its model card, and pushes the model and the card and nothing else.

    A stock run keeps TRL's card; its uploads differ only in that no file holds the token.
    """

    args: GRPOVariantConfig
    _monitor: SuccessMonitor | None

    def create_model_card(
        self,
        model_name: str | None = None,
        dataset_name: str | None = None,
        tags: str | list[str] | None = None,
    ) -> None:
        if not self.args.extends_trl:
            super().create_model_card(model_name, dataset_name, tags)
        elif self.is_world_process_zero():
            if self._monitor is not None:
                self._monitor.draw(Path(self.args.output_dir) / FIGURE_NAME)
            trainer_card(self, model_name, dataset_name, tags).save(Path(self.args.output_dir) / "README.md")

    def push_to_hub(self, *args: Any, **kwargs: Any) -> Any:
        with publishing(self):
            return super().push_to_hub(*args, **kwargs)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        with publishing(self):
            super()._push_from_checkpoint(checkpoint_folder)

    def _save(self, *args: Any, **kwargs: Any) -> None:
        with without_token(self.args):
            super()._save(*args, **kwargs)
