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

from trl_grpo_variants.generation import (
    AdapterVLLMGeneration,
    GenerationServerError,
    WatchedVLLMGeneration,
    _check_quantization,
    adapter_generation,
)

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


@pytest.mark.parametrize("settings", [{}, {"vllm_lora_sync": False}])
def test_a_server_is_watched(tmp_path, settings):
    args = make_config(tmp_path, use_vllm=True, vllm_mode="server", **settings)
    assert constructed(args, LoraConfig(r=8) if settings else None) is WatchedVLLMGeneration


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
        assert constructed(args, peft_config) is WatchedVLLMGeneration


@pytest.mark.parametrize(("peft_config", "reason"), OBSTACLES)
def test_over_a_four_bit_base_they_are_refused(args, peft_config, reason):
    refused = f"{reason}, and merging it into a 4-bit base would"
    for arguments in ({"quantization_config": FOUR_BIT}, {"model": SimpleNamespace(is_loaded_in_4bit=True)}):
        with pytest.raises(ValueError, match=refused):
            constructed(args, peft_config, **arguments)
    # A checkpoint that turns out to be in 4 bits.
    with pytest.warns(UserWarning), adapter_generation(args, "some/model", peft_config, None):
        with pytest.raises(ValueError, match=refused):
            grpo_trainer.VLLMGeneration(model=SimpleNamespace(is_loaded_in_4bit=True))


def four_bit_model(pre_quantized=False, **settings):
    config = BitsAndBytesConfig(load_in_4bit=True, **settings)
    quantizer = SimpleNamespace(pre_quantized=pre_quantized, quantization_config=config)
    return SimpleNamespace(is_loaded_in_4bit=True, hf_quantizer=quantizer)


def test_a_base_that_vllm_would_quantise_otherwise_is_refused():
    nf4 = {"bnb_4bit_quant_type": "nf4"}
    _check_quantization(SimpleNamespace())
    _check_quantization(four_bit_model(**nf4))
    _check_quantization(four_bit_model(**nf4, llm_int8_skip_modules=["lm_head"]))
    # vLLM reads how these are quantised.
    _check_quantization(four_bit_model(pre_quantized=True))
    with pytest.raises(ValueError, match="so with `bnb_4bit_quant_type='fp4'` it would sample from another policy"):
        _check_quantization(four_bit_model())
    with pytest.raises(ValueError, match=r"so with `llm_int8_skip_modules=\['down_proj'\]` it would"):
        _check_quantization(four_bit_model(**nf4, llm_int8_skip_modules=["down_proj"]))


def test_a_sleeping_engine_loses_its_base(tmp_path):
    args = make_config(tmp_path, use_vllm=True, vllm_enable_sleep_mode=True)
    with pytest.warns(UserWarning, match="`vllm_enable_sleep_mode=True` discards the engine's base"):
        assert constructed(args, LoraConfig(r=8)) is WatchedVLLMGeneration


def test_a_sharded_adapter_is_left_to_trl(args, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.warns(UserWarning, match="because FSDP shards it"):
        assert constructed(args, LoraConfig(r=8)) is WatchedVLLMGeneration


def test_trls_class_is_back_when_the_construction_fails(args):
    with pytest.raises(RuntimeError, match="boom"), adapter_generation(args, "some/model", LoraConfig(r=8), None):
        raise RuntimeError("boom")
    assert grpo_trainer.VLLMGeneration is VLLMGeneration


def watched(monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(VLLMGeneration, "generate", fail)
    generation = WatchedVLLMGeneration.__new__(WatchedVLLMGeneration)
    generation.mode, generation.server_base_url = "server", "http://somewhere"
    generation.model = SimpleNamespace(name_or_path="some/model")
    return generation


def test_what_a_client_raises_is_one_error(monkeypatch):
    generation = watched(monkeypatch, ConnectionError("refused"))
    with pytest.raises(
        GenerationServerError, match=r"http://somewhere does not answer \(ConnectionError\).*some/model"
    ):
        generation.generate()
    generation = watched(monkeypatch, Exception("Request failed: 500, broken"))
    with pytest.raises(GenerationServerError, match=r"http://somewhere fails \(Request failed: 500, broken\)"):
        generation.generate()


def test_other_errors_stay_what_they_are(monkeypatch):
    with pytest.raises(KeyError):
        watched(monkeypatch, KeyError("bug")).generate()
    generation = watched(monkeypatch, OSError("disk"))
    generation.mode = "colocate"
    with pytest.raises(OSError, match="disk"):
        generation.generate()
