# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Runs whose prompts are drawn by their signal, or whose groups without signal are replaced."""

import re

import numpy as np
import pytest
import torch

from trl_grpo_variants.prompts import source
from trl_grpo_variants.prompts.belief import signal_of_prompts
from trl_grpo_variants.prompts.draw import draw_probabilities

from ..tiny import WORDS, dataset, make_trainer
from . import prompts_worker
from .test_distributed import WRAPPERS, launch, load_ranks, needs_deepspeed
from .test_parity import trained
from .test_resume import later_history, parameters


GROUP = 4
# 24 prompts of 8 words; a group of a word among the silent ones has no signal.
SILENT = "abcd"


def rollout(prompts, trainer):
    """Completions that depend on the prompt and the place in its group only."""
    prompt_ids = trainer.processing_class(prompts)["input_ids"]
    completion_ids = [
        [2 + (ids[0] + (index % GROUP) + 3 * t) % 8 for t in range(1 + (ids[0] + index % GROUP) % 5)] + [1]
        for index, ids in enumerate(prompt_ids)
    ]
    logprobs = [[0.0] * len(ids) for ids in completion_ids]
    return {"prompt_ids": prompt_ids, "completion_ids": completion_ids, "logprobs": logprobs}


def reward(prompts, **_):
    """Half of a group succeeds, but of the prompts of silent words all do."""
    return [float(prompt[0] in SILENT or index % GROUP < 2) for index, prompt in enumerate(prompts)]


def signal_everywhere(prompts, **_):
    return [float(index % GROUP < 2) for index, _ in enumerate(prompts)]


def make(policy_path, folder, **settings):
    task = {"reward_funcs": reward, "rollout_func": rollout}
    return make_trainer(policy_path, folder, **(task | settings))


def watched(trainer):
    """Rollouts of a trainer as its optimizer steps get them, and the prompts of each generation."""
    rollouts, generations = [], []
    chosen, scored = trainer._chosen_rollout, trainer._scored_rollout

    def watch_chosen(inputs):
        rollouts.append(chosen(inputs))
        return rollouts[-1]

    def watch_scored(inputs):
        generations.append([row["prompt"] for row in inputs])
        return scored(inputs)

    trainer._chosen_rollout, trainer._scored_rollout = watch_chosen, watch_scored
    return rollouts, generations


def words(rollout):
    """Word of the prompt of each group, and whether it is no silent one."""
    last = rollout["prompt_ids"][::GROUP, -1].tolist()
    return [(WORDS[token], WORDS[token] not in SILENT) for token in last]


# ---- refilled rollouts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", [{}, {"steps_per_generation": 2, "num_iterations": 2, "max_steps": 10}])
def test_where_every_group_has_signal_nothing_changes(policy_path, tmp_path, schedule):
    """Among the steps are those of a second epoch."""
    settings = {
        "reward_funcs": signal_everywhere,
        "variant": "dual",
        "max_steps": 14,
        "learning_rate": 1e-2,
    } | schedule
    settings |= {"rollout_func": rollout}
    plain = trained(policy_path, tmp_path, **settings)
    refilled = trained(policy_path, tmp_path, refill_groups=2, **settings)
    for entry in refilled[0]:
        # Of the steps that begin a rollout.
        assert {entry.pop(name, 1) for name in ("prompts/generations", "prompts/with_signal")} == {1}
    assert refilled[0] == plain[0]
    assert all(torch.equal(refilled[1][name], plain[1][name]) for name in plain[1])


