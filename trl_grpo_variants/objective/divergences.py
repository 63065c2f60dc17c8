# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""KL divergence from the current policy to an anchor, as a loss whose gradient is that of the reverse KL."""

from __future__ import annotations

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

    Its gradient is that of the reverse KL, token by token the one of [`reverse_kl`]
    ([paper](https://huggingface.co/papers/2510.01555)); its value is another one.

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


K3 = Divergence(name="k3", function=reverse_kl, formula="exp(d) - d - 1", paper=DEEPSEEKMATH)
K2 = Divergence(name="k2", function=half_squared_log_ratio, formula="d^2 / 2", paper=papers.K2)

DIVERGENCES: dict[str, Divergence] = registry(K3, K2)
