# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import subprocess
import sys
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trl_grpo_variants import theory

from .numerics import advantages, coefficients, epsilons, known, maximise, names, prompts, quick


CELLS = {"reference": (1.5, 0.0), "mirror": (0.0, 1.5), "dual": (1.0, 0.7)}
REWARDS = np.array([1.0, 0.0, 0.0, 1.0, 0.0])
REFERENCE = np.array([0.1, 0.3, 0.35, 0.05, 0.2])


def spread(p):
    """The reference's policy, with success p."""
    policy = np.where(REWARDS == 1.0, REFERENCE / 0.15 * p, REFERENCE / 0.85 * (1.0 - p))
    return policy / policy.sum()


def test_importing_theory_imports_neither_torch_nor_trl():
    code = (
        "import sys; from trl_grpo_variants import theory; theory.plan(0.2, 0.8); "
        "assert not {'torch', 'trl', 'transformers', 'scipy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["smoothed_std", "mean_only", "group_std"])
@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("p_ref", [0.03, 0.4, 0.85])
def test_path_is_that_of_numerically_maximised_policies(cell, name, p_ref):
    beta, mirror_beta = CELLS[cell]
    settings = {"beta": beta, "mirror_beta": mirror_beta, **known(name, 1e-3)}
    reference = policy = spread(p_ref)
    predicted = theory.success_path(p_ref, 3, **settings)
    for n in range(1, 4):
        policy = maximise(reference, policy, REWARDS, **settings)
        assert policy @ REWARDS == pytest.approx(predicted[n], abs=1e-6)
        assert policy @ REWARDS == pytest.approx(theory.success_step(predicted[n - 1], p_ref, **settings), abs=1e-6)


@pytest.mark.parametrize("name", ["smoothed_std", "mean_only", "group_std"])
def test_omega_separates_the_advantages_of_success_and_failure(name):
    for p in (0.03, 0.5, 0.9):
        gap = np.ptp(advantages([p, 1.0 - p], [1.0, 0.0], name, 0.02))
        assert theory.omega(p, **known(name, 0.02)) == pytest.approx(gap, rel=1e-12)


@quick
@given(prompts, prompts, coefficients, coefficients, names, epsilons)
def test_success_rises_above_the_reference_and_falls_with_the_coefficient(p, q, beta, factor, name, epsilon):
    settings = known(name, epsilon)
    step = theory.success_step(p, q, beta=beta, **settings)
    assert q <= step
    assert theory.success_step(p, q, beta=beta * (1.0 + factor), **settings) <= step
    mirror = theory.success_step(p, q, mirror_beta=beta, **settings)
    assert p <= mirror
    dual = theory.success_step(p, q, beta=beta, mirror_beta=beta, **settings)
    assert theory.logit(dual) >= min(theory.logit(p), theory.logit(q)) - 1e-9


@quick
@given(coefficients, coefficients, names, epsilons, st.integers(2, 20))
def test_ends_absorb(beta, mirror_beta, name, epsilon, group):
    ends = np.array([0.0, 1.0])
    settings = known(name, epsilon)
    for cell in ({"beta": beta}, {"mirror_beta": mirror_beta}, {"beta": beta, "mirror_beta": mirror_beta}):
        path = theory.success_path(ends, 4, **cell, **settings)
        assert (path == ends).all()
        assert (theory.success_path(ends, 4, num_generations=group, **cell, **settings) == ends).all()
        assert (theory.clipped_path(ends, 4, **cell, **settings) == ends).all()
    for anchored in ({"mirror_beta": mirror_beta}, {"beta": beta, "mirror_beta": mirror_beta}):
        assert (theory.success_step(ends, 0.3, **anchored, **settings) == ends).all()
        assert theory.limit(0.3, p_start=0.0, **anchored, **settings) == theory.Limit("absorbed", 1, (0.0,))
    assert 0.3 < theory.success_step(0.0, 0.3, beta=beta, **settings)


def test_nothing_overflows_at_the_ends_or_with_small_coefficients():
    rates = np.array([0.0, 5e-324, 1e-300, 1e-18, 0.5, 1.0 - 1e-16, 1.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("smoothed_std", "mean_only", "group_std", "risk_sensitive", lambda p: 1.0 / p):
            for beta, mirror_beta in ((1e-300, 0.0), (0.0, 1e-300), (1e-300, 1e-300), (1e300, 1e300), (1e-3, 1e3)):
                settings = {"beta": beta, "mirror_beta": mirror_beta, "advantage": name}
                for path in (
                    theory.success_path(rates, 3, **settings | known(name, 1e-30)),
                    theory.success_path(rates, 3, num_generations=8, **settings),
                    theory.clipped_path(rates, 3, **settings),
                ):
                    assert ((path >= 0.0) & (path <= 1.0)).all()
                    assert (path[:, [0, -1]] == [0.0, 1.0]).all()
                for p in rates:
                    for point in theory.fixed_points(p, **settings):
                        assert 0.0 <= point.p <= 1.0 and not np.isnan(point.multiplier)
                    theory.limit(p, **settings)


def test_path_keeps_log_odds_that_success_cannot_show():
    mirrored = theory.success_path(0.5, 200, mirror_beta=1.0, advantage="mean_only")
    assert mirrored[200] == 1.0
    # Undamped, the reference's first step leaves 1 - p below rounding; the next must still start from its log-odds.
    rare = theory.success_path(1e-5, 2, beta=2.0, mirror_beta=1.0, **known("smoothed_std", 1e-12))
    first = (theory.logit(1e-5) * 3.0 + theory.omega(1e-5, **known("smoothed_std", 1e-12))) / 3.0
    second = (2.0 * theory.logit(1e-5) + first + np.sqrt(1e12)) / 3.0
    assert theory.sigmoid(first) == rare[1] == 1.0
    assert theory.sigmoid(second) == rare[2]


def test_shapes_broadcast():
    path = theory.success_path(np.full((3, 1), 0.2), 5, beta=1.0, p_start=np.full(4, 0.5))
    assert path.shape == (6, 3, 4)
    assert np.ptp(path, axis=(1, 2)).max() == 0.0
    assert theory.omega(np.full((2, 3), 0.1)).shape == (2, 3)
    assert theory.success_step(0.2, [0.3, 0.4], beta=1.0).shape == (2,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"p_ref": 1.5}, "`p_ref` must be between 0 and 1; got 1.5"),
        ({"p_ref": float("nan")}, "`p_ref` must be between 0 and 1; got nan"),
        ({"p_ref": [[0.1], [0.2, 0.3]]}, "one regular shape"),
        ({"p_ref": "many"}, "one regular shape"),
        ({"p_start": -0.1}, "`p_start` must be between 0 and 1; got -0.1"),
        ({"p_ref": [0.1, 0.2], "p_start": [0.1, 0.2, 0.3]}, "do not broadcast"),
        ({"beta": -1.0}, "`beta` must be a number of at least 0; got -1.0"),
        ({"beta": float("inf")}, "`beta` must be"),
        ({"beta": True}, "`beta` must be"),
        ({"beta": [1.0, 2.0]}, "`beta` must be"),
        ({"beta": 0.0}, "both 0"),
        ({"mirror_beta": float("nan")}, "`mirror_beta` must be"),
        ({"advantage": "batch"}, "'smoothed_std', .*, or a function of yours .*; got 'batch'"),
        (
            {"advantage_kwargs": {"reward_variance_epsilon": 0.0}},
            "`reward_variance_epsilon` must be a number greater than 0",
        ),
        (
            {"advantage_kwargs": {"risk": 2.0}},
            "sets `risk`, but `advantage='smoothed_std'` takes `reward_variance_epsilon`",
        ),
        ({"advantage": "mean_only", "advantage_kwargs": {"risk": 2.0}}, "`advantage='mean_only'` takes none"),
        ({"advantage": "risk_sensitive", "advantage_kwargs": {"rsik": 2.0}}, "did you mean `risk`"),
        (
            {"advantage": "risk_sensitive", "advantage_kwargs": {"risk": -1.0}},
            "`risk` must be a number greater than 0",
        ),
        ({"advantage": "batch_std"}, "`advantage='batch_std'` has no signal that is a function of a prompt's success"),
        ({"advantage": 3}, "`advantage` must be the name of one or a function"),
        ({"advantage": np.sqrt, "advantage_kwargs": {"power": 2.0}}, "a function Omega.p. takes none"),
        ({"advantage": lambda p: p - 0.5}, "`advantage` must have a signal of at least 0 at every success; got -"),
        ({"advantage": lambda p: 0.0 * p}, "a signal above 0 where success is between 0 and 1; omega has none"),
        ({"steps": -1}, "`steps` must be a whole number of at least 0; got -1"),
        ({"steps": 2.0}, "`steps` must be a whole number"),
        ({"num_generations": 1}, "`num_generations` must be a whole number of at least 2; got 1"),
        ({"p_ref": 1.0, "p_start": 0.0, "mirror_beta": 1.0}, "leaves no policy near both"),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments, message):
    with pytest.raises(ValueError, match=message) as error:
        theory.success_path(**({"p_ref": 0.2, "steps": 3, "beta": 1.0} | arguments))
    assert "\n" not in str(error.value) and str(error.value).endswith((".", "?"))


@pytest.mark.parametrize("step", [theory.success_step, theory.clipped_step])
def test_previous_success_is_named_in_its_error(step):
    with pytest.raises(ValueError, match="`p_prev` must be between 0 and 1; got 2"):
        step(2.0, 0.5, beta=1.0)
