# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Each sentence at its condition, and not beside it."""

import math

import pytest

from trl_grpo_variants.report import numbers, sentences
from trl_grpo_variants.report.figures import key_figures

from .made import made, visits_of


RISING = {str(n): [6, 8, 11, 14] for n in range(8)}
FALLING = {str(n): [14, 11, 8, 6] for n in range(8)}
LEVEL = {str(n): [10, 11, 9, 10] for n in range(8)}
# Two sides of a mean, so that its interval has a width.
EXACT = {str(n): [None, *(c / 20 + (0.05 if n % 2 else -0.05) for c in (8, 11, 14))] for n in range(8)}


def off(by):
    """Predictions that are too high by so much."""
    return {prompt: [None, *(p + by for p in values[1:])] for prompt, values in EXACT.items()}


def logged(name, values, **others):
    return [{"step": step, "loss": 0.1, "reward": 0.5, name: value} | others for step, value in enumerate(values, 1)]


# ---- headline ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        (RISING, "Success rose from 0.30 to 0.70; 8\xa0of 8\xa0prompts got clearly better, none worse."),
        (FALLING, "Success fell from 0.70 to 0.30; 0\xa0of 8\xa0prompts got clearly better, 8 worse."),
        (LEVEL, "Success did not clearly change: 0.50 → 0.50; 0\xa0of 8\xa0prompts got clearly better, none worse."),
    ],
    ids=["rose", "fell", "level"],
)
def test_the_headline_says_where_success_went(counts, told):
    assert sentences.headline(made(visits_of(counts))).replace(" of 8", "\xa0of 8") == told


@pytest.mark.parametrize(
    ("counts", "begins"),
    [
        (RISING, "Success has risen from 0.30 to 0.70 by step 12 of 40; 8 of"),
        (FALLING, "Success has fallen from 0.70 to 0.30 by step 12 of 40; 0 of"),
        (LEVEL, "Success has not clearly changed by step 12 of 40: 0.50 → 0.50; 0 of"),
    ],
    ids=["rose", "fell", "level"],
)
def test_a_run_that_is_not_finished_has_only_got_so_far(counts, begins):
    assert sentences.headline(made(visits_of(counts), max_steps=40)).startswith(begins)
    assert "by step" not in sentences.headline(made(visits_of(counts), step=40, max_steps=40))


@pytest.mark.parametrize(
    ("predicted", "ends"),
    [
        (off(0.0), " and, on average, agrees with the theory throughout."),
        (off(0.2), ", 0.20 below its prediction at the last visit."),
        (off(-0.2), ", 0.20 above its prediction at the last visit."),
    ],
    ids=["agrees", "below", "above"],
)
def test_the_headline_compares_with_the_theory(predicted, ends):
    assert sentences.headline(made(visits_of(RISING, predicted))).endswith(ends)


def test_it_agrees_from_the_visit_on_after_which_every_interval_holds_0():
    predicted = {
        prompt: [None, values[1] + 0.3, *values[2:]] for prompt, values in EXACT.items()
    }  # off at the second visit only
    told = sentences.headline(made(visits_of(RISING, predicted)))
    assert told == "Success rose from 0.30 to 0.70 and, on average, agrees with the theory from the third visit on."


def test_one_agreeing_visit_at_the_end_is_no_agreement():
    predicted = {prompt: [None, values[1] + 0.3, values[2] + 0.3, values[3]] for prompt, values in EXACT.items()}
    told = sentences.headline(made(visits_of(RISING, predicted)))
    assert told.endswith("8\xa0prompts got clearly better, none worse.")


def evaluations(*shares, prompts=400):
    return [
        {"step": 4 * n, "eval_success": share, "eval_success_prompts": prompts, "eval_runtime": 1.0}
        for n, share in enumerate(shares)
    ]


def test_held_out_success_is_quoted_before_that_of_training():
    history = evaluations(0.30, 0.35, 0.60)
    told = sentences.headline(made(visits_of(LEVEL), history))
    assert told.startswith("Held-out success rose from 0.30 to 0.60; 0 of 8")
    told = sentences.headline(made(visits_of(RISING, off(0.0)), history))
    assert told.endswith("; on the training prompts it agrees, on average, with the theory throughout.")
    told = sentences.headline(made(visits_of(RISING, off(0.2)), history))
    assert told.endswith("; on the training prompts it is 0.20 below its prediction at the last visit.")
    # One evaluation shows no change, and few prompts no clear one.
    assert sentences.headline(made(visits_of(RISING), history[:1])).startswith("Success rose")
    few = evaluations(0.4, 0.6, prompts=20)
    assert sentences.headline(made(visits_of(LEVEL), few)).startswith("Held-out success did not clearly change: 0.40")


