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


def scored(group):
    """Rewards of a group that are there; those of a group with fewer than two count for nothing."""
    there = [r for r in group if not math.isnan(r)]
    return there if len(there) > 1 else []


def by_group(rewards, num_generations, advantage):
    """`advantage(r, there)` for each scored completion, with the rewards of its group that are there; 0 for the others."""
    advantages = []
    for group in groups(rewards, num_generations):
        there = scored(group)
        advantages += [advantage(r, there) if there and not math.isnan(r) else 0.0 for r in group]
    return advantages


def average(values):
    values = list(values)
    return math.fsum(values) / len(values)


def leave_one_out(rewards, num_generations, **_):
    return by_group(rewards, num_generations, lambda r, there: r - (math.fsum(there) - r) / (len(there) - 1))


def length_weighted(rewards, num_generations, *, lengths, **_):
    advantages = []
    for group, sizes in zip(groups(rewards, num_generations), groups(lengths, num_generations), strict=True):
        pairs = [(r, size) for r, size in zip(group, sizes, strict=True) if not math.isnan(r)]
        tokens = sum(size for _, size in pairs)
        baseline = sum(r * size for r, size in pairs) / tokens if tokens else math.nan
        advantages += [0.0 if math.isnan(r) or not tokens else r - baseline for r in group]
    return advantages


def quantile(rewards, num_generations, *, quantile=0.4, **_):
    """The baseline is the first reward, from the least on, with a share of at least `quantile` up to it."""

    def advantage(r, there):
        ranked = sorted(there)
        baseline = next(x for i, x in enumerate(ranked) if (i + 1) / len(ranked) >= quantile - 1e-9)
        return (r - baseline) / (deviation(there) + 1e-6)

    return by_group(rewards, num_generations, advantage)


def shifted(rewards, num_generations, *, baseline_shift=-0.1, **_):
    return [
        0.0 if math.isnan(r) else r - average(x for x in group if not math.isnan(x)) - baseline_shift
        for group in groups(rewards, num_generations)
        for r in group
    ]


def maximum_likelihood(rewards, num_generations, **_):
    def advantage(r, there):
        mean = average(there)
        return (r - mean) / (mean + 1e-6) if mean > 0 else 0.0

    return by_group(rewards, num_generations, advantage)


def pass_at_k(rewards, num_generations, *, k=2, **_):
    """As the paper writes it, by counting choices of k completions."""

    def advantage(r, there):
        n, failures = len(there), there.count(0.0)
        if n < k:
            return 0.0
        mean = 1 - math.comb(failures, k) / math.comb(n, k)
        unit = math.sqrt(mean * (1 - mean)) + 1e-6
        if r == 1.0:
            return (1 - mean) / unit
        return (1 - mean - math.comb(failures - 1, k - 1) / math.comb(n - 1, k - 1)) / unit

    return by_group(rewards, num_generations, advantage)


def best_of_group(rewards, num_generations, **_):
    def advantage(r, there):
        first, second = sorted(there, reverse=True)[:2]
        return (first - second) / (deviation(there) + 1e-6) if r == first else 0.0

    return by_group(rewards, num_generations, advantage)


def success_weight(rewards, num_generations, *, success_weight=0.1, failure_weight=1.0, **_):
    return [0.0 if math.isnan(r) else success_weight if r == 1.0 else -failure_weight for r in rewards]


def whitened(rewards, num_generations, *, lengths, **_):
    """Each deviation from the group's mean, listed once per token, then whitened."""
    deviations = by_group(rewards, num_generations, lambda r, there: r - average(there))
    counted = by_group(rewards, num_generations, lambda *_: 1.0)
    tokens = [
        c for c, size, counts in zip(deviations, lengths, counted, strict=True) if counts for _ in range(int(size))
    ]
    mean = math.fsum(tokens) / max(len(tokens), 1)
    variance = math.fsum((c - mean) ** 2 for c in tokens) / max(len(tokens) - 1, 1)
    return [
        (c - mean) / math.sqrt(variance + 1e-8) if counts else 0.0
        for c, counts in zip(deviations, counted, strict=True)
    ]


def signal_share(rewards, num_generations, **_):
    usable = [there for group in groups(rewards, num_generations) if (there := scored(group))]
    share = average(float(max(there) > min(there)) for there in usable) if usable else 1.0
    return by_group(rewards, num_generations, lambda r, there: (r - average(there)) / max(share, 1e-5))


def beta_normalization(rewards, num_generations, *, lowest=0.0, highest=1.0, **_):
    rewards = [(r - lowest) / (highest - lowest) for r in rewards]
    means = [average(there) for group in groups(rewards, num_generations) if (there := scored(group))]
    alpha = beta = 1.0
    if len(means) > 1 and (variance := deviation(means) ** 2) > 1e-12:
        mean = average(means)
        concentration = mean * (1 - mean) / variance - 1
        alpha, beta = max(1.0, 1 + concentration * mean / 3), max(1.0, 1 + concentration * (1 - mean) / 3)
    constant = math.gamma(alpha + beta) / math.gamma(alpha) / math.gamma(beta)

    def advantage(r, there):
        mean = average(there)
        density = constant * mean ** (alpha - 1) * (1 - mean) ** (beta - 1)
        return (r - mean) * (min(1 / density, 1e6) if density > 0 else 1e6)

    return by_group(rewards, num_generations, advantage)


def partition(rewards, num_generations, *, partition_temperature=0.01, **_):
    advantages = []
    for group in groups(rewards, num_generations):
        for place, r in enumerate(group):
            others = [x for i, x in enumerate(group) if i != place and not math.isnan(x)]
            if math.isnan(r) or not others:
                advantages.append(0.0)
                continue
            best = max(r, *others)
            mean = average(math.exp((x - best) / partition_temperature) for x in others)
            advantages.append(r - best - partition_temperature * math.log(max(mean, 1e-8)))
    return advantages


def length_weights(lengths, *, length_weight_power):
    powers = [size**-length_weight_power if size else 0.0 for size in lengths]
    mean = math.fsum(powers) / max(sum(size > 0 for size in lengths), 1)
    return [power / mean if power else 0.0 for power in powers]


def in_domain(rewards, domain):
    """The rewards nearest to these that an advantage takes."""
    if domain.values:
        return [r if math.isnan(r) else min(domain.values, key=lambda value: abs(value - r)) for r in rewards]
    low = -math.inf if domain.at_least is None else domain.at_least
    high = math.inf if domain.at_most is None else domain.at_most
    return [r if math.isnan(r) else min(max(r, low), high) for r in rewards]


ADVANTAGES = {
    "leave_one_out": leave_one_out,
    "length_weighted": length_weighted,
    "quantile": quantile,
    "shifted": shifted,
    "maximum_likelihood": maximum_likelihood,
    "pass_at_k": pass_at_k,
    "best_of_group": best_of_group,
    "success_weight": success_weight,
    "whitened": whitened,
    "signal_share": signal_share,
    "beta_normalization": beta_normalization,
    "partition": partition,
    "mean_only": mean_only,
    "group_std": group_std,
    "smoothed_std": smoothed_std,
    "batch_std": batch_std,
    "per_reward": per_reward,
    "risk_sensitive": risk_sensitive,
}
