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

    `tokens_per_step` is the number of tokens of the whole optimizer step, over all processes. `sampling_logps` are those
    of an inference engine, if there is one.
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
    entropies: torch.Tensor | None = None
    sampling_logps: torch.Tensor | None = None

    def tokens(self, i: int) -> list[int]:
        return [t for t in range(self.mask.size(1)) if self.mask[i, t]]


@dataclass
class Sequence:
    """The counted tokens of one sequence, one entry per token, and the batch that it is from."""

    logps: list[torch.Tensor]
    old_logps: list[torch.Tensor]
    sampling_logps: list[torch.Tensor]
    advantages: list[torch.Tensor]
    entropies: list[torch.Tensor]
    index: int
    batch: Batch

    @property
    def ratios(self) -> list[torch.Tensor]:
        return [torch.exp(logp - old) for logp, old in zip(self.logps, self.old_logps, strict=True)]


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


def clipped(sequence, *, ratio_level, epsilon, epsilon_high, **_):
    """TRL's term: PPO's clip of each token's ratio, or of the geometric mean of all."""
    ratios = sequence.ratios
    if ratio_level == "sequence":
        ratios = [geometric_mean(ratios)] * len(ratios)
    bounded = [torch.clamp(ratio, 1 - epsilon, 1 + epsilon_high) for ratio in ratios]
    return [-torch.minimum(r * a, b * a) for r, b, a in zip(ratios, bounded, sequence.advantages, strict=True)]


def one(logp):
    """1 with the gradient of log pi."""
    return torch.exp(logp - logp.detach())


def score(sequence, **_):
    return [-one(logp) * a for logp, a in zip(sequence.logps, sequence.advantages, strict=True)]


def product(ratios):
    weight = torch.ones((), dtype=torch.float64)
    for ratio in ratios:
        weight = weight * ratio
    return weight


def trajectory(sequence, *, clip, epsilon, epsilon_high, **_):
    """One term per sequence: it stands with the first token and is counted once."""
    weight, advantage = product(sequence.ratios), sequence.advantages[0]
    cap = torch.tensor(1 + epsilon_high, dtype=torch.float64)
    term = {
        "upper": torch.minimum(weight, cap) * advantage,
        "two_sided": torch.minimum(weight * advantage, torch.clamp(weight, 1 - epsilon, cap) * advantage),
        "none": weight * advantage,
    }[clip]
    return [-term, *[torch.zeros((), dtype=torch.float64)] * (len(sequence.logps) - 1)]


def geometric(sequence, *, epsilon, epsilon_high, **_):
    """Each ratio is clipped on the side on which the advantage would push it on, then their geometric mean is taken."""
    low, high = math.exp(-epsilon), math.exp(epsilon_high)
    ratios = [
        torch.clamp(ratio, **({"max": high} if a > 0 else {"min": low}))
        for ratio, a in zip(sequence.ratios, sequence.advantages, strict=True)
    ]
    return [-geometric_mean(ratios) * a for a in sequence.advantages]


def trust_region(sequence, leaves, anchor):
    """DPPO: the ratio to the anchor, and nothing where `leaves(p, q, rises)` for the side that the advantage pushes to."""
    old_logps = sequence.sampling_logps if anchor == "sampler" else sequence.old_logps
    losses = []
    for logp, old, a in zip(sequence.logps, old_logps, sequence.advantages, strict=True):
        p, q = math.exp(logp), math.exp(old)
        losses.append(0 * logp if leaves(p, q, bool(a > 0)) else -torch.exp(logp - old) * a)
    return losses


def binary_tv(sequence, *, epsilon, epsilon_high, anchor="sampler", **_):
    return trust_region(sequence, lambda p, q, rises: p - q > epsilon_high if rises else q - p > epsilon, anchor)


def binary_kl(sequence, *, epsilon, epsilon_high, anchor="sampler", **_):
    def leaves(p, q, rises):
        kl = q * math.log(q / p) + (1 - q) * math.log((1 - q + 1e-8) / (1 - p + 1e-8))
        return p > q and kl > epsilon_high if rises else p < q and kl > epsilon

    return trust_region(sequence, leaves, anchor)


