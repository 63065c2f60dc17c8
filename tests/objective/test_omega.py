# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Each advantage's signal in closed form against its own function: in a large group, in every small one, at the ends."""

import inspect

import numpy as np
import pytest
import torch

from trl_grpo_variants.objective.advantages import ADVANTAGES
from trl_grpo_variants.objective.terms import Domain

from .. import reference


LARGE = 200_000
FIELDS = {"reward_variance_epsilon": 1e-2}


def other_value(value):
    return value + 1 if isinstance(value, int) else value / 2


def with_settings(part):
    """A part with its defaults, and with other settings if it has any."""
    # The keywords of a part that TRL computes are those of its signal.
    names = inspect.signature(part.omega).parameters
    keywords = {name: parameter for name, parameter in names.items() if parameter.kind is parameter.KEYWORD_ONLY}
    defaults = {name: FIELDS.get(name, parameter.default) for name, parameter in keywords.items()}
    yield pytest.param(part, defaults, id=part.name)
    if defaults:
        yield pytest.param(part, {name: other_value(v) for name, v in defaults.items()}, id=f"{part.name}-other")


SIGNALS = [case for part in ADVANTAGES.values() if part.omega is not None for case in with_settings(part)]


def advantages(part, rewards, settings):
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(1, 50, (len(rewards),), generator=generator)
    if part.function is None:
        return torch.tensor(reference.ADVANTAGES[part.name](rewards, len(rewards)), dtype=torch.float64)
    given = {"lengths": lengths} if part.takes("lengths") else {}
    return part.function(torch.tensor(rewards, dtype=torch.float64), len(rewards), **settings, **given)


def difference(part, successes, size, settings):
    """A+ - A-, which are one value each."""
    values = advantages(part, [1.0] * successes + [0.0] * (size - successes), settings)
    of_success, of_failure = values[:successes], values[successes:]
    assert (of_success == of_success[0]).all() and (of_failure == of_failure[0]).all()
    return (of_success[0] - of_failure[0]).item()


@pytest.mark.parametrize(("part", "settings"), SIGNALS)
def test_the_signal_is_that_of_the_function_in_a_large_group(part, settings):
    for successes in (400, 60_000, 100_000, 190_000, 199_000):
        share = np.array([successes / LARGE])
        signal = part.omega(share, 1 - share, **settings)
        assert signal.shape == (1,)
        assert signal[0] == pytest.approx(difference(part, successes, LARGE, settings), rel=2e-3, abs=1e-6)


@pytest.mark.parametrize(("part", "settings"), SIGNALS)
def test_the_signal_of_a_group_is_that_of_the_function(part, settings):
    for size in range(2, 9):
        # A setting with a bound below the group size is refused where it is not.
        if any(
            setting.below and settings.get(setting.name, 0) >= size for setting in part.settings if setting.is_whole
        ):
            continue
        successes = np.arange(1.0, size)
        if part.group_omega is not None:
            signal = part.group_omega(successes, size, **settings)
        else:
            signal = part.omega(successes / size, 1 - successes / size, **settings)
        expected = [difference(part, int(c), size, settings) for c in successes]
        assert list(signal) == pytest.approx(expected, rel=1e-9, abs=1e-9), size


@pytest.mark.parametrize(("part", "settings"), SIGNALS)
def test_the_signal_is_finite_where_success_or_failure_is_next_to_nothing(part, settings):
    rare = np.array([1e-300, 1e-17, 1e-8])
    with np.errstate(divide="raise", invalid="raise", over="raise"):
        for signal in (part.omega(rare, 1 - rare, **settings), part.omega(1 - rare, rare, **settings)):
            assert np.isfinite(signal).all() and (signal >= 0).all()


@pytest.mark.parametrize("part", [p for p in ADVANTAGES.values() if p.function is not None], ids=lambda p: p.name)
def test_a_signal_has_the_settings_of_its_function(part):
    for signal in (part.omega, part.group_omega):
        if signal is not None:
            parameters = list(inspect.signature(signal).parameters.values())[2:]
            assert {p.name: p.default for p in parameters} == part.keywords()


def test_what_every_completion_of_the_rollout_scales_has_no_signal_of_its_own():
    """One scale per rollout is no function of the success of a prompt."""
    assert {name for name, part in ADVANTAGES.items() if part.omega is None} == {
        "batch_std", "per_reward", "whitened", "beta_normalization"
    }  # fmt: skip


def test_a_signal_keeps_its_digits_where_success_is_rare():
    rare = np.array([1e-12])
    k = 4
    expected = (1 - rare) ** (k / 2 - 1) / np.sqrt(-np.expm1(k * np.log1p(-rare)))
    # To the paper's 1e-6 beside a standard deviation of 2e-6.
    epsilon = 1e-6
    deviation = np.sqrt((1 - rare) ** k * -np.expm1(k * np.log1p(-rare)))
    assert ADVANTAGES["pass_at_k"].omega(rare, 1 - rare, k=k) == pytest.approx(
        expected * deviation / (deviation + epsilon), rel=1e-9
    )


def test_rewards_outside_of_a_domain_are_those_beyond_rounding():
    nan = float("nan")
    rewards = torch.tensor([0.0, 1.0, 1.0 + 2e-7, -1e-7, 0.5, -1.0, 1.1, nan])
    inside = [True, True, True, True]
    for domain, expected in {
        Domain(): [True] * 8,
        Domain(values=(0.0, 1.0)): [*inside, False, False, False, True],
        Domain(at_least=0.0): [*inside, True, False, True, True],
        Domain(at_least="low", at_most="high").given({"low": -1.0, "high": 1.0}): [*inside, True, True, False, True],
    }.items():
        assert (~domain.excludes(rewards)).tolist() == expected
    assert Domain(values=(0.0, 1.0)).text == "of 0 or 1"
    assert Domain(at_least=-1.0, at_most=2.5).text == "of at least -1 and of at most 2.5"
