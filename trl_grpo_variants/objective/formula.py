# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What is minimised, in one line of plain text, and what its symbols mean: written from the parts' descriptions."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from .choice import Parts, loss_coefficients, penalizes_rewards
from .divergences import ANCHORS
from .terms import written


_SUMS = {
    None: "agg_t",
    "grpo": "mean_i (1/|o_i|) sum_t",
    "sapo": "mean_i (1/|o_i|) sum_t",
    "dr_grpo": "(1/T) mean_i sum_t",
    "luspo": "mean_i sum_t",
}


def objective_text(parts: Parts, values: Mapping[str, Any]) -> str:
    """What is minimised, as a formula; a setting without a value is written as its symbol."""
    sums = _SUMS.get(values.get("loss_type"), "(1/N) sum_i sum_t")
    policy, divergences = policy_text(parts, values), divergence_texts(values)
    if parts.policy.is_per_trajectory:
        sums = sums.removesuffix(" sum_t")
        divergences = [f"sum_t {term}" for term in divergences]
    text = f"{sums} [{' + '.join([policy, *divergences])}]"
    if values.get("use_adaptive_entropy"):
        text += " - h mean_t H(pi)"
    elif values.get("entropy_coef"):
        text += f" - {written(values, 'entropy_coef')} mean_t H(pi)"
    if values.get("no_is_gradient") == "frozen":
        text = f"gradient at pi = pi_old of {text}"
    advantage, penalty = advantage_text(parts, values), penalty_text(values)
    return ",  ".join(
        [text, *([f"A = {advantage}"] if advantage else []), *([f"r = R - {penalty}"] if penalty else [])]
    )


def advantage_text(parts: Parts, values: Mapping[str, Any]) -> str:
    """
    The advantages of tokens, then those of completions where these are others, with the weights of completions if they
    have any; nothing where TRL chooses.
    """
    advantage = parts.advantage.text(values) if parts.advantage is not None else ""
    if parts.weights is not None:
        unweighted = advantage or "TRL's"
        advantage = f"u B, u = {parts.weights.text(values)}, B = {unweighted}"
    if parts.token_advantage.function is None:
        return advantage
    return f"{parts.token_advantage.text(values)}{f',  a = {advantage}' if advantage else ''}"


def penalty_text(values: Mapping[str, Any]) -> str:
    """What is taken from the reward of a completion; nothing where the KL is a term of the loss."""
    anchor = ANCHORS["reference"]
    if not penalizes_rewards(values):
        return ""
    return f"{written(values, anchor.coefficient)} sum_t log(pi_old / {anchor.symbol})"


def policy_text(parts: Parts, values: Mapping[str, Any]) -> str:
    """The policy term, with what TRL multiplies it by."""
    text, factors = parts.policy.text(values), [factor for factor, *_ in _factors(values)]
    return f"{' '.join(factors)} ({text})" if factors else text


def _factors(values: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What TRL multiplies the policy term by: the factor, its symbol, and what that means."""
    quantile, threshold = values.get("top_entropy_quantile"), values.get("off_policy_mask_threshold")
    if quantile is not None and quantile < 1.0:
        share = f"for the share of {quantile:g} of a micro-batch's tokens with the highest entropy"
        yield "m_H", "m_H", f"1 {share}, else 0"
    if threshold is not None:
        drift = (
            f"whose tokens have lost more than {threshold:g} nats of log-probability since the rollout, in the mean"
        )
        yield "m_off", "m_off", f"0 for completions with `A < 0` {drift}, else 1"
    mode = values.get("vllm_importance_sampling_mode")
    corrects = values.get("use_vllm", True) and values.get("vllm_importance_sampling_correction", True)
    # VESPO's weight holds it already.
    if mode and corrects and values.get("loss_type") != "vespo":
        level, _, constraint = mode.partition("_")
        bounds = [values.get(f"vllm_importance_sampling_clip_{end}", default) for end, default in _ENGINE_BOUNDS]
        low, high = (bound if isinstance(bound, str | None) else f"{bound:g}" for bound in bounds)
        yield (
            _corrected(constraint, low, high),
            "v",
            f"ratio of a {level}'s probability under the trainer's policy at the rollout to that under vLLM's"
            + (", `C` TRL's `vllm_importance_sampling_clip_max`" if high == "C" else ""),
        )


# Without a value; `None` is no bound.
_ENGINE_BOUNDS = (("min", None), ("max", "C"))


def _corrected(constraint: str, low: str | None, high: str | None) -> str:
    """The ratio `v` to vLLM, cut or masked outside its bounds."""
    if constraint == "truncate":
        return f"min(v, {high})" if low is None else f"max(v, {low})" if high is None else f"clip(v, {low}, {high})"
    inside = " <= ".join(part for part in (low, "v", high) if part is not None)
    return "v" if inside == "v" else f"v 1({inside})"


def divergence_texts(values: Mapping[str, Any]) -> list[str]:
    """The KL terms, one text per anchor with a coefficient."""
    return [
        f"{written(values, ANCHORS[name].coefficient)} {_kl(values)}(pi || {ANCHORS[name].symbol})"
        for name in loss_coefficients(values)
    ]


def _kl(values: Mapping[str, Any]) -> str:
    estimator = values.get("kl_estimator")
    return "KL" if estimator in (None, "k3") else f"KL_{estimator}"


def legend(parts: Parts, values: Mapping[str, Any]) -> list[str]:
    """What the symbols that the formula has stand for, one entry per symbol."""
    text = objective_text(parts, values)
    return [
        f"`{symbol}`: {meaning}"
        for symbol, meaning in _meanings(parts, values)
        if symbol == "pi" or re.search(rf"\b{re.escape(symbol)}\b", text)
    ]


def _meanings(parts: Parts, values: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "pi", "the policy; `o_i`: completion `i` of the batch, with the tokens `t`"
    yield "pi_old", "the policy that made the rollout"
    yield "rho", "ratio of a token's probability under `pi` to that under the policy that made the rollout"
    for _, symbol, meaning in _factors(values):
        yield symbol, meaning
    yield from parts.policy.symbols.items()
    for anchor in ANCHORS.values():
        yield anchor.symbol, anchor.meaning
    estimate, what, ratio = parts.divergence.text(values), "estimated per token as", ""
    if not parts.divergence.has_ratio:
        what = "the penalty on each token,"
    elif values.get("use_bias_correction_kl", True):
        estimate, ratio = f"ratio ({estimate})", " and `ratio` that of `pi` to the policy that made the rollout"
    yield _kl(values), f"{what} `{estimate}`, with `d` the log-ratio of the anchor to `pi`{ratio}"
    yield "H", "entropy of the next token"
    yield (
        "h",
        f"coefficient that grows by {written(values, 'entropy_coef_delta')} per optimizer step while the entropy is at "
        f"most {written(values, 'entropy_target')} nats and else falls, to 0 at least; 0 above that entropy",
    )
    yield "T", "`max_completion_length`"
    yield "N", "number of tokens in the batch"
    yield "L", "number of tokens of a completion that count in the loss"
    yield "A", "advantage; `r` a completion's reward, `mean`, `std` and `var` those of its group"
    yield "a", "advantage of a completion, `A` that of one of its tokens"
    yield "R", "reward of a completion, `r` what is left of it"
    for part in (parts.token_advantage, parts.advantage):
        yield from part.symbols.items() if part is not None else ()