def test_a_single_visit_shows_no_change():
    counts = {prompt: values[:1] for prompt, values in RISING.items()}
    told = sentences.headline(made(visits_of(counts)))
    assert told == "Mean success is 0.30 over 8\xa0prompts, each visited once."
    told = sentences.headline(made(visits_of({"a": [10]})))
    assert told == "Mean success is 0.50 over 1\xa0prompt, visited once."


def test_without_a_monitor_the_logs_are_quoted():
    rising = [0.1, 0.12, 0.5, 0.6, 0.7, 0.68, 0.8, 0.82, 0.9, 0.88]
    assert sentences.headline(made(None, logged("success", rising))) == "Success rose from 0.10 to 0.88."
    restless = [0.1, 0.9, 0.1, 0.9, 0.1, 0.9, 0.1, 0.9, 0.1, 0.3]
    told = sentences.headline(made(None, logged("success", restless)))
    assert told == "Success did not clearly change: 0.10 → 0.30."
    rewards = [{"step": step, "loss": 0.1, "reward": 10.0 * step} for step in range(1, 21)]
    assert sentences.headline(made(None, rewards)) == "Reward rose from 15.0 to 195."
    assert sentences.headline(made(None, rewards[:2])) == "Reward is 15.0 in 2\xa0logs."


def test_a_run_without_a_rollout_says_so():
    assert sentences.headline(made([])) == "No rollout was recorded."


# ---- context and findings ------------------------------------------------------------------------------------------


def test_the_context_tells_how_far_prompts_are_from_their_predictions():
    """At 20 completions and predictions near 0.75 sampling alone is off by 0.07."""
    where, apart = sentences.context(made(visits_of(RISING, off(0.2))))
    assert where == "At the second visit exact iteration would stand at 0.60; the run stood at 0.40."
    assert apart == (
        "Prompt by prompt the two do not agree: a visit lies 0.20 from its prediction, where sampling alone would make "
        "0.07, and the intervals overlap at 100\xa0% of the visits."
    )
    _, apart = sentences.context(made(visits_of(RISING, EXACT)))
    assert apart.startswith("Prompt by prompt the two agree as far as sampling can tell: a visit lies 0.05 from")


def test_a_finding_takes_the_place_of_the_overlap():
    history = logged("completions/clipped_ratio", [0.0, 0.12])
    told = sentences.context(made(visits_of(RISING, EXACT), history, max_completion_length=64))
    assert len(told) == 3 and "overlap" not in " ".join(told)
    assert told[-1] == "Up to 12\xa0% of a rollout's completions were cut off at the limit of 64 tokens."


def test_without_predictions_the_context_says_why():
    reason = "there is no KL term (`beta` is 0)"
    told = sentences.context(made(visits_of(RISING), not_predicted_because=reason))
    assert told == ["The theory predicts nothing for this run: there is no KL term (`beta` is 0)."]
    assert sentences.context(made(visits_of(RISING))) == [f"Nothing was predicted: {sentences.NEVER_PREDICTED}."]
    assert sentences.context(made(None, logged("success", [0.5]))) == [
        "The success of each prompt was not recorded; a run records it with `success_monitor: true`."
    ]


def weights(sizes, positive=0.01, negative=0.02):
    clipped = {"trajectory/clipped_positive": positive, "trajectory/clipped_negative": negative}
    return logged("trajectory/ess", sizes, **clipped)


def test_weights_are_told_where_the_loss_uses_them():
    told = sentences.context(made(visits_of(RISING), weights([1.0, 0.9, 0.8])))
    assert told[0] == (
        "No step had an effective sample size below 0.80; of the trajectories 1.0\xa0% were clipped with A > 0 and "
        "2.0\xa0% with A < 0."
    )
    of_two_steps = [entry | {"step": 2 * entry["step"]} for entry in weights([1.0, 0.8])]
    assert sentences.context(made(None, of_two_steps))[0].startswith("No log had an effective sample size below 0.80;")
    unused = logged("trajectory/ess", [1.0, 0.1])
    assert not [line for line in sentences.context(made(visits_of(RISING), unused)) if "sample size" in line]


