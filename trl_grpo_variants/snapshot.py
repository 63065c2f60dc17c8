# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""A frozen copy of the trainable parameters of a policy, swapped in for a forward pass or a gradient."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


class PolicySnapshot:
    """
    Earlier state of a policy, held as a copy of its trainable parameters only.

    For an adapter that is megabytes, over a quantised base as well; for full fine-tuning, one copy of the model. The
    copy lives outside the module: it is no adapter, no submodule and no buffer, so it reaches neither a checkpoint of
    the model nor an inference engine.

    Args:
        model (`nn.Module`):
            Policy, unwrapped. Its trainable parameters are copied as they are now.
    """

    def __init__(self, model: nn.Module):
        trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
        self._names = [name for name, _ in trainable]
        self._parameters = [parameter for _, parameter in trainable]
        self._values = [parameter.detach().clone() for parameter in self._parameters]
        self.is_swapped_in = False

    @property
    def nbytes(self) -> int:
        """Memory of the copy, in bytes."""
        return sum(value.nbytes for value in self._values)

    @torch.no_grad()
    def refresh(self, mixup: float = 1.0) -> None:
        """
        Move the snapshot to the live policy.

        Args:
            mixup (`float`, *optional*, defaults to `1.0`):
                Share of the live policy, in [0, 1]; 1 copies it exactly. With a low-rank adapter a share below 1 mixes
                the two factors, not their product, so it is a moving average in parameters only.
        """
        for value, parameter in zip(self._values, self._parameters, strict=True):
            if mixup == 1.0:
                value.copy_(parameter)
            else:
                value.lerp_(parameter, mixup)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """
        The snapshot's parameters by name.

        Returns:
            `dict[str, torch.Tensor]`:
                Tensors that share the snapshot's memory.
        """
        return dict(zip(self._names, self._values, strict=True))

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, torch.Tensor]) -> None:
        """
        Set the snapshot to parameters that were saved.

        Args:
            state_dict (`dict[str, torch.Tensor]`):
                What [`~PolicySnapshot.state_dict`] returned.

        Raises:
            `ValueError`: If the names or shapes are those of another policy.
        """
        shapes = {name: value.shape for name, value in state_dict.items()}
        if shapes != {name: value.shape for name, value in self.state_dict().items()}:
            raise ValueError("The saved snapshot has other trainable parameters than the policy that is to resume.")
        for name, value in self.state_dict().items():
            value.copy_(state_dict[name])

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """
        Give the policy the snapshot's parameters within the context.

        Storage is exchanged, not copied: it costs no memory, and the live parameters come back bit for bit, also when
        the body raises. A gradient taken inside is one at the snapshot and stays on the parameters afterwards.

        Raises:
            `RuntimeError`: If the snapshot is swapped in already.
        """
        if self.is_swapped_in:
            raise RuntimeError(
                "The snapshot is swapped in already; swapping it again would bring the live policy back."
            )
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for index, parameter in enumerate(self._parameters):
            self._values[index], parameter.data = parameter.data, self._values[index]
        # Inside autocast, casts of the weights are cached by parameter and would survive the exchange.
        torch.clear_autocast_cache()
        self.is_swapped_in = not self.is_swapped_in
