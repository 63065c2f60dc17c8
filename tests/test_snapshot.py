# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import copy
import sys
from types import SimpleNamespace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
from transformers import AutoModelForCausalLM

from trl_grpo_variants.snapshot import Anchor, PolicySnapshot


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def values(model):
    return [parameter.detach().clone() for parameter in model.parameters()]


def assert_same(left, right):
    assert all(torch.equal(a, b) for a, b in zip(left, right, strict=True))


def move(model):
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter))


def test_forward_inside_is_that_of_the_earlier_policy_and_outside_of_the_live_one():
    model, inputs = network(), torch.randn(5, 3)
    before = model(inputs)
    snapshot = PolicySnapshot(model)
    move(model)
    live, after = values(model), model(inputs)

    with snapshot.swapped_in():
        torch.testing.assert_close(model(inputs), before, rtol=0, atol=0)

    assert_same(values(model), live)
    torch.testing.assert_close(model(inputs), after, rtol=0, atol=0)
    assert not torch.allclose(before, after)


def test_live_parameters_come_back_when_the_body_raises():
    model = network()
    snapshot = PolicySnapshot(model)
    move(model)
    live = values(model)

    with pytest.raises(RuntimeError, match="boom"), snapshot.swapped_in():
        raise RuntimeError("boom")

    assert_same(values(model), live)


def test_swapping_in_twice_is_refused():
    model = network()
    snapshot = PolicySnapshot(model)
    move(model)
    live = values(model)
    with snapshot.swapped_in():
        with pytest.raises(RuntimeError, match="swapped in already"), snapshot.swapped_in():
            pass
        assert snapshot.is_swapped_in
    assert not snapshot.is_swapped_in
    assert_same(values(model), live)


def test_gradient_taken_inside_is_at_the_snapshot_and_stays():
    model, inputs = network(), torch.randn(5, 3)
    model(inputs).square().sum().backward()
    expected = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    snapshot = PolicySnapshot(model)
    move(model)

    with snapshot.swapped_in():
        model(inputs).square().sum().backward()

    assert_same([parameter.grad for parameter in model.parameters()], expected)


def test_refresh_copies_exactly_or_mixes():
    model = network()
    start = values(model)
    snapshot = PolicySnapshot(model)
    move(model)
    live = values(model)

    snapshot.refresh(mixup=0.25)
    with snapshot.swapped_in():
        for mixed, old, new in zip(values(model), start, live, strict=True):
            torch.testing.assert_close(mixed, 0.75 * old + 0.25 * new)

    snapshot.refresh()
    with snapshot.swapped_in():
        assert_same(values(model), live)


def test_optimizer_updates_the_live_policy_after_a_swap():
    model, inputs = network(), torch.randn(5, 3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    snapshot = PolicySnapshot(model)
    kept = values(model)
    for _ in range(2):
        with snapshot.swapped_in():
            model(inputs).sum().backward()
        optimizer.step()

    assert not torch.equal(values(model)[0], kept[0])
    with snapshot.swapped_in():
        assert_same(values(model), kept)


@pytest.mark.parametrize("kind", [Anchor, PolicySnapshot])
@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.popitem(),
        lambda state: state.update(more=torch.zeros(2)),
        # Each of these could be broadcast.
        lambda state: state.update({"0.bias": torch.zeros(1)}),
        lambda state: state.update({"0.weight": torch.zeros(3)}),
    ],
)
def test_parameters_of_another_policy_are_refused_and_nothing_is_loaded(kind, change):
    model = network()
    anchor = kind(model)
    before = copy.deepcopy(anchor.state_dict())
    state = {name: torch.ones_like(value) for name, value in before.items()}
    change(state)
    with pytest.raises(ValueError, match="other trainable parameters"):
        anchor.load_state_dict(state)
    assert_same(anchor.state_dict().values(), before.values())


