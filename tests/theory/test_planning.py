# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from trl_grpo_variants import theory

from .numerics import epsilons, known, names, prompts, quick


targets = st.floats(0.02, 0.98)


def raised(p_ref, share):
    """A target above p_ref, in log-odds."""
    return float(theory.sigmoid(theory.logit(p_ref) + 0.2 + 8.0 * share))


@quick
@given(prompts, targets, names, epsilons)
@example(0.2, 0.3, "smoothed_std", 1e-5)
def test_plan_inverts_the_fixed_point(p_ref, share, name, epsilon):
    settings = known(name, epsilon)
    target = raised(p_ref, share)
    assume(target < 1.0 - 1e-9)
    plan = theory.plan(p_ref, target, **settings)
    coefficients = {"beta": plan.beta, "mirror_beta": plan.mirror_beta}
    # Where the gap is flat, at a fold, rounding moves a root by its square root.
    nearest = min(plan.fixed_points, key=lambda point: abs(point.p - target))
    assert nearest.p == pytest.approx(target, abs=1e-6)
    step = theory.success_step(target, p_ref, **coefficients, **settings)
    assert step == pytest.approx(target, abs=1e-12)
    assert plan.path[0] == p_ref
    if plan.reached:
        ended = theory.limit(p_ref, **coefficients, **settings)
        assert ended.kind == "fixed point"
        assert ended.points[0] == pytest.approx(target, abs=1e-6)
    if name == "mean_only":
        assert plan.stable and plan.reached and plan.mirror_beta == 0.0
        assert plan.path[1] == pytest.approx(target, abs=1e-12)


@quick
@given(prompts, targets, names, st.integers(1, 12))
def test_mirror_plan_is_at_the_target_after_its_steps(p_ref, share, name, steps):
    target = raised(p_ref, share)
    assume(target < 1.0 - 1e-9)
    plan = theory.plan(p_ref, target, advantage=name, mirror_steps=steps)
    path = theory.success_path(p_ref, steps, mirror_beta=plan.mirror_beta, advantage=name)
    np.testing.assert_array_equal(plan.path, path)
    assert path[-1] == pytest.approx(target, abs=1e-9)
    assert (plan.beta, plan.stable, plan.reached) == (0.0, False, True)
    if name == "mean_only":
        assert plan.mirror_beta == pytest.approx(steps / (theory.logit(target) - theory.logit(p_ref)), rel=1e-9)


@quick
@given(st.floats(-9.0, 1.0), st.floats(0.05, 0.95))
def test_every_target_below_the_fold_is_reached(log_odds, share):
    p_ref = float(theory.sigmoid(log_odds))
    highest = theory.logit(theory.highest_target(p_ref))
    target = float(theory.sigmoid(log_odds + share * (highest - log_odds)))
    plan = theory.plan(p_ref, target)
    assert plan.stable and plan.reached
    distance = np.abs(theory.success_path(p_ref, 2000, beta=plan.beta, mirror_beta=plan.mirror_beta) - target)
    assert distance[-1] < max(1e-4 * target, 0.9 * distance[1000])
    # A mirror term is only added where the reference alone fails, or hardly settles.
    alone = theory.limit(p_ref, beta=plan.beta)
    settles = alone.kind == "fixed point" and abs(alone.points[0] - target) < 1e-6
    multiplier = theory.fixed_points(p_ref, beta=plan.beta)[0].multiplier
    assert settles if plan.mirror_beta == 0.0 else not settles or multiplier < -0.9


@pytest.mark.parametrize("beyond", [5e-7, 0.5])
def test_target_beyond_the_fold_is_said_to_be_unstable(beyond):
    highest = theory.highest_target(0.2)
    plan = theory.plan(0.2, float(theory.sigmoid(theory.logit(highest) + beyond)))
    assert (plan.stable, plan.reached, plan.mirror_beta) == (False, False, 0.0)
    assert theory.limit(0.2, beta=plan.beta).points[0] < highest


def test_plan_for_a_distribution_ends_at_the_mean():
    rng = np.random.default_rng(0)
    rates = np.concatenate([rng.beta(1.0, 3.0, 200).round(2), [0.0, 0.0, 1.0]])
    for name in ("smoothed_std", "mean_only"):
        plan = theory.plan(rates, 0.6, advantage=name)
        assert plan.end.mean() == pytest.approx(0.6, abs=2e-3)
        assert plan.end[-3:].tolist() == [0.0, 0.0, 1.0]
        settings = {"beta": plan.beta, "mirror_beta": plan.mirror_beta, "advantage": name}
        assert plan.path.shape[1:] == rates.shape
        path = theory.success_path(rates, 3000, **settings)
        np.testing.assert_array_equal(plan.path, path[: len(plan.path)])
        assert plan.reached
        np.testing.assert_allclose(path[-1], plan.end, atol=1e-4)
        assert [point.p for point in plan.fixed_points] == plan.end.tolist()


