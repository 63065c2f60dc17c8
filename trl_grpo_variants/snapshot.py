# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Policies other than the trained one: copies of its trainable parameters, and when each of them moves."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from torch import nn
from trl.trainer.callbacks import SyncRefModelCallback


if TYPE_CHECKING:
    from .config import GRPOVariantConfig


try:
    from torch.distributed.fsdp import FSDPModule
    from torch.distributed.tensor import DTensor, distribute_tensor
except ImportError:  # a torch that has no FSDP2, so that nothing is sharded by it
    FSDPModule = DTensor = ()  # type: ignore[assignment, misc]


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of a tensor, in the same memory."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _named_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters by the names that they have without the wrappers of activation checkpointing and compilation."""
    return {
        re.sub(r"_checkpoint_wrapped_module\.|_orig_mod\.", "", name): parameter
        for name, parameter in model.named_parameters()
    }


@contextmanager
def _gathered(model: nn.Module) -> Iterator[bool]:
    """Within the context DeepSpeed ZeRO-3 holds all of the parameters; what the first process writes goes to all."""
    parameters = [parameter for parameter in model.parameters() if hasattr(parameter, "ds_id")]
    if parameters:
        import deepspeed

        with deepspeed.zero.GatheredParameters(parameters, modifier_rank=0):
            yield True
    else:
        yield False


class Anchor:
    """
    Policy other than the trained one whose parameters a run has to save, as TRL's checkpoints leave it out.

    Its methods are to be called in all processes.

    Args:
        model (`nn.Module`):
            Policy, unwrapped.
    """

    def __init__(self, model: nn.Module):
        self._model = model

    @property
    def is_sharded(self) -> bool:
        """Whether [`~Anchor.state_dict`] is another one in each process."""
        return any(isinstance(parameter, DTensor) for parameter in self._model.parameters())

    def state_dict(self) -> dict[str, torch.Tensor]:
        """
        The parameters by name, in the same memory.

        Of those that FSDP2 shards, this process's part, and of those that DeepSpeed shards, copies of the whole.
        """
        with _gathered(self._model) as is_gathered:
            named = {name: local(parameter.detach()) for name, parameter in _named_parameters(self._model).items()}
            return {name: value.to("cpu", copy=True) for name, value in named.items()} if is_gathered else named

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, torch.Tensor]) -> None:
        """Set the parameters to those that were saved, or raise a `ValueError` if they are another policy's."""
        if _shapes(state_dict) != _shapes(self.state_dict()):
            raise ValueError("The saved snapshot has other trainable parameters than the policy that is to resume.")
        with _gathered(self._model):
            self._copy(state_dict)

    def _copy(self, state_dict: dict[str, torch.Tensor]) -> None:
        for name, parameter in _named_parameters(self._model).items():
            local(parameter.detach()).copy_(state_dict[name])


def _shapes(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: value.shape for name, value in state_dict.items()}


class PolicySnapshot(Anchor):
    """
    Earlier state of a policy, held as a copy of its trainable parameters only.

    For an adapter that is megabytes, over a quantised base as well; for full fine-tuning, one copy of the model. The
    copy lives outside the module: it is no adapter, no submodule and no buffer, so it reaches neither a checkpoint of
    the model nor an inference engine.

    FSDP2 shards the parameters when training starts; from then on the copy is sharded in the same way, and its methods
    are to be called in all processes.

    Args:
        model (`nn.Module`):
            Policy, unwrapped. Its trainable parameters are copied as they are now.
    """

    def __init__(self, model: nn.Module):
        super().__init__(model)
        trainable = {name: value for name, value in _named_parameters(model).items() if value.requires_grad}
        self._names = list(trainable)
        self._values = [parameter.detach().clone() for parameter in trainable.values()]
        self.is_swapped_in = False

    @torch.no_grad()
    def refresh(self, mixup: float = 1.0) -> None:
        """
        Move the snapshot to the live policy.

        Args:
            mixup (`float`, *optional*, defaults to `1.0`):
                Share of the live policy, in [0, 1]; 1 copies it exactly. With a low-rank adapter a share below 1 mixes
                the two factors, not their product, so it is a moving average in parameters only.
        """
        for value, parameter in zip(self._values, self._follow_parameters(), strict=True):
            if mixup == 1.0:
                value.copy_(parameter)
            else:
                value.lerp_(parameter, mixup)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The snapshot's parameters by name, in the same memory; of sharded ones, this process's part."""
        self._follow_parameters()
        return {name: local(value) for name, value in zip(self._names, self._values, strict=True)}

    def _copy(self, state_dict: dict[str, torch.Tensor]) -> None:
        for name, value in self.state_dict().items():
            value.copy_(state_dict[name])

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """
        Give the policy the snapshot's parameters within the context.

        Storage is exchanged, not copied: it costs no memory, and the live parameters come back bit for bit, also when
        the body raises. Shards are exchanged by value, one at a time. A gradient taken inside is one at the snapshot
        and stays on the parameters afterwards; a step of the optimizer does not belong inside.

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

    @torch.no_grad()
    def _exchange(self) -> None:
        for index, parameter in enumerate(self._follow_parameters()):
            if isinstance(parameter, DTensor):
                # FSDP2 gathers from the memory of the shard, whatever tensor the parameter is given.
                live, kept = local(parameter), local(self._values[index])
                moved = live.clone()
                live.copy_(kept)
                kept.copy_(moved)
            else:
                self._values[index], parameter.data = parameter.data, self._values[index]
        # Inside autocast, casts of the weights are cached by parameter and would survive the exchange.
        torch.clear_autocast_cache()
        self.is_swapped_in = not self.is_swapped_in

    @torch.no_grad()
    def _follow_parameters(self) -> list[nn.Parameter]:
        """The policy's trainable parameters; the copy is brought to the device, type and shards that they have now."""
        for module in self._model.modules():
            if isinstance(module, FSDPModule):
                # Weights gathered for an earlier forward pass may still be there and would be used by the next one.
                module.reshard()
        named = _named_parameters(self._model)
        parameters = [named[name] for name in self._names]
        for index, (value, parameter) in enumerate(zip(self._values, parameters, strict=True)):
            if isinstance(parameter, DTensor) and getattr(value, "placements", None) != parameter.placements:
                whole = value.full_tensor() if isinstance(value, DTensor) else value
                value = distribute_tensor(whole, parameter.device_mesh, parameter.placements)
            self._values[index] = value.to(parameter.device, parameter.dtype)
        return parameters


