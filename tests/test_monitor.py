# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The success monitor on runs made by hand, where every number is known."""

from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from trl_grpo_variants import theory
from trl_grpo_variants.hub import public_files
from trl_grpo_variants.monitor.callback import SuccessMonitor
from trl_grpo_variants.monitor.forecast import Counts, Forecast
from trl_grpo_variants.objective.advantages import ADVANTAGES
from trl_grpo_variants.objective.rewards import success_counts
from trl_grpo_variants.runs.intervals import wilson_interval
from trl_grpo_variants.runs.prompts import identify
from trl_grpo_variants.runs.visits import FILE_NAME, JOURNAL_NAME, NO_VISITS, Visits, read_visits
from trl_grpo_variants.theory.signal import make_signal

from . import reference
from .tiny import make_config
from .tiny import visits as table


G = 16
# Successes of two prompts in four rollouts, never none and never all.
COUNTS = [{"a": 4, "b": 8}, {"a": 10, "b": 12}, {"b": 15, "a": 13}, {"a": 14, "b": 9}]
PRESETS = ["reference", "reference_mean_only", "mirror", "mirror_mean_only", "dual", "dual_mean_only"]


def state(step=0):
    return SimpleNamespace(is_world_process_zero=True, global_step=step, max_steps=40)


def start(folder, weights=(1.0,), step=0, checkpoint=None, **settings):
    settings = {"variant": "dual", "per_device_train_batch_size": 2 * G, "num_generations": G} | settings
    args = make_config(folder, success_monitor=True, **settings)
    monitor = SuccessMonitor(args, torch.tensor(weights))
    monitor.checkpoint = checkpoint
    monitor.on_train_begin(args, state(step), None)
    return monitor


def rows(successes, size=G):
    """Prompts and rewards of one rollout."""
    prompts = [(name, f"text of {name}") for name in successes for _ in range(size)]
    return prompts, torch.tensor([[float(i < k)] for k in successes.values() for i in range(size)])


def feed(monitor, counts, first_step=0):
    return [
        monitor.record(first_step + 4 * index, *rows(successes), G, torch.zeros(G * len(successes)))
        for index, successes in enumerate(counts)
    ]


def observe(monitor, successes, log_ratios):
    """One rollout as the trainer has it, with completions of one token."""
    prompts, rewards = rows(successes)
    logps = {"ref_per_token_logps": log_ratios.unsqueeze(1), "old_per_token_logps": torch.zeros(len(rewards), 1)}
    rollout = logps | {"completion_mask": torch.ones(len(rewards), 1), "advantages": torch.zeros(len(rewards))}
    return monitor.observe(8, prompts, rollout, rewards, G, Accelerator(cpu=True))


def counts(*pairs):
    return Counts(*np.array(pairs, dtype=float).T)


# ---- predictions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", PRESETS)
def test_predictions_are_those_of_the_theory(tmp_path, variant):
    settings = {"beta": 0.8} if not variant.startswith("mirror") else {}
    settings |= {"mirror_beta": 1.7} if not variant.startswith("reference") else {}
    monitor = start(tmp_path, variant=variant, **settings)
    scalars = feed(monitor, COUNTS)

    expected = {}
    for name in "ab":
        p = [successes[name] / G for successes in COUNTS]
        advantage = "mean_only" if variant.endswith("mean_only") else "smoothed_std"
        for n in range(1, 4):
            expected[name, n] = theory.success_step(p[n - 1], p[0], advantage=advantage, **settings).item()
    found = {(row["prompt_id"], row["visit"] - 1): row for row in table(tmp_path)}
    assert len(found) == 8 and all(found[name, 0]["predicted"] is None for name in "ab")
    for (name, n), predicted in expected.items():
        row, measured = found[name, n], COUNTS[n][name] / G
        assert row["predicted"] == pytest.approx(predicted, abs=1e-12)
        assert row["predicted_low"] < predicted < row["predicted_high"]
        assert (row["success"], row["gap"]) == (measured, pytest.approx(measured - predicted, abs=1e-12))
        assert (row["reference"], row["previous"]) == (COUNTS[0][name] / G, COUNTS[n - 1][name] / G)
        assert (row["rollout"], row["step"], row["completions"], row["groups"]) == (n, 4 * n, G, 1)
    assert "theory/predicted_success" not in scalars[0]
    for n in range(1, 4):
        pair = np.array([expected["a", n], expected["b", n]])
        measured = np.array([COUNTS[n]["a"], COUNTS[n]["b"]]) / G
        assert scalars[n]["theory/predicted_success"] == pytest.approx(pair.mean())
        assert scalars[n]["theory/gap"] == pytest.approx((measured - pair).mean())
        silent = theory.zero_variance_probability(pair, G).mean()
        assert scalars[n]["theory/expected_groups_without_signal"] == pytest.approx(silent)


