# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The rewards of a rollout: those that TRL made advantages of, and what becomes of a reward function that raises."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from trl.trainer import grpo_trainer

from .replaced import replaced


class RewardFunctionError(RuntimeError):
    """A reward function has raised in one of several processes, and all of them stop."""


@contextmanager
def kept_rewards(trainer: Any) -> Iterator[list[torch.Tensor]]:
    """
    Keep the rewards `(N, F)` of the rollouts within the context, of which TRL returns the advantages only.

    What the trainer calls for its rewards may be a method that a subclass overrides or a function that the user has
    set on the instance, so that no class stands around all of them: it is replaced for the time of the rollout.
    """
    kept: list[torch.Tensor] = []
    calculate = trainer._calculate_rewards

    def keep(*args: Any, **kwargs: Any) -> torch.Tensor:
        kept.append(calculate(*args, **kwargs))
        return kept[-1]

    with replaced(trainer, _calculate_rewards=keep):
        yield kept


def rewards_or_failure(
    calculate: Callable[[], torch.Tensor], size: tuple[int, int], accelerator: Accelerator
) -> torch.Tensor:
    """
    Calculate rewards `(N, F)` in all processes, or raise in all of them.

    A process whose reward function raises would leave the others waiting for its rewards for ever. The last act of
    `calculate` is to gather them, and nothing that it does before involves another process; `size` is the number of
    this process's rows and of reward functions. Alone, a process raises the function's own exception.
    """
    if accelerator.num_processes == 1:
        return calculate()
    failure = None
    try:
        rewards = calculate()
    except Exception as error:
        failure = error
        # What the other processes are waiting for.
        rewards = accelerator.gather(torch.full(size, torch.nan, device=accelerator.device))
    sentences = gather_object([None if failure is None else _sentence(failure)])
    failed = [process for process, sentence in enumerate(sentences) if sentence is not None]
    if failed:
        processes = f"process{'es' if len(failed) > 1 else ''} {', '.join(map(str, failed))}"
        raise RewardFunctionError(
            f"A reward function failed on {processes} of {accelerator.num_processes}: {sentences[failed[0]]}"
        ) from failure
    return rewards


def _sentence(error: Exception) -> str:
    """An error and the place where TRL's code was left for the user's."""
    frames = traceback.extract_tb(error.__traceback__)
    last = max(i for i, frame in enumerate(frames) if frame.filename in (grpo_trainer.__file__, __file__))
    place = frames[min(last + 1, len(frames) - 1)]
    return f"{type(error).__name__}: {error} (in `{place.name}`, {Path(place.filename).name}, line {place.lineno})."