def test_prompts_that_settle_without_damping_are_not_damped():
    rates = np.array([0.05, 0.1, 0.3])
    plan = theory.plan(rates, 0.45)
    assert (plan.mirror_beta, plan.reached) == (0.0, True)
    assert [theory.limit(p, beta=plan.beta).points for p in rates] == [(end,) for end in plan.end]


def test_one_prompt_that_would_not_settle_is_reason_enough_to_damp():
    rates = np.array([0.005, 0.8])
    plan = theory.plan(rates, 0.522)
    assert [theory.limit(p, beta=plan.beta).kind for p in rates] == ["cycle", "fixed point"]
    assert plan.mirror_beta > 0.0 and plan.reached
    damped = [theory.limit(p, beta=plan.beta, mirror_beta=plan.mirror_beta).points for p in rates]
    assert damped == [(pytest.approx(end, rel=1e-9),) for end in plan.end]


def test_mirror_plan_for_a_distribution():
    rates = np.array([0.0, 0.05, 0.05, 0.4, 0.9])
    plan = theory.plan(rates, 0.6, mirror_steps=5)
    path = theory.success_path(rates, 5, mirror_beta=plan.mirror_beta)
    assert path[-1].mean() == pytest.approx(0.6, abs=1e-9)
    np.testing.assert_array_equal(plan.end, path[-1])


def test_mean_that_folds_jump_over_is_approached():
    rates = np.full(10, 0.2)
    highest = theory.highest_target(0.2)
    low, high = (theory.plan(rates, target) for target in (highest + 0.02, 0.99))
    assert low.end.mean() == pytest.approx(highest, abs=1e-3)
    assert high.end.mean() == pytest.approx(1.0, abs=1e-3)
    assert low.beta == pytest.approx(high.beta, rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p_ref": 0.5, "p_target": 0.5}, r"above `p_ref` \(0.5\) and below 1"),
        ({"p_ref": 0.5, "p_target": 1.0}, "below 1"),
        ({"p_ref": 0.0, "p_target": 0.5}, "stays there under any coefficient"),
        ({"p_ref": 1.5, "p_target": 0.5}, "between 0 and 1; got 1.5"),
        ({"p_ref": 0.2, "p_target": float("nan")}, "`p_target` must be between 0 and 1; got nan"),
        ({"p_ref": 0.2, "p_target": [0.5, 0.6]}, "`p_target` must be one number"),
        ({"p_ref": [0.0, 0.5], "p_target": 0.6}, r"ever solved \(0.5\)"),
        ({"p_ref": [0.2, 0.6], "p_target": 0.3}, r"mean of `p_ref` \(0.4\)"),
        ({"p_ref": [], "p_target": 0.3}, r"shape \(n,\) with n > 0"),
        ({"p_ref": [[0.1]], "p_target": 0.3}, r"shape \(n,\)"),
        ({"p_ref": 0.2, "p_target": 0.5, "mirror_steps": 0}, "`mirror_steps` must be a whole number of at least 1"),
        ({"p_ref": 0.2, "p_target": 0.5, "advantage": "std"}, "`advantage` must be one of"),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        theory.plan(**arguments)
    assert "\n" not in str(error.value) and str(error.value).endswith((".", "?"))


@pytest.mark.parametrize("p_ref", [0.3, [0.3, 0.5]])
def test_a_target_that_only_a_coefficient_below_all_numbers_reaches_is_refused(p_ref):
    """The signal of pass@k falls as the (k - 1)-th power of the failures that are left."""
    with pytest.raises(ValueError, match="No coefficient in floating point reaches the target"):
        theory.plan(p_ref, 1 - 1e-12, advantage="pass_at_k", advantage_kwargs={"k": 40})


def test_prompts_that_never_or_always_succeed_stay_where_they_are():
    plan = theory.plan([0.0, 0.3, 1.0], 0.6)
    (never, _, always) = plan.fixed_points
    assert (never.p, always.p) == (0.0, 1.0)
    assert never.stable and always.stable and never.multiplier == always.multiplier == 0.0