def test_trls_own_normalisation_has_the_sample_standard_deviation(tmp_path):
    feed(start(tmp_path, variant="grpo", beta=2.0), COUNTS[:2])
    sample = torch.tensor([1.0] * 4 + [0.0] * 12, dtype=torch.float64)
    omega = 1 / (sample.std().item() + 1e-4)
    assert table(tmp_path)[2]["predicted"] == pytest.approx(theory.sigmoid(theory.logit(0.25) + omega / 2.0).item())


SIGNALS = [
    part for part in ADVANTAGES.values() if part.omega and part.is_zero_without_variance and not part.is_of_rollout
]


@pytest.mark.parametrize("part", SIGNALS, ids=lambda part: part.name)
def test_the_signal_of_a_group_is_that_of_the_advantages_own_function(part, tmp_path):
    """Predictions for every advantage of whose groups the signal is known, from what its function gives the group."""
    args = make_config(
        tmp_path, variant="grpo", advantage=part.name, beta=0.8, per_device_train_batch_size=G, num_generations=G
    )
    _, rewards = rows({"a": 4})
    group = rewards[:, 0].double()
    if part.function is None:
        advantages = torch.tensor(reference.ADVANTAGES[part.name](group.tolist(), G), dtype=torch.float64)
    else:
        # The last has its length counted too.
        given = {"lengths": torch.arange(1, G + 1)} if part.takes("lengths") else {}
        advantages = args.objective.advantage(group, G, **given)
    gap = (advantages[0] - advantages[-1]).item()
    if gap == 0.0:
        assert part.name == "best_of_group"
        return
    feed(start(tmp_path, variant="grpo", advantage=part.name, beta=0.8), COUNTS[:2])
    predicted = theory.sigmoid(theory.logit(0.25) + gap / 0.8)
    assert table(tmp_path)[2]["predicted"] == pytest.approx(predicted.item(), rel=1e-9)


@pytest.mark.parametrize("nothing", [0, G])
def test_a_group_without_signal_moves_by_its_kl_terms_alone(tmp_path, nothing):
    """Ten successes at first, none or all at the second visit; then the third."""
    found = {}
    for name, settings in {
        "reference": {"beta": 0.3},
        "mirror": {"mirror_beta": 0.3},
        "dual": {"beta": 0.2, "mirror_beta": 0.6},
        "masked": {"beta": 0.3, "mask_zero_variance_groups": True},
    }.items():
        variant = name if name != "masked" else "reference"
        feed(start(tmp_path / name, variant=variant, **settings), [{"a": 10}, {"a": nothing}, {"a": 8}])
        found[name] = table(tmp_path / name)[2]
        assert table(tmp_path / name)[1]["groups_without_signal"] == 1
    previous = (nothing + 0.5) / (G + 1)
    dual = theory.sigmoid(0.25 * theory.logit(10 / G) + 0.75 * theory.logit(previous)).item()
    expected = {"reference": 10 / G, "mirror": previous, "dual": dual, "masked": previous}
    assert {name: row["predicted"] for name, row in found.items()} == pytest.approx(expected)
    # Neither an impossible prompt nor a sure one can be excluded, except by the reference.
    low, high = wilson_interval(nothing / G, G)
    for name in ("mirror", "masked"):
        ends = (found[name]["predicted_low"], found[name]["predicted_high"])
        assert ends == pytest.approx((low, high), abs=1e-12)
    assert found["reference"]["predicted_high"] < 1.0 and found["reference"]["predicted_low"] > 0.0


forecasts = st.builds(
    Forecast,
    beta=st.floats(0.01, 5.0),
    mirror_beta=st.sampled_from([0.0, 0.5]),
    signal=st.sampled_from(["mean_only", "smoothed_std", "group_std", "risk_sensitive"]).map(make_signal),
    masks_groups=st.booleans(),
)


