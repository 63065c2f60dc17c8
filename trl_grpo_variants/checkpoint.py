# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What the next step needs that TRL's checkpoint lacks: the rollout in progress and the policy snapshots."""

import hashlib
import json
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from accelerate.utils import gather_object, send_to_device
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from .objective.choice import AXES


if TYPE_CHECKING:
    from .config import GRPOVariantConfig


FORMAT = "trl_grpo_variants rollout 2"
# The part that all processes have in common.
SHARED = "shared"
_WEIGHTS = ("model*.safetensors", "adapter_model*", "pytorch_model*", "global_step*")

_VLLM_CORRECTION = tuple(f"vllm_importance_sampling_{name}" for name in ("mode", "clip_max", "clip_min"))
_ADAPTIVE_ENTROPY = tuple(f"entropy_{name}" for name in ("coef_min", "coef_max", "coef_delta", "target"))


class CheckpointError(RuntimeError):
    """A checkpoint could not be saved by one of the processes."""


def agree(problem: str | None, error: type[Exception]) -> None:
    """Let all processes raise an error where one has a problem, the first one. To be called by all of them."""
    problems = [found for found in gather_object([problem]) if found is not None]
    if problems:
        raise error(problems[0])


def state_path(checkpoint: str | os.PathLike, part: int | str) -> Path:
    """Path of one part of the state within a checkpoint: that of a process, by its rank, or `SHARED`."""
    return Path(checkpoint) / f"rollout_state_{part}.pt"


def clear(checkpoint: Path) -> None:
    """Take from a folder what would make it, while it is written a second time, look like a whole checkpoint."""
    for path in [checkpoint / TRAINER_STATE_NAME, *checkpoint.glob("rollout_state_*")]:
        path.unlink(missing_ok=True)


def save_state(state: dict[str, Any], schedule: dict[str, int], objective: dict[str, Any], path: Path) -> None:
    """
    Write a state (tensors, numbers and strings, nested) in one step: a reader finds all of it or nothing.

    Beside it are the settings under which it means something and those that the run minimises, see [`objective_of`].
    """
    content = send_to_device({"schedule": schedule, "objective": objective, "state": state}, "cpu")
    partial = path.with_suffix(".partial")
    torch.save({"format": FORMAT, "digest": _digest(content), "content": content}, partial)
    os.replace(partial, path)


def load_state(path: Path, schedule: dict[str, int]) -> dict[str, Any] | None:
    """
    Read `"state"` and `"objective"` for a run of this schedule, on the CPU; `None` where the checkpoint holds no
    state.

    Nothing in the file is executed. Raises a `ValueError` if it is truncated or changed, is no such state, or belongs
    to other settings.
    """
    if not path.exists():
        if any(path.parent.glob("rollout_state_*.pt")):
            raise ValueError(
                f"The checkpoint {path.parent} was saved by fewer processes or has lost a file: there is no "
                f"{path.name}. Resume with as many processes as it was saved with, or from another checkpoint."
            )
        return None
    saved = _read(path)
    if saved["format"] != FORMAT:
        raise ValueError(
            f"{path} has the format {saved['format']!r} of another version of trl_grpo_variants, but {FORMAT!r} is "
            "needed. Resume with the version that it was saved with."
        )
    content: Any = saved.get("content")
    if saved.get("digest") != _digest(content):
        raise ValueError(
            f"{path} is not as it was saved: something in it has been changed, lost or added. Resume from another "
            "checkpoint."
        )
    changed = _differences(content["schedule"], schedule)
    if changed:
        raise ValueError(
            f"The checkpoint {path.parent} was saved under other settings, with which its rollout cannot be continued: "
            f"{changed}. Resume with the settings that it was saved with."
        )
    return content


def objective_of(args: "GRPOVariantConfig", rewards: list[tuple[str, float]]) -> dict[str, Any]:
    """What a run minimises: the resolved settings that its loss and its advantages are made of, as far as they act."""
    parts = [part for part in map(args.parts.on, AXES) if part is not None]
    read = {name for part in parts for name in part.reads(vars(args))}
    named = [axis for axis in AXES if getattr(args, axis) is not None]
    acting: dict[tuple[str, ...], bool] = {
        ("importance_sampling_level", "loss_type", "beta", "mirror_beta", "off_policy_mask_threshold"): True,
        ("scale_rewards", "mask_zero_variance_groups", "group_preserving_split"): True,
        ("multi_objective_aggregation", "mask_truncated_completions", "temperature", "router_aux_loss_coef"): True,
        ("top_entropy_quantile", "entropy_coef", "use_adaptive_entropy"): True,
        tuple(name for name in read if hasattr(args, name)): True,
        (*named, *(f"{name}_kwargs" for name in named)): True,
        ("length_weight_power",): args.length_weight_power != 0.0,
        ("kl_estimator",): args.kl_estimator != "k3",
        ("kl_placement",): args.kl_placement != "loss",
        ("prompt_sampling", "prompt_weights"): args.prompt_sampling != "uniform",
        ("refill_groups", "surplus_groups"): args.refill_groups is not None,
        ("prefetch_rollout",): args.prefetch_rollout,
        ("mirror_sync_steps",): args.mirror_beta != 0.0,
        ("use_bias_correction_kl", "sync_ref_model"): args.beta != 0.0,
        ("ref_model_mixup_alpha", "ref_model_sync_steps"): args.sync_ref_model,
        # It divides the loss.
        ("max_completion_length",): args.loss_type == "dr_grpo",
        ("sapo_temperature_neg", "sapo_temperature_pos"): args.loss_type == "sapo",
        ("vespo_k_pos", "vespo_lambda_pos", "vespo_k_neg", "vespo_lambda_neg"): args.loss_type == "vespo",
        _ADAPTIVE_ENTROPY: args.use_adaptive_entropy,
        _VLLM_CORRECTION: args.use_vllm and args.vllm_importance_sampling_correction,
    }
    values = {name: getattr(args, name, None) for names, acts in acting.items() if acts for name in names}
    if "epsilon_high" in values and values["epsilon_high"] is None:
        values["epsilon_high"] = args.epsilon
    return values | {"rewards": rewards}