def test_without_predictions_a_finding_takes_the_place_of_the_reason():
    told = sentences.context(made(visits_of(QUIET), weights([1.0, 0.9])))
    assert len(told) == 2 and told[0].startswith("No step") and told[1].startswith("In the last quarter 100")


STUCK = {str(n): [0, 0, 0, 0] for n in range(2)}
QUIET = {str(n): [10, 10, 20, 20] for n in range(8)}


@pytest.mark.parametrize(
    ("summary", "told"),
    [
        (lambda: made(None, logged("kl", [0.1, math.inf])), "At step 2 `kl` was not finite."),
        (
            lambda: made(None, logged("completions/clipped_ratio", [0.1])),
            "Up to 10\xa0% of a rollout's completions were cut off at the limit.",
        ),
        (
            lambda: made(None, weights([1.0, 0.29])),
            "At step 2 the effective sample size of the weights fell to 0.29.",
        ),
        (lambda: made(None, weights([1.0], 0.15, 0.05)), "Of the trajectories 20\xa0% were clipped."),
        (
            lambda: made(visits_of({**{str(n): [10, 10, 10, 10] for n in range(9)}, "w": [18, 14, 10, 8]})),
            "1 of 10\xa0prompts got clearly worse.",
        ),
        (
            lambda: made(visits_of({**{f"l{n}": [10, 11, 9, 10] for n in range(6)}, **STUCK})),
            "2 of 8\xa0prompts never succeeded.",
        ),
        (lambda: made(visits_of(QUIET)), "In the last quarter 100\xa0% of the groups had no signal."),
    ],
    ids=["not finite", "cut off", "weights", "clipped", "worse", "stuck", "silent"],
)
def test_findings(summary, told):
    assert sentences.finding(summary()) == told


@pytest.mark.parametrize(
    "summary",
    [
        lambda: made(None, logged("kl", [0.1, None])),
        lambda: made(None, logged("completions/clipped_ratio", [0.099])),
        lambda: made(None, weights([1.0, 0.31])),
        lambda: made(None, logged("trajectory/ess", [0.1])),
        lambda: made(None, weights([1.0], 0.15, 0.04)),
        lambda: made(visits_of({**{f"l{n}": [10, 11, 9, 10] for n in range(10)}, "w": [18, 14, 10, 8]})),
        lambda: made(visits_of({**{f"l{n}": [10, 11, 9, 10] for n in range(7)}, **STUCK})),
        lambda: made(visits_of({**{f"l{n}": [10, 11, 9, 10] for n in range(4)}, **{"a": [9, 9, 9, 20]}})),
    ],
    ids=["no value", "cut off", "weights", "unused weights", "clipped", "worse", "stuck", "silent"],
)
def test_below_its_threshold_nothing_is_found(summary):
    assert sentences.finding(summary()) is None


# ---- facts and key figures -----------------------------------------------------------------------------------------


def test_the_facts_are_what_was_done_and_with_which_coefficients():
    settings = {"variant": "dual", "beta": 0.05, "mirror_beta": 0.0, "epsilon": 0.2, "epsilon_high": 0.28}
    settings |= {"num_generations": 20, "learning_rate": 2e-4, "max_completion_length": 16}
    spent = {"generated_tokens": 1500.0, "generation_time": 1.0, "rewards_time": 0.5, "update_time": 2.5}
    summary = made(visits_of(RISING), logged("success", [0.5, 0.6], **spent), step=40, max_steps=40, **settings)
    done, chosen = sentences.facts(summary)
    assert done == [
        *("`dual`", "40\xa0optimizer steps, finished", "8\xa0prompts, 32\xa0visits", "640\xa0completions"),
        *("1,500\xa0tokens", "8.0\xa0s of steps"),
    ]
    assert chosen == [
        *("`beta`\xa00.05", "20\xa0completions per prompt", "learning rate 2\xa0×\xa010⁻⁴", "at most 16\xa0tokens"),
    ]
    used = made(None, logged("success", [0.5]), step=3, max_steps=40, **settings, all={"epsilon": "0.2"})
    done, chosen = sentences.facts(used)
    assert done[1] == "step 3 of 40" and "`epsilon`\xa00.2" in chosen and "`epsilon_high`" not in str(chosen)
    both = {"epsilon": 0.2, "epsilon_high": 0.28, "all": {"epsilon": "0.2", "epsilon_high": "0.28"}}
    assert sentences.facts(made([], **both))[1] == ["`epsilon`\xa00.2", "`epsilon_high`\xa00.28"]
    assert sentences.facts(made([], **both | {"epsilon_high": 0.2}))[1] == ["`epsilon`\xa00.2"]
    assert sentences.facts(made(None, logged("success", [0.5]), step=3))[0] == ["at least 3\xa0optimizer steps"]


