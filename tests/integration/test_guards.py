# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The first number that is not finite stops a run before it reaches the weights."""

import math
import re
from types import SimpleNamespace

import pytest
import torch
from accelerate.utils import DistributedType
from torch import nn
from trl import GRPOTrainer

from trl_grpo_variants.guards import FiniteGuard, NonFiniteError, has_nonfinite_gradient

from ..tiny import dataset, make_trainer, reward
from . import guards_worker
from .test_distributed import launch, load_ranks
from .test_resume import later_history


# Four optimizer steps of two micro-batches on one rollout.
RUN = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "steps_per_generation": 8, "max_steps": 5}
RUN |= {"learning_rate": 1e-2, "log_completions": False}


def break_at(trainer, monkeypatch, what, step):
    """Spoil a loss in the first micro-batch of an optimizer step, and what else there is in the last one."""

    def spoiled():
        in_turn = trainer.accelerator.sync_gradients != (
            what == "loss" and trainer.args.gradient_accumulation_steps > 1
        )
        return trainer.state.global_step == step and in_turn

    if what == "gradient":
        parameter = list(trainer.model.parameters())[-1]
        parameter.register_hook(lambda gradient: gradient * math.inf if spoiled() else gradient)
        return
    compute = GRPOTrainer._compute_loss

    def compute_loss(self, model, inputs):
        if what == "failure" and spoiled():
            raise NonFiniteError("Within a step.")
        loss = compute(self, model, inputs)
        return loss * math.nan if self is trainer and spoiled() else loss

    monkeypatch.setattr(GRPOTrainer, "_compute_loss", compute_loss)


def weights(trainer):
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


@pytest.mark.parametrize("what", ["loss", "gradient"])
@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
def test_it_stops_before_the_step_and_resumes_exactly(policy_path, tmp_path, monkeypatch, what, max_grad_norm):
    def make():
        return make_trainer(policy_path, tmp_path, variant="tic_grpo", max_grad_norm=max_grad_norm, **RUN)

    whole = make()
    whole.train()
    broken = make()
    break_at(broken, monkeypatch, what, 2)
    with pytest.raises(
        NonFiniteError, match=f"The {what} of optimizer step 3 is not finite.*The run is saved"
    ) as error:
        broken.train()
    assert weights(broken).isfinite().all()
    checkpoint = re.search("checkpoint='(.*)'", str(error.value))[1]
    assert checkpoint == str(tmp_path / "checkpoint-2")
    resumed = make()
    resumed.train(resume_from_checkpoint=checkpoint)
    assert torch.equal(weights(resumed), weights(whole))


@pytest.mark.parametrize("what", ["loss", "failure"])
def test_the_same_trainer_can_go_on(policy_path, tmp_path, monkeypatch, what):
    trainers = []
    for breaks in (False, True):
        trainer = make_trainer(policy_path, tmp_path, variant="tic_grpo", **RUN)
        trainers.append(trainer)
        if breaks:
            break_at(trainer, monkeypatch, what, 2)
            with pytest.raises(NonFiniteError):
                trainer.train()
            monkeypatch.undo()
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2") if breaks else None)
    assert torch.equal(weights(trainers[0]), weights(trainers[1]))
    whole, resumed = (later_history(trainer, 2) for trainer in trainers)
    assert resumed == whole


def test_where_nothing_is_saved_nothing_is_saved(policy_path, tmp_path, monkeypatch):
    trainer = make_trainer(policy_path, tmp_path, variant="mirror", num_iterations=2, save_only_model=True)
    break_at(trainer, monkeypatch, "loss", 1)
    with pytest.raises(NonFiniteError, match="would go on.$"):
        trainer.train()
    assert not list(tmp_path.glob("checkpoint-*"))


@pytest.mark.parametrize("settings", [{"variant": "mirror", "stop_on_nonfinite": False}, {}], ids=["told", "stock"])
@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_it_goes_on_where_it_is_told_to_and_where_it_is_stock(policy_path, tmp_path, monkeypatch, what, settings):
    # All on one rollout, because nothing can be sampled from such weights.
    trainer = make_trainer(policy_path, tmp_path, num_iterations=4, **settings)
    break_at(trainer, monkeypatch, what, 1)
    trainer.train()
    assert trainer.state.global_step == 4
    assert not weights(trainer).isfinite().all()


def alone(**settings):
    defaults = {"distributed_type": DistributedType.NO, "scaler": None}
    return SimpleNamespace(reduce=lambda tensor, reduction: tensor, **(defaults | settings))


def spoiled_model():
    model = nn.Linear(2, 1)
    model.weight.grad = torch.tensor([[1.0, -math.inf]])
    return model


