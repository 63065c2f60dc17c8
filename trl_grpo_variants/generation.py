# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
vLLM generation in which only the adapter follows the policy.

TRL merges the adapter into the base, sends the whole model to the engine and takes the merge back. Over a 4-bit base
each merge rounds, so that the base of the policy drifts and the engine samples from another policy than the one that is
trained. Here the engine holds the base once and is given the adapter before each rollout; the base is never touched.
"""

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from accelerate.utils import is_peft_model
from peft import LoraConfig, PeftModel
from trl.generation import vllm_generation
from trl.generation.vllm_generation import VLLMGeneration
from trl.trainer import grpo_trainer

from .compat import sharding_backend
from .config import GRPOVariantConfig


ADAPTER_NAME = "policy"
ADAPTER_ID = 1
# The ranks that vLLM can be told to make room for.
_ENGINE_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
# Initialisations that move a part of the base's weights into the adapter: the base on disk is not the policy's.
_BASE_CHANGING_INITS = ("pissa", "olora", "corda", "loftq")


def adapter_generation(args: GRPOVariantConfig, model: Any, peft_config: Any, quantization_config: Any) -> Any:
    """
    Context in which TRL's trainer constructs its vLLM generation, with adapters synchronised as such where possible.

    Args:
        args ([`GRPOVariantConfig`]):
            Configuration.
        model (`str` or `nn.Module`):
            The trainer's `model` argument.
        peft_config ([`~peft.PeftConfig`], *optional*):
            The trainer's `peft_config` argument.
        quantization_config ([`~transformers.BitsAndBytesConfig`], *optional*):
            The trainer's `quantization_config` argument.

    Returns:
        `AbstractContextManager`:
            Context for the construction of the trainer.

    Raises:
        `ValueError`: If the base is in 4 bits and vLLM cannot run the adapter beside it.
    """
    if peft_config is None and not isinstance(model, str) and is_peft_model(model):
        peft_config = model.peft_config[model.active_adapter]
    if not args.use_vllm or not args.vllm_lora_sync or peft_config is None:
        return nullcontext()
    obstacle = _why_not_syncable(args, peft_config)
    if obstacle is None:
        factory = functools.partial(AdapterVLLMGeneration, folder=Path(args.output_dir) / "_vllm_adapter")
        return _replaced(grpo_trainer, "VLLMGeneration", factory)
    four_bit = getattr(quantization_config, "load_in_4bit", False) or getattr(model, "is_loaded_in_4bit", False)
    if four_bit:
        raise ValueError(
            f"vLLM cannot run this adapter beside its base, because {obstacle}, and merging it into a 4-bit base would "
            "change the base and sample from another policy. Change the adapter, or load the base unquantised."
        )
    warnings.warn(
        f"vLLM cannot run this adapter beside its base, because {obstacle}: it is merged and the whole model is sent "
        "before each rollout, as TRL does. Set `vllm_lora_sync=False` to accept that silently.",
        stacklevel=3,
    )
    return nullcontext()


def _why_not_syncable(args: GRPOVariantConfig, config: Any) -> str | None:
    backend = sharding_backend(args)
    if backend is not None:
        return f"{backend} shards it"
    if args.vllm_enable_sleep_mode:
        return "`vllm_enable_sleep_mode=True` discards the engine's base"
    if not isinstance(config, LoraConfig):
        return f"it is no LoRA adapter but a {type(config).__name__}"
    for name in ("use_dora", "modules_to_save", "trainable_token_indices", "lora_bias", "target_parameters"):
        if getattr(config, name, None):
            return f"it has `{name}={getattr(config, name)!r}`"
    if config.bias != "none":
        return f"it has `bias={config.bias!r}`"
    if str(config.init_lora_weights).lower().startswith(_BASE_CHANGING_INITS):
        return f"`init_lora_weights={config.init_lora_weights!r}` changes the base"
    if _largest_rank(config) > _ENGINE_RANKS[-1]:
        return f"its rank {_largest_rank(config)} exceeds vLLM's {_ENGINE_RANKS[-1]}"
    return None


def _largest_rank(config: LoraConfig) -> int:
    return max(config.r, *config.rank_pattern.values(), 1)


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


class AdapterVLLMGeneration(VLLMGeneration):
    """
    TRL's vLLM generation with the adapter as the only thing that is synchronised.

    The engine reads the base from `model.name_or_path`.

    Args:
        folder (`Path`):
            Folder through which adapters are handed over; in server mode one that the server sees as well.
        kwargs:
            Arguments of [`~trl.generation.vllm_generation.VLLMGeneration`].
    """

    def __init__(self, *, folder: Path, **kwargs: Any):
        self.folder = folder.resolve()
        super().__init__(**kwargs)

    def _init_vllm(self) -> None:
        model: PeftModel = self.model
        rank = _largest_rank(model.peft_config[model.active_adapter])
        self.engine_rank = next(r for r in _ENGINE_RANKS if r >= rank)
        if self.mode == "server":
            # No weights travel, so no channel for them is opened.
            with _replaced(vllm_generation.VLLMClient, "init_communicator", lambda *args, **kwargs: None):
                super()._init_vllm()
            # A server that takes no adapters is told of now, not after the first step.
            self.sync_weights()
            return
        self.folder = self.folder / str(self.accelerator.process_index)
        engine = getattr(vllm_generation, "LLM", None)
        options = {"enable_lora": True, "max_lora_rank": self.engine_rank}
        with _replaced(vllm_generation, "LLM", functools.partial(engine, **options)) if engine else nullcontext():
            super()._init_vllm()
        self.llm.generate = functools.partial(self.llm.generate, lora_request=self._request())

    def sync_weights(self) -> None:
        """
        Hand the current adapter over to the engine and drop what it has cached under the previous one.

        Raises:
            `RuntimeError`: If a server takes no adapters.
        """
        if self.mode == "colocate":
            self._save_adapter()
            self.llm.llm_engine.add_lora(self._request(load_inplace=True))
            self.llm.reset_prefix_cache()
        elif self.accelerator.is_main_process:
            self._save_adapter()
            client = self.vllm_client
            # Without `load_inplace` the server would keep an adapter that it knows by this name.
            response = client.session.post(
                f"{client.base_url}/v1/load_lora_adapter",
                json={"lora_name": ADAPTER_NAME, "lora_path": str(self.folder), "load_inplace": True},
            )
            if response.status_code != 200:
                raise RuntimeError(
                    f"The vLLM server at {client.base_url} did not take the adapter in {self.folder} "
                    f"({response.status_code}: {response.text.strip()}). Start it on a machine that sees that folder, "
                    f"with `VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve {self.model.name_or_path} --enable-lora "
                    f"--max-lora-rank {self.engine_rank}`, or set `vllm_lora_sync=False`."
                )
            client.model = ADAPTER_NAME
            client.reset_prefix_cache()

    def _save_adapter(self) -> None:
        self.model.save_pretrained(self.folder, selected_adapters=[self.model.active_adapter])

    def _request(self, load_inplace: bool = False) -> Any:
        from vllm.lora.request import LoRARequest

        return LoRARequest(ADAPTER_NAME, ADAPTER_ID, str(self.folder), load_inplace=load_inplace)
