# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What exact iteration does under every advantage that has a signal, against the advantage's own function."""

import inspect
from itertools import product
from math import comb

import numpy as np
import pytest
import torch

from trl_grpo_variants import theory
from trl_grpo_variants.objective.advantages import ADVANTAGES
from trl_grpo_variants.theory.signal import make_signal

from .. import reference


RATES = np.array([0.02, 0.1, 0.3, 0.5, 0.75, 0.95])
# The same advantage with other settings than the defaults.
OTHER_SETTINGS = {
    "smoothed_std": {"reward_variance_epsilon": 1e-2},
    "risk_sensitive": {"risk": 0.7},
    "pass_at_k": {"k": 4},
    "quantile": {"quantile": 0.6},
    "shifted": {"baseline_shift": 0.2},
    "success_weight": {"success_weight": 1.0, "failure_weight": 0.5},
}
WITHOUT = [name for name, part in ADVANTAGES.items() if part.omega is None]
# What a large group never has an advantage for leaves exact iteration nothing to do.
SILENT = [
    name
    for name in ADVANTAGES
    if name not in WITHOUT
    and not ADVANTAGES[name].omega(
        0.5,
        0.5,
        **{name: value for name, value in ADVANTAGES[name].keywords().items() if value is not inspect.Parameter.empty}
        | ({"reward_variance_epsilon": 1e-5} if name == "smoothed_std" else {}),
    )
]
CASES = [
    pytest.param(name, settings, id=f"{name}{settings or ''}")
    for name in ADVANTAGES
    if name not in WITHOUT + SILENT
    for settings in ([None, OTHER_SETTINGS[name]] if name in OTHER_SETTINGS else [None])
]


def own_advantages(name, rewards, size, settings):
    """Advantages (N,) by the advantage's own function; where that is TRL's, by the formula in plain Python."""
    part, extra = ADVANTAGES[name], dict(settings or {})
    if name == "smoothed_std":
        extra = {"reward_variance_epsilon": 1e-5} | extra
    lengths = [1 + index % 3 for index in range(len(rewards))]
    if part.function is None:
        return np.array(reference.ADVANTAGES[name](list(rewards), size, **extra))
    if part.takes("lengths"):
        extra["lengths"] = torch.tensor(lengths)
    return part.function(torch.tensor(rewards, dtype=torch.float64), size, **extra).numpy()


def known(name, settings):
    return {"advantage": name, "advantage_kwargs": settings}


