# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""An adapter over a real 4-bit base."""

import gc
import types

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from ..tiny import make_policy, make_trainer, own_variants


pytest.importorskip("bitsandbytes")

NF4 = BitsAndBytesConfig(
    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=torch.float32
)
CASES = {
    **{
        name: {"variant": name}
        for name in own_variants("grpo", "mean_only", "reference_mean_only", "grpo_upper_clip", "gspo")
    },
    "older_anchor": {"variant": "dual", "mirror_sync_steps": 5},
    "moving_reference": {"variant": "reference", "sync_ref_model": True, "ref_model_sync_steps": 2},
    "checkpointed": {"variant": "tic_grpo", "gradient_checkpointing": True},
}


@pytest.fixture(scope="module")
def policy_path(tmp_path_factory):
    """The 4-bit kernels work on blocks of 32 columns and 64 weights."""
    path = tmp_path_factory.mktemp("wide_policy")
    make_policy(path, hidden_size=64)
    return str(path)


def parity(completion_ids, **_):
    return [float(sum(ids) % 2) for ids in completion_ids]


def base_state(model):
    """The frozen weights, packed codes and quantisation statistics alike."""
    return {name: value.clone() for name, value in model.state_dict().items() if "lora" not in name}


def logps(model):
    ids = torch.tensor([[2, 3, 4, 5, 6, 7]])
    with torch.no_grad():
        return model(input_ids=ids).logits.float().log_softmax(-1)


def qlora_trainer(policy_path, tmp_path, **settings):
    return make_trainer(
        policy_path,
        tmp_path,
        model=policy_path,
        quantization_config=NF4,
        peft_config=LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"),
        learning_rate=5e-2,
        reward_funcs=parity,
        **settings,
    )


def reachable_storages(root):
    """Bytes of every tensor memory that an object leads to, by address."""
    seen, found, pending = set(), {}, [root]
    while pending:
        item = pending.pop()
        if id(item) in seen or isinstance(item, types.ModuleType | type):
            continue
        seen.add(id(item))
        if isinstance(item, torch.Tensor):
            storage = item.untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
            pending += [item.grad, vars(item)]
        elif isinstance(item, types.FunctionType):
            # Not its globals, which lead to everything.
            pending += [cell.cell_contents for cell in item.__closure__ or () if cell != types.CellType()]
        else:
            pending += gc.get_referents(item)
    return {address: nbytes for address, nbytes in found.items() if nbytes}


@pytest.mark.parametrize(
    "settings",
    [
        {"variant": "no_is_frozen"},
        {"variant": "dual", "mirror_sync_steps": 5},
        {"variant": "reference", "sync_ref_model": True, "ref_model_sync_steps": 2},
    ],
    ids=lambda settings: settings["variant"],
)
def test_a_snapshot_costs_the_adapter_and_nothing_of_the_base(policy_path, tmp_path, settings):
    trainer = qlora_trainer(policy_path, tmp_path, max_steps=4, **settings)
    model = reachable_storages(trainer.model)
    base = [p.nbytes for p in trainer.model.parameters() if p.dtype == torch.uint8]
    assert len(base) == 14 and set(base) <= set(model.values())

    (snapshot,) = trainer._anchors.named().values()
    held = reachable_storages(list(snapshot.state_dict().values()))
    assert not held.keys() & model.keys()
    assert sum(held.values()) == sum(p.nbytes for p in trainer.model.parameters() if p.requires_grad)
    besides = reachable_storages(trainer).items() - model.items() - held.items()
    assert sum(nbytes for _, nbytes in besides) < 16

    trainer.train()
    after = reachable_storages(trainer)
    assert after.items() >= model.items() | held.items()
    assert max(nbytes for address, nbytes in after.items() if address not in model) < min(base)


@pytest.mark.parametrize("name", CASES)
def test_the_adapter_trains_and_the_base_stays(policy_path, tmp_path, name):
    trainer = qlora_trainer(policy_path, tmp_path, max_steps=8, **CASES[name])
    base = base_state(trainer.model)
    assert any(value.dtype == torch.uint8 for value in base.values())
    adapter = {key: p.detach().clone() for key, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()

    after = base_state(trainer.model)
    assert after.keys() == base.keys()
    assert all(torch.equal(after[key], value) for key, value in base.items())
    assert all(not torch.equal(trainer.model.get_parameter(key), value) for key, value in adapter.items())
    for snapshot in trainer._anchors.named().values():
        assert snapshot.state_dict().keys() == adapter.keys()
        held = sum(value.nbytes for value in snapshot.state_dict().values())
        assert held == sum(p.nbytes for p in trainer.model.parameters() if p.requires_grad)

    trainer.save_model()
    trainer.model.eval()
    loaded = AutoModelForCausalLM.from_pretrained(policy_path, quantization_config=NF4, dtype=trainer.model.dtype)
    loaded = PeftModel.from_pretrained(loaded, tmp_path).eval()
    for key, parameter in loaded.named_parameters():
        if "lora" in key:
            # TRL trains and saves it in bfloat16 over a 4-bit base; PEFT loads it in float32.
            parameter.data = parameter.data.to(torch.bfloat16)
    torch.testing.assert_close(logps(loaded), logps(trainer.model))
    with loaded.disable_adapter():
        assert not torch.allclose(logps(loaded), logps(trainer.model), atol=1e-2)
