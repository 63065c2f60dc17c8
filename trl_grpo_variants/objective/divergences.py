# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""KL divergence from the current policy to an anchor, as a loss whose gradient is that of the reverse KL."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .. import papers
from ..papers import DEEPSEEKMATH, GRPO_DYNAMICS, Paper
from .terms import Divergence, registry


if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Anchor:
    """
    Policy that a KL pulls towards: the field of its coefficient, its symbol and what that means, the name of the
    divergence in the logs, and the paper that has put it into the loss.
    """

    coefficient: str
    symbol: str
    meaning: str
    metric: str
    paper: Paper


ANCHORS = {
    "reference": Anchor("beta", "pi_ref", "the reference policy", "kl", DEEPSEEKMATH),
    "previous": Anchor("mirror_beta", "pi_prev", "the previous policy", "mirror_kl", GRPO_DYNAMICS),
}
KL_METRICS = tuple(anchor.metric for anchor in ANCHORS.values())
# Behind the name of a mean, how well it is known.
STANDARD_ERROR = "_standard_error"


def reverse_kl(logps: torch.Tensor, anchor_logps: torch.Tensor, log_ratio: torch.Tensor) -> torch.Tensor:
    """
    Per-token estimate rho (exp(d) - d - 1) of KL(pi_theta || anchor), with rho = pi_theta / pi_old differentiable and
    d = log anchor - log pi_theta.

    With the ratio of the token, its expectation over tokens of the old policy is the reverse KL and so is its
    gradient; every term is non-negative. With the rollout policy as anchor it becomes rho log rho - rho + 1, the mirror
    term of [Mroueh](https://huggingface.co/papers/2503.06639) estimated on the rollout itself. Without the factor rho
    the gradient would be that of the forward KL.

    Args:
        logps (`torch.Tensor`):
            Log-probs of shape `(B, T)` under the current policy.
        anchor_logps (`torch.Tensor`):
            Log-probs of shape `(B, T)` under the anchor, bounded with [`~objective.ratio.bounded_anchor`].
        log_ratio (`torch.Tensor`):
            log rho of the tokens `(B, T)` or of the sequences `(B, 1)`, see [`~objective.ratio.importance_log_ratio`].

    Returns:
        `torch.Tensor`:
            Divergences of shape `(B, T)`, in nats.
    """
    d = anchor_logps - logps
    # expm1 keeps the digits that exp(d) - 1 would lose near the anchor, where the divergence is tiny.
    return log_ratio.exp() * (d.expm1() - d)


def half_squared_log_ratio(logps: torch.Tensor, anchor_logps: torch.Tensor, log_ratio: torch.Tensor) -> torch.Tensor:
    """
    Per-token estimate rho d^2 / 2 of KL(pi_theta || anchor), "k2", with rho a weight without a gradient.

    Its gradient is that of the reverse KL, token by token the one of [`reverse_kl`] and of TRL's own estimate, which has
    that ratio by default ([paper](https://huggingface.co/papers/2510.01555)); only its value is another one.

    Args:
        logps (`torch.Tensor`):
            Log-probs of shape `(B, T)` under the current policy.
        anchor_logps (`torch.Tensor`):
            Log-probs of shape `(B, T)` under the anchor, bounded with [`~objective.ratio.bounded_anchor`].
        log_ratio (`torch.Tensor`):
            log rho of the tokens `(B, T)` or of the sequences `(B, 1)`.

    Returns:
        `torch.Tensor`:
            Divergences of shape `(B, T)`, in nats.
    """
    return log_ratio.detach().exp() * (anchor_logps - logps).square() / 2