class Anchors:
    """
    The anchors of a run, each of them `None` where nothing asks for it, and when they move.

    - `frozen`: policy of the last rollout, at which the gradient is taken.
    - `mirror`: policy of a rollout at most `mirror_sync_steps` optimizer steps ago.
    - `reference`: reference that moves, TRL's own or, with `copies_adapter`, a copy of the adapter.
    - `sampler`: policy that has been asked for the next rollout, if that is made while this one is trained.

    Args:
        args ([`GRPOVariantConfig`]):
            Configuration.
        accelerator ([`~accelerate.Accelerator`]):
            Accelerator of the trainer.
        model (`nn.Module`):
            Policy.
        ref_model (`nn.Module`, *optional*):
            TRL's reference.
        copies_adapter (`bool`):
            Whether the moving reference is a copy of the policy's adapter.
    """

    def __init__(
        self,
        args: "GRPOVariantConfig",
        accelerator: Accelerator,
        model: nn.Module,
        ref_model: nn.Module | None,
        *,
        copies_adapter: bool,
    ) -> None:
        policy = accelerator.unwrap_model(model)
        self._mirror_sync_steps = args.mirror_sync_steps or 0
        self._mirror_synced_at: int | None = None
        self._until_backward: ExitStack | None = None
        self.frozen = PolicySnapshot(policy) if args.no_is_gradient == "frozen" else None
        self.mirror = PolicySnapshot(policy) if args.mirror_sync_steps is not None else None
        self.sampler = PolicySnapshot(policy) if args.prefetch_rollout else None
        self.reference: Anchor | None = None
        if copies_adapter:
            if "ref" in policy.peft_config:
                # The parent's fixed copy of a loaded adapter: nothing would use it, and it would be saved.
                policy.delete_adapter("ref")
            self.reference = PolicySnapshot(policy)
        elif args.sync_ref_model and ref_model is not None:
            self.reference = Anchor(accelerator.unwrap_model(ref_model))

    def named(self) -> dict[str, Anchor]:
        """Those that there are, by the names that checkpoints know them by."""
        anchors: dict[str, Anchor | None] = {"frozen": self.frozen, "mirror": self.mirror}
        anchors |= {"reference": self.reference, "sampler": self.sampler}
        return {name: anchor for name, anchor in anchors.items() if anchor is not None}

    def refresh(self, step: int) -> None:
        """Move those that follow the rollouts to the policy that has made one, after `step` optimizer steps."""
        if self.frozen is not None:
            self.frozen.refresh()
        if self.mirror is not None:
            synced_at = self._mirror_synced_at
            # Step 0 may be that of a second call to `train`.
            if step == 0 or synced_at is None or step - synced_at >= self._mirror_sync_steps:
                self.mirror.refresh()
                self._mirror_synced_at = step

    @contextmanager
    def training_step(self) -> Iterator[None]:
        """Context of a forward and a backward pass, after which a policy that was frozen within is the live one."""
        try:
            with ExitStack() as self._until_backward:
                yield
        finally:
            self._until_backward = None

    def freeze(self) -> None:
        """
        Give the policy the parameters of `frozen`, if there is one, until the backward pass is over.

        Raises:
            `RuntimeError`: If this is no training step.
        """
        if self.frozen is None:
            return
        if self._until_backward is None:
            raise RuntimeError(
                "`no_is_gradient='frozen'` computes the loss and its gradient at an earlier policy, so in training mode "
                "`compute_loss` can only be called within `training_step`."
            )
        if not self.frozen.is_swapped_in:
            self._until_backward.enter_context(self.frozen.swapped_in())

    def state_dict(self) -> dict[str, Any]:
        """When they moved; their parameters are asked of each."""
        return {"mirror_synced_at": self._mirror_synced_at}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the schedule that was saved."""
        self._mirror_synced_at = state_dict["mirror_synced_at"]


class SyncSnapshotCallback(SyncRefModelCallback):
    """TRL's schedule of a moving reference, for one that is a [`PolicySnapshot`]."""

    @staticmethod
    def sync_target_model(model: nn.Module, target_model: PolicySnapshot, alpha: float) -> None:
        target_model.refresh(mixup=alpha)