def figures(summary):
    return {figure.label: (figure.value, figure.note) for figure in key_figures(summary)}


def test_key_figures_of_a_run_with_predictions():
    history = logged("kl", [0.1, 0.2, 0.3, 0.6])
    found = figures(made(visits_of(RISING, off(0.2)), history))
    assert list(found) == [
        *("Success, first → last visit", "Measured − predicted", "Prompts clearly better"),
        *("Groups without signal", "KL to the reference"),
    ]
    value, note = found["Success, first → last visit"]
    assert value == "0.30 → 0.70" and note.startswith("+0.40 [+0.") and note.endswith("over 8\xa0prompts")
    assert found["Measured − predicted"][0] == "−0.20 → −0.20"
    assert found["Measured − predicted"][1] == "mean, second → last visit; a single visit is 0.20 off"
    assert found["Prompts clearly better"] == ("8", "0 worse")
    assert found["Groups without signal"] == ("0\xa0%", "last quarter; 0\xa0% in the first")
    assert found["KL to the reference"] == ("0.60", "mean of the last quarter; largest 0.60")


def test_held_out_success_is_the_first_key_figure():
    label, (value, note) = next(iter(figures(made(visits_of(RISING), evaluations(0.3, 0.6))).items()))
    assert (label, value) == ("Held-out success, first → last", "0.30 → 0.60")
    assert note.startswith("+0.30 [+0.23, +0.") and note.endswith("over 400\xa0prompts")


def test_of_a_single_difference_there_is_no_way():
    counts = {prompt: values[:2] for prompt, values in RISING.items()}
    predicted = {prompt: values[:2] for prompt, values in off(0.2).items()}
    value, note = figures(made(visits_of(counts, predicted)))["Measured − predicted"]
    assert value == "−0.20" and note.startswith("mean, second visit; a single")


def test_weights_and_clipping_take_the_places_of_theory_and_kl():
    found = figures(made(visits_of(RISING), weights([1.0, 0.9, 0.8], 0.001, 0.004)))
    assert found["Worst effective sample size"] == ("0.80", "at step 3; 1 is best, median 0.900")
    assert found["Clipped, A > 0 and A < 0"] == ("0.1 · 0.4\xa0%", "of the trajectories; at most 0.5\xa0% in a step")
    assert "Worst effective sample size" not in figures(made(visits_of(RISING), logged("trajectory/ess", [0.5])))


def test_why_groups_have_no_signal_is_told_by_reason():
    mixed = {"a": [10, 20], "b": [10, 20], "c": [10, 20], "d": [10, 0]}
    assert (
        "75\xa0% every completion succeeds · 25\xa0% none succeeds"
        in (figures(made(visits_of(mixed)))["Groups without signal"][1])
    )
    assert figures(made(visits_of(QUIET)))["Groups without signal"][1].endswith(
        "; in all of them every completion succeeds"
    )


# ---- numbers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (numbers.difference(-0.156), "−0.16"),
        (numbers.difference(0.3), "+0.30"),
        (numbers.difference(-0.001), "0.00"),
        (numbers.percent(0.514), "51\xa0%"),
        (numbers.percent(0.078), "7.8\xa0%"),
        (numbers.percent(0.0994), "9.9\xa0%"),
        (numbers.percent(0.0996), "10\xa0%"),
        (numbers.percent(0.0002), "<0.1\xa0%"),
        (numbers.percent(0.0), "0\xa0%"),
        (numbers.percent(1.0), "100\xa0%"),
        (numbers.count(50599), "50,599"),
        (numbers.quantity(4e-6), "4\xa0×\xa010⁻⁶"),
        (numbers.quantity(-2.5e12), "−2.5\xa0×\xa010¹²"),
        (numbers.quantity(0.0321), "0.032"),
        (numbers.quantity(0.41), "0.41"),
        (numbers.quantity(12.34), "12.3"),
        (numbers.quantity(0.0), "0"),
        (numbers.quantity(math.nan), "not finite"),
        (numbers.ordinal(5), "fifth"),
        (numbers.ordinal(21), "21st"),
        (numbers.ordinal(112), "112th"),
        (numbers.plural(1, "visit"), "1\xa0visit"),
    ],
    ids=str,
)
def test_numbers(written, text):
    assert written == text