@hypothesis_settings(max_examples=60)
@given(forecasts, st.integers(2, 40).flatmap(lambda n: st.tuples(st.integers(0, n), st.integers(0, n), st.just(n))))
def test_an_interval_holds_its_prediction(forecast, drawn):
    first, last, size = drawn
    previous = counts((last, size))
    predicted, low, high = forecast.predict(counts((first, size)), previous, forecast.signals(previous))
    assert 0.0 <= low <= predicted <= high <= 1.0
    assert forecast.signals(previous) == 0.0 if last in (0, size) else forecast.signals(previous) > 0.0


@pytest.mark.parametrize(
    ("successes", "low", "high"), [(0, 0.0, None), (1, None, None), (7, None, None), (8, None, 1.0)]
)
def test_an_interval_ends_at_0_or_1_without_any_success_or_failure_only(successes, low, high):
    wilson = wilson_interval(successes / 8, 8)
    ends = tuple(end.item() for end in counts((successes, 8)).interval)
    assert ends == (wilson[0] if low is None else low, wilson[1] if high is None else high)
    assert 0.0 < wilson[0] or successes == 0


def test_the_ends_are_those_of_the_anchors():
    forecast = Forecast(0.5, 0.0, make_signal("smoothed_std"), False)
    first, last = counts((5, 16)), counts((4, 16))
    _, low, high = forecast.predict(first, last, forecast.signals(last))
    expected = [theory.success_step(0.25, end, beta=0.5) for end in wilson_interval(5 / 16, 16)]
    np.testing.assert_allclose([low[0], high[0]], expected)


def test_the_renyi_residual_is_that_of_the_definition():
    """On samples in exact proportion to the previous policy, so that means are expectations."""
    forecast = Forecast(0.3, 0.9, make_signal("mean_only"), False)
    alpha = 0.25
    reference = np.array([0.1, 0.3, 0.4, 0.2])
    previous = np.array([4, 2, 3, 7]) / 16
    success = np.array([True, True, False, False])

    def h(chosen):
        anchors = [policy[chosen] / policy[chosen].sum() for policy in (reference, previous)]
        return (anchors[0] ** alpha * anchors[1] ** (1 - alpha)).sum()

    drawn = np.repeat(np.arange(4), [4, 2, 3, 7])
    log_ratios = np.log(reference / previous)[drawn]
    residual = forecast.renyi_residual(log_ratios, success[drawn])
    assert residual == pytest.approx(np.log(h(success) / h(~success)))
    # What one update of exact iteration does: one factor for successes and one for failures.
    tilted = np.where(success, 3.0, 0.2)[drawn]
    assert forecast.renyi_residual(np.log(tilted), success[drawn]) == pytest.approx(0.0, abs=1e-12)
    assert forecast.renyi_residual(log_ratios[:7], success[drawn][:7]) is None


def test_the_renyi_residual_is_logged_for_groups_that_have_one(tmp_path):
    monitor = start(tmp_path, beta=0.3, mirror_beta=0.9)
    prompts, rewards = rows({"a": 8, "b": 0})
    log_ratios = torch.linspace(-2.0, 2.0, 2 * G)
    found = monitor.record(0, prompts, rewards, G, log_ratios)["theory/renyi_residual"]
    forecast = Forecast(0.3, 0.9, make_signal("mean_only"), False)
    assert found == pytest.approx(forecast.renyi_residual(log_ratios[:G].double().numpy(), np.arange(G) < 8))
    again = observe(start(tmp_path / "again", beta=0.3, mirror_beta=0.9), {"a": 8, "b": 0}, log_ratios)
    assert again["theory/renyi_residual"] == found
    assert "theory/renyi_residual" not in monitor.record(4, *rows({"a": 1}), G, torch.zeros(G))
    # Completions without a reward are no failures: here the only ones that could be.
    rewards[8:G] = torch.nan
    assert "theory/renyi_residual" not in monitor.record(8, prompts, rewards, G, log_ratios)
    rewards[8:10] = 0.0
    found = monitor.record(12, prompts, rewards, G, log_ratios)["theory/renyi_residual"]
    assert found == pytest.approx(forecast.renyi_residual(log_ratios[:10].double().numpy(), np.arange(10) < 8))


