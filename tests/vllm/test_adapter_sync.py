# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""An adapter over a base in half precision or in 4 bits: the real engine samples from the policy that is trained."""

import pytest
import torch

from trl_grpo_variants.vllm.adapter import AdapterVLLMGeneration
from trl_grpo_variants.vllm.client import GenerationServerError

from .engine import (
    ADAPTER_OPTIONS,
    NF4,
    ROUNDING,
    difference,
    lora,
    move,
    serve,
    train_and_check_ratios,
    trainer_with,
)


FOUR_BIT_OPTIONS = ("--quantization", "bitsandbytes")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def address(policy, folder):
    with serve(policy, folder / "server.log", *ADAPTER_OPTIONS) as (address, _):
        yield address


@pytest.fixture(scope="module")
def four_bit_address(policy, folder):
    with serve(policy, folder / "server_4bit.log", *ADAPTER_OPTIONS, *FOUR_BIT_OPTIONS) as (address, _):
        yield address


@pytest.fixture(scope="module", params=["colocate", "server", "colocate_4bit", "server_4bit"])
def trainer(request, policy, folder):
    settings = {}
    if request.param.startswith("server"):
        name = "four_bit_address" if request.param.endswith("4bit") else "address"
        settings |= {"vllm_mode": "server", "vllm_server_base_url": request.getfixturevalue(name)}
    if request.param.endswith("4bit"):
        settings["quantization_config"] = NF4
    return trainer_with(policy, folder / request.param, peft_config=lora(), **settings)


def base_of(trainer):
    return {key: value.clone() for key, value in trainer.model.state_dict().items() if "lora" not in key}


def test_engine_follows_the_adapter_through_several_updates(trainer):
    generation = trainer.vllm_generation
    assert type(generation) is AdapterVLLMGeneration
    base = base_of(trainer)
    assert any(value.dtype == torch.uint8 for value in base.values()) == hasattr(trainer.model, "hf_quantizer")
    generation.sync_weights()
    assert difference(trainer) < ROUNDING
    for _ in range(3):
        move(trainer)
        # Neither stale nor ignored: without the hand-over the engine is off, with it it is not. The prompt stays the
        # same, so a prefix cached under the previous adapter would show as well.
        assert difference(trainer) > 2 * ROUNDING
        generation.sync_weights()
        assert difference(trainer) < ROUNDING
    after = base_of(trainer)
    assert after.keys() == base.keys()
    assert all(torch.equal(after[key], value) for key, value in base.items())


def test_training_samples_from_the_policy_that_it_trains(trainer):
    base = base_of(trainer)
    train_and_check_ratios(trainer, rollouts=3)
    after = base_of(trainer)
    assert all(torch.equal(after[key], value) for key, value in base.items())


def test_only_the_adapter_is_handed_over(trainer):
    handed = [path.name for path in trainer.vllm_generation.folder.iterdir()]
    assert sorted(handed) == ["README.md", "adapter_config.json", "adapter_model.safetensors"]
    # An underscore keeps it out of what the trainer uploads.
    assert "_vllm_adapter" in str(trainer.vllm_generation.folder)


def test_a_server_that_takes_no_adapter_is_one_clear_error(policy, folder, address, monkeypatch):
    monkeypatch.setattr(AdapterVLLMGeneration, "_save_adapter", lambda self: None)
    sentence = "did not take the adapter in .* Start it with `.*--enable-lora --max-lora-rank 8"
    with pytest.raises(GenerationServerError, match=sentence):
        trainer_with(policy, folder / "nowhere", peft_config=lora(), vllm_mode="server", vllm_server_base_url=address)


def test_a_server_with_another_base_is_told_of(policy, folder, address):
    settings = {"peft_config": lora(), "vllm_mode": "server", "vllm_server_base_url": address}
    with pytest.raises(
        GenerationServerError, match="has quantization=None, but the trained base is in 4 bits.*bitsan"
    ):
        trainer_with(policy, folder / "other_precision", quantization_config=NF4, **settings)

    copy = folder / "another_model"
    copy.symlink_to(policy)
    with pytest.warns(UserWarning, match="unless both hold the same weights"):
        trainer_with(copy, folder / "other_base", **settings)


def test_an_engine_without_4_bit_kernels_is_one_clear_error(policy, folder, monkeypatch):
    from vllm.model_executor.layers import quantization

    methods = [method for method in quantization.QUANTIZATION_METHODS if method != "bitsandbytes"]
    monkeypatch.setattr(quantization, "QUANTIZATION_METHODS", methods)
    with pytest.raises(ImportError, match="pip install vllm-bnb-plugin"):
        trainer_with(policy, folder / "no_plugin", peft_config=lora(), quantization_config=NF4)
