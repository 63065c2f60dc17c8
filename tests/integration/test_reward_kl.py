# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The KL to the reference taken from the rewards: what the advantages are of, and what stays as it was."""

import math

import pytest
import torch

from .. import reference
from ..tiny import dataset, make_trainer, reward
from .test_trainer import Recorder, scored_now


BETA = 0.5
RUN = {"beta": BETA, "kl_placement": "reward", "learning_rate": 5e-2, "max_steps": 4}


class Scorer(Recorder):
    """Keeps the log-probs of every rollout under the policy that made it."""

    def __init__(self, *args, **kwargs):
        self.scored = []
        super().__init__(*args, **kwargs)

    def _generate_and_score_completions(self, inputs):
        rollout = super()._generate_and_score_completions(inputs)
        self.scored.append(scored_now(self, rollout))
        return rollout


def penalties(trainer, index):
    """One token after the other."""
    rollout, old = trainer.rollouts[index], trainer.scored[index]
    counted = rollout["completion_mask"].bool()
    rows = zip(old.double(), rollout["ref_per_token_logps"].double(), counted, strict=True)
    return [BETA * math.fsum((o - r)[c].tolist()) for o, r, c in rows]


def partial_reward(completion_ids, **_):
    return [None if ids[0] == 4 else value for ids, value in zip(completion_ids, reward(completion_ids), strict=True)]


def equal_later():
    """After a first rollout, which moves the policy, all completions have the same reward."""
    calls = []

    def equal(completion_ids, **_):
        calls.append(1)
        return reward(completion_ids) if len(calls) == 1 else [1.0] * len(completion_ids)

    return equal


@pytest.mark.parametrize("off_policy", [True, False])
@pytest.mark.parametrize("rewards", [reward, partial_reward, equal_later])
@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"scale_rewards": "none"}, "mean_only"),
        ({"scale_rewards": "group"}, "group_std"),
        ({"scale_rewards": "batch"}, "batch_std"),
        ({"advantage": "risk_sensitive"}, "risk_sensitive"),
        ({"reward_variance_epsilon": 0.1}, "smoothed_std"),
    ],
    ids=str,
)
def test_advantages_are_those_of_the_rewards_less_their_kl(policy_path, tmp_path, settings, name, rewards, off_policy):
    """Also where the rewards of a group are equal; without a reward there is no advantage."""
    schedule = {"num_iterations": 2} if off_policy else {}
    rewards = rewards() if rewards is equal_later else rewards
    trainer = make_trainer(
        policy_path, tmp_path, trainer_class=Scorer, reward_funcs=rewards, **RUN, **settings, **schedule
    )
    trainer.train()
    index = len(trainer.rollouts) - 1
    rollout = trainer.rollouts[index]
    assert ("old_per_token_logps" in rollout) == off_policy
    raw = trainer.rewards["train"][index].squeeze(1).tolist()
    expected = reference.ADVANTAGES[name](
        [r - p for r, p in zip(raw, penalties(trainer, index), strict=True)], 4, reward_variance_epsilon=0.1
    )
    assert max(map(abs, expected)) > 0.01
    torch.testing.assert_close(rollout["advantages"], torch.tensor(expected), rtol=1e-3, atol=1e-4)
    assert all(a == 0 for a, r in zip(rollout["advantages"].tolist(), raw, strict=True) if math.isnan(r))
    assert list(trainer._logs["advantages"])[-8:] == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_success_and_rewards_are_logged_without_it_and_the_kl_as_it_is(policy_path, tmp_path):
    trainer = make_trainer(policy_path, tmp_path, trainer_class=Scorer, num_iterations=2, **RUN)
    trainer.train()
    entry = [entry for entry in trainer.state.log_history if "loss" in entry][2]
    raw = trainer.rewards["train"][1].squeeze(1)
    assert entry["success"] == entry["reward"] == pytest.approx(raw.mean().item())
    taken = penalties(trainer, 1)
    assert abs(entry["kl_penalty"]) > 1e-4
    assert entry["kl_penalty"] == pytest.approx(math.fsum(taken) / len(taken), rel=1e-3)
    # At the first of two passes the ratio is 1.
    rollout = trainer.rollouts[1]
    d = (rollout["ref_per_token_logps"] - trainer.scored[1])[rollout["completion_mask"].bool()]
    assert entry["kl"] == pytest.approx((d.exp() - d - 1).mean().item(), rel=1e-3)
    assert entry["frac_reward_zero_std"] == 0


def test_a_reference_that_has_lost_a_token_takes_a_finite_reward(policy_path, tmp_path):
    trainer = make_trainer(policy_path, tmp_path, num_iterations=2, **RUN)
    rollout = {
        "completion_mask": torch.ones(2, 3),
        "ref_per_token_logps": torch.tensor([[-1.0, -torch.inf, -1e4], [-1.0, -1.0, -3.0]]),
        "old_per_token_logps": torch.tensor([[-1.0, -2.0, -3.0], [-2.0, -1.0, -1.0]], dtype=torch.float16),
    }
    taken = trainer._method.reward_penalties(rollout, lambda: None)
    # A token counts for 20 nats at most.
    assert taken.tolist() == pytest.approx([BETA * 40.0, BETA * 1.0])


def test_an_evaluation_takes_it_too(policy_path, tmp_path):
    trainer = make_trainer(
        policy_path,
        tmp_path,
        trainer_class=Scorer,
        scale_rewards="none",
        per_device_eval_batch_size=8,
        eval_dataset=dataset(2),
        **RUN,
    )
    trainer.train()
    metrics = trainer.evaluate()
    raw = trainer.rewards["eval"][-1].squeeze(1).tolist()
    taken = penalties(trainer, -1)
    expected = reference.mean_only([r - p for r, p in zip(raw, taken, strict=True)], 4)
    assert trainer.rollouts[-1]["advantages"].tolist() == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert metrics["eval_kl_penalty"] == pytest.approx(math.fsum(taken) / 8, rel=1e-3)