def objective_changes(checkpoint: str | os.PathLike, saved: dict[str, Any], current: dict[str, Any]) -> str | None:
    """Name, in a sentence, each difference between the objective of a checkpoint and that of the run that resumes."""
    changed = _differences(saved, current)
    return changed and f"The checkpoint {checkpoint} was saved under another objective: {changed}."


def choose_checkpoint(
    asked: Literal[True] | str, output_dir: str | os.PathLike, *, holds_all_states: bool
) -> tuple[bool | str | None, str | None, str | None]:
    """
    Choose the checkpoint to resume from among whole ones: the folder that is asked for, or, with `True`, the newest.

    A checkpoint is whole once its `trainer_state.json` is: that file is written last, after all processes have saved.
    `holds_all_states` says whether the states of all of them are in the folder, and not on other machines.

    Returns what to resume from, `None` standing for the beginning; a warning where something was passed over; and an
    error where the folder that was asked for is not whole.
    """
    if asked is True:
        passed_over: list[str] = []
        for checkpoint in _checkpoints(output_dir):
            flaw = _flaw(checkpoint, holds_all_states)
            if flaw is None:
                return str(checkpoint), _passed_over(passed_over, f"the run resumes from {checkpoint}"), None
            passed_over.append(f"{checkpoint.name} ({flaw})")
        if not passed_over:
            return True, None, None
        return None, _passed_over(passed_over, "the run starts from the beginning"), None
    checkpoint = Path(asked)
    flaw = _flaw(checkpoint, holds_all_states) if checkpoint.is_dir() else None
    if flaw is None:
        return asked, None, None
    others = (other for other in _checkpoints(checkpoint.parent) if _flaw(other, holds_all_states) is None)
    newest = next(others, None)
    remedy = "Start from the beginning" if newest is None else f"Resume from {newest}, the newest whole one"
    return asked, None, f"The checkpoint {checkpoint} is incomplete: {flaw}. {remedy}."


def _checkpoints(output_dir: str | os.PathLike) -> list[Path]:
    """Checkpoints in an output folder, the newest first."""
    numbered = {
        int(match[1]): path
        for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if path.is_dir() and (match := re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)", path.name))
    }
    return [numbered[step] for step in sorted(numbered, reverse=True)]


def _passed_over(names: list[str], instead: str) -> str | None:
    return f"Passed over what was not saved to the end: {', '.join(names)}; {instead}." if names else None


def _flaw(checkpoint: Path, holds_all_states: bool) -> str | None:
    """What a checkpoint lacks."""
    try:
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"there is no {TRAINER_STATE_NAME}, or it is truncated"
    if not any(path for pattern in _WEIGHTS for path in checkpoint.rglob(pattern)):
        return "there are no weights"
    states = sorted(checkpoint.glob("rollout_state_*.pt"))
    try:
        saved = [_read(path, mmap=True) for path in states]
    except ValueError as error:
        return str(error).removesuffix(".")
    if saved and holds_all_states:
        # One that has been changed is refused when it is loaded.
        with suppress(KeyError, TypeError):
            for rank in range(saved[0]["content"]["schedule"]["num_processes"]):
                if not state_path(checkpoint, rank).exists():
                    return f"there is no {state_path(checkpoint, rank).name}"
    return None


def _read(path: Path, mmap: bool = False) -> dict[str, Any]:
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
        if isinstance(saved["format"], str):
            return saved
        cause = None
    except Exception as error:  # a file that is not ours makes the reader raise almost anything
        cause = error
    raise ValueError(f"{path} cannot be read: it is truncated or not the state of a rollout.") from cause


def _differences(saved: dict[str, Any], current: dict[str, Any]) -> str | None:
    differing = []
    for name in {**saved, **current}:
        if name not in saved or name not in current or saved[name] != current[name]:
            was, now = (repr(values[name]) if name in values else "unused" for values in (saved, current))
            differing.append(f"{name} was {was} and is {now}")
    return ", ".join(differing) or None


def _digest(content: Any) -> str:
    """Fingerprint of nested dicts and lists of tensors and plain values."""
    digest = hashlib.sha256()
    for piece in _pieces(content):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(content: Any) -> Iterable[Any]:
    if isinstance(content, torch.Tensor):
        yield f"{content.dtype}{tuple(content.shape)}".encode()
        yield content.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    elif isinstance(content, dict):
        yield f"dict{len(content)}".encode()
        for key, value in content.items():
            yield repr(key).encode()
            yield from _pieces(value)
    elif isinstance(content, (list, tuple)):
        yield f"list{len(content)}".encode()
        for value in content:
            yield from _pieces(value)
    else:
        yield repr(content).encode()