def preserving(sequence, *, epsilon, epsilon_high, keep_low=0.75, keep_high=1.0, dual_clip=10.0, **_):
    losses = []
    for logp, ratio, a in zip(sequence.logps, sequence.ratios, sequence.advantages, strict=True):
        if a < 0 and ratio < 1 - epsilon:
            losses.append(-keep_low * (1 - epsilon) * one(logp) * a)
        elif a > 0 and ratio > 1 + epsilon_high:
            losses.append(-keep_high * (1 + epsilon_high) * one(logp) * a)
        elif a < 0 and ratio > dual_clip:
            losses.append(-dual_clip * a + 0 * logp)
        else:
            losses.append(-ratio * a)
    return losses


def dynamic(sequence, *, epsilon, epsilon_high, max_ratio=10.0, **_):
    losses = []
    for ratio, old, a in zip(sequence.ratios, sequence.old_logps, sequence.advantages, strict=True):
        q = math.exp(old)
        low = 0.5 * (1 + math.sqrt(max(0.0, 1 - 4 * epsilon / q)))
        high = min(0.5 * (1 + math.sqrt(1 + 4 * epsilon_high / q)), max_ratio)
        bounded = torch.clamp(ratio, min(low, high), high)
        loss = -torch.minimum(ratio * a, bounded * a)
        losses.append(torch.minimum(loss, -max_ratio * a) if a < 0 else loss)
    return losses


def tapered(sequence, *, level="trajectory", **_):
    ratios = [float(ratio) for ratio in sequence.ratios]
    weights = {
        "trajectory": [math.prod(ratios)] * len(ratios),
        "sequence": [math.prod(ratios) ** (1 / len(ratios))] * len(ratios),
        "token": ratios,
    }[level]
    return [
        -(1.0 if a > 0 else min(weight, 1.0)) * one(logp) * a
        for weight, logp, a in zip(weights, sequence.logps, sequence.advantages, strict=True)
    ]


def covariance(sequence, *, penalty=1.0, share=0.002, **_):
    """The tokens of all sequences are ranked; those of this one that are among the first are held."""
    batch = sequence.batch
    places = [(i, t) for i in range(batch.mask.size(0)) for t in batch.tokens(i)]
    weights = [float(batch.advantages[i]) for i, _ in places]
    scores = [float(batch.logps[place]) for place in places]
    mean_weight, mean_score = math.fsum(weights) / len(places), math.fsum(scores) / len(places)
    ranked = sorted(range(len(places)), key=lambda n: -(weights[n] - mean_weight) * (scores[n] - mean_score))
    held = {places[n] for n in ranked[: max(1, math.floor(share * len(places) + 1e-9))]}
    losses = []
    for t, ratio, a in zip(batch.tokens(sequence.index), sequence.ratios, sequence.advantages, strict=True):
        losses.append(-ratio * a + (penalty * abs(torch.log(ratio)) if (sequence.index, t) in held else 0.0))
    return losses


def flipped(sequence, *, epsilon, epsilon_high, quantile=0.8, max_weight=3.0, **_):
    entropies = sorted(float(h) for h in sequence.entropies)
    place = quantile * (len(entropies) - 1)
    below, above = entropies[math.floor(place)], entropies[math.ceil(place)]
    threshold = below + (above - below) * (place - math.floor(place))
    losses = []
    for logp, ratio, h, a in zip(
        sequence.logps, sequence.ratios, sequence.entropies, sequence.advantages, strict=True
    ):
        distance = epsilon_high if h > threshold + 1e-9 else epsilon
        if a > 0:
            weight, inside = 1 / min(float(ratio), 1 + distance), ratio <= 1 + distance
        else:
            weight, inside = max(float(ratio), 1 - distance), ratio >= 1 - distance
        losses.append(-min(weight, max_weight) * a * (one(logp) if inside else 1.0 + 0 * logp))
    return losses


