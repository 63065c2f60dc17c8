# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Reward functions in processes of their own: real ones."""

import asyncio
import functools
import gc
import multiprocessing
import os
import sys
import warnings

import pytest
import torch
from datasets import Dataset
from transformers import TrainerCallback
from trl.rewards import accuracy_reward

from trl_grpo_variants.reward_workers import RewardFunctionError, RewardWorkers

from . import reward_functions as functions
from .integration.test_parity import trained
from .tiny import make_trainer


@pytest.fixture
def workers():
    made = []

    def make(num_workers, *reward_funcs, timeout=None):
        made.append(RewardWorkers(num_workers, timeout))
        return made[-1], made[-1].take(list(reward_funcs))

    yield make
    for pool in made:
        pool.close()


def score(*reward_funcs, prompts=("a", "b", "c", "d"), completions=("xy", "x", "xyz", ""), **columns):
    """Rewards of each function, as TRL asks for them."""
    asked = {"prompts": list(prompts), "completions": list(completions), "completion_ids": [[2], [3], [4], [5]]}
    asked |= {"trainer_state": None, "log_extra": print, "log_metric": print} | columns

    async def all_of_them():
        return await asyncio.gather(*(function(**asked) for function in reward_funcs))

    return asyncio.run(all_of_them())


def test_rewards_come_in_the_order_of_the_completions(workers):
    scaled = functools.partial(functions.column, scale=2.0)
    pool, (length, column) = workers(2, functions.length, scaled)
    assert (length.__name__, column.__name__) == ("length", "column")
    for _ in range(2):
        rewards = score(length, column, answer=[1, 2, 3, 4], text=list("wxyz"))
        assert rewards == [[2.0, None, 3.0, None], [2.0, 4.0, 6.0, 8.0]]


def test_the_same_processes_score_until_the_pool_is_closed(workers):
    pool, (process,) = workers(2, functions.process)
    first, second = set(score(process)[0]), set(score(process)[0])
    assert first | second <= {float(child.pid) for child in multiprocessing.active_children()}
    assert len(first | second) <= 2 and float(os.getpid()) not in first
    pool.close()
    assert not (first | second) & {float(child.pid) for child in multiprocessing.active_children()}
    # What is asked of a closed one starts it anew.
    assert not set(score(process)[0]) & (first | second)


def test_functions_are_at_work_at_the_same_time(workers, tmp_path):
    names = {"folder": str(tmp_path), "name": "one", "other": "two"}
    one = functools.partial(functions.meets, **names)
    two = functools.partial(functions.meets, **(names | {"name": "two", "other": "one"}))
    _, taken = workers(2, one, two)
    assert score(*taken, prompts=["a"], completions=["x"]) == [[1.0], [1.0]]


@pytest.mark.parametrize(
    ("function", "what"),
    [
        ("fails_on_b", r"raised ValueError: no b \(in `fails_on_b`, reward_functions.py, line \d+\)"),
        ("hangs_on_b", "took longer than `reward_timeout=2` seconds"),
        ("dies_on_b", "ended its process with exit code 7"),
    ],
)
def test_a_failure_names_the_completion(workers, function, what):
    pool, (taken,) = workers(2, getattr(functions, function), timeout=2.0)
    expected = f"^The reward function `{function}` {what} for completion 1 of 4: prompt 'b', completion 'x'\\.$"
    with pytest.raises(RewardFunctionError, match=expected):
        score(taken)
    pool.close()
    assert score(taken, prompts="acde") == [[1.0] * 4]


def test_an_answer_that_comes_too_late_is_none_of_the_next_completion(workers):
    _, (taken,) = workers(1, functions.late_on_b, timeout=1.0)
    for prompt, what in ("b", "took longer than"), ("a", "ended its process"):
        with pytest.raises(RewardFunctionError, match=what):
            score(taken, prompts=[prompt], completions=["x"])


def test_what_cannot_be_scored_is_told(workers):
    _, (two,) = workers(1, functions.gives_two)
    with pytest.raises(
        RewardFunctionError, match=r"`gives_two` raised ValueError: too many values .* completion 0 of 4"
    ):
        score(two)
    _, (first,) = workers(1, functions.first_token)
    with pytest.raises(RewardFunctionError, match=r"its arguments, which cannot be pickled \(.*\), for completion 1"):
        score(first, lock=[print, lambda: None, None, None])


class Stubborn:
    def __reduce__(self):
        raise ValueError("not\nme")


