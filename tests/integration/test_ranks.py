# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
No process waits for another for ever, whatever differs between them, and two compute what one does.

A process that waits in vain never returns what it has found, and the launch reaches its time limit.
"""

import pytest
import torch

from . import ranks_worker
from .test_distributed import WRAPPERS, launch, load_ranks, needs_deepspeed


# A launch may take longer than a test should, and ends itself.
pytestmark = pytest.mark.timeout(900)

# Policies that are trained in one launch.
TOGETHER = {
    "ddp": ["plain", "plain_on_policy", "packed", "shared", "adapter"],
    "ddp_compiled": ["compiled"],
    "fsdp2": ["plain", "packed", "adapter"],
    "zero2": ["plain", "packed", "adapter"],
    "zero3": ["plain", "packed", "adapter"],
}
CASES = [
    pytest.param(
        name,
        policy,
        situation,
        marks=needs_deepspeed if name.startswith("zero") else [],
        id=f"{name}-{policy}-{situation}",
    )
    for name, policies in TOGETHER.items()
    for policy in policies
    for situation in ranks_worker.SITUATIONS
]


@pytest.fixture(scope="module")
def alone(policy_path, tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    return ranks_worker.run(policy_path, folder, "ddp", ["plain", "plain_on_policy", "adapter"])


@pytest.fixture(scope="module")
def together(policy_path, tmp_path_factory):
    """What every rank has computed in the launch of a name, which is made when it is first asked for."""
    found = {}

    def ranks(name):
        if name not in found:
            folder = tmp_path_factory.mktemp(name)
            arguments = policy_path, folder, name.removesuffix("_compiled"), *TOGETHER[name]
            found[name] = load_ranks(folder, launch(ranks_worker, *arguments, time_limit=600))
        return found[name]

    return ranks


@pytest.mark.parametrize(("name", "policy", "situation"), CASES)
def test_every_process_ends_with_the_result_of_one_or_with_a_sentence(alone, together, name, policy, situation):
    ranks = [rank[policy, situation] for rank in together(name)]
    expected = alone[ranks_worker.ALIKE.get(policy, policy), situation]
    for process, actual in enumerate(ranks):
        assert actual["step"] == expected["step"]
        if situation == "reward_raises":
            kind, sentence, cause = actual["error"]
            assert kind == "RewardFunctionError"
            assert sentence.startswith(
                "A reward function failed on process 1 of 2: ZeroDivisionError: no judge (in `reward`, ranks_worker.py, line "
            )
            assert "\n" not in sentence
            assert cause == ("ZeroDivisionError" if process == 1 else "NoneType")
            continue
        assert actual["error"] is None
        if policy != "compiled":
            assert actual["wrapper"] == WRAPPERS[name]
        # FSDP2 and ZeRO-3 give all parameters to the first process and none to the other.
        if process == 0 or name in ("ddp", "ddp_compiled", "zero2"):
            assert actual["parameters"].keys() == expected["parameters"].keys()
        for key, parameter in actual["parameters"].items():
            torch.testing.assert_close(parameter, expected["parameters"][key], rtol=1e-4, atol=1e-5)


def test_situations_are_what_they_are_called(alone):
    """Else the suite would compare runs in which nothing differs."""
    gradients = {
        situation: [entry["grad_norm"] for entry in alone["plain_on_policy", situation]["history"]]
        for situation in ranks_worker.SITUATIONS
        if situation != "reward_raises"
    }
    first, second, third = gradients.pop("all_inert")
    assert first == third == 0 and second > 0.1
    assert all(norm > 0.01 for norms in gradients.values() for norm in norms)
