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


def loss(
    batch: Batch,
    *,
    level: str,
    loss_type: str,
    clip: str = "upper",
    epsilon: float = 0.2,
    epsilon_high: float = 0.2,
    beta: float = 0.0,
    mirror_beta: float = 0.0,
) -> torch.Tensor:
    """Policy term plus both KL terms of one micro-batch, without gradient accumulation."""
    rows = [[t for t in range(batch.mask.size(1)) if batch.mask[i, t]] for i in range(batch.mask.size(0))]
    policy: list[list[torch.Tensor]] = []
    divergence: list[list[torch.Tensor]] = []
    for i, tokens in enumerate(rows):
        advantage = batch.advantages[i]
        weight = torch.ones((), dtype=torch.float64)
        # The geometric mean of the ratios of the sequence's tokens.
        sequence_ratio = torch.ones((), dtype=torch.float64)
        for t in tokens:
            sequence_ratio = sequence_ratio * torch.exp((batch.logps[i, t] - batch.old_logps[i, t]) / len(tokens))
        policy.append([])
        divergence.append([])
        for t in tokens:
            logp, old = batch.logps[i, t], batch.old_logps[i, t]
            ratio = torch.exp(logp - old)
            weight = weight * ratio
            if level == "sequence":
                ratio = sequence_ratio
            clipped = torch.clamp(ratio, 1 - epsilon, 1 + epsilon_high)
            term = {
                "sequence": -torch.minimum(ratio * advantage, clipped * advantage),
                "token": -torch.minimum(ratio * advantage, clipped * advantage),
                "none": -torch.exp(logp - logp.detach()) * advantage,
                "trajectory": torch.zeros(()),
            }[level]
            policy[-1].append(term * batch.sampler_factor[i, t])
            kl = torch.zeros((), dtype=torch.float64)
            for coefficient, anchor in ((beta, batch.ref_logps[i, t]), (mirror_beta, batch.anchor_logps[i, t])):
                d = anchor - logp
                kl = kl + coefficient * ratio * (torch.exp(d) - d - 1)
            divergence[-1].append(kl)
        if level == "trajectory" and tokens:
            cap = 1 + epsilon_high
            capped = {
                "upper": torch.minimum(weight, torch.tensor(cap, dtype=torch.float64)) * advantage,
                "two_sided": torch.minimum(weight * advantage, torch.clamp(weight, 1 - epsilon, cap) * advantage),
                "none": weight * advantage,
            }[clip]
            # One term per sequence: it stands with the first token and is counted once.
            policy[-1][0] = -capped * batch.sampler_factor[i, tokens[0]]
    return aggregate(policy, loss_type, batch) + aggregate(divergence, loss_type, batch)


def normalized_advantages(rewards: list[float], num_generations: int, normalization: str) -> list[float]:
    """Advantages of consecutive groups: "mean", "trl" (sample std + 1e-4) or "paper" (sqrt(var + 1e-5))."""
    advantages = []
    for start in range(0, len(rewards), num_generations):
        group = rewards[start : start + num_generations]
        mean = math.fsum(group) / len(group)
        squares = math.fsum((r - mean) ** 2 for r in group)
        scale = {
            "mean": 1.0,
            "trl": math.sqrt(squares / (len(group) - 1)) + 1e-4,
            "paper": math.sqrt(squares / len(group) + 1e-5),
        }[normalization]
        advantages += [(r - mean) / scale for r in group]
    return advantages
