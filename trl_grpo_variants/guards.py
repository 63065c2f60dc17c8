# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Stops a run at the first number that is not finite, before it reaches the weights and in all processes alike."""

from collections.abc import Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import DistributedType, gather_object
from torch import nn
from transformers import TrainerCallback

from .objective.terms import Domain
from .runs.prompts import identify
from .snapshot import local


logger = get_logger(__name__)


class NonFiniteError(FloatingPointError):
    """A loss, a gradient or a reward is infinite or not a number."""


class FiniteGuard(TrainerCallback):
    """
    Stops a run whose loss or gradient is not finite, in all processes.

    It looks once per optimizer step, when the gradient is complete and the step not taken yet, so that the weights are
    those of before. DeepSpeed takes the step within the backward pass: there it looks at each loss, and at no
    gradient. With a gradient scaler, under which gradients overflow as a matter of course, it looks at no gradient
    either.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        self._steps_in_backward = accelerator.distributed_type == DistributedType.DEEPSPEED
        self._loss: torch.Tensor | None = None

    def watch(self, loss: torch.Tensor, step: int) -> None:
        """
        Take note of this process's loss of a micro-batch before its backward pass.

        Where the step is taken within that pass, a loss of any process that is not finite raises a [`NonFiniteError`].
        """
        infinite = ~loss.detach().isfinite()
        self._loss = infinite if self._loss is None else self._loss | infinite
        if self._steps_in_backward:
            self._stop_if(self._loss, torch.zeros_like(infinite), step)

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._loss = None

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: nn.Module | None = None, **kwargs: Any
    ) -> None:
        if self._loss is None or self._steps_in_backward:
            return
        gradient = torch.zeros_like(self._loss)
        if model is not None and self._accelerator.scaler is None:
            gradient = gradient | has_nonfinite_gradient(model).to(gradient.device)
        self._stop_if(self._loss, gradient, state.global_step)

    def _stop_if(self, loss: torch.Tensor, gradient: torch.Tensor, step: int) -> None:
        found = self._accelerator.reduce(torch.stack([loss, gradient]).float(), reduction="sum").tolist()
        if any(found):
            raise NonFiniteError(
                f"The {'loss' if found[0] else 'gradient'} of optimizer step {step + 1} is not finite, so the run "
                "stops before the weights are changed; `stop_on_nonfinite=False` would go on."
            )


@torch.no_grad()
def has_nonfinite_gradient(model: nn.Module) -> torch.Tensor:
    """Whether a gradient is infinite or not a number, as a 0-d tensor; of sharded ones, this process's part."""
    gradients = [local(parameter.grad) for parameter in model.parameters() if parameter.grad is not None]
    # The largest magnitude passes on what is not finite, and unlike a sum of squares does not overflow. A shard may be
    # empty.
    largest = [torch.linalg.vector_norm(gradient, ord=torch.inf) for gradient in gradients if gradient.numel()]
    finite = torch.tensor(True)
    for value in largest:
        finite = finite.to(value.device) & value.isfinite()
    return ~finite


def check_rewards(
    rewards_per_func: torch.Tensor, names: Sequence[str], rows: Sequence[dict[str, Any]], *, stop: bool
) -> None:
    """
    Name the first infinite reward among those `(N, F)` of all processes: raise a [`NonFiniteError`] to `stop`, or
    warn.

    To be called in all processes, each with the rows of the data set that it has completed.
    """
    infinite = rewards_per_func.isinf().nonzero().tolist()
    if not infinite:
        return
    row, function = infinite[0]
    # All processes know of the infinity, and one of them the prompt.
    prompt = gather_object([identify(own)[1] for own in rows])[row]
    others = f" (and {len(infinite) - 1} more like it)" if len(infinite) > 1 else ""
    sentence = (
        f"The reward function `{names[function]}` gave {rewards_per_func[row, function].item()} for a completion of the "
        f"prompt {prompt!r}{others}, "
    )
    if stop:
        raise NonFiniteError(
            f"{sentence}so the run stops; return a finite number, or None for what cannot be scored, or set "
            "`stop_on_nonfinite=False` to go on without its group."
        )
    logger.warning(f"{sentence}so its group has no advantage.")


class RewardDomainError(ValueError):
    """A reward is none that the advantage takes."""


def check_domain(
    rewards: torch.Tensor, domain: Domain, advantage: str, names: Sequence[str], rows: Sequence[dict[str, Any]]
) -> None:
    """
    Name, with a [`RewardDomainError`], the first reward `(N,)` of all processes that lies outside of the `domain` of an
    `advantage`, as a configuration chooses it.

    To be called in all processes, each with the rows of the data set that it has completed.
    """
    outside = domain.excludes(rewards).nonzero().flatten().tolist()
    if not outside:
        return
    # All processes know of the reward, and one of them the prompt.
    prompt = gather_object([identify(own)[1] for own in rows])[outside[0]]
    source = (
        f"`{names[0]}` gave" if len(names) == 1 else f"the weighted sum of {', '.join(f'`{n}`' for n in names)} is"
    )
    others = f" (and {len(outside) - 1} more like it)" if len(outside) > 1 else ""
    raise RewardDomainError(
        f"{advantage} takes rewards {domain.text}, but {source} {rewards[outside[0]].item():g} for a completion of the "
        f"prompt {prompt!r}{others}, so the run stops; return rewards {domain.text}, or choose another advantage."
    )


def check_advantages(advantages: Any, rewards: torch.Tensor) -> None:
    """
    Refuse what is no advantage `(N,)` of each reward `(N,)`: another shape with a `ValueError`, and what is not finite
    with a [`NonFiniteError`], but where a reward is NaN, which then needs none.
    """
    if not isinstance(advantages, torch.Tensor) or advantages.shape != rewards.shape:
        what = tuple(advantages.shape) if isinstance(advantages, torch.Tensor) else type(advantages).__name__
        raise ValueError(
            f"`advantage` must give a tensor with one advantage per completion, shape {tuple(rewards.shape)}; got {what}."
        )
    wrong = ~advantages.isfinite() & rewards.isfinite()
    if wrong.any():
        raise NonFiniteError(
            f"`advantage` gave {advantages[wrong][0].item()} for a completion with the reward "
            f"{rewards[wrong][0].item():g}; it has to be finite, so the run stops."
        )