def squared_log_ratio(logps: torch.Tensor, anchor_logps: torch.Tensor, log_ratio: torch.Tensor) -> torch.Tensor:
    """
    Per-token penalty d^2 / 2, without the ratio rho to the policy that made the rollout.

    Towards that policy it is the one of [Kimi k1.5](https://huggingface.co/papers/2501.12599) as trainers have it, token by
    token, and differs from the mirror term of [`reverse_kl`] by the factor rho alone: the gradients are log rho and
    rho log rho. So Kimi's update is, up to that factor, the score with mean-only advantages and a mirror term.

    Args:
        logps (`torch.Tensor`):
            Log-probs of shape `(B, T)` under the current policy.
        anchor_logps (`torch.Tensor`):
            Log-probs of shape `(B, T)` under the anchor, bounded with [`~objective.ratio.bounded_anchor`].
        log_ratio (`torch.Tensor`):
            Not used.

    Returns:
        `torch.Tensor`:
            Penalties of shape `(B, T)`, in squared nats.
    """
    return (anchor_logps - logps).square() / 2


def sequence_squared_log_ratio(
    logps: torch.Tensor, anchor_logps: torch.Tensor, log_ratio: torch.Tensor, mask: torch.Tensor
) -> torch.Tensor:
    """
    Penalty (sum_t d)^2 / 2 of a completion, divided by its L tokens and put on each of them.

    `loss_type="grpo"`, which divides by L once more, makes it that of [PMD](https://huggingface.co/papers/2602.05933):
    with the score as policy term, tau (A / tau - sum_t log rho)^2 / (2 L) up to a constant, where tau is `mirror_beta`. One
    that divides by a constant length makes it the one that [Kimi k1.5](https://huggingface.co/papers/2501.12599) writes. It
    grows with the square of the length, so its coefficient is small.

    Args:
        logps (`torch.Tensor`):
            Log-probs of shape `(B, T)` under the current policy.
        anchor_logps (`torch.Tensor`):
            Log-probs of shape `(B, T)` under the anchor, bounded with [`~objective.ratio.bounded_anchor`].
        log_ratio (`torch.Tensor`):
            Not used.
        mask (`torch.Tensor`):
            Mask of shape `(B, T)`, 1 for the tokens that count.

    Returns:
        `torch.Tensor`:
            Penalties of shape `(B, T)`, in squared nats, the same for the tokens of a completion.
    """
    total = (anchor_logps - logps).masked_fill(mask == 0, 0.0).sum(dim=1, keepdim=True)
    return (total.square() / (2 * mask.sum(dim=1, keepdim=True).clamp(min=1))).expand_as(logps)


def standard_error_over_groups(sums: torch.Tensor, tokens: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """
    Standard error of a mean over tokens, of which those of a group are no independent observations.

    The mean is a ratio of two sums over groups, so its error is that of the sum of the groups' residuals S_g - mean N_g.

    Args:
        sums (`torch.Tensor`):
            Sums S of a value over the tokens of each completion, of shape `(N,)`.
        tokens (`torch.Tensor`):
            Numbers N of these tokens, of shape `(N,)`.
        groups (`torch.Tensor`):
            Number of the group of each completion, of shape `(N,)`.

    Returns:
        `torch.Tensor`:
            0-d tensor; NaN where fewer than two groups have tokens.
    """
    found, members = groups[tokens > 0].unique(return_inverse=True)
    if len(found) < 2:
        return sums.new_full((), math.nan)
    residuals = (sums - tokens * sums.sum() / tokens.sum())[tokens > 0]
    of_groups = residuals.new_zeros(len(found)).index_add(0, members, residuals)
    # Together the residuals are 0.
    return (len(found) * of_groups.var()).sqrt() / tokens.sum()


K3 = Divergence(name="k3", function=reverse_kl, formula="exp(d) - d - 1", paper=DEEPSEEKMATH)
K2 = Divergence(name="k2", function=half_squared_log_ratio, formula="d^2 / 2", paper=papers.K2)

SQUARED = Divergence(name="squared", function=squared_log_ratio, formula="d^2 / 2", paper=papers.KIMI, has_ratio=False)
SEQUENCE_SQUARED = Divergence(
    name="sequence_squared",
    function=sequence_squared_log_ratio,
    formula="(sum_t d)^2 / (2 |o_i|)",
    paper=papers.PMD,
    has_ratio=False,
)

DIVERGENCES: dict[str, Divergence] = registry(K3, K2, SQUARED, SEQUENCE_SQUARED)