# ---- runs without a prediction -------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"variant": "tic_grpo", "per_device_train_batch_size": 64}, "there is no KL term"),
        ({"variant": None}, "there is no KL term"),
        ({"variant": "mirror", "num_iterations": 1}, "the only KL term is inert"),
        ({"variant": "mirror", "mirror_sync_steps": 8}, "the previous policy is a snapshot"),
        ({"variant": "reference", "sync_ref_model": True}, "the reference moves"),
        ({"variant": "reference", "use_bias_correction_kl": False}, "another divergence"),
        (
            {"variant": "reference", "length_weight_power": 0.5},
            "gives completions of different lengths different weights",
        ),
        (
            {"variant": "grpo", "beta": 0.1, "scale_rewards": "batch"},
            "`scale_rewards='batch'` takes statistics over all prompts of a rollout",
        ),
        ({"variant": "gpg", "beta": 0.1}, "takes statistics over all prompts of a rollout"),
        ({"variant": "beta_normalization", "beta": 0.1}, "takes statistics over all prompts of a rollout"),
        ({"variant": "best_of_group", "beta": 0.1}, "`advantage='best_of_group'` has no signal that is known"),
        (
            {"variant": "w_reinforce", "beta": 0.1},
            "`advantage='success_weight'` moves groups whose rewards are all equal",
        ),
        ({"variant": "mirror", "advantage": "tests.test_registries:halved"}, ":halved'` has no signal that is known"),
        (
            {"variant": "grpo", "beta": 0.1, "multi_objective_aggregation": "normalize_then_sum"},
            "normalises each reward by itself",
        ),
        ({"entropy_coef": 0.01}, "the entropy bonus"),
        ({"variant": "kl_in_reward"}, "takes the KL to the reference from the rewards"),
        ({"variant": "kimi"}, "a penalty whose gradient is not that of the KL"),
        ({"variant": "mirror", "token_advantage": "entropy_shaped"}, "advantages of their own"),
        ({"weights": (1.0, 0.5)}, "several reward functions or a weight other than 1"),
        ({"weights": (2.0,)}, "several reward functions or a weight other than 1"),
    ],
    ids=str,
)
def test_without_a_prediction_the_reason_is_said_and_success_recorded(tmp_path, caplog, settings, reason):
    monitor = start(tmp_path, **settings)
    assert [record.getMessage() for record in caplog.records if reason in record.getMessage()]
    functions = len(settings.get("weights", (1.0,)))
    for step, successes in enumerate(COUNTS):
        prompts, rewards = rows(successes)
        assert monitor.record(step, prompts, rewards.repeat(1, functions), G).keys() == {
            "theory/groups_without_signal"
        }
    found = table(tmp_path)
    assert [row["successes"] for row in found] == [k for successes in COUNTS for k in successes.values()]
    assert {row["predicted"] for row in found} == {row["gap"] for row in found} == {None}
    assert all(row["previous"] is not None for row in found[2:])
    assert reason in read_visits(tmp_path)[1]["not_predicted_because"]


def test_an_inert_mirror_term_is_left_out_of_a_dual_prediction(tmp_path):
    with pytest.warns(UserWarning, match="`mirror_beta=2.0` does nothing"):
        monitor = start(tmp_path, variant="dual", beta=0.7, mirror_beta=2.0, num_iterations=1)
    feed(monitor, COUNTS[:2])
    assert table(tmp_path)[2]["predicted"] == pytest.approx(theory.success_step(0.25, 0.25, beta=0.7).item())
    assert "theory/renyi_residual" not in observe(monitor, {"a": 8}, torch.linspace(-2.0, 2.0, G))


def test_nothing_is_predicted_from_graded_rewards(tmp_path, caplog):
    monitor = start(tmp_path)
    prompts, rewards = rows({"a": 4, "b": 5})
    graded = rewards.clone()
    graded[G - 1] = 0.5
    for step, given_ in enumerate((rewards, graded, graded, rewards)):
        monitor.record(step, prompts, given_, G)
    found = {(row["prompt_id"], row["visit"]): row["predicted"] is not None for row in table(tmp_path)}
    assert found == {
        **{("a", 1): False, ("a", 2): True, ("a", 3): False, ("a", 4): False},
        **{("b", 1): False, ("b", 2): True, ("b", 3): True, ("b", 4): True},
    }
    assert sum("rewards other than 0 and 1" in record.getMessage() for record in caplog.records) == 1


# ---- what counts as a visit ----------------------------------------------------------------------------------------


