# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The regularised objective, written as the paper defines it, and its maximum found without any closed form."""

import numpy as np
import torch
from hypothesis import settings
from hypothesis import strategies as st


prompts = st.floats(-12.0, 12.0).map(lambda log_odds: 1.0 / (1.0 + np.exp(-log_odds)))
coefficients = st.floats(-4.0, 4.0).map(np.exp)
names = st.sampled_from(["smoothed_std", "mean_only", "group_std"])
group_sizes = st.integers(2, 40)
epsilons = st.floats(-7.0, -1.0).map(lambda exponent: 10.0**exponent)

# Of tests that take long.
quick = settings(max_examples=40)


def known(name, epsilon):
    """Arguments of the theory for one of these advantages; epsilon is for the one that has it."""
    settings = {"reward_variance_epsilon": epsilon} if name == "smoothed_std" else None
    return {"advantage": name, "advantage_kwargs": settings}


def advantages(pi, rewards, name, variance_epsilon):
    mean = sum(p * r for p, r in zip(pi, rewards, strict=True))
    variance = sum(p * (r - mean) ** 2 for p, r in zip(pi, rewards, strict=True))
    scale = {
        "mean_only": 1.0,
        "smoothed_std": (variance + variance_epsilon) ** 0.5,
        "group_std": variance**0.5 + 1e-4,
    }[name]
    return np.array([(r - mean) / scale for r in rewards])


def policy_gradient(pi, values):
    """Derivative of E_pi[values] in the logits of a softmax, by the policy gradient theorem."""
    return (pi * values) @ (np.eye(len(pi)) - pi)


def maximise(pi_ref, pi_prev, rewards, *, beta, mirror_beta, advantage, advantage_kwargs=None):
    """Policy that maximises E[A] - beta KL(pi, ref) - mirror_beta KL(pi, prev), by quasi-Newton on the logits."""
    epsilon = (advantage_kwargs or {}).get("reward_variance_epsilon", 1e-5)
    values = torch.from_numpy(advantages(pi_prev, rewards, advantage, epsilon))
    log_ref, log_prev = (torch.from_numpy(np.log(policy)) for policy in (pi_ref, pi_prev))
    logits = torch.zeros(len(pi_ref), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [logits],
        max_iter=2000,
        max_eval=4000,
        history_size=20,
        tolerance_grad=1e-12,
        tolerance_change=0.0,
        line_search_fn="strong_wolfe",
    )

    def loss():
        optimizer.zero_grad()
        log_pi = logits.log_softmax(-1)
        pi = log_pi.exp()
        value = (pi * values).sum() - beta * (pi * (log_pi - log_ref)).sum()
        value = value - mirror_beta * (pi * (log_pi - log_prev)).sum()
        (-value).backward()
        return -value

    optimizer.step(loss)
    return logits.detach().softmax(-1).numpy()
