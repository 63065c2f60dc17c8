# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Success under exact iteration, prompt by prompt.

[Mroueh](https://huggingface.co/papers/2503.06639) analyses policies that maximise the regularised objective exactly in
every iteration. In log-odds L of the success p, from pi_0 = pi_ref,

    (beta + mirror_beta) L_n = beta L_ref + mirror_beta L_{n-1} + Omega(p_{n-1}).

This one line holds all cells of his grid, and that it holds with the Omega of any advantage is derived, as is that the
Renyi correction of his two-KL theorem vanishes. No clip, no sampling, no function approximation: see [`clipped_step`] and [`group_omega`] for the first two.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from ..checks import check_whole_number
from .logodds import Array, sigmoid
from .signal import DEFAULT_ADVANTAGE
from .step import Step, anchors, iterated


def success_step(
    p_prev: Any,
    p_ref: Any,
    *,
    beta: float = 0.0,
    mirror_beta: float = 0.0,
    advantage: Any = DEFAULT_ADVANTAGE,
    advantage_kwargs: Mapping[str, Any] | None = None,
    num_generations: int | None = None,
) -> Array:
    """
    Success p_n of the policy that maximises the regularised objective built on a policy of success p_{n-1}.

    [Mroueh](https://huggingface.co/papers/2503.06639), success recurrences of the reference, mirror and two-KL
    theorems in logit form, without the Renyi correction (derived to vanish from pi_0 = pi_ref). The anchor's 0 and 1
    are absorbing: whatever a KL term's anchor never or always solves stays so. With the reference alone a `p_prev` of
    0 or 1 is not absorbing, since its policy is no anchor.

    Args:
        p_prev (array-like):
            Success of the previous policy, any shape.
        p_ref (array-like):
            Success of the reference, broadcasting against `p_prev`. A mirror term alone does not use it.
        beta (`float`, *optional*, defaults to `0.0`):
            Coefficient of the KL to the reference; in the paper's letters alpha beta.
        mirror_beta (`float`, *optional*, defaults to `0.0`):
            Coefficient of the KL to the previous policy; in the paper's letters (1 - alpha) beta.
        advantage (`str`, [`Advantage`] or `Callable`, *optional*, defaults to `"smoothed_std"`):
            As in [`omega`].
        advantage_kwargs (`Mapping[str, Any]`, *optional*):
            As in [`omega`].
        num_generations (`int`, *optional*):
            If set, Omega is [`group_omega`] of this group size: the mean step to first order, with sampled groups.

    Returns:
        `np.ndarray`:
            p_n, of the broadcast shape.

    Raises:
        `ValueError`: If an argument is out of range, both coefficients are 0, or two anchors have no policy in common.
    """
    step = Step.checked(beta, mirror_beta, advantage, advantage_kwargs)
    check_whole_number("num_generations", num_generations, at_least=2, optional=True)
    reference, previous = anchors(p_ref, p_prev, step, previous="p_prev")
    return sigmoid(step.advance(previous, reference, num_generations))


def success_path(
    p_ref: Any,
    steps: int,
    *,
    beta: float = 0.0,
    mirror_beta: float = 0.0,
    advantage: Any = DEFAULT_ADVANTAGE,
    advantage_kwargs: Mapping[str, Any] | None = None,
    p_start: Any = None,
    num_generations: int | None = None,
) -> Array:
    """
    Success p_0, ..., p_n under exact iteration. See [`success_step`] for the source and the absorbing ends.

    Args:
        p_ref (array-like):
            Success of the reference, any shape.
        steps (`int`):
            Iterations n, at least 0.
        beta (`float`, *optional*, defaults to `0.0`):
            As in [`success_step`].
        mirror_beta (`float`, *optional*, defaults to `0.0`):
            As in [`success_step`].
        advantage (`str`, [`Advantage`] or `Callable`, *optional*, defaults to `"smoothed_std"`):
            As in [`omega`].
        advantage_kwargs (`Mapping[str, Any]`, *optional*):
            As in [`omega`].
        p_start (array-like, *optional*):
            Success p_0, broadcasting against `p_ref`. If not set, that of the reference.
        num_generations (`int`, *optional*):
            As in [`success_step`].

    Returns:
        `np.ndarray`:
            Success of shape `(steps + 1, ...)`; the log-odds behind it do not saturate where it rounds to 1.

    Raises:
        `ValueError`: As [`success_step`].
    """
    step = Step.checked(beta, mirror_beta, advantage, advantage_kwargs)
    check_whole_number("num_generations", num_generations, at_least=2, optional=True)
    return iterated(p_ref, p_start, steps, step, partial(step.advance, num_generations=num_generations))