def test_success_is_that_of_the_logs(tmp_path):
    generator = torch.Generator().manual_seed(0)
    monitor = start(tmp_path, weights=(1.0, 0.5, 0.0))
    rewards = torch.randint(0, 3, (8 * G, 3), generator=generator) / 2.0
    rewards[torch.rand(rewards.shape, generator=generator) < 0.3] = torch.nan
    rewards[-G:] = torch.nan
    prompts = [(f"{index // G}", "") for index in range(8 * G)]
    monitor.record(0, prompts, rewards, G)
    found = table(tmp_path)
    assert [row["prompt_id"] for row in found] == [str(group) for group in range(7)]
    expected = success_counts(rewards, torch.tensor([1.0, 0.5, 0.0]), G)["success"]
    assert (sum(r["successes"] for r in found), sum(r["completions"] for r in found)) == expected
    assert {row["completions"] < G for row in found} == {True, False}


def test_completions_without_a_reward_are_no_failures(tmp_path):
    monitor = start(tmp_path)
    prompts, rewards = rows({"a": 4, "b": 8, "c": 1})
    rewards[8:G], rewards[G : G + 3], rewards[2 * G - 1], rewards[2 * G + 1 :] = (torch.nan,) * 4
    monitor.record(0, prompts, rewards, G)
    a, b, c = table(tmp_path)
    assert (a["successes"], a["completions"], a["success"]) == (4, 8, 0.5)
    assert (b["successes"], b["completions"], b["success"]) == (5, 12, 5 / 12)
    assert (c["successes"], c["completions"], c["success"]) == (1, 1, 1.0)
    assert (a["low"], a["high"]) == pytest.approx(wilson_interval(0.5, 8))


def test_a_rollout_in_which_nothing_was_scored_is_no_visit(tmp_path):
    monitor = start(tmp_path)
    feed(monitor, COUNTS[:1])
    prompts, rewards = rows({"a": 4, "b": 8})
    assert monitor.record(4, prompts, torch.full_like(rewards, torch.nan), G, torch.zeros(2 * G)) == {}
    feed(monitor, COUNTS[1:2], first_step=8)
    assert [(row["rollout"], row["step"], row["visit"]) for row in table(tmp_path)] == [(0, 0, 1)] * 2 + [
        (2, 8, 2)
    ] * 2


def test_groups_of_one_prompt_in_one_rollout_are_one_visit(tmp_path):
    monitor = start(tmp_path, variant="mirror_mean_only", mirror_beta=1.0)
    prompts, rewards = rows({"a": 4, "b": 16})
    one = [("a", "text")] * (2 * G)
    for step in range(2):
        scalars = monitor.record(step, one, rewards, G)
        assert scalars["theory/groups_without_signal"] == 0.5
    first, second = table(tmp_path)
    assert (first["successes"], first["completions"], first["groups"], first["signal"]) == (20, 32, 2, 0.5)
    assert second["predicted"] == pytest.approx(theory.sigmoid(theory.logit(20 / 32) + 0.5).item())


