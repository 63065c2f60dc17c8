# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Whether vLLM can run the policy's adapter beside its base."""

from typing import Any

from peft import LoraConfig

from ..compat import sharding_backend
from ..config import GRPOVariantConfig


# The ranks that vLLM can be told to make room for.
_ENGINE_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
# Initialisations that move a part of the base's weights into the adapter: the base on disk is not the policy's.
_BASE_CHANGING_INITS = ("pissa", "olora", "corda", "loftq")


def sync_obstacle(args: GRPOVariantConfig, config: Any) -> str | None:
    backend = sharding_backend(args)
    if backend is not None:
        return f"{backend} shards it"
    if args.vllm_enable_sleep_mode:
        return "`vllm_enable_sleep_mode=True` discards the engine's base"
    if str(getattr(config, "init_lora_weights", "")).lower().startswith(_BASE_CHANGING_INITS):
        return f"`init_lora_weights={config.init_lora_weights!r}` changes the base"
    return adapter_obstacle(config)


def adapter_obstacle(config: Any) -> str | None:
    """Why vLLM cannot run an adapter of this PEFT configuration beside its base, or `None` if it can."""
    if not isinstance(config, LoraConfig):
        return f"it is no LoRA adapter but a {type(config).__name__}"
    for name in ("use_dora", "modules_to_save", "trainable_token_indices", "lora_bias", "target_parameters"):
        if getattr(config, name, None):
            return f"it has `{name}={getattr(config, name)!r}`"
    if config.bias != "none":
        return f"it has `bias={config.bias!r}`"
    if _largest_rank(config) > _ENGINE_RANKS[-1]:
        return f"its rank {_largest_rank(config)} exceeds vLLM's {_ENGINE_RANKS[-1]}"
    return None


def engine_rank(config: LoraConfig) -> int:
    """The smallest of the ranks that vLLM can make room for which holds that of an adapter."""
    return next(rank for rank in _ENGINE_RANKS if rank >= _largest_rank(config))


def _largest_rank(config: LoraConfig) -> int:
    return max(config.r, *config.rank_pattern.values(), 1)


def is_four_bit(model: Any) -> bool:
    return bool(getattr(model, "is_loaded_in_4bit", False))


def check_quantization(model: Any) -> None:
    """Refuse a 4-bit base that vLLM, which quantises it anew from the checkpoint, would quantise otherwise."""
    if not is_four_bit(model) or model.hf_quantizer.pre_quantized:
        return
    config = model.hf_quantizer.quantization_config
    if config.bnb_4bit_quant_type != "nf4":
        differs = f"`bnb_4bit_quant_type={config.bnb_4bit_quant_type!r}`"
    elif set(config.llm_int8_skip_modules or ()) - {"lm_head"}:
        differs = f"`llm_int8_skip_modules={config.llm_int8_skip_modules!r}`"
    else:
        return
    raise ValueError(
        f"vLLM quantises a base to NF4 in all its linear layers but `lm_head`, so with {differs} it would sample "
        "from another policy. Set `bnb_4bit_quant_type='nf4'` and skip no other layer, or train over a checkpoint "
        "that is saved in 4 bits."
    )


def check_engine_quantizes() -> None:
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    if "bitsandbytes" not in QUANTIZATION_METHODS:
        raise ImportError(
            "The base is in 4 bits, and this vLLM (as every one from 0.28) runs bitsandbytes only with its plugin: "
            "`pip install vllm-bnb-plugin`."
        )