@pytest.mark.parametrize("kind", [Anchor, PolicySnapshot])
def test_parameters_that_were_saved_come_back(kind):
    model = network()
    anchor = kind(model)
    saved = copy.deepcopy(anchor.state_dict())
    move(model)
    if kind is PolicySnapshot:
        anchor.refresh()
    assert not torch.equal(anchor.state_dict()["0.weight"], saved["0.weight"])
    anchor.load_state_dict(saved)
    assert_same(anchor.state_dict().values(), saved.values())


def test_parameters_that_zero3_holds_for_the_time_of_a_context_only_are_saved_and_come_back(monkeypatch):
    class GatheredParameters:
        def __init__(self, parameters, modifier_rank):
            assert modifier_rank == 0
            self.parameters = parameters

        def __enter__(self):
            for parameter in self.parameters:
                parameter.data = parameter.whole

        def __exit__(self, *_):
            for parameter in self.parameters:
                # What was written in between.
                parameter.whole, parameter.data = parameter.data.clone(), parameter.data.fill_(0.0)[:0]

    monkeypatch.setitem(
        sys.modules, "deepspeed", SimpleNamespace(zero=SimpleNamespace(GatheredParameters=GatheredParameters))
    )
    model = network()
    expected = {name: value.detach().clone() for name, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.ds_id, parameter.whole, parameter.data = 0, parameter.data.clone(), torch.empty(0)
    anchor = Anchor(model)
    saved = anchor.state_dict()
    assert saved.keys() == expected.keys()
    assert_same(saved.values(), expected.values())
    anchor.load_state_dict({name: value + 1 for name, value in saved.items()})
    assert_same(anchor.state_dict().values(), [value + 1 for value in expected.values()])
    assert_same(saved.values(), expected.values())
    assert all(parameter.numel() == 0 for parameter in model.parameters())


def test_casts_cached_by_autocast_do_not_survive_a_swap():
    model, inputs = network(), torch.randn(5, 3)
    snapshot = PolicySnapshot(model)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        before = model(inputs)
        move(model)
        torch.clear_autocast_cache()
        model(inputs)
        with snapshot.swapped_in():
            torch.testing.assert_close(model(inputs), before, rtol=0, atol=0)


def test_a_model_that_is_prepared_later_is_followed():
    """Backends cast the parameters and wrap the modules when training starts."""
    model, inputs = network(), torch.randn(5, 3)
    snapshot = PolicySnapshot(model)
    model[0] = checkpoint_wrapper(model[0])
    model.double()
    before = model(inputs.double())
    move(model)
    live = values(model)

    with snapshot.swapped_in():
        torch.testing.assert_close(model(inputs.double()), before, rtol=0, atol=0)

    assert_same(values(model), live)
    assert list(snapshot.state_dict()) == list(network().state_dict())


@pytest.mark.parametrize("adapter", [True, False])
def test_memory_is_that_of_the_trainable_parameters(policy_path, adapter):
    model = AutoModelForCausalLM.from_pretrained(policy_path)
    if adapter:
        model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    trainable = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    everything = sum(p.numel() * p.element_size() for p in model.parameters())

    snapshot = PolicySnapshot(model)

    assert sum(value.nbytes for value in snapshot.state_dict().values()) == trainable
    assert (trainable < everything / 3) if adapter else (trainable == everything)


def test_swapping_allocates_nothing():
    model = network()
    snapshot = PolicySnapshot(model)
    live = {parameter.data_ptr() for parameter in model.parameters()}
    with snapshot.swapped_in():
        assert not live & {parameter.data_ptr() for parameter in model.parameters()}
    assert {parameter.data_ptr() for parameter in model.parameters()} == live


def test_nothing_is_added_to_the_model():
    model = network()
    state, modules = list(model.state_dict()), list(model.modules())
    snapshot = PolicySnapshot(model)
    with snapshot.swapped_in():
        assert list(model.state_dict()) == state
    assert list(model.modules()) == modules