def test_why_groups_have_no_signal_is_counted_group_by_group(tmp_path):
    """Five groups of one prompt; two functions whose sums may agree where success does not, and the reverse."""
    right, wrong, better, graded = [1.0, 1.0], [0.0, 0.0], [2.0, 1.0], [2.0, 0.0]
    pairs = [(right, right), (wrong, wrong), (right, graded), (right, better), (wrong, graded), (wrong, wrong)]
    rewards = torch.tensor([pair for pair in pairs for _ in range(G // 2)]).flatten(0, 1)
    # A single completion of the first group was scored.
    rewards[1:G] = torch.nan
    prompts = [("a", "text")] * (5 * G) + [("b", "text")] * G
    start(tmp_path, weights=(1.0, 1.0)).record(0, prompts, rewards, G)
    columns = ("groups", "groups_without_signal", "silent_all_succeed", "silent_none_succeeds")
    assert [[row[name] for name in columns] for row in table(tmp_path)] == [[5, 3, 1, 1], [1, 1, 0, 1]]


def test_a_prompt_is_known_by_its_text():
    image = object()
    conversation = [
        {"role": "system", "content": "Answer."},
        {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": " How\nmany? "}]},
    ]
    key, text = identify({"prompt": conversation, "answer": "3"})
    assert text == "How many?"
    # A constant, so that it is the same in every process and in every later run.
    assert key == "23395ce6c63e1bbd"
    other = [
        conversation[0],
        {"role": "user", "content": [{"type": "image", "image": "b.png"}, conversation[1]["content"][1]]},
    ]
    assert identify({"prompt": other})[0] == key
    linked = [
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}] for url in ("a.png", "b.png")
    ]
    assert identify({"prompt": linked[0]}) == identify({"prompt": linked[1]})
    assert identify({"prompt": conversation[1:]})[0] != key
    called = [{"role": "user", "content": "x", "tool_calls": [{"type": "function", "function": {"name": "f"}}]}]
    assert identify({"prompt": called})[0] != identify({"prompt": [{"role": "user", "content": "x"}]})[0]
    assert identify({"prompt": "a" * 1000})[1] == "a" * 160
    assert identify({"prompt": "a" * 1000})[0] != identify({"prompt": "a" * 1001})[0]
    # An environment makes it of the other columns.
    assert identify({"task": "one"})[0] != identify({"task": "two"})[0]


# ---- the file ------------------------------------------------------------------------------------------------------


def test_a_resumed_run_continues_the_file(tmp_path):
    """Stopped after the third rollout, resumed from a checkpoint before it."""
    feed(start(tmp_path / "whole"), COUNTS)
    stopped = start(tmp_path / "run")
    feed(stopped, COUNTS[:2])
    stopped.on_save(None, state(8), None)
    feed(stopped, [{"a": 1, "c": 2}], first_step=8)
    resumed = start(tmp_path / "run", step=8, checkpoint=str(tmp_path / "run" / "checkpoint-8"))
    assert len(table(tmp_path / "run")) == 4
    feed(resumed, COUNTS[2:], first_step=8)
    resumed.on_train_end(None, state(16), None)
    assert table(tmp_path / "run") == table(tmp_path / "whole")
    # One file that other tools can read, and the text of a prompt once.
    assert pq.read_table(tmp_path / "run" / FILE_NAME).num_rows == 8 and not (tmp_path / "run" / JOURNAL_NAME).exists()
    assert [row["prompt"] for row in table(tmp_path / "run")] == ["text of a", "text of b", *[None] * 6]


def test_a_run_resumed_in_another_folder_continues_the_file_beside_its_checkpoint(tmp_path):
    feed(start(tmp_path / "old"), COUNTS)
    feed(start(tmp_path / "new", step=8, checkpoint=str(tmp_path / "old" / "checkpoint-8")), COUNTS[2:], first_step=8)
    assert table(tmp_path / "new") == table(tmp_path / "old")


def test_a_run_resumed_without_a_file_says_what_its_reference_is(tmp_path, caplog):
    start(tmp_path, step=8, checkpoint=str(tmp_path / "checkpoint-8"))
    assert "There are no visits from before step 8" in caplog.text


def test_a_new_run_replaces_the_file_and_says_so(tmp_path, caplog):
    feed(start(tmp_path), COUNTS)
    feed(start(tmp_path), COUNTS[:1])
    assert len(table(tmp_path)) == 2
    assert "holds the visits of an earlier run" in caplog.text and "There are no visits" not in caplog.text


def test_a_crash_costs_no_more_than_the_line_it_cut_off(tmp_path):
    monitor = start(tmp_path)
    feed(monitor, COUNTS[:3])
    monitor.on_save(None, state(), None)
    feed(monitor, COUNTS[3:], first_step=12)
    expected = table(tmp_path)
    assert len(expected) == 8
    journal = tmp_path / JOURNAL_NAME
    content = journal.read_bytes()
    # While the Parquet file was being written anew, and before the journal that is in it was removed.
    (tmp_path / "success_monitor.partial").write_bytes((tmp_path / FILE_NAME).read_bytes()[:100])
    assert table(tmp_path) == expected
    monitor.on_save(None, state(), None)
    journal.write_bytes(content)
    assert table(tmp_path) == expected
    # While a line was being written.
    feed(monitor, [{"a": 3, "b": 4}], first_step=16)
    journal.write_bytes(journal.read_bytes()[:-20])
    assert table(tmp_path) == [*expected, table(tmp_path)[8]] and table(tmp_path)[8]["prompt_id"] == "a"
    # And another behind it, as after a full disk.
    feed(monitor, [{"a": 3, "b": 4}] * 2, first_step=20)
    assert [row["prompt_id"] for row in table(tmp_path)[8:]] == ["a", "b", "a", "b"]


def test_an_unreadable_file_is_kept_and_told(tmp_path, caplog):
    feed(start(tmp_path), COUNTS)
    (tmp_path / FILE_NAME).write_bytes(b"PAR1 cut off")
    with pytest.raises(ValueError, match=f"{FILE_NAME} cannot be read: it is truncated or no file of visits"):
        read_visits(tmp_path)
    monitor = start(tmp_path, step=8, checkpoint=str(tmp_path / "checkpoint-8"))
    assert f"It is kept as {FILE_NAME}.unreadable and a new one is begun" in caplog.text
    assert (tmp_path / f"{FILE_NAME}.unreadable").read_bytes() == b"PAR1 cut off"
    feed(monitor, COUNTS[:1], first_step=8)
    assert len(table(tmp_path)) == 2


def test_the_cost_of_a_rollout_does_not_grow(tmp_path):
    """Between checkpoints it is the lines that are added and nothing else."""
    monitor = start(tmp_path)
    feed(monitor, COUNTS)
    written = (tmp_path / FILE_NAME).stat().st_mtime_ns
    sizes = []
    for _ in range(5):
        before = (tmp_path / JOURNAL_NAME).stat().st_size
        feed(monitor, COUNTS[1:2])
        sizes.append((tmp_path / JOURNAL_NAME).stat().st_size - before)
    assert (tmp_path / FILE_NAME).stat().st_mtime_ns == written
    assert max(sizes) - min(sizes) < 10


def test_the_file_is_not_for_the_hub(tmp_path):
    monitor = start(tmp_path)
    feed(monitor, COUNTS)
    assert (tmp_path / FILE_NAME).exists() and (tmp_path / JOURNAL_NAME).exists()
    assert public_files(tmp_path) == []


def test_settings_hold_no_path(tmp_path):
    start(tmp_path)
    settings = read_visits(tmp_path)[1]
    assert (settings["variant"], settings["beta"], settings["signal"]) == ("dual", 0.05, "smoothed_std")
    assert str(tmp_path) not in str(pq.read_schema(tmp_path / FILE_NAME).metadata)


def test_the_file_says_what_is_minimised_and_how_far_the_run_has_come(tmp_path):
    monitor = start(tmp_path)
    settings = read_visits(tmp_path)[1]
    assert (settings["global_step"], settings["max_steps"]) == (0, 40)
    assert settings["objective"].startswith("(1/T) mean_i sum_t [") and "KL(pi || pi_prev)" in settings["objective"]
    assert any(line.startswith("`pi_prev`: ") for line in settings["legend"])
    assert settings["all"]["mirror_beta"] == str(settings["mirror_beta"]) and "seed" in settings["all"]
    feed(monitor, COUNTS)
    monitor.on_save(None, state(7), None)
    assert read_visits(tmp_path)[1]["global_step"] == 7
    # Also where nothing was rolled out since the last checkpoint.
    monitor.on_train_end(None, state(9), None)
    found, settings = read_visits(tmp_path)
    assert settings["global_step"] == 9 and len(found) == 8 and not (tmp_path / JOURNAL_NAME).exists()


# ---- the figure of the card ----------------------------------------------------------------------------------------


def test_the_cards_figure_is_drawn_anew_unless_it_is_someone_elses(tmp_path):
    monitor, path = start(tmp_path), tmp_path / "success.png"
    monitor.draw(path)
    assert not path.exists()
    feed(monitor, COUNTS[:2])
    monitor.draw(path)
    first = path.read_bytes()
    feed(monitor, COUNTS[2:], first_step=8)
    monitor.draw(path)
    assert path.read_bytes() != first and first.startswith(b"\x89PNG")
    path.write_bytes(b"another figure")
    monitor.draw(path)
    assert path.read_bytes() == b"another figure"


def test_without_matplotlib_there_is_no_figure_and_training_goes_on(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    monitor = start(tmp_path)
    feed(monitor, COUNTS)
    monitor.draw(tmp_path / "success.png")
    assert not (tmp_path / "success.png").exists() and "needs matplotlib" in caplog.text


def test_the_field_is_true_or_false(tmp_path):
    with pytest.raises(ValueError, match="`success_monitor` must be True or False; got 'yes'"):
        make_config(tmp_path, success_monitor="yes")
    assert make_config(tmp_path, success_monitor=True).has_stock_objective


def test_visits_without_a_row_can_be_written(tmp_path):
    """In a folder that is not there yet."""
    folder = tmp_path / "runs" / "first"
    Visits(folder, {}).start(NO_VISITS)
    assert table(folder) == []
