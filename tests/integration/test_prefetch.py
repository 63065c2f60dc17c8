# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Rollouts that a server makes while the one before is trained."""

import threading
import time

import pytest
import torch
from transformers import TrainerCallback
from trl.generation.vllm_client import VLLMClient

from trl_grpo_variants.vllm.client import GenerationServerError

from .. import tiny
from ..tiny import dataset, make_trainer
from .policy_server import SEEDED, PolicyServer
from .server_worker import standing_in
from .test_resume import later_history, lora, parameters


pytestmark = pytest.mark.skipif(not hasattr(VLLMClient, "get_server_info"), reason="an older TRL")

PREFETCHED = SEEDED | {"prefetch_rollout": True, "max_steps": 8, "learning_rate": 0.05}
# Two optimizer steps per rollout, of which there are four.
TWO_STEPS = {"steps_per_generation": 2, "per_device_train_batch_size": 4, "num_iterations": 1}


def trained(policy_path, folder, server, **settings):
    """A trainer after its run, and of each rollout what it held, and the weights when it was taken."""
    resume = settings.pop("resume", None)
    with standing_in(server):
        trainer = make_trainer(policy_path, folder, **(PREFETCHED | settings))
        rollouts = []
        chosen = trainer._chosen_rollout

        def watch(inputs):
            live = parameters(trainer)
            rollout = chosen(inputs)
            if trainer.model.training:
                rollouts.append((rollout, live))
            return rollout

        trainer._chosen_rollout = watch
        trainer.train(resume_from_checkpoint=resume)
    return trainer, rollouts


def same(weights, others):
    return all(torch.equal(value, others[name]) for name, value in weights.items())


def without_prefixes(weights):
    """Of a policy with an adapter, as the server knows it."""
    return {name.replace(".default", ""): value for name, value in weights.items()}


@pytest.mark.parametrize("peft_config", [None, lora()], ids=["full", "lora"])
def test_every_rollout_but_the_first_is_of_one_rollout_before(policy_path, tmp_path, peft_config):
    server = PolicyServer(policy_path)
    _, rollouts = trained(policy_path, tmp_path, server, variant="tic_grpo", peft_config=peft_config, **TWO_STEPS)
    assert len(rollouts) == len(server.asked) == 4
    live = [without_prefixes(weights) for _, weights in rollouts]
    asked = [without_prefixes(weights) for _, weights in server.asked]
    expected = [0, 0, 1, 2]
    for number, weights in enumerate(asked):
        assert [same(weights, policy) for policy in live].index(True) == expected[number]
    assert not same(live[1], live[2])


def logps_under(weights, rollout, policy_path):
    """Log-probs `(B, T)` of a rollout under a policy without an adapter."""
    model = PolicyServer(policy_path).model
    model.load_state_dict(weights)
    ids = torch.cat([rollout["prompt_ids"], rollout["completion_ids"]], dim=1)
    mask = torch.cat([rollout["prompt_mask"], rollout["completion_mask"]], dim=1)
    width = rollout["completion_ids"].size(1)
    # As TRL's forward pass, which leaves the positions to the model.
    logits = model(input_ids=ids, attention_mask=mask).logits[:, -width - 1 : -1]
    return model, logits.log_softmax(-1).gather(2, rollout["completion_ids"].unsqueeze(2)).squeeze(2)


OLD = {
    "one step per rollout": {"vllm_importance_sampling_correction": False},
    "one step, corrected": {},
    "two steps": TWO_STEPS,
    "two passes": {"num_iterations": 2},
    "accumulated": {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4, "steps_per_generation": 2},
    "stock forward passes": {"trim_padding": False, "skip_inert_rows": False},
    "by signal": {"prompt_sampling": "signal"},
    "older anchor": TWO_STEPS | {"variant": "dual", "mirror_sync_steps": 4},
    "KL in the reward": {"variant": "kl_in_reward", "vllm_importance_sampling_correction": False},
}