@pytest.mark.parametrize("surplus", ["drop", "keep"])
def test_groups_without_signal_are_replaced(policy_path, tmp_path, surplus):
    trainer = make(policy_path, tmp_path, refill_groups=8, surplus_groups=surplus, per_device_train_batch_size=16)
    rollouts, generations = watched(trainer)
    trainer.train()
    assert len(rollouts) == 4 and len(generations) > 4
    for made in rollouts:
        assert made["advantages"].shape == (16,) and all(has_signal for _, has_signal in words(made))
        assert made["num_items_in_batch"] == made["completion_mask"].sum()
    # Every prompt once before any comes again.
    asked = [prompt for rows in generations for prompt in rows[::GROUP]]
    assert sorted(asked[:24]) == sorted(dataset()["prompt"])
    with_signal = [prompt for prompt in asked if prompt[0] not in SILENT]
    trained_on = [word for made in rollouts for word, _ in words(made)]
    if surplus == "keep":
        # Each one is trained on, in the order in which it came.
        assert trained_on == [prompt[-1] for prompt in with_signal[: len(trained_on)]]
        assert len(with_signal) - len(trained_on) < 4
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    remaining = iter(generations)
    for entry in logged:
        made = [next(remaining)[::GROUP] for _ in range(int(entry["prompts/generations"]))]
        flags = [prompt[0] not in SILENT for prompts in made for prompt in prompts]
        assert entry["prompts/with_signal"] == pytest.approx(sum(flags) / len(flags))
    assert next(remaining, None) is None


@pytest.mark.parametrize("settings", [{"skip_inert_rows": False}, {"entropy_coef": 0.01}], ids=lambda s: next(iter(s)))
def test_what_rounding_leaves_of_equal_rewards_is_no_signal(policy_path, tmp_path, settings):
    """Seven times 0.1 has another mean in float32."""
    run = {"refill_groups": 1, "num_generations": 7, "per_device_train_batch_size": 14, "max_steps": 1} | settings
    trainer = make_trainer(policy_path, tmp_path, reward_funcs=lambda prompts, **_: [0.1] * len(prompts), **run)
    trainer.train()
    entry = trainer.state.log_history[0]
    assert (entry["prompts/with_signal"], entry["prompts/generations"]) == (0.0, 2.0)


def test_what_is_lacking_after_the_last_generation_is_trained_as_it_is(policy_path, tmp_path):
    def hardly(prompts, **_):
        return [float(prompt[0] != "h" or index % GROUP < 2) for index, prompt in enumerate(prompts)]

    trainer = make(
        policy_path, tmp_path, refill_groups=1, per_device_train_batch_size=16, reward_funcs=hardly, max_steps=3
    )
    rollouts, generations = watched(trainer)
    trainer.train()
    assert [len(rows) for rows in generations] == [16] * 6
    for number, made in enumerate(rollouts):
        asked = [prompt[0] for rows in generations[2 * number : 2 * number + 2] for prompt in rows[::GROUP]]
        expected = min(asked.count("h"), 4)
        assert [word for word, _ in words(made)].count("h") == expected
        assert (made["advantages"] != 0).sum() == expected * GROUP


def test_a_kept_group_has_the_log_probs_of_the_policy_that_made_it(policy_path, tmp_path):
    """One optimizer step per rollout, where TRL takes every ratio for 1."""
    run = {"refill_groups": 8, "learning_rate": 0.1, "per_device_train_batch_size": 16}
    trainer = make(policy_path, tmp_path, surplus_groups="keep", **run)
    kept = []
    chosen = trainer._chosen_rollout

    def score_what_waits(inputs):
        waiting = trainer._kept
        made = chosen(inputs)
        now = trainer._score(made, trainer.model, "train")
        was = made["old_per_token_logps"]
        same = torch.isclose(was, now, atol=1e-5).flatten(1).all(dim=1)
        kept.append((0 if waiting is None else len(waiting["advantages"]), same.tolist()))
        return made

    trainer._chosen_rollout = score_what_waits
    trainer.train()
    assert any(waiting for waiting, _ in kept)
    for waiting, same in kept:
        assert same == [False] * waiting + [True] * (len(same) - waiting)
    ratios = [entry["trajectory/ess"] for entry in trainer.state.log_history if "trajectory/ess" in entry]
    assert min(ratios) < 1


