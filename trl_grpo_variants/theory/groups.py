# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What a group of G completions changes: it estimates the success, and may hold no signal at all."""

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..checks import check_whole_number
from . import checks
from .logodds import Array, logit, sigmoid
from .signal import DEFAULT_ADVANTAGE, Signal, make_signal


_LARGEST_TABLE = 1_000_000


def group_omega(
    p: Any,
    num_generations: int,
    *,
    advantage: Any = DEFAULT_ADVANTAGE,
    advantage_kwargs: Mapping[str, Any] | None = None,
) -> Array:
    r"""
    Omega that groups of G completions realise on average, to first order in the step.

    E[q(1 - q) Omega_G(q)] / (p(1 - p)) with q ~ Binomial(G, p) / G and Omega_G what a group of that share computes;
    derived, for the setting of [Mroueh](https://huggingface.co/papers/2503.06639), for advantages that add up to 0 in
    each group. Since q(1 - q) tilts the distribution, it equals (G - 1)/G E[Omega_G((K + 1)/G)] with
    K ~ Binomial(G - 2, p), the form that is computed: it is exact at p = 0 and p = 1 too. Limits: Omega(p) for G to
    infinity; (G - 1)/G for mean-only; near sqrt(G - 1) for mean + variance as p goes to 0 or 1, where Omega itself
    would reach 1/sqrt(epsilon), and near G - 1 for MaxRL as p goes to 0, where Omega would be 1/p.

    Args:
        p (array-like):
            Success rates of any shape.
        num_generations (`int`):
            Group size G, at least 2.
        advantage (`str`, [`Advantage`] or `Callable`, *optional*, defaults to `"smoothed_std"`):
            As in [`omega`]; a function Omega(p) is taken at the share of successes in the group.
        advantage_kwargs (`Mapping[str, Any]`, *optional*):
            As in [`omega`].

    Returns:
        `np.ndarray`:
            Effective Omega, of the shape of `p`.

    Raises:
        `ValueError`: If an argument is out of range, or the advantages of a group do not add up to 0.
    """
    rates = checks.probabilities("p", p)
    check_whole_number("num_generations", num_generations, at_least=2)
    return group_omega_at(logit(rates), num_generations, make_signal(advantage, advantage_kwargs))


def group_omega_at(log_odds: Array, num_generations: int, signal: Signal) -> Array:
    """[`group_omega`] at log-odds of any shape."""
    signal.check_groups()
    others = num_generations - 2
    drawn, choose = _binomial(others)
    omegas = signal.of_group(drawn + 1.0, num_generations)
    flat = np.asarray(log_odds).reshape(-1, 1)
    effective = np.empty(len(flat))
    # Not all outcomes of all prompts at once, which may be gigabytes.
    rows = max(1, _LARGEST_TABLE // drawn.size)
    for first in range(0, len(flat), rows):
        part = flat[first : first + rows]
        with np.errstate(divide="ignore"):
            log_success, log_failure = np.log(sigmoid(part)), np.log(sigmoid(-part))
        log_weights = choose + _times(drawn, log_success) + _times(others - drawn, log_failure)
        effective[first : first + rows] = (np.exp(log_weights) * omegas).sum(axis=-1)
    return np.asarray((num_generations - 1) / num_generations * effective.reshape(np.shape(log_odds)))


@functools.lru_cache(maxsize=4)
def _binomial(draws: int) -> tuple[Array, Array]:
    """Numbers of successes among the draws, and the logarithm of how many ways there are to each."""
    drawn = np.arange(draws + 1.0)
    ways = np.array([math.lgamma(k + 1) + math.lgamma(draws - k + 1) for k in drawn])
    return drawn, math.lgamma(draws + 1) - ways


def zero_variance_probability(p: Any, num_generations: int) -> Array:
    """
    Probability that all G completions of a prompt succeed or all fail, p^G + (1 - p)^G; derived.

    Every advantage of such a group is 0: it carries no signal, and only KL terms act on it (the mask of
    [off-policy GRPO](https://huggingface.co/papers/2505.22257) removes those too).

    Args:
        p (array-like):
            Success rates of any shape.
        num_generations (`int`):
            Group size G, at least 2.

    Returns:
        `np.ndarray`:
            Probabilities of the shape of `p`; 1 at p = 0 and p = 1, smallest, 2^(1 - G), at p = 1/2.

    Raises:
        `ValueError`: If an argument is out of range.
    """
    rates = checks.probabilities("p", p)
    check_whole_number("num_generations", num_generations, at_least=2)
    return np.asarray(rates**num_generations + (1.0 - rates) ** num_generations)


def _times(count: Array, log_probability: Array) -> Array:
    # An outcome that is not drawn has no say, be it impossible or not: 0 * -inf is 0 here.
    return np.multiply(
        count, log_probability, where=count > 0, out=np.zeros(np.broadcast(count, log_probability).shape)
    )
