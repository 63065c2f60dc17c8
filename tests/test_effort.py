# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What a run has reached and spent, as report and card tell it from its logs."""

import numpy as np
import pytest

from trl_grpo_variants.report.behind import behind_the_curve
from trl_grpo_variants.report.modules import Module, cost
from trl_grpo_variants.report.summary import Summary
from trl_grpo_variants.runs.effort import duration, effort, price, successes
from trl_grpo_variants.runs.folder import Run, TrainerState

from .test_card import config, model_card, subject


def log(step, tokens, generation, rewards, update, **others):
    times = {"generation_time": generation, "rewards_time": rewards, "update_time": update}
    return {"step": step, "loss": 0.1, "generated_tokens": tokens} | times | others


def run(*entries):
    return Run("run", logs=TrainerState(list(entries), 10))


# Logged each fourth step and evaluated each third one; what ends the run repeats the last sum.
RUN = run(
    {"step": 0, "eval_success": 0.2, "eval_success@1": 0.2, "eval_success@2": 0.3, "eval_held_out_runtime": 1.0},
    {"step": 3, "eval_success": 0.4, "eval_success@1": 0.4, "eval_success@2": 0.5, "eval_held_out_runtime": 1.0},
    log(4, 1000, 6.0, 1.0, 3.0, success=0.3, **{"success@1": 0.3}),
    {"step": 6, "eval_success": 0.8, "eval_success@1": 0.8, "eval_success@2": None, "eval_held_out_runtime": 1.0},
    log(8, 3000, 2.0, 1.0, 7.0, success=0.9, **{"success@1": 0.9}),
    {"step": 8, "train_runtime": 9.0, "generated_tokens": 3000, "success": 0.9},
)
TRAINING = run(*(entry for entry in RUN.logs.history if "eval_success" not in entry))


def test_a_step_counts_as_often_as_it_was_taken():
    spent = effort(RUN)
    assert spent.steps.tolist() == [4, 8] and spent.tokens.tolist() == [1000, 3000]
    assert {name: seconds.tolist() for name, seconds in spent.seconds.items()} == {
        "generation": [24, 32],
        "rewards": [4, 8],
        "update": [12, 40],
    }
    assert spent.time.tolist() == [40, 80]
    assert spent.shares == {"generation": 0.4, "rewards": 0.1, "update": 0.5}
    tokens, seconds = spent.until(np.array([0.0, 3.0, 6.0, 8.0]))
    assert tokens.tolist() == [0, 750, 2000, 3000] and seconds.tolist() == [0, 30, 60, 80]


def test_success_is_that_of_evaluations_and_of_rollouts():
    assert {name: [values.tolist() for values in series] for name, series in successes(RUN).items()} == {
        "evaluation `held_out`": [[0, 3, 6], [0.2, 0.4, 0.8]],
        "training rollouts": [[4, 8], [0.3, 0.9]],
    }


def test_the_price_is_what_was_spent_until_each_measurement():
    told = price(RUN)
    assert told.source == "evaluation `held_out`"
    assert told.rows == [
        ("0", "0.200", "0", "0.0 s"),
        ("3", "0.400", "750", "30.0 s"),
        ("6", "0.800", "2,000", "60.0 s"),
    ]
    assert told.shares == {"generation": "40%", "rewards": "10%", "update": "50%"}
    assert price(TRAINING).source == "training rollouts"
    many = price(run(*(log(step, 10 * step, 1.0, 1.0, 1.0, success=0.5) for step in range(1, 101))))
    steps = [int(step) for step, *_ in many.rows]
    assert len(steps) == 6 and (steps[0], steps[-1]) == (1, 100)
    assert many.rows[-1] == ("100", "0.500", "1,000", "5.0 min")


@pytest.mark.parametrize(
    "history",
    [
        [],
        [{"step": 4, "loss": 0.1, "success": 0.5, "step_time": 3.0}],
        [log(4, None, 1.0, 1.0, 1.0, success=0.5)],
        [log(4, 10, 1.0, float("nan"), 1.0, success=0.5)],
        [log(4, 10, "1", 1.0, 1.0, success=0.5)],
    ],
    ids=["nothing", "older", "none", "nan", "text"],
)
def test_logs_that_do_not_tell_are_left_out(history):
    assert effort(run(*history)) is None and price(run(*history)) is None


def test_without_success_there_is_no_price():
    assert price(run(log(4, 10, 1.0, 1.0, 1.0))) is None


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.0, "0.0 s"), (119.0, "119.0 s"), (150.0, "2.5 min"), (7199.0, "120.0 min"), (9000, "2.5 h")],
)
def test_a_time_is_told_in_a_unit_that_fits(seconds, told):
    assert duration(seconds) == told


# ---- the page ------------------------------------------------------------------------------------------------------


def drawn(summary):
    return {
        part.id: part.subtitle for part in [*cost(summary), *behind_the_curve(summary)] if isinstance(part, Module)
    }


def test_the_page_tells_what_success_has_cost_and_where_the_time_went():
    found = drawn(Summary(RUN))
    assert found["success-tokens"] == "Success in evaluation held_out. 0.80 after 2,000\xa0tokens."
    assert found["success-time"] == "Success in evaluation held_out. 0.80 after 60.0\xa0s."
    assert found["time"] == "Seconds of a step. Of all time: generation 40\xa0% · rewards 10\xa0% · update 50\xa0%."
    assert drawn(Summary(TRAINING))["success-tokens"] == "Success in training rollouts. 0.90 after 3,000\xa0tokens."
    nothing = drawn(Summary(run({"step": 4, "loss": 0.1, "success": 0.5})))
    assert not {"success-tokens", "success-time", "time"} & nothing.keys()
    without_success = drawn(Summary(run(log(4, 10, 1.0, 1.0, 1.0))))
    assert "time" in without_success and "success-tokens" not in without_success


def test_the_best_of_k_is_told_of_evaluations_or_else_of_rollouts():
    told = drawn(Summary(RUN))["best-of"]
    assert told == (
        "Share of held-out prompts that one completion of k solves. k = 1: 0.20 → 0.80; k = 2: 0.30 → 0.50."
    )
    assert drawn(Summary(TRAINING))["best-of"].endswith(
        "training prompts that one completion of k solves. k = 1: 0.30 → 0.90."
    )
    assert "best-of" not in drawn(Summary(run({"step": 1, "success": 0.5})))


# ---- card ----------------------------------------------------------------------------------------------------------


def test_the_card_says_what_it_took(tmp_path):
    text = model_card(config(tmp_path, variant="mirror"), subject(), price=price(RUN)).content
    assert "## What it took\n\nSuccess in the evaluation `held_out`, and what training had spent by then" in text
    assert "| step | success | generated tokens | time |\n|---|---|---|---|\n| 0 | 0.200 | 0 | 0.0 s |\n| 3 |" in text
    assert "| 6 | 0.800 | 2,000 | 60.0 s |\n\nOf the time, 40% went to generation, 10% to reward functions and" in text
    assert "and 50% to the update.\n\n## Load it" in text
    assert "What it took" not in model_card(config(tmp_path, variant="mirror"), subject()).content
