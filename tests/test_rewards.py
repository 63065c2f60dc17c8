# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import functools
import re
from types import SimpleNamespace

import pytest
import torch

from trl_grpo_variants import rewards
from trl_grpo_variants.rewards import RewardFunctionError, rewards_or_failure

from .tiny import make_trainer


def broken(completion_ids, **_):
    raise ZeroDivisionError("no judge")


async def broken_later(completion_ids, **_):
    raise ZeroDivisionError("no judge")


def too_few(completion_ids, **_):
    return [1.0]


@pytest.fixture
def two_processes(monkeypatch):
    """The first of two processes; what the other says of its rewards is to be set."""
    accelerator = SimpleNamespace(num_processes=2, device="cpu", other=None, gathered=[])
    accelerator.gather = lambda values: accelerator.gathered.append(values) or torch.cat([values, values])
    monkeypatch.setattr(rewards, "gather_object", lambda own: [*own, accelerator.other])
    return accelerator


def test_rewards_are_those_of_all_processes(two_processes):
    expected = torch.ones(6, 2)
    assert rewards_or_failure(lambda: expected, (3, 2), two_processes) is expected
    assert two_processes.gathered == []


@pytest.mark.parametrize(("other", "processes"), [(None, "process 0"), ("KeyError", "processes 0, 1")])
def test_a_process_that_fails_gives_what_the_other_waits_for_and_tells_it(two_processes, other, processes):
    two_processes.other = other
    sentence = (
        rf"A reward function failed on {processes} of 2: ZeroDivisionError: no judge \(in `broken`, test_rewards.py,"
    )
    with pytest.raises(RewardFunctionError, match=f"^{sentence} ") as raised:
        rewards_or_failure(functools.partial(broken, []), (3, 2), two_processes)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    (given,) = two_processes.gathered
    assert given.shape == (3, 2) and given.isnan().all()


def test_a_process_whose_rewards_are_good_stops_with_the_other(two_processes):
    two_processes.other = "KeyError: 'answer'."
    with pytest.raises(RewardFunctionError, match=r"failed on process 1 of 2: KeyError: 'answer'\.$") as raised:
        rewards_or_failure(lambda: torch.ones(6, 2), (3, 2), two_processes)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(("function", "place"), [(broken, "broken"), (broken_later, "broken_later"), (too_few, None)])
def test_a_failure_is_told_with_the_users_function(policy_path, tmp_path, function, place):
    trainer = make_trainer(policy_path, tmp_path, reward_funcs=function)
    with pytest.raises((ZeroDivisionError, ValueError)) as raised:
        trainer.train()
    sentence = rewards._sentence(raised.value)
    if place is None:
        assert re.match(r"ValueError: The reward function 'too_few' returned 1 rewards, but 8 were expected", sentence)
    else:
        assert re.fullmatch(rf"ZeroDivisionError: no judge \(in `{place}`, test_rewards.py, line \d+\)\.", sentence)


class SinglePrecision(torch.Tensor):
    """A tensor of a device without double precision, as Apple's are."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        result = super().__torch_function__(function, types, args, kwargs or {})
        if function is torch.Tensor.cpu:
            return result.as_subclass(torch.Tensor)
        assert getattr(result, "dtype", None) != torch.float64
        return result


def test_advantages_need_no_double_precision_of_the_device(policy_path, tmp_path):
    trainer = make_trainer(policy_path, tmp_path, variant="delta_l", max_steps=1)
    gather = trainer.accelerator.gather
    trainer.accelerator.gather = lambda values: gather(values).as_subclass(SinglePrecision)
    trainer.train()
