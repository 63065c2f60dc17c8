# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
vLLM generation in which only the adapter follows the policy.

TRL merges the adapter into the base, sends the whole model to the engine and takes the merge back. Over a 4-bit base
each merge rounds, so that the base of the policy drifts and the engine samples from another policy than the one that is
trained. Here the engine holds the base once and is given the adapter before each rollout; the base is never touched.
"""

import functools
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from accelerate.utils import is_peft_model
from peft import PeftModel
from safetensors import SafetensorError
from trl.generation import vllm_generation
from trl.trainer import grpo_trainer

from ..config import GRPOVariantConfig
from ..replaced import replaced
from ..warn import warn_user
from .client import GenerationError, GenerationServerError
from .eligibility import check_engine_quantizes, check_quantization, engine_rank, is_four_bit, sync_obstacle
from .server import WatchedVLLMGeneration


ADAPTER_NAME = "policy"
ADAPTER_ID = 1


class AdapterVLLMGeneration(WatchedVLLMGeneration):
    """
    TRL's vLLM generation with the adapter as the only thing that is synchronised.

    The engine reads the base from `model.name_or_path`. Adapters are handed over through `folder`, which in server
    mode the server must see as well.
    """

    # No weights travel, so no channel for them is opened.
    sends_weights = False

    def __init__(self, *, folder: Path, **kwargs: Any):
        self.folder = folder.resolve()
        super().__init__(**kwargs)

    def _init_vllm(self) -> None:
        model: PeftModel = self.model
        self.engine_rank = engine_rank(model.peft_config[model.active_adapter])
        check_quantization(model)
        if self.mode == "server":
            super()._init_vllm()
            self._on_all_processes(self._check_base)
            # A server that takes no adapters is told of now, not after the first step.
            self.sync_weights()
            return
        if is_four_bit(model):
            check_engine_quantizes()
        self.folder = self.folder / str(self.accelerator.process_index)
        engine = getattr(vllm_generation, "LLM", None)
        options = {"enable_lora": True, "max_lora_rank": self.engine_rank}
        with replaced(vllm_generation, LLM=functools.partial(engine, **options)) if engine else nullcontext():
            super()._init_vllm()
        self.llm.generate = functools.partial(self.llm.generate, lora_request=self._request())

    def sync_weights(self) -> None:
        """
        Hand the current adapter over and drop what the engine has cached under the previous one; a `GenerationError`
        on all processes if it cannot be written, or the server fails or takes no adapters.
        """
        if self.mode == "server":
            self._on_all_processes(self._hand_over)
            return
        self._on_all_processes(self._save_adapter)
        # Engines that share a model meet in it.
        self.llm.llm_engine.add_lora(self._request(load_inplace=True))
        self.llm.reset_prefix_cache()

    def _hand_over(self) -> None:
        if self.accelerator.is_main_process:
            client = self.vllm_client
            # Whatever it is at, it may read the adapter's files again.
            client.raise_failure()
            self._save_adapter()
            # Without `load_inplace` the server would keep an adapter that it knows by this name.
            response = client.session.post(
                f"{client.base_url}/v1/load_lora_adapter",
                json={"lora_name": ADAPTER_NAME, "lora_path": str(self.folder), "load_inplace": True},
                timeout=self.server_timeout,
            )
            if response.status_code != 200:
                answer = f"did not take the adapter in {self.folder} ({response.status_code}: {response.text.strip()})"
                raise GenerationServerError(
                    f"{self._complaint(answer)} It must see that folder. With `vllm_lora_sync=False` merged models "
                    "are sent instead."
                )
            client.model = ADAPTER_NAME
            client.reset_prefix_cache()
            client.raise_failure()

    def _check_base(self) -> None:
        if not self.accelerator.is_main_process:
            return
        served = self.vllm_client.get_server_info()["model_config"]
        if is_four_bit(self.model) and served["quantization"] != "bitsandbytes":
            raise GenerationServerError(
                self._complaint(f"has quantization={served['quantization']}, but the trained base is in 4 bits")
            )
        if Path(served["model"]).name != Path(self.model.name_or_path).name:
            warn_user(
                f"The vLLM server at {self._url} has {served['model']} as its base, but the adapter is trained over "
                f"{self.model.name_or_path}: unless both hold the same weights, it samples from another policy."
            )

    def _start_command(self) -> str:
        quantization = "--quantization bitsandbytes " if is_four_bit(self.model) else ""
        return (
            f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=True VLLM_SERVER_DEV_MODE=1 vllm serve {self.model.name_or_path} "
            f"{quantization}--enable-lora --max-lora-rank {self.engine_rank} --logprobs-mode processed_logprobs"
        )

    def _save_adapter(self) -> None:
        try:
            self.model.save_pretrained(self.folder, selected_adapters=[self.model.active_adapter])
        except (OSError, SafetensorError) as error:
            # Nor would a checkpoint find room, so none is tried.
            reason = getattr(error, "strerror", None) or str(error)
            raise GenerationError(f"The adapter could not be written to {self.folder}: {reason}.") from error

    def _request(self, load_inplace: bool = False) -> Any:
        from vllm.lora.request import LoRARequest

        return LoRARequest(ADAPTER_NAME, ADAPTER_ID, str(self.folder), load_inplace=load_inplace)


def adapter_generation(args: GRPOVariantConfig, model: Any, peft_config: Any, quantization_config: Any) -> Any:
    """
    Context in which TRL's trainer, given these arguments, constructs its vLLM generation: with adapters synchronised
    as such where possible, and a server that is watched.

    Raises a `ValueError` if the base is in 4 bits and vLLM cannot run the adapter beside it.
    """
    if peft_config is None and not isinstance(model, str) and is_peft_model(model):
        peft_config = model.peft_config[model.active_adapter]
    if not args.use_vllm:
        return nullcontext()
    if not args.vllm_lora_sync or peft_config is None:
        watched = args.vllm_mode == "server"
        return replaced(grpo_trainer, VLLMGeneration=WatchedVLLMGeneration) if watched else nullcontext()
    obstacle = sync_obstacle(args, peft_config)
    if obstacle is None:
        adapters = functools.partial(AdapterVLLMGeneration, folder=Path(args.output_dir) / "_vllm_adapter")
        return replaced(grpo_trainer, VLLMGeneration=adapters)
    refusal = (
        f"vLLM cannot run this adapter beside its base, because {obstacle}, and merging it into a 4-bit base would "
        "change the base and sample from another policy. Change the adapter, or load the base unquantised."
    )
    if getattr(quantization_config, "load_in_4bit", False) or is_four_bit(model):
        raise ValueError(refusal)
    warn_user(
        f"vLLM cannot run this adapter beside its base, because {obstacle}: it is merged and the whole model is sent "
        "before each rollout, as TRL does. Set `vllm_lora_sync=False` to accept that silently."
    )
    # A checkpoint that is saved in 4 bits is known for one when it has been loaded.
    factory = functools.partial(WatchedVLLMGeneration, four_bit_refusal=refusal)
    return replaced(grpo_trainer, VLLMGeneration=factory)
