# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The losses written out a second time: float64, one sequence and one token at a time, straight from the formulas."""

import math
from dataclasses import dataclass

import torch


@dataclass
class Batch:
    """
    Micro-batch of B sequences of up to T completion tokens; log-probs are float64 tensors of shape (B, T).

    `tokens_per_step` is the number of tokens of the whole optimizer step, over all processes.
    """

    logps: torch.Tensor
    old_logps: torch.Tensor
    ref_logps: torch.Tensor
    anchor_logps: torch.Tensor
    mask: torch.Tensor
    advantages: torch.Tensor
    sampler_factor: torch.Tensor
    tokens_per_step: float
    max_completion_length: int


def aggregate(terms: list[list[torch.Tensor]], loss_type: str, batch: Batch) -> torch.Tensor:
    """Sum the terms of the counted tokens as the loss type does; `terms[i]` has one entry per counted token of i."""
    size = len(terms)
    total = torch.zeros((), dtype=torch.float64)
    if loss_type in ("grpo", "sapo"):
        for sequence in terms:
            if sequence:
                total = total + sum(sequence) / len(sequence) / size
        return total
    for sequence in terms:
        for term in sequence:
            total = total + term
    tokens = sum(len(sequence) for sequence in terms)
    normalizer = {
        "bnpo": max(tokens, 1),
        "dr_grpo": size * batch.max_completion_length,
        "dapo": batch.tokens_per_step,
        "cispo": batch.tokens_per_step,
        "vespo": batch.tokens_per_step,
        "luspo": size,
    }
    return total / normalizer[loss_type]


def clipped(logps, old_logps, advantage, *, level, epsilon, epsilon_high, **_):
    """TRL's term: PPO's clip of each token's ratio, or of the geometric mean of all."""
    ratios = [torch.exp(logp - old) for logp, old in zip(logps, old_logps, strict=True)]
    if level == "sequence":
        ratios = [geometric_mean(ratios)] * len(ratios)
    bounded = [torch.clamp(ratio, 1 - epsilon, 1 + epsilon_high) for ratio in ratios]
    return [-torch.minimum(r * advantage, b * advantage) for r, b in zip(ratios, bounded, strict=True)]


def score(logps, old_logps, advantage, **_):
    return [-torch.exp(logp - logp.detach()) * advantage for logp in logps]


def trajectory(logps, old_logps, advantage, *, clip, epsilon, epsilon_high, **_):
    """One term per sequence: it stands with the first token and is counted once."""
    weight = torch.ones((), dtype=torch.float64)
    for logp, old in zip(logps, old_logps, strict=True):
        weight = weight * torch.exp(logp - old)
    cap = torch.tensor(1 + epsilon_high, dtype=torch.float64)
    term = {
        "upper": torch.minimum(weight, cap) * advantage,
        "two_sided": torch.minimum(weight * advantage, torch.clamp(weight, 1 - epsilon, cap) * advantage),
        "none": weight * advantage,
    }[clip]
    return [-term, *[torch.zeros((), dtype=torch.float64)] * (len(logps) - 1)]


def geometric(logps, old_logps, advantage, *, epsilon, epsilon_high, **_):
    """Each ratio is clipped on the side on which the advantage would push it on, then their geometric mean is taken."""
    low, high = math.exp(-epsilon), math.exp(epsilon_high)
    ratios = [torch.exp(logp - old) for logp, old in zip(logps, old_logps, strict=True)]
    side = {"max": high} if advantage > 0 else {"min": low}
    return [-geometric_mean([torch.clamp(ratio, **side) for ratio in ratios]) * advantage] * len(ratios)


# By the names of the registries: terms of the counted tokens of a sequence, divergences of a token, and advantages of
# consecutive groups.
POLICY_TERMS = {"clipped": clipped, "score": score, "trajectory": trajectory, "geometric": geometric}
DIVERGENCES = {
    "k3": lambda ratio, d: ratio * (torch.exp(d) - d - 1),
    "k2": lambda ratio, d: ratio.detach() * d * d / 2,
}


def geometric_mean(ratios):
    mean = torch.ones((), dtype=torch.float64)
    for ratio in ratios:
        mean = mean * ratio ** (1 / len(ratios))
    return mean


