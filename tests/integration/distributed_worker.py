# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Trains every case for a few steps on a fixed rollout; run by one process or, through torchrun, by several."""

import contextlib
import copy
import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState, DistributedType, PartialState
from peft import LoraConfig
from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel
from torch.distributed.tensor import DTensor
from transformers import AutoTokenizer

from trl_grpo_variants import get_variant

from ..tiny import WORDS, make_trainer, own_variants


GLOBAL_BATCH, GROUP = 8, 4
EXTRA = {
    "older_anchor": {"variant": "mirror", "mirror_sync_steps": 4},
    "masked_dual": {"variant": "dual", "mask_zero_variance_groups": True, "loss_type": "dapo"},
    "tic_dapo_dual": {"variant": "tic_grpo", "loss_type": "dapo", "beta": 0.1, "mirror_beta": 0.1},
    "moving_reference": {"variant": "reference", "sync_ref_model": True, "ref_model_sync_steps": 2},
    "mirror_cispo": {"variant": "mirror", "loss_type": "cispo"},
    "packed": {"variant": "dual", "pack_rollout": True},
    "shared_prompt": {"variant": "tic_grpo", "share_prompt": True, "gradient_accumulation_steps": 2},
    "accumulated_frozen": {"variant": "no_is_frozen", "gradient_accumulation_steps": 2, "steps_per_generation": 2},
}
# Those with mean-only advantages differ from their namesakes before anything is divided over processes.
OWN = own_variants("grpo", "grpo_upper_clip", "gspo")
CASES = {name: {"variant": name} for name in OWN if not name.endswith("_mean_only")} | EXTRA


def runs(backend: str) -> list[tuple[str, bool]]:
    """
    Cases with all parameters, and some with those of an adapter, of which no term knows. Advantages do not know who holds
    the parameters either.
    """
    held = [name for name in CASES if backend == "ddp" or name in EXTRA or get_variant(name).axis != "advantages"]
    return [(name, adapter) for name in held for adapter in (False, True) if not adapter or name in EXTRA]


def rollout(prompts: list[str], trainer: Any) -> dict[str, Any]:
    """Completions that depend on the prompt and the place in its group only, so not on the number of processes."""
    prompt_ids = trainer.processing_class(prompts)["input_ids"]
    completion_ids = []
    for index, ids in enumerate(prompt_ids):
        place = index % GROUP
        length = 1 + (ids[0] + 2 * place) % 5
        completion_ids.append([2 + (ids[0] * (place + 1) + 3 * t + len(ids)) % 8 for t in range(length)] + [1])
    return {
        "prompt_ids": prompt_ids,
        "completion_ids": completion_ids,
        "logprobs": [[0.0] * len(ids) for ids in completion_ids],
    }


def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [float(sum(ids) % 3 == 0) for ids in completion_ids]


def deepspeed(stage: int) -> dict[str, Any]:
    automatic = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    zero = {"stage": stage, "stage3_gather_16bit_weights_on_model_save": True}
    return {"deepspeed": dict.fromkeys(automatic, "auto") | {"zero_optimization": zero}}


LAYERS = {"transformer_layer_cls_to_wrap": ["LlamaDecoderLayer"]}
BACKENDS = {
    "ddp": {},
    "fsdp2": {"fsdp": True, "fsdp_config": {"version": 2, **LAYERS}},
    "fsdp1": {"fsdp": True, "fsdp_config": {"version": 1, "sync_module_states": False, **LAYERS}},
    "zero2": deepspeed(2),
    "zero3": deepspeed(3),
}


@contextlib.contextmanager
def fsdp_on_cpu() -> Iterator[None]:
    """Make accelerate use FSDP on the CPU, where it would silently use DDP."""
    initialize = AcceleratorState.__init__

    def initialize_with_fsdp(self: AcceleratorState, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        initialize(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None:
            self.fsdp_plugin = fsdp_plugin
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            # FSDP1 takes no index of a CPU.
            self.device = PartialState._shared_state["device"] = torch.device("cpu")

    AcceleratorState.__init__ = initialize_with_fsdp
    try:
        yield
    finally:
        AcceleratorState.__init__ = initialize


def wrapper(trainer: Any) -> str:
    """What holds the policy: the name of the class, and the stage of ZeRO."""
    model = trainer.model_wrapped
    if isinstance(model, FSDPModule):
        assert any(isinstance(p, DTensor) for p in model.parameters())
        return "FSDPModule"
    stage = model.zero_optimization_stage() if hasattr(model, "zero_optimization_stage") else ""
    return type(model).__name__ + str(stage)


def whole_parameters(trainer: Any) -> dict[str, torch.Tensor]:
    """Parameters of the policy; with FSDP2 and ZeRO-3 the first process gets all of them and the others nothing."""
    model = trainer.model_wrapped
    if isinstance(model, FullyShardedDataParallel):
        # Its state dict ends in a segmentation fault on the CPU.
        with FullyShardedDataParallel.summon_full_params(model, writeback=False):
            named = {name.replace("_fsdp_wrapped_module.", ""): p for name, p in model.named_parameters()}
            return {name: p.detach().clone() for name, p in named.items()}
    return {name: p.detach().clone() for name, p in (trainer.accelerator.get_state_dict(model) or {}).items()}


def run(policy_path: str, output_dir: Path, backend: str = "ddp") -> dict[str, Any]:
    """Final parameters and history of every case, full and with an adapter; or why it is refused."""
    results = {}
    assert AutoTokenizer.from_pretrained(policy_path)("a")["input_ids"] == [WORDS.index("a")]
    for name, adapter in runs(backend):
        settings = CASES[name]
        defaults = {"steps_per_generation": 1, "num_iterations": 3, "max_steps": 6}
        defaults |= {"optim": "sgd", "learning_rate": 0.2}
        processes, steps = int(os.environ.get("WORLD_SIZE", "1")), 1
        if get_variant(settings["variant"]).parts.policy.relates_rows:
            # The micro-batches of two processes, which hold a group each, one after the other.
            steps = 2 // processes
            defaults |= {"gradient_accumulation_steps": steps, "group_preserving_split": True}
            settings = settings | {"steps_per_generation": steps}
        try:
            trainer = make_trainer(
                policy_path,
                output_dir / "run",
                per_device_train_batch_size=GLOBAL_BATCH // processes // steps,
                **(defaults | settings | copy.deepcopy(BACKENDS[backend])),
                reward_funcs=reward,
                rollout_func=rollout,
                peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM") if adapter else None,
            )
        except NotImplementedError as error:
            results[name, adapter] = {"refused": str(error)}
            continue
        # So that rows as short as these are divided, and differently in each process.
        trainer._forward = dataclasses.replace(trainer._forward, split_cost=0)
        trainer.train()
        results[name, adapter] = {
            "processes": trainer.accelerator.num_processes,
            "wrapper": wrapper(trainer),
            "parameters": whole_parameters(trainer),
            "history": [entry for entry in trainer.state.log_history if "loss" in entry],
        }
    return results


if __name__ == "__main__":
    folder = Path(sys.argv[2])
    rank = os.environ["RANK"]
    with fsdp_on_cpu():
        torch.save(run(sys.argv[1], folder / rank, sys.argv[3]), folder / f"{rank}.pt")
    # The gloo process group may deadlock in its destructor once everything has been written.
    torch.distributed.barrier()
    os._exit(0)