@pytest.mark.parametrize("name", OLD)
def test_old_log_probs_are_those_of_the_policy_that_sampled(policy_path, tmp_path, name):
    server = PolicyServer(policy_path)
    settings = {"variant": "mean_only"} | OLD[name]
    trainer, rollouts = trained(policy_path, tmp_path, server, **settings)
    assert len(rollouts) == len(server.asked) >= 3
    for number, ((rollout, live), (prompts, sampler)) in enumerate(zip(rollouts, server.asked, strict=True)):
        mask = rollout["completion_mask"].bool()
        assert rollout["prompt_ids"][:: trainer.num_generations].tolist() == [
            [0] * (rollout["prompt_ids"].size(1) - len(ids)) + ids for ids in prompts
        ]
        expected = logps_under(sampler, rollout, policy_path)[1][mask].detach()
        if number == 0 and "old_per_token_logps" not in rollout:
            assert name in ("one step per rollout", "KL in the reward")
            continue
        torch.testing.assert_close(rollout["old_per_token_logps"][mask], expected, rtol=0, atol=2e-5)
        torch.testing.assert_close(rollout["sampling_per_token_logps"][mask], expected, rtol=0, atol=2e-5)
        if not same(sampler, live):
            now = logps_under(live, rollout, policy_path)[1][mask].detach()
            assert (now - expected).abs().max() > 1e-3
    # Afterwards the policy is the one that was trained.
    assert not same(parameters(trainer), rollouts[-1][1])
    assert not any(anchor.is_swapped_in for anchor in trainer._anchors.named().values() if hasattr(anchor, "_values"))


def test_the_first_late_step_is_the_off_policy_gradient(policy_path, tmp_path):
    server = PolicyServer(policy_path)
    settings = {"variant": "mean_only", "loss_type": "dr_grpo", "beta": 0.0, "epsilon": 0.1, "max_steps": 2}
    settings |= {"steps_per_generation": 1, "vllm_importance_sampling_correction": False}
    settings |= {"optim": "sgd", "learning_rate": 2.0, "max_grad_norm": 0.0}
    trainer, ((_, start), (rollout, live)) = trained(policy_path, tmp_path, server, **settings)
    assert same(server.asked[1][1], start) and not same(start, live)

    mask, group = rollout["completion_mask"].float(), trainer.num_generations
    rewards = torch.tensor([float(any(token in (2, 3) for token in ids[:3])) for ids in rollout["completion_ids"]])
    advantages = (rewards.view(-1, group) - rewards.view(-1, group).mean(1, keepdim=True)).flatten()[:, None]
    old = logps_under(start, rollout, policy_path)[1].detach()
    model, now = logps_under(live, rollout, policy_path)
    ratio = (now - old).exp()
    clipped = ratio.clamp(0.9, 1.1)
    assert ((ratio != clipped) * mask * (advantages != 0)).any()
    loss = -(torch.minimum(ratio * advantages, clipped * advantages) * mask).sum()
    (loss / (len(mask) * trainer.max_completion_length)).backward()
    after = parameters(trainer)
    for name, value in model.named_parameters():
        torch.testing.assert_close(after[name], live[name] - 2.0 * value.grad, rtol=1e-4, atol=1e-5)


def test_a_frozen_gradient_is_that_at_the_policy_that_sampled(policy_path, tmp_path):
    server = PolicyServer(policy_path)
    settings = {"variant": "no_is_frozen", "loss_type": "dr_grpo", "max_steps": 2, "steps_per_generation": 1}
    settings |= {"optim": "sgd", "learning_rate": 2.0, "max_grad_norm": 0.0}
    settings |= {"vllm_importance_sampling_correction": False}
    trainer, ((_, start), (rollout, live)) = trained(policy_path, tmp_path, server, **settings)
    model, logps = logps_under(start, rollout, policy_path)
    loss = -(rollout["advantages"][:, None] * logps * rollout["completion_mask"]).sum()
    (loss / (len(logps) * trainer.max_completion_length)).backward()
    after = parameters(trainer)
    for name, value in model.named_parameters():
        torch.testing.assert_close(after[name], live[name] - 2.0 * value.grad, rtol=1e-4, atol=1e-5)
    assert rollout["advantages"].any()