def test_a_gradient_scaler_sees_to_gradients_itself():
    state = SimpleNamespace(global_step=6)
    for scaler in (None, object()):
        guard = FiniteGuard(alone(scaler=scaler))
        guard.watch(torch.tensor(1.0), 6)
        if scaler is None:
            with pytest.raises(NonFiniteError, match="The gradient of optimizer step 7"):
                guard.on_pre_optimizer_step(None, state, None, model=spoiled_model())
        else:
            guard.on_pre_optimizer_step(None, state, None, model=spoiled_model())
        guard.watch(torch.tensor(math.nan), 6)
        with pytest.raises(NonFiniteError, match="The loss of optimizer step 7"):
            guard.on_pre_optimizer_step(None, state, None, model=spoiled_model())
        # The next step begins with nothing against it.
        guard.on_step_begin(None, state, None)
        guard.watch(torch.tensor(1.0), 7)
        guard.on_pre_optimizer_step(None, state, None, model=nn.Linear(2, 1))


def test_a_step_within_the_backward_pass_is_stopped_before_it():
    guard = FiniteGuard(alone(distributed_type=DistributedType.DEEPSPEED))
    guard.watch(torch.tensor(1.0), 0)
    with pytest.raises(NonFiniteError, match="The loss of optimizer step 1"):
        guard.watch(torch.tensor(math.inf), 0)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38, 0.0])
def test_gradients_are_finite_or_not(value):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(0, 2))
    assert not has_nonfinite_gradient(model)
    model[0].weight.grad = torch.tensor([[1.0, 2.0], [3.0, value]])
    model[1].weight.grad = torch.zeros(2, 0)
    model[1].bias.grad = torch.tensor([3e38, 3e38])
    assert has_nonfinite_gradient(model) == (not math.isfinite(value))


# ---- rewards -------------------------------------------------------------------------------------------------------


def broken_reward(completion_ids, **_):
    return [-math.inf if i == 5 else float(i) for i in range(len(completion_ids))]


def test_an_infinite_reward_is_named_with_its_prompt(policy_path, tmp_path):
    trainer = make_trainer(policy_path, tmp_path, variant="tic_grpo", reward_funcs=[reward, broken_reward])
    with pytest.raises(NonFiniteError, match="`broken_reward` gave -inf for a completion of the prompt '[a-h]+', so"):
        trainer.train()
    assert (tmp_path / "checkpoint-0").is_dir()


def test_an_infinite_reward_costs_its_group_where_the_run_goes_on(policy_path, tmp_path, caplog):
    trainer = make_trainer(
        policy_path, tmp_path, variant="reference", reward_funcs=broken_reward, stop_on_nonfinite=False
    )
    inputs = [{"prompt": "ab"}] * 4 + [{"prompt": "cd"}] * 4
    trainer.model.train()
    advantages = trainer._generate_and_score_completions(inputs)["advantages"]
    assert (
        "`broken_reward` gave -inf for a completion of the prompt 'cd', so its group has no advantage" in caplog.text
    )
    assert (advantages[:4] != 0).all() and advantages[4:].tolist() == [0.0] * 4


def test_an_infinite_reward_of_an_evaluation_is_named(policy_path, tmp_path):
    trainer = make_trainer(
        policy_path,
        tmp_path,
        variant="tic_grpo",
        reward_funcs=broken_reward,
        eval_dataset=dataset(4),
        per_device_eval_batch_size=8,
    )
    with pytest.raises(NonFiniteError, match="`broken_reward` gave -inf"):
        trainer.evaluate()


# ---- several processes ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ranks(policy_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("guards")
    return load_ranks(folder, launch(guards_worker, policy_path, folder))


@pytest.mark.parametrize(
    ("case", "sentence"),
    [
        ("loss", "The loss of optimizer step 2 is not finite.*checkpoint-1'"),
        (
            "reward",
            "`on_the_last_rank` gave inf for a completion of the prompt '[a-h]+' .and 3 more like it., so the run",
        ),
        (
            "domain",
            "`advantage='maximum_likelihood'` takes rewards of at least 0, but `negative_on_the_last_rank` gave -1 for a "
            "completion of the prompt '[a-h]+' .and 3 more like it., so the run stops.*checkpoint-0'",
        ),
        (
            "worker",
            "^A reward function failed on process 1 of 2: The reward function `fails_for_the_last_rank` raised ValueError: "
            r"no judge \(in `fails_for_the_last_rank`, reward_functions.py, line \d+\) for completion 0 of 4: prompt "
            r"'[a-h]+', completion '[a-h]*'\.$",
        ),
    ],
)
def test_all_processes_stop_with_one_sentence(ranks, case, sentence):
    assert ranks[0][case] == ranks[1][case]
    assert re.search(sentence, ranks[0][case])


def test_rows_that_fill_up_an_evaluation_are_not_counted_again(ranks):
    """
    Five prompts of which one succeeds and one half the time, of two completions each, make ten rows for two processes
    of eight.
    """
    shares = {"success": 0.3, "success_all": 0.2, "success_none": 0.6, "success@1": 0.3, "success@2": 0.4}
    for rank in ranks:
        assert rank["evaluation"] == pytest.approx(shares | {"success_prompts": 5})
