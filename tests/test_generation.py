# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Which adapters vLLM runs beside the base, and what happens with the others; no engine is needed to decide."""

import warnings
from types import SimpleNamespace

import pytest
from peft import LoraConfig, PromptTuningConfig
from transformers import BitsAndBytesConfig
from trl.generation.vllm_generation import VLLMGeneration
from trl.trainer import grpo_trainer

from trl_grpo_variants.generation import AdapterVLLMGeneration, adapter_generation

from .tiny import make_config


FOUR_BIT = BitsAndBytesConfig(load_in_4bit=True)


def constructed(args, peft_config, quantization_config=None, model="some/model"):
    """Class that TRL's trainer would construct."""
    with adapter_generation(args, model, peft_config, quantization_config):
        factory = grpo_trainer.VLLMGeneration
    assert grpo_trainer.VLLMGeneration is VLLMGeneration
    return getattr(factory, "func", factory)


@pytest.fixture
def args(tmp_path):
    return make_config(tmp_path, use_vllm=True)


def test_lora_is_synchronised_as_an_adapter(args):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert constructed(args, LoraConfig(r=8)) is AdapterVLLMGeneration
        assert constructed(args, LoraConfig(r=8), FOUR_BIT) is AdapterVLLMGeneration


@pytest.mark.parametrize("settings", [{"use_vllm": False}, {"use_vllm": True, "vllm_lora_sync": False}])
def test_elsewhere_generation_is_trls(tmp_path, settings):
    assert constructed(make_config(tmp_path, **settings), LoraConfig(r=8)) is VLLMGeneration


def test_full_fine_tuning_is_trls(args):
    assert constructed(args, None) is VLLMGeneration


OBSTACLES = [
    (PromptTuningConfig(task_type="CAUSAL_LM"), "it is no LoRA adapter but a PromptTuningConfig"),
    (LoraConfig(use_dora=True), "it has `use_dora=True`"),
    (LoraConfig(modules_to_save=["lm_head"]), r"it has `modules_to_save=\['lm_head'\]`"),
    (LoraConfig(bias="all"), "it has `bias='all'`"),
    (LoraConfig(r=1024), "its rank 1024 exceeds vLLM's 512"),
    (LoraConfig(r=8, rank_pattern={"q_proj": 1024}), "its rank 1024 exceeds vLLM's 512"),
    (LoraConfig(init_lora_weights="pissa_niter_4"), "`init_lora_weights='pissa_niter_4'` changes the base"),
    (LoraConfig(init_lora_weights="olora"), "`init_lora_weights='olora'` changes the base"),
]


@pytest.mark.parametrize(("peft_config", "reason"), OBSTACLES)
def test_other_adapters_take_trls_way_with_a_warning(args, peft_config, reason):
    with pytest.warns(UserWarning, match=f"beside its base, because {reason}"):
        assert constructed(args, peft_config) is VLLMGeneration


@pytest.mark.parametrize(("peft_config", "reason"), OBSTACLES)
def test_over_a_four_bit_base_they_are_refused(args, peft_config, reason):
    for arguments in ({"quantization_config": FOUR_BIT}, {"model": SimpleNamespace(is_loaded_in_4bit=True)}):
        with pytest.raises(ValueError, match=f"{reason}, and merging it into a 4-bit base would"):
            constructed(args, peft_config, **arguments)


def test_a_sleeping_engine_loses_its_base(tmp_path):
    args = make_config(tmp_path, use_vllm=True, vllm_enable_sleep_mode=True)
    with pytest.warns(UserWarning, match="`vllm_enable_sleep_mode=True` discards the engine's base"):
        assert constructed(args, LoraConfig(r=8)) is VLLMGeneration


def test_a_sharded_adapter_is_left_to_trl(args, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.warns(UserWarning, match="because FSDP shards it"):
        assert constructed(args, LoraConfig(r=8)) is VLLMGeneration


def test_trls_class_is_back_when_the_construction_fails(args):
    with pytest.raises(RuntimeError, match="boom"), adapter_generation(args, "some/model", LoraConfig(r=8), None):
        raise RuntimeError("boom")
    assert grpo_trainer.VLLMGeneration is VLLMGeneration