@pytest.mark.parametrize("peft_config", [None, lora()], ids=["full", "lora"])
def test_training_goes_on_while_the_server_is_at_work(policy_path, tmp_path, peft_config):
    """And the server keeps its weights as long as it is."""
    stepped = threading.Event()

    class Busy(PolicyServer):
        def generate(self, *args, **kwargs):
            if self.rollouts == 1:
                # It is not done before the first step is, and not at once then.
                assert stepped.wait(60)
                time.sleep(0.5)
            return super().generate(*args, **kwargs)

    class Stepped(TrainerCallback):
        def on_step_end(self, *args, **kwargs):
            stepped.set()

    settings = {"callbacks": [Stepped()], "peft_config": peft_config, "max_steps": 3}
    server = Busy(policy_path)
    trainer, rollouts = trained(policy_path, tmp_path, server, **settings)
    assert (trainer.state.global_step, len(rollouts)) == (3, 3)
    asked, live = (
        [without_prefixes(weights) for weights in policies]
        for policies in ([weights for _, weights in server.asked], [weights for _, weights in rollouts])
    )
    assert same(asked[1], live[0]) and not same(asked[1], live[1]) and same(asked[2], live[1])


def test_prompts_come_in_the_order_of_trls_sampler(policy_path, tmp_path):
    """Also in a second epoch."""
    runs = []
    for prefetches in (True, False):
        server = PolicyServer(policy_path)
        trained(policy_path, tmp_path, server, variant="mean_only", prefetch_rollout=prefetches, max_steps=14)
        runs.append([prompts for prompts, _ in server.asked])
    assert runs[0] == runs[1] and len(runs[0]) == 14


def test_an_evaluation_in_between_is_of_the_policy_of_now_and_changes_nothing(policy_path, tmp_path):
    plain = PolicyServer(policy_path)
    # An evaluation draws from the numbers by which TRL would shuffle the rollout.
    settings = {"variant": "mirror", "max_steps": 6, "group_preserving_split": True} | TWO_STEPS
    expected, rollouts = trained(policy_path, tmp_path, plain, **settings)
    assert len(rollouts) == 3
    evaluated = PolicyServer(policy_path)
    evaluation = {"eval_strategy": "steps", "eval_steps": 1, "eval_dataset": dataset(4), "num_generations_eval": 1}
    policies = []

    class Evaluated(TrainerCallback):
        def on_step_end(self, *args, model, **kwargs):
            policies.append({name: value.detach().clone() for name, value in model.named_parameters()})

    callbacks = [Evaluated()]
    trainer, _ = trained(policy_path, tmp_path, evaluated, callbacks=callbacks, **settings, **evaluation)
    assert later_history(trainer, 0) == later_history(expected, 0)
    assert same(parameters(trainer), parameters(expected))
    evaluations = [weights for prompts, weights in evaluated.asked if len(prompts) == 4]
    assert len(policies) == len(evaluations) == 6
    assert all(same(weights, policy) for weights, policy in zip(evaluations, policies, strict=True))