@pytest.mark.parametrize(("prompts", "refill", "steps", "silent"), [(24, 4, 3, 24), (2, 4, 1, 10), (3, 1, 1, 4)])
def test_data_without_signal_ends_the_run_with_one_sentence(
    policy_path, tmp_path, caplog, prompts, refill, steps, silent
):
    """Of few prompts not before a rollout has been generated as often as it may be."""

    def never(prompts, **_):
        return [0.0] * len(prompts)

    data = dataset(prompts)
    trainer = make(policy_path, tmp_path, refill_groups=refill, reward_funcs=never, max_steps=50, train_dataset=data)
    with caplog.at_level("WARNING"):
        trainer.train()
    # 2 groups in each of up to 5 generations per step.
    assert trainer.state.global_step == steps
    sentences = [message.removeprefix("[RANK 0] ") for message in caplog.messages if "no signal" in message]
    assert sentences == [
        f"The training ends at step {steps}: the last {silent} groups had no signal, of {prompts} prompts, so that the "
        "data has nothing more to teach this policy."
    ]


# ---- draws by signal ------------------------------------------------------------------------------------------------


def test_prompts_with_signal_are_drawn_more_often_and_none_is_forgotten(policy_path, tmp_path):
    trainer = make(policy_path, tmp_path, prompt_sampling="signal", max_steps=80, per_device_train_batch_size=16)
    _, generations = watched(trainer)
    trainer.train()
    drawn = [rows[::GROUP] for rows in generations]
    assert all(len(prompts) == 4 for prompts in drawn)
    later = [prompt for prompts in drawn[20:] for prompt in prompts]
    share = sum(prompt[0] not in SILENT for prompt in later) / len(later)
    assert share > 0.6
    assert set(later) == set(dataset()["prompt"])
    logged = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert logged[-1]["prompts/expected_signal"] > logged[0]["prompts/expected_signal"] > 0


def test_the_belief_is_the_one_of_when_the_rollout_begins(policy_path, tmp_path):
    """Not that of when the dataloader has fetched its rows."""
    trainer = make(policy_path, tmp_path, prompt_sampling="signal", max_steps=3)
    seen = []
    take = trainer._prompts.take

    def watch(count):
        seen.append(trainer._prompts.state_dict()["counts"][:, 1].sum().item())
        return take(count)

    trainer._prompts.take = watch
    trainer.train()
    assert seen[:2] == [0.0, 8.0] and seen[2] > 8.0


def test_known_success_rates_are_believed_from_the_start(policy_path, tmp_path):
    path = tmp_path / "rates.jsonl"
    path.write_text("".join(f'{{"success": {float(prompt[0] in SILENT)}}}\n' for prompt in dataset()["prompt"]))
    trainer = make(policy_path, tmp_path, prompt_sampling="signal", prompt_success_rates=str(path))
    counts = trainer._prompts.state_dict()["counts"]
    assert counts[:, 1].tolist() == [4.0] * 24
    assert counts[:, 0].tolist() == [4.0 * (prompt[0] in SILENT) for prompt in dataset()["prompt"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"success": 0.5}\n' * 23, "has 23 success rates, but the training data has 24 prompts"),
        ('{"success": 1.5}\n' * 24, "has the success rate 1.5; a rate lies between 0 and 1"),
        ('{"easy": 0.5, "hard": 0.1}\n' * 24, "let it alone be called 'success', or in a plan name it with --column"),
        ('{"prompt": "a", "completion": "b", "reward": 1.0}\n' * 24, "holds completions, which are not in the order"),
    ],
)
def test_success_rates_of_other_data_are_refused(policy_path, tmp_path, content, message):
    path = tmp_path / "rates.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        make(policy_path, tmp_path, prompt_sampling="signal", prompt_success_rates=str(path))
    assert "\n" not in str(error.value)


UNBIASED = {
    "TRL's term": {"loss_type": "dr_grpo"},
    "with a KL": {"loss_type": "grpo", "beta": 0.5},
    "a term of its own": {"variant": "tic_grpo", "beta": 0.5},
}


