# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
What is believed of the success of each prompt: a Beta distribution, from counts that fade.

The policy moves, so that a prompt's earlier counts weigh half as much with each visit. The prior is that of prompts
like those visited so far: where these always or never succeed, one visit says more than where all are alike.
"""

from collections.abc import Sequence

import numpy as np

from ..runs.intervals import Array


# What the earlier counts of a prompt weigh at its next visit.
MEMORY = 0.5
# Pseudo-counts of the prior: of Jeffreys' before anything is known, and the least and most that data may call for.
_JEFFREYS = (0.5, 0.5)
_LEAST_STRENGTH, _GREATEST_STRENGTH = 0.1, 100.0


def expected_signal(successes: Array, failures: Array, num_generations: int) -> Array:
    """
    Chance that a group of G completions neither all succeeds nor all fails, for Beta beliefs about the success.

    1 - B(a + G, b) / B(a, b) - B(a, b + G) / B(a, b), as a product over the G completions; derived.

    Args:
        successes (`np.ndarray`):
            First parameter a > 0 of each belief, any shape.
        failures (`np.ndarray`):
            Second parameter b > 0, same shape.
        num_generations (`int`):
            Group size G.

    Returns:
        `np.ndarray`:
            Chances of the same shape.
    """
    all_succeed, all_fail = np.ones_like(successes), np.ones_like(successes)
    for drawn in range(num_generations):
        all_succeed = all_succeed * (successes + drawn) / (successes + failures + drawn)
        all_fail = all_fail * (failures + drawn) / (successes + failures + drawn)
    return np.asarray(np.maximum(1.0 - all_succeed - all_fail, 0.0))


def prior(successes: Array, completions: Array) -> tuple[float, float]:
    """
    Parameters of the Beta distribution that the success of the visited prompts is drawn from, by its moments.

    Args:
        successes (`np.ndarray`):
            Successes `(N,)` of each prompt; they may have faded.
        completions (`np.ndarray`):
            Completions `(N,)` of each prompt; one with no more than one tells nothing.

    Returns:
        `tuple[float, float]`:
            Both parameters; those of Jeffreys' prior as long as fewer than two prompts are known.
    """
    known = completions > 1.0
    if known.sum() < 2:
        return _JEFFREYS
    rates, trials = successes[known] / completions[known], completions[known]
    mean = float(rates.mean())
    # The spread of the rates without what counting so few completions adds to it.
    spread = float((rates**2 - rates * (1.0 - rates) / (trials - 1.0)).mean()) - mean**2
    inner = mean * (1.0 - mean)
    strength = _GREATEST_STRENGTH if spread * _GREATEST_STRENGTH <= inner else inner / spread - 1.0
    strength = min(max(strength, _LEAST_STRENGTH), _GREATEST_STRENGTH)
    # All successes or all failures so far are no proof that there are no others.
    mean = min(max(mean, 0.01), 0.99)
    return strength * mean, strength * (1.0 - mean)


def visit_counts(successes: Array, completions: Array, has_signal: Array) -> Array:
    """
    What the groups of a rollout count for: successes and scored completions `(M, 2)`, from both and from whether they had
    signal, `(M,)` each.

    Where rewards are graded a group may have signal though no completion, or each one, has full reward. Of what is
    believed only the signal is used, so that it counts as half successes.
    """
    graded = has_signal & ((successes == 0) | (successes == completions))
    return np.stack([np.where(graded, completions / 2.0, successes), completions], axis=1)


def after_visit(counts: Array, prompts: Sequence[int], visit: Array) -> Array:
    """
    Counts of all prompts after some have been visited.

    Args:
        counts (`np.ndarray`):
            Successes and completions `(N, 2)` of each prompt.
        prompts (`Sequence[int]`):
            Prompts, M of them, of the groups of a rollout, among them one several times if it has several groups.
        visit (`np.ndarray`):
            Successes and scored completions `(M, 2)` of each group; a group without any is no visit.

    Returns:
        `np.ndarray`:
            Counts `(N, 2)`.
    """
    added = np.zeros_like(counts)
    np.add.at(added, prompts, visit)
    visited = added[:, 1:] > 0
    return np.asarray(np.where(visited, MEMORY * counts + added, counts))


def signal_of_prompts(counts: Array, num_generations: int) -> Array:
    """Expected signal `(N,)` of each prompt, from its counts `(N, 2)` and the prior of all."""
    successes, completions = counts[:, 0].astype(np.float64), counts[:, 1].astype(np.float64)
    first, second = prior(successes, completions)
    return expected_signal(first + successes, second + completions - successes, num_generations)