RESUMED = {
    "full": {"variant": "tic_grpo"} | TWO_STEPS,
    "lora": {"variant": "dual", "peft_config": lora(), "mirror_sync_steps": 3} | TWO_STEPS,
    "two passes": {"variant": "dppo_tv", "num_iterations": 2, "steps_per_generation": 1},
    "frozen": {"variant": "no_is_frozen"} | TWO_STEPS,
    "by signal": {"prompt_sampling": "signal", "prompt_weights": "unbiased", "loss_type": "dr_grpo"},
    "moving reference": TWO_STEPS | {"variant": "reference", "sync_ref_model": True, "ref_model_sync_steps": 2},
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_is_the_one_that_went_on(policy_path, tmp_path, name):
    """Each with a server that has seen nothing of the run."""
    settings = {"save_strategy": "steps", "save_steps": 1} | RESUMED[name]
    whole, rollouts = trained(policy_path, tmp_path, PolicyServer(policy_path), **settings)
    expected = parameters(whole)
    assert len(rollouts) >= 4
    for stopped_at in (1, 2, 5):
        checkpoint = str(tmp_path / f"checkpoint-{stopped_at}")
        resumed, _ = trained(policy_path, tmp_path, PolicyServer(policy_path), resume=checkpoint, **settings)
        assert later_history(resumed, stopped_at) == later_history(whole, stopped_at)
        assert len(later_history(whole, stopped_at)) == 8 - stopped_at
        assert same(expected, parameters(resumed))


def test_a_run_that_fetched_nothing_ahead_is_another_objective(policy_path, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 1, "variant": "mean_only", "max_steps": 2}
    trained(policy_path, tmp_path, PolicyServer(policy_path), prefetch_rollout=False, **settings)
    checkpoint = str(tmp_path / "checkpoint-1")
    with pytest.raises(ValueError, match="prefetch_rollout was 'unused' and is True|prefetch_rollout was unused"):
        trained(policy_path, tmp_path, PolicyServer(policy_path), resume=checkpoint, **settings)
    settings |= {"allow_objective_change": True, "max_steps": 4}
    server = PolicyServer(policy_path)
    _, rollouts = trained(policy_path, tmp_path, server, resume=checkpoint, **settings)
    # As in a run that begins, the first one is of the policy of now.
    assert [same(weights, rollouts[0][1]) for _, weights in server.asked] == [True, True, False]


def test_a_request_in_the_background_that_fails_ends_the_run_at_the_next_rollout(policy_path, tmp_path):
    settings = {"save_strategy": "steps", "save_steps": 1, "variant": "tic_grpo"} | TWO_STEPS
    with pytest.raises(GenerationServerError, match=r"does not answer \(ConnectionError\)") as error:
        trained(policy_path, tmp_path, PolicyServer(policy_path, "generating"), **settings)
    checkpoint = tmp_path / "checkpoint-2"
    assert f"The run is saved: `resume_from_checkpoint='{checkpoint}'`" in str(error.value)
    resumed, _ = trained(policy_path, tmp_path, PolicyServer(policy_path), resume=str(checkpoint), **settings)
    whole, _ = trained(policy_path, tmp_path / "whole", PolicyServer(policy_path), **settings)
    assert later_history(resumed, 2) == later_history(whole, 2)
    assert same(parameters(whole), parameters(resumed))


@pytest.mark.parametrize(
    ("settings", "column", "reason"),
    [
        ({"rollout_func": lambda prompts, trainer: None}, None, "`rollout_func` asks the engine itself"),
        ({}, "image", "the training data has the column 'image'"),
    ],
)
def test_what_takes_more_than_text_in_one_turn_is_refused(
    policy_path, tmp_path, monkeypatch, settings, column, reason
):
    if column is not None:
        pictured = dataset().add_column(column, [None] * 24)
        monkeypatch.setattr(tiny, "dataset", lambda: pictured)
    with pytest.raises(ValueError, match=f"in a single turn, but {reason}; leave one of them unset"):
        trained(policy_path, tmp_path, PolicyServer(policy_path), **settings)


def test_a_stream_is_refused(policy_path, tmp_path, monkeypatch):
    streamed = dataset().to_iterable_dataset()
    monkeypatch.setattr(tiny, "dataset", lambda: streamed)
    with pytest.raises(ValueError, match="`prefetch_rollout=True` needs prompts that it can go back to"):
        trained(policy_path, tmp_path, PolicyServer(policy_path))


def test_a_trainer_that_resumes_after_a_failure_asks_the_same_policies(policy_path, tmp_path):
    """It has given the server a later policy at the same step."""
    failures = [RuntimeError("once")]

    def fails_once(prompts, trainer_state, **others):
        if trainer_state.global_step == 2 and failures:
            raise failures.pop()
        return tiny.reward(**others)

    server = PolicyServer(policy_path)
    settings = {"save_strategy": "steps", "save_steps": 1, "variant": "tic_grpo"} | TWO_STEPS
    with standing_in(server):
        trainer = make_trainer(policy_path, tmp_path, **(PREFETCHED | settings), reward_funcs=fails_once)
        with pytest.raises(RuntimeError, match="once"):
            trainer.train()
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    whole, _ = trained(policy_path, tmp_path / "whole", PolicyServer(policy_path), reward_funcs=fails_once, **settings)
    assert not failures and trainer.state.global_step == 8
    assert same(parameters(whole), parameters(trainer))