@pytest.mark.parametrize("settings", UNBIASED.values(), ids=UNBIASED)
def test_weighted_draws_have_the_gradient_of_uniform_ones(policy_path, tmp_path, monkeypatch, settings):
    """Over all prompts, the probability of each times the step that it leads to; a step of SGD is a gradient."""
    run = {"max_steps": 1, "per_device_train_batch_size": GROUP, "steps_per_generation": 1}
    run |= {"optim": "sgd", "learning_rate": 1.0, "max_grad_norm": 0.0, "prompt_sampling": "signal"}
    successes = 4 * np.array([0.5, 1.0, 0.0] * 8)
    counts = np.stack([successes, np.full(24, 4)], axis=1)
    q = draw_probabilities(signal_of_prompts(counts, GROUP), least_variance=True)

    def step(prompt, weights):
        trainer = make(policy_path, tmp_path, prompt_weights=weights, **(run | settings))
        trainer._prompts.load_state_dict({"taken": 0, "counts": torch.from_numpy(counts)})
        if trainer.ref_model is not None:
            # At itself a KL has no gradient.
            for parameter in trainer.ref_model.parameters():
                parameter.data.mul_(1.1)
        monkeypatch.setattr(source, "draw", lambda *_: np.array([prompt]))
        before = parameters(trainer)
        trainer.train()
        moved = [value.detach() - before[name] for name, value in trainer.model.named_parameters()]
        return torch.cat([part.flatten() for part in moved]).double()

    # Of each kind of prompt, some with signal and some without.
    prompts = (0, 1, 2, 4, 8, 15)
    uniform = sum(step(prompt, "equal") for prompt in prompts)
    weighted = sum(24 * q[prompt] * step(prompt, "unbiased") for prompt in prompts)
    assert uniform.norm() > 1e-3 and len({round(q[prompt], 6) for prompt in prompts}) == 2
    torch.testing.assert_close(weighted, uniform, rtol=1e-3, atol=1e-6)


# ---- resuming -------------------------------------------------------------------------------------------------------