def loss(
    batch: Batch,
    *,
    loss_type: str,
    level: str = "token",
    policy: str | None = None,
    clip: str = "upper",
    epsilon: float = 0.2,
    epsilon_high: float = 0.2,
    beta: float = 0.0,
    mirror_beta: float = 0.0,
    estimator: str = "k3",
) -> torch.Tensor:
    """Policy term plus both KL terms of one micro-batch, without gradient accumulation."""
    settings = {"level": level, "clip": clip, "epsilon": epsilon, "epsilon_high": epsilon_high}
    term = POLICY_TERMS[policy or {"none": "score", "trajectory": "trajectory"}.get(level, "clipped")]
    rows = [[t for t in range(batch.mask.size(1)) if batch.mask[i, t]] for i in range(batch.mask.size(0))]
    losses: list[list[torch.Tensor]] = []
    divergences: list[list[torch.Tensor]] = []
    for i, tokens in enumerate(rows):
        logps, old_logps = [batch.logps[i, t] for t in tokens], [batch.old_logps[i, t] for t in tokens]
        terms = term(logps, old_logps, batch.advantages[i], **settings) if tokens else []
        losses.append([value * batch.sampler_factor[i, t] for value, t in zip(terms, tokens, strict=True)])
        divergences.append([])
        ratios = [torch.exp(logp - old) for logp, old in zip(logps, old_logps, strict=True)]
        if level == "sequence":
            ratios = [geometric_mean(ratios)] * len(ratios)
        for ratio, logp, t in zip(ratios, logps, tokens, strict=True):
            pairs = ((beta, batch.ref_logps[i, t]), (mirror_beta, batch.anchor_logps[i, t]))
            kl = sum(coefficient * DIVERGENCES[estimator](ratio, anchor - logp) for coefficient, anchor in pairs)
            divergences[-1].append(kl)
    return aggregate(losses, loss_type, batch) + aggregate(divergences, loss_type, batch)


def groups(rewards, num_generations):
    return [rewards[start : start + num_generations] for start in range(0, len(rewards), num_generations)]


def centered(rewards, num_generations, scale):
    """Rewards less their group's mean, divided by what `scale` makes of the group's deviations; 0 without a reward."""
    advantages = []
    for group in groups(rewards, num_generations):
        scored = [r for r in group if not math.isnan(r)]
        mean = math.fsum(scored) / max(len(scored), 1)
        deviations = [0.0 if math.isnan(r) else r - mean for r in group]
        unit = scale(math.fsum(d * d for d in deviations), len(scored))
        advantages += [d / unit for d in deviations]
    return advantages


def deviation(rewards):
    mean = math.fsum(rewards) / len(rewards)
    return math.sqrt(math.fsum((r - mean) ** 2 for r in rewards) / (len(rewards) - 1))


def mean_only(rewards, num_generations, **_):
    return centered(rewards, num_generations, lambda squares, n: 1.0)


def group_std(rewards, num_generations, **_):
    return centered(rewards, num_generations, lambda squares, n: math.sqrt(squares / max(n - 1, 1)) + 1e-4)


def smoothed_std(rewards, num_generations, *, reward_variance_epsilon=1e-5, **_):
    return centered(
        rewards, num_generations, lambda squares, n: math.sqrt(squares / max(n, 1) + reward_variance_epsilon)
    )


def batch_std(rewards, num_generations, **_):
    unit = deviation([r for r in rewards if not math.isnan(r)]) + 1e-4
    return centered(rewards, num_generations, lambda squares, n: unit)


def per_reward(rewards, num_generations, *, rewards_per_func, weights, **_):
    """GDPO: each function by itself, then the sum over all of the batch."""
    columns = [group_std(list(column), num_generations) for column in zip(*rewards_per_func, strict=True)]
    sums = [math.fsum(w * a for w, a in zip(weights, row, strict=True)) for row in zip(*columns, strict=True)]
    mean, unit = math.fsum(sums) / len(sums), deviation(sums) + 1e-4
    return [(total - mean) / unit for total in sums]


def risk_sensitive(rewards, num_generations, *, risk=2.0, **_):
    """Each exponential over the mean of its group, less 1 and over the risk; 0 without a reward."""
    advantages = []
    for group in groups(rewards, num_generations):
        weights = [math.exp(risk * r) for r in group if not math.isnan(r)]
        mean = math.fsum(weights) / max(len(weights), 1)
        advantages += [0.0 if math.isnan(r) else (math.exp(risk * r) / mean - 1) / risk for r in group]
    return advantages


ADVANTAGES = {
    "mean_only": mean_only,
    "group_std": group_std,
    "smoothed_std": smoothed_std,
    "batch_std": batch_std,
    "per_reward": per_reward,
    "risk_sensitive": risk_sensitive,
}