def entropy_shaped(sequence, *, alpha=0.4, kappa=2.0, **_):
    pairs = zip(sequence.advantages, sequence.entropies, strict=True)
    return [a + min(alpha * float(h), abs(float(a)) / kappa) for a, h in pairs]


def probability_weighted(sequence, *, weight=0.2, **_):
    pairs = zip(sequence.advantages, sequence.old_logps, strict=True)
    return [a * (weight * math.exp(old) + 1 - weight) for a, old in pairs]


# By the names of the registries: terms and advantages of the counted tokens of a sequence, divergences of each of its
# tokens for their ratios and the log-ratios `ds` of the anchor, and advantages of consecutive groups.
POLICY_TERMS = {
    "clipped": clipped,
    "score": score,
    "trajectory": trajectory,
    "geometric": geometric,
    "binary_tv": binary_tv,
    "binary_kl": binary_kl,
    "preserving": preserving,
    "dynamic": dynamic,
    "tapered": tapered,
    "covariance": covariance,
    "flipped": flipped,
}
TOKEN_ADVANTAGES = {
    "uniform": lambda sequence, **_: sequence.advantages,
    "entropy_shaped": entropy_shaped,
    "probability_weighted": probability_weighted,
}
DIVERGENCES = {
    "k3": lambda ratios, ds: [ratio * (torch.exp(d) - d - 1) for ratio, d in zip(ratios, ds, strict=True)],
    "k2": lambda ratios, ds: [ratio.detach() * d * d / 2 for ratio, d in zip(ratios, ds, strict=True)],
    "squared": lambda ratios, ds: [d * d / 2 for d in ds],
    "sequence_squared": lambda ratios, ds: [sum(ds) ** 2 / (2 * len(ds))] * len(ds),
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
    policy_settings: dict | None = None,
    token_advantage: str = "uniform",
    token_settings: dict | None = None,
    clip: str = "upper",
    epsilon: float = 0.2,
    epsilon_high: float = 0.2,
    beta: float = 0.0,
    mirror_beta: float = 0.0,
    estimator: str = "k3",
) -> torch.Tensor:
    """Policy term plus both KL terms of one micro-batch, without gradient accumulation."""
    settings = {"ratio_level": level, "clip": clip, "epsilon": epsilon, "epsilon_high": epsilon_high}
    settings |= policy_settings or {}
    term = POLICY_TERMS[policy or {"none": "score", "trajectory": "trajectory"}.get(level, "clipped")]
    losses: list[list[torch.Tensor]] = []
    divergences: list[list[torch.Tensor]] = []
    for i in range(batch.mask.size(0)):
        tokens = batch.tokens(i)
        losses.append([])
        divergences.append([])
        if not tokens:
            continue
        sampling_logps = batch.old_logps if batch.sampling_logps is None else batch.sampling_logps
        rows = (batch.logps, batch.old_logps, sampling_logps)
        entropies = [] if batch.entropies is None else [batch.entropies[i, t] for t in tokens]
        sequence = Sequence(
            *[[row[i, t] for t in tokens] for row in rows], [batch.advantages[i]] * len(tokens), entropies, i, batch
        )
        sequence.advantages = TOKEN_ADVANTAGES[token_advantage](sequence, **(token_settings or {}))
        for value, t in zip(term(sequence, **settings), tokens, strict=True):
            losses[-1].append(value * batch.sampler_factor[i, t])
        ratios = sequence.ratios
        if level == "sequence":
            ratios = [geometric_mean(ratios)] * len(ratios)
        divergences[-1] = [torch.zeros((), dtype=torch.float64)] * len(tokens)
        for coefficient, anchors in ((beta, batch.ref_logps), (mirror_beta, batch.anchor_logps)):
            ds = [anchors[i, t] - logp for t, logp in zip(tokens, sequence.logps, strict=True)]
            values = DIVERGENCES[estimator](ratios, ds)
            divergences[-1] = [
                total + coefficient * value for total, value in zip(divergences[-1], values, strict=True)
            ]
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