RESUMED = {
    "by_signal": {"prompt_sampling": "signal", "prompt_weights": "unbiased", "loss_type": "dr_grpo"},
    "refilled": {"refill_groups": 3},
    "kept": {"refill_groups": 3, "surplus_groups": "keep", "steps_per_generation": 2, "variant": "tic_grpo"},
    "all": {"refill_groups": 3, "surplus_groups": "keep", "prompt_sampling": "signal", "beta": 0.1},
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_has_the_prompts_and_the_groups_of_the_one_that_went_on(policy_path, tmp_path, name):
    def again():
        run = {"save_strategy": "steps", "save_steps": 1, "max_steps": 8, "per_device_train_batch_size": 16}
        # With completions of the policy itself.
        return make(policy_path, tmp_path, rollout_func=None, **(run | RESUMED[name]))

    whole = again()
    whole.train()
    waiting = []
    for stopped_at in (1, 3, 4, 6):
        resumed = again()
        restore = resumed._restore_prompts
        resumed._restore_prompts = lambda state, restore=restore: (waiting.append(state["kept"]), restore(state))
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{stopped_at}"))
        assert later_history(resumed, stopped_at) == later_history(whole, stopped_at)
        expected = parameters(whole)
        assert all(torch.equal(expected[key], value) for key, value in parameters(resumed).items())
    assert any(kept is not None for kept in waiting) == ("surplus_groups" in RESUMED[name])


def test_groups_of_another_objective_are_not_kept(policy_path, tmp_path):
    run = {"save_strategy": "steps", "save_steps": 1, "per_device_train_batch_size": 16, "refill_groups": 8}
    first = make(policy_path, tmp_path, surplus_groups="keep", max_steps=1, **run)
    first.train()
    assert first._kept is not None
    checkpoint = str(tmp_path / "checkpoint-1")
    with pytest.raises(ValueError, match="surplus_groups was 'keep' and is 'drop'"):
        make(policy_path, tmp_path, max_steps=2, **run).train(resume_from_checkpoint=checkpoint)
    changed = {"surplus_groups": "keep", "scale_rewards": "none", "allow_objective_change": True}
    resumed = make(policy_path, tmp_path, max_steps=2, **(run | changed))
    _, generations = watched(resumed)
    resumed.train(resume_from_checkpoint=checkpoint)
    # The prompts go on where they were, and the whole rollout is of new ones.
    taken = first._prompts.state_dict()["taken"]
    expected = source.passes(taken, 4, 24, resumed.args.seed)
    assert generations[0][::GROUP] == [dataset()["prompt"][index] for index in expected]


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_what_the_data_does_not_allow_is_refused(policy_path, tmp_path, monkeypatch):
    from .. import tiny

    streamed = dataset().to_iterable_dataset()
    monkeypatch.setattr(tiny, "dataset", lambda: streamed)
    for settings in ({"prompt_sampling": "signal"}, {"refill_groups": 2}):
        with pytest.raises(ValueError, match="needs prompts that it can go back to, but .* iterable data set"):
            make(policy_path, tmp_path, **settings)
    pictured = dataset().add_column("image", [None] * 24)
    monkeypatch.setattr(tiny, "dataset", lambda: pictured)
    with pytest.raises(ValueError, match=re.escape("`refill_groups=2` takes rollouts of text apart")):
        make(policy_path, tmp_path, refill_groups=2)


# ---- several processes ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def alone(policy_path, tmp_path_factory):
    return prompts_worker.run(policy_path, tmp_path_factory.mktemp("alone"))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("backend", ["ddp", "fsdp2", pytest.param("zero2", marks=needs_deepspeed)])
def test_two_processes_choose_what_one_chooses(alone, policy_path, tmp_path, backend):
    ranks = load_ranks(tmp_path, launch(prompts_worker, policy_path, tmp_path, backend, time_limit=300))
    for case, expected in alone.items():
        for process, rank in enumerate(ranks):
            actual = rank[case]
            assert actual["wrapper"] == WRAPPERS[backend]
            assert (actual["step"], actual["generations"]) == (expected["step"], expected["generations"]), case
            if case == "raises":
                assert actual["error"].startswith("A reward function failed on process 1 of 2: ZeroDivisionError")
                continue
            assert actual["error"] is None
            if expected["kept"] is not None:
                assert torch.equal(actual["kept"], expected["kept"])
            # FSDP2 gives all parameters to the first process and none to the other.
            if process == 0 or backend != "fsdp2":
                assert actual["parameters"].keys() == expected["parameters"].keys()
            for name, value in actual["parameters"].items():
                torch.testing.assert_close(value, expected["parameters"][name], rtol=1e-4, atol=1e-5)


def test_the_cases_are_what_they_are_called(alone):
    """Else the comparison would be one of runs in which nothing is decided."""
    for case in {"refilled", "kept", "all", "served"} & alone.keys():
        assert max(entry.get("prompts/generations", 0) for entry in alone[case]["history"]) > 1
    assert alone["kept"]["kept"] is not None
    assert alone["by_signal"]["generations"] == 4
    assert alone["exhausted"]["step"] == 1 and alone["raises"]["step"] == 0


def test_what_is_believed_of_prompts_outlives_a_change_of_the_objective(policy_path, tmp_path):
    settings = {"prompt_sampling": "signal", "save_strategy": "steps", "save_steps": 2, "max_steps": 2}
    first = make(policy_path, tmp_path, **settings)
    first.train()
    later = make(policy_path, tmp_path, allow_objective_change=True, epsilon=0.1, **settings)
    later.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    believed, before = (trainer._prompts.state_dict()["counts"] for trainer in (later, first))
    assert believed.tolist() == before.tolist() and before.any()