def test_some_advantages_have_no_signal():
    assert {"batch_std", "per_reward"} <= set(WITHOUT)
    for name in WITHOUT:
        with pytest.raises(
            ValueError, match=f"`advantage='{name}'` has no signal that is a function of a prompt's success"
        ):
            theory.omega(0.5, advantage=name)
    for name in SILENT:
        with pytest.raises(ValueError, match=f"above 0 where success is between 0 and 1; {name} has none"):
            theory.omega(0.5, advantage=name)


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_signal_is_that_of_a_large_group(name, settings):
    size = 100_000
    for p in RATES:
        rewards = np.array([1.0] * round(p * size) + [0.0] * (size - round(p * size)))
        advantages = own_advantages(name, rewards, size, settings)
        expected = advantages[rewards == 1.0].mean() - advantages[rewards == 0.0].mean()
        assert theory.omega(p, **known(name, settings)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_slope_is_the_derivative_without_noise(name, settings):
    signal = make_signal(name, settings)
    log_odds = np.linspace(-25.0, 25.0, 101)
    slopes = signal.slope(log_odds)
    scale = np.abs(slopes) + 1e-6 * signal.omega(log_odds)
    assert (np.abs(signal._difference(log_odds) - slopes) <= 1e-5 * scale).all()
    # Few turns, where rounding would make many.
    assert sum((np.abs(turns) < 40.0).sum() for turns in signal.turns) <= 4


@pytest.mark.parametrize("cell", [(1.5, 0.0), (0.0, 1.5), (1.0, 0.7)], ids=["reference", "mirror", "dual"])
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_path_is_that_of_the_exact_maximiser_over_a_tabular_policy(name, settings, cell):
    """
    Seven outputs, two of them right; policies are exp of the advantages that the advantage itself gives completions in
    proportion to them, baseline and all.
    """
    beta, mirror_beta = cell
    rewards = np.array([1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0])
    shares = np.array([0.03, 0.07, 0.3, 0.2, 0.15, 0.15, 0.1])
    size = 50_000
    predicted = theory.success_path(0.1, 3, beta=beta, mirror_beta=mirror_beta, **known(name, settings))
    policy = shares
    for n in range(1, 4):
        count = np.clip(round(policy[:2].sum() * size), 1, size - 1)
        group = own_advantages(name, np.array([1.0] * count + [0.0] * (size - count)), size, settings)
        of_outputs = np.where(rewards == 1.0, group[:count].mean(), group[count:].mean())
        previous = policy
        logits = (of_outputs + beta * np.log(shares) + mirror_beta * np.log(policy)) / (beta + mirror_beta)
        policy = np.exp(logits - logits.max())
        policy /= policy.sum()
        assert policy[:2].sum() == pytest.approx(predicted[n], abs=2e-3)
        best = theory.optimal_policy(
            shares, previous, rewards, beta=beta, mirror_beta=mirror_beta, **known(name, settings)
        )
        np.testing.assert_allclose(best, policy, atol=2e-3)


@pytest.mark.parametrize("beta", [0.3, 1.0, 4.0])
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_fixed_points_are_those_of_a_scan(name, settings, beta):
    grid = np.linspace(-12.0, 20.0, 320_001)
    signals = theory.omega(theory.sigmoid(grid), **known(name, settings))
    for p_ref in (0.001, 0.1, 0.6):
        gap = theory.logit(p_ref) + signals / beta - grid
        scanned = grid[:-1][(gap[:-1] > 0.0) != (gap[1:] > 0.0)]
        found = theory.fixed_points(p_ref, beta=beta, **known(name, settings))
        visible = [point for point in found if point.log_odds < 19.9]
        np.testing.assert_allclose([point.log_odds for point in visible], scanned, atol=1e-3)
        for point in visible:
            width = 1e-4
            sides = theory.success_step(
                theory.sigmoid(point.log_odds + np.array([-width, width])), p_ref, beta=beta, **known(name, settings)
            )
            assert np.ptp(theory.logit(sides)) / (2 * width) == pytest.approx(
                abs(point.multiplier), rel=1e-3, abs=1e-4
            )


@pytest.mark.parametrize("size", [2, 3, 5, 8])
@pytest.mark.parametrize(("name", "settings"), CASES)
def test_finite_groups_by_enumeration_of_all_outcomes(name, settings, size):
    """The mean step of log-odds, E[mean A (r - p)], over all outcomes of G completions with the function itself."""
    part = ADVANTAGES[name]
    if "k" in (settings or {}) and settings["k"] >= size:
        pytest.skip("k is less than the group size in a configuration.")
    outcomes = np.array(list(product([0.0, 1.0], repeat=size)))
    advantages = np.array([own_advantages(name, outcome, size, settings) for outcome in outcomes])
    # A description says whether they add up to 0, and whether groups of equal rewards have none.
    sums = np.abs(advantages.sum(axis=1)).max()
    assert sums < 1e-9 or not part.is_centered
    assert np.abs(advantages[[0, -1]]).max() < 1e-9 or not part.is_zero_without_variance
    if not (part.is_centered and part.is_zero_without_variance) or part.is_of_rollout:
        for call in (theory.group_omega, lambda p, size, **how: theory.clipped_step(p, 0.5, beta=1.0, **how)):
            with pytest.raises(ValueError, match=f"Of `advantage='{name}'` only exact iteration is known: ") as error:
                call(0.3, size, **known(name, settings))
            assert "\n" not in str(error.value) and str(error.value).endswith(".")
        return
    for p in RATES:
        weights = p ** outcomes.sum(axis=1) * (1.0 - p) ** (size - outcomes.sum(axis=1))
        step = weights @ (advantages * (outcomes - p)).mean(axis=1)
        assert theory.group_omega(p, size, **known(name, settings)) == pytest.approx(step / (p * (1.0 - p)), rel=1e-9)


@pytest.mark.parametrize("name", [name for name, part in ADVANTAGES.items() if part.omega is not None])
def test_what_a_description_says_of_its_groups_is_so(name):
    """Of four completions of different lengths; one that says no is not said so for nothing."""
    part = ADVANTAGES[name]
    groups = np.array(list(product([0.0, 1.0], repeat=4)))
    advantages = np.array([own_advantages(name, group, 4, None) for group in groups])
    assert (np.abs(advantages.sum(axis=1)).max() < 1e-9) == part.is_centered
    # Beside a group without a success.
    alone = own_advantages(name, groups[3], 4, None)
    beside = own_advantages(name, np.concatenate([groups[3], groups[0]]), 4, None)[:4]
    assert (np.abs(alone - beside).max() > 1e-9) == part.is_of_rollout


# ---- closed forms --------------------------------------------------------------------------------------------------


def pass_at(k):
    def omega(p):
        return (1.0 - p) ** (k / 2.0 - 1.0) / np.sqrt(1.0 - (1.0 - p) ** k)

    return omega


def beta_density(a, b):
    from math import gamma

    def omega(p):
        return gamma(a) * gamma(b) / gamma(a + b) * p ** (1.0 - a) * (1.0 - p) ** (1.0 - b)

    return omega


def max_rl(p):
    return 1.0 / p


def test_registered_advantages_have_the_closed_forms():
    forms = {
        ("maximum_likelihood", None): max_rl,
        ("pass_at_k", (("k", 1),)): lambda p: 1.0 / np.sqrt(p * (1.0 - p)),
        ("pass_at_k", (("k", 4),)): pass_at(4),
        ("risk_sensitive", (("risk", 3.0),)): lambda p: np.expm1(3.0) / (3.0 * (p * np.exp(3.0) + 1.0 - p)),
    }
    for (name, settings), form in forms.items():
        found = theory.omega(RATES, **known(name, settings and dict(settings)))
        np.testing.assert_allclose(found, form(RATES), rtol=5e-4)


@pytest.mark.parametrize("advantage", [max_rl, "maximum_likelihood"])
def test_max_rl_has_one_fixed_point_that_is_stable_above_a_bound(advantage):
    for p_ref, beta in ((0.001, 0.2), (0.01, 1.0), (0.05, 3.0), (0.3, 0.5), (0.3, 8.0)):
        (point,) = theory.fixed_points(p_ref, beta=beta, advantage=advantage)
        assert theory.logit(point.p) == pytest.approx(theory.logit(p_ref) + 1.0 / (beta * point.p), rel=1e-4)
        assert point.multiplier == pytest.approx(-(1.0 - point.p) / (beta * point.p), rel=1e-3)
        assert point.stable == (point.p > 1.0 / (1.0 + beta))
        ended = theory.limit(p_ref, beta=beta, advantage=advantage)
        assert ended.kind == ("fixed point" if point.stable else "cycle")
        assert min(ended.points) <= point.p * (1.0 + 1e-9) and max(ended.points) >= point.p * (1.0 - 1e-9)
        # A mirror term keeps the fixed point, and a large one settles there.
        damped = theory.limit(p_ref, beta=beta, mirror_beta=(1.0 - point.p) / point.p, advantage=advantage)
        assert damped.kind == "fixed point" and damped.points[0] == pytest.approx(point.p, rel=1e-9)


def test_signals_that_fall_with_success_have_one_fixed_point_and_no_fold():
    falling = [max_rl, pass_at(2), pass_at(4), lambda p: np.expm1(2.0) / (2.0 * (p * np.exp(2.0) + 1.0 - p))]
    for advantage in [*falling, "risk_sensitive", "maximum_likelihood", "pass_at_k"]:
        for beta in (0.05, 0.5, 5.0):
            assert len(theory.fixed_points(0.03, beta=beta, advantage=advantage)) == 1
        assert theory.highest_target(0.03, advantage=advantage) == 1.0
        plan = theory.plan(0.03, 0.6, advantage=advantage)
        assert plan.stable and plan.reached
        assert theory.limit(0.03, beta=plan.beta, mirror_beta=plan.mirror_beta, advantage=advantage).points[
            0
        ] == pytest.approx(0.6, abs=1e-6)


@pytest.mark.parametrize("k", [3, 4, 8])
def test_signal_of_pass_at_k_vanishes_where_success_is_sure(k):
    for advantage, settings in ((pass_at(k), None), ("pass_at_k", {"k": k})):
        signals = theory.omega([0.5, 0.99, 1.0], advantage=advantage, advantage_kwargs=settings)
        assert signals[0] > signals[1] > signals[2] == 0.0
        # Far from 1 after a time in which mean-only is there.
        path, mean_only = (
            theory.success_path(
                0.3, 30, mirror_beta=2.0, advantage=how, advantage_kwargs=settings if how == advantage else None
            )[-1]
            for how in (advantage, "mean_only")
        )
        assert path < 0.99 < 0.99999 < mean_only


def test_pass_at_1_is_the_standard_deviation_without_a_smoothing():
    smoothed = theory.success_path(0.1, 4, beta=2.0)
    np.testing.assert_allclose(theory.success_path(0.1, 4, beta=2.0, advantage=pass_at(1)), smoothed, rtol=2e-3)
    # An infinite signal at success 1 makes that a fixed point, at which no smoothing stops it.
    lower, fold, one = theory.fixed_points(0.1, beta=2.0, advantage=pass_at(1))
    assert lower.stable and not fold.stable
    assert (one.p, one.multiplier, one.stable, one.log_odds) == (1.0, 0.0, True, np.inf)
    assert theory.limit(0.1, beta=2.0, advantage=pass_at(1)).points[0] == pytest.approx(lower.p, rel=1e-9)
    assert theory.limit(0.1, beta=0.5, advantage=pass_at(1)) == theory.Limit("fixed point", 1, (1.0,))
    fold_at = theory.phase_boundaries(2.0).three_fixed_points[1]
    for offset, count in ((-1e-3, 3), (1e-3, 1)):
        assert len(theory.fixed_points(theory.sigmoid(fold_at + offset), beta=2.0, advantage=pass_at(1))) == count
    assert theory.logit(theory.highest_target(0.2, advantage=pass_at(1))) - theory.logit(0.2) == pytest.approx(
        2.0 / np.tanh(theory.logit(theory.highest_target(0.2, advantage=pass_at(1))) / 2.0), rel=1e-9
    )


def test_beta_normalization_is_mean_only_and_the_standard_deviation_at_its_two_ends():
    flat, arched = beta_density(1.0, 1.0), beta_density(1.5, 1.5)
    np.testing.assert_allclose(theory.omega(RATES, advantage=flat), 1.0)
    ratio = theory.omega(RATES, advantage=arched) * np.sqrt(RATES * (1.0 - RATES))
    np.testing.assert_allclose(ratio, ratio[0])
    # A scale of the signal is one of the coefficients.
    path = theory.success_path(0.2, 5, beta=1.0, advantage=arched)
    same = theory.success_path(0.2, 5, beta=1.0 / ratio[0], advantage=pass_at(1))
    np.testing.assert_allclose(path, same, rtol=1e-9)


@pytest.mark.parametrize("name", ["leave_one_out", "length_weighted", "shifted", "signal_share", "partition"])
def test_baselines_cancel(name):
    path = theory.success_path(RATES, 5, beta=0.5, mirror_beta=1.0, advantage=name)
    np.testing.assert_array_equal(
        path, theory.success_path(RATES, 5, beta=0.5, mirror_beta=1.0, advantage="mean_only")
    )
    assert make_signal(name).is_constant


def test_limits_of_the_risk():
    small = theory.omega(RATES, advantage="risk_sensitive", advantage_kwargs={"risk": 1e-6})
    np.testing.assert_allclose(small, 1.0, rtol=1e-5)
    large = theory.omega(RATES, advantage="risk_sensitive", advantage_kwargs={"risk": 500.0})
    np.testing.assert_allclose(large, max_rl(RATES) / 500.0, rtol=1e-9)


def test_rewards_of_other_values_are_for_those_that_divide_by_a_variance():
    rewards = [0.2, -1.0, 0.7]
    for name in ("smoothed_std", "group_std", "mean_only"):
        theory.tabular_advantages([0.2, 0.3, 0.5], rewards, advantage=name)
    with pytest.raises(
        ValueError, match="Of `advantage='maximum_likelihood'` the theory knows rewards of 0 and 1 alone"
    ):
        theory.tabular_advantages([0.2, 0.3, 0.5], rewards, advantage="maximum_likelihood")
    sure = theory.tabular_advantages([0.4, 0.6], [0.0, 0.0], advantage=max_rl)
    assert sure.tolist() == [0.0, 0.0]


def test_groups_of_the_size_of_the_binomial():
    """MaxRL in closed form: E over groups of the share of successes that are not alone, G - 1 at p = 0."""
    for size in (2, 5, 16):
        for p in (0.01, 0.4):
            expected = sum(comb(size, k) * p**k * (1 - p) ** (size - k) * (1 - k / size) for k in range(1, size)) / (
                p * (1 - p)
            )
            assert theory.group_omega(p, size, advantage=max_rl) == pytest.approx(expected, rel=1e-12)
        assert theory.group_omega(0.0, size, advantage=max_rl) == pytest.approx(size - 1)
