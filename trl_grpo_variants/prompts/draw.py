# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Which prompts come next, as functions of what is believed, of a seed and of how many have been drawn."""

import numpy as np
import torch

from ..runs.intervals import Array


# Share of the draws that is uniform, so that every prompt stays alive whatever is believed of it.
UNIFORM_SHARE = 0.1


def draw_probabilities(signal: Array, *, least_variance: bool = False) -> Array:
    """
    Probability q of each prompt: in proportion to its expected signal, above a uniform floor.

    So the share of the groups that have signal is raised most. An estimate with the weights 1/(N q) has the least
    variance where q is proportional to the norm of a group's gradient, which is the root of the signal if the noise of
    the score dominates; derived.

    Args:
        signal (`np.ndarray`):
            Expected signal `(N,)`.
        least_variance (`bool`, *optional*, defaults to `False`):
            Whether to take the root.

    Returns:
        `np.ndarray`:
            Probabilities `(N,)`, at least `UNIFORM_SHARE / N` each.
    """
    preference = np.sqrt(signal) if least_variance else signal
    total = preference.sum()
    if total <= 0.0:
        return np.full_like(preference, 1.0 / len(preference))
    return np.asarray((1.0 - UNIFORM_SHARE) * preference / total + UNIFORM_SHARE / len(preference))


def draw(probabilities: Array, count: int, generator: np.random.Generator) -> Array:
    """
    Draw prompts so that prompt i comes `count * q_i` times on average, and never one more or less than that.

    Systematic sampling over a random order: one random number places a comb with `count` teeth over the cumulated
    probabilities. No prompt is drawn twice unless its share is more than a draw, and a sum over the drawn with weights
    1/(N q_i) is unbiased, as with independent draws.

    Args:
        probabilities (`np.ndarray`):
            Probabilities `(N,)`.
        count (`int`):
            Number of draws.
        generator (`np.random.Generator`):
            Source of randomness.

    Returns:
        `np.ndarray`:
            Prompts `(count,)`, in random order.
    """
    order = generator.permutation(len(probabilities))
    drawn = order[teeth(probabilities[order], count, generator.random())]
    return np.asarray(generator.permutation(drawn))


def teeth(probabilities: Array, count: int, offset: float) -> Array:
    """Where `(count,)` the teeth of a comb with an offset in [0, 1) fall among probabilities `(N,)` side by side."""
    edges = np.cumsum(probabilities) * count
    # However the sum is rounded, the last tooth falls on a prompt.
    places = np.searchsorted(edges, np.arange(count) + offset, side="right")
    return np.asarray(np.minimum(places, len(probabilities) - 1))


def passes(start: int, count: int, size: int, seed: int | None) -> list[int]:
    """
    Take `count` prompts from `start` on of an endless row of passes over the data, each in an order of its own: those
    of TRL's sampler with this seed, or with `None` the order of the data.
    """
    taken: list[int] = []
    generator = torch.Generator().manual_seed(seed or 0)
    for number in range((start + count - 1) // size + 1):
        # Each order follows from the ones before.
        order = torch.arange(size) if seed is None else torch.randperm(size, generator=generator)
        first = number * size
        taken += order[max(start - first, 0) : max(start + count - first, 0)].tolist()
    return taken