def test_of_several_failures_one_is_told_and_the_others_are_not_printed(workers, caplog):
    _, (first,) = workers(2, functions.first_token)
    with pytest.raises(RewardFunctionError, match=r"cannot be pickled \(not me\), for completion \d of 4"):
        score(first, column=[Stubborn()] * 4)
    gc.collect()
    assert not [record for record in caplog.records if record.name == "asyncio"]


def test_what_cannot_be_called_in_another_process_is_refused():
    pool = RewardWorkers(2, None)
    with pytest.raises(
        ValueError, match=r"`reward_num_workers=2` .* but `<lambda>` cannot be pickled \(.*at the top level"
    ):
        pool.take(lambda **_: [1.0])
    with pytest.raises(ValueError, match="but `logs` needs `log_metric`, which belongs to the trainer's; do without"):
        pool.take([functions.length, functions.logs])


def test_what_a_function_of_the_trainers_can_do_without_it_is_not_given(workers):
    _, (logging, _) = workers(1, functions.logs_if_it_can, accuracy_reward)
    assert score(logging) == [[1.0] * 4]


def test_a_function_of_a_notebook_is_refused(monkeypatch):
    def graded(**_):
        return [1.0]

    main = sys.modules["__main__"]
    monkeypatch.delattr(main, "__file__", raising=False)
    monkeypatch.setattr(main, "graded", graded, raising=False)
    graded.__module__, graded.__qualname__ = "__main__", "graded"
    with pytest.raises(
        ValueError, match="but `graded` is defined in a notebook or at a prompt, where they do not find"
    ):
        RewardWorkers(2, None).take(functools.partial(graded, scale=2.0))


def test_what_waits_or_is_a_model_is_left_to_trl():
    model = torch.nn.Linear(1, 1)
    pool = RewardWorkers(2, None)
    with pytest.warns(UserWarning, match="`reward_num_workers=2` does nothing: no reward function is a synchronous"):
        assert pool.take([functions.waits, model, "some/model"]) == [functions.waits, model, "some/model"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pool.take(functions.length) is not functions.length


@pytest.mark.parametrize("variant", [None, "tic_grpo"])
def test_a_run_is_the_same_with_workers(policy_path, tmp_path, variant):
    settings = {"variant": variant, "reward_funcs": [functions.first_token, functions.length], "max_steps": 2}
    alone, pooled = (trained(policy_path, tmp_path, **settings, **more) for more in ({}, {"reward_num_workers": 2}))
    assert alone[0] == pooled[0]
    assert all(torch.equal(alone[1][name], pooled[1][name]) for name in alone[1])
    assert not multiprocessing.active_children()


def test_a_failure_ends_the_run_and_the_workers(policy_path, tmp_path):
    trainer = make_trainer(policy_path, tmp_path, reward_funcs=functions.dies_on_b, reward_num_workers=1, max_steps=20)
    with pytest.raises(RewardFunctionError, match="`dies_on_b` ended its process with exit code 7 for completion"):
        trainer.train()
    assert not multiprocessing.active_children()


def test_the_workers_of_an_evaluation_end_with_it(policy_path, tmp_path):
    trainer = make_trainer(policy_path, tmp_path, reward_funcs=functions.dies_on_b, reward_num_workers=1)
    with pytest.raises(RewardFunctionError, match="`dies_on_b` ended its process with exit code 7 for completion"):
        trainer.evaluate(Dataset.from_dict({"prompt": ["a", "b"]}))
    assert not multiprocessing.active_children()
    # Those that failed are not asked again.
    assert trainer.evaluate(Dataset.from_dict({"prompt": ["a", "c"]}))["eval_reward"] == 1.0
    assert not multiprocessing.active_children()


def test_an_evaluation_within_a_training_leaves_it_its_workers(policy_path, tmp_path):
    seen = []

    class Seen(TrainerCallback):
        def on_step_end(self, *_, **__):
            seen.append({child.pid for child in multiprocessing.active_children()})

    rows = Dataset.from_dict({"prompt": ["a"]})
    settings = {"eval_strategy": "steps", "eval_steps": 1, "eval_dataset": rows, "per_device_eval_batch_size": 4}
    settings |= {"reward_funcs": functions.first_token, "reward_num_workers": 1, "callbacks": [Seen()], "max_steps": 2}
    make_trainer(policy_path, tmp_path, **settings).train()
    assert len(seen) == 2 and seen[0] == seen[1] and len(seen[0]) == 1
