# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What the time of a step goes to, and how many tokens a run has generated."""

import time

import pytest
from accelerate import Accelerator

from trl_grpo_variants import step_times
from trl_grpo_variants.metrics import RunningMeans
from trl_grpo_variants.step_times import StepClock

from .integration import distributed_worker
from .tiny import dataset, make_trainer


class Clock:
    now = 0.0

    def perf_counter(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(step_times, "time", made)
    return made


def test_parts_of_a_step_add_up_to_it(clock):
    means = RunningMeans(Accelerator(cpu=True))
    steps = StepClock(means)
    # What is generated before the first step, or between two, is no part of one.
    for before, seconds in ((100.0, {"generation": 3.0, "rewards": 0.5}), (40.0, {"generation": 0.0, "rewards": 0.0})):
        with steps.counting("generation"):
            clock.now += before
        steps.on_step_begin()
        for _ in range(2):
            clock.now += 1.0
            for part, spent in seconds.items():
                with steps.counting(part):
                    clock.now += spent
        steps.on_step_end()
    assert means.pop("train") == {"generation_time": 3.0, "rewards_time": 0.5, "update_time": 2.0}


def test_the_time_of_what_fails_is_counted(clock):
    means = RunningMeans(Accelerator(cpu=True))
    steps = StepClock(means)
    # A run that begins within a step has not seen its beginning.
    steps.on_step_end()
    assert means.pop("train") == {}
    steps.on_step_begin()
    with pytest.raises(ZeroDivisionError), steps.counting("rewards"):
        clock.now += 2.0
        raise ZeroDivisionError
    steps.on_step_end()
    assert means.pop("train") == {"generation_time": 0.0, "rewards_time": 2.0, "update_time": 0.0}


def test_a_run_logs_its_times_and_tokens(policy_path, tmp_path):
    """A rollout serves two steps; evaluations take long and count for nothing."""
    lengths = []

    def rollout(prompts, trainer):
        time.sleep(0.2 if trainer.model.training else 2.0)
        made = distributed_worker.rollout(prompts, trainer)
        lengths.append(sum(map(len, made["completion_ids"])) if trainer.model.training else 0)
        return made

    def reward(completion_ids, **_):
        time.sleep(0.1)
        return distributed_worker.reward(completion_ids)

    trainer = make_trainer(
        policy_path,
        tmp_path,
        variant="mirror",
        steps_per_generation=2,
        num_iterations=1,
        max_steps=4,
        logging_steps=2,
        eval_strategy="steps",
        eval_steps=1,
        eval_dataset=dataset(2),
        reward_funcs=reward,
        rollout_func=rollout,
    )
    for _ in range(2):
        lengths.clear()
        trainer.train()
        logged = [entry for entry in trainer.state.log_history if "loss" in entry]
        tokens = [length for length in lengths if length]
        assert [entry["generated_tokens"] for entry in logged] == [tokens[0], sum(tokens)] and len(tokens) == 2
        for entry in logged:
            assert 0.1 <= entry["generation_time"] < 0.3
            assert 0.05 <= entry["rewards_time"] < 0.25
            # The parent's time of a step is without the optimizer.
            times = [entry[f"{part}_time"] for part in ("generation", "rewards", "update")]
            assert entry["step_time"] < sum(times) < entry["step_time"] + 0.2
        evaluated = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
        assert not {name for entry in evaluated for name in entry if name.endswith("_time") or "tokens" in name} - {
            "eval_num_tokens"
        }
