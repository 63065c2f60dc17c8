# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What a run minimises, in one line of plain text, and whose idea it is."""

import math
import re

from ..config import GRPOVariantConfig
from ..variants import GRPO_DYNAMICS, TIC_GRPO, Paper, get_variant
from .coefficients import number


def objective(args: GRPOVariantConfig) -> str:
    """
    Write what a run minimises, with the coefficients that it has.

    Args:
        args ([`GRPOVariantConfig`]):
            Resolved configuration.

    Returns:
        `str`:
            Formula in plain text.
    """
    whole_trajectory = args.importance_sampling_level == "trajectory"
    policy, kl = _policy_term(args), _divergences(args)
    bounds = {
        "grpo": "mean_i (1/|o_i|) sum_t",
        "sapo": "mean_i (1/|o_i|) sum_t",
        "bnpo": "(1/N) sum_i sum_t",
        "dr_grpo": "(1/T) mean_i sum_t",
        "luspo": "mean_i sum_t",
    }.get(args.loss_type, "(1/N) sum_i sum_t")
    if whole_trajectory:
        bounds = bounds.removesuffix(" sum_t")
        kl = [f"sum_t {term}" for term in kl]
    terms = " + ".join([policy, *kl])
    formula = f"{bounds} [{terms}]"
    if args.entropy_coef != 0.0 or args.use_adaptive_entropy:
        formula += f" - {number(args.entropy_coef)} mean_t H(pi)"
    if args.no_is_gradient == "frozen":
        formula = f"gradient at pi = pi_old of {formula}"
    return f"{formula},  {_advantage(args)}"


def _policy_term(args: GRPOVariantConfig) -> str:
    ratio = {"token": "rho", "sequence": "s"}.get(args.importance_sampling_level, "w")
    low = 1 - args.epsilon
    # As in TRL, whose upper range is the lower one unless it is given.
    epsilon_high = args.epsilon if args.epsilon_high is None else args.epsilon_high
    high = 1 + epsilon_high
    if args.importance_sampling_level == "none":
        return "-A log pi"
    if args.importance_sampling_level == "trajectory" and args.trajectory_clip != "two_sided":
        return "-w A" if args.trajectory_clip == "none" else f"-min(w, {high:g}) A"
    if args.loss_type == "cispo":
        return f"-sg(min({ratio}, {epsilon_high:g})) A log pi"
    if args.loss_type == "sapo":
        temperatures = f"{args.sapo_temperature_pos:g} if A > 0 else {args.sapo_temperature_neg:g}"
        return f"-(4/tau) sigmoid(tau ({ratio} - 1)) A (tau = {temperatures})"
    if args.loss_type == "vespo":
        k, lambda_ = (
            f"{positive:g} if A >= 0 else {negative:g}"
            for positive, negative in (
                (args.vespo_k_pos, args.vespo_k_neg),
                (args.vespo_lambda_pos, args.vespo_lambda_neg),
            )
        )
        return f"-sg(exp(lambda + k log w - lambda w)) A log pi (k = {k}, lambda = {lambda_})"
    if args.delta is None:
        return f"-min({ratio} A, clip({ratio}, {low:g}, {high:g}) A)"
    if math.isclose(args.delta, high) and low <= 0:
        return f"-min({ratio}, {high:g}) A"
    return f"-min(min({ratio}, {args.delta:g}) A, clip({ratio}, {low:g}, {high:g}) A)"


def _divergences(args: GRPOVariantConfig) -> list[str]:
    anchors = {"pi_ref": args.beta, "pi_prev": args.mirror_beta}
    return [f"{number(beta)} KL(pi || {anchor})" for anchor, beta in anchors.items() if beta != 0.0]


def _advantage(args: GRPOVariantConfig) -> str:
    if args.multi_objective_aggregation == "normalize_then_sum":
        return "A = batch-normalised sum_f weight_f (r_f - mean_f) / (std_f + 1e-4)"
    if args.reward_variance_epsilon is not None:
        return f"A = (r - mean) / sqrt(var + {number(args.reward_variance_epsilon)})"
    return {
        "none": "A = r - mean",
        "batch": "A = (r - mean) / (std of the batch + 1e-4)",
    }.get(args.scale_rewards, "A = (r - mean) / (std + 1e-4)")


def legend(formula: str, is_kl_corrected: bool) -> list[str]:
    """
    Say what the symbols of a formula stand for, those that it has.

    Args:
        formula (`str`):
            Formula, as [`objective`] writes it.
        is_kl_corrected (`bool`):
            Whether its KL terms carry the ratio to the policy that made the rollout.

    Returns:
        `list[str]`:
            One entry per symbol.
    """
    kl = (
        "estimated per token as `ratio (exp(d) - d - 1)`, with `d` the log-ratio of the anchor to `pi` and `ratio` "
        "that of `pi` to the policy that made the rollout"
        if is_kl_corrected
        else "estimated per token as `exp(d) - d - 1`, with `d` the log-ratio of the anchor to `pi`"
    )
    meanings = {
        r"\bpi\b": "`pi`: the policy; `o_i`: completion `i` of the batch, with the tokens `t`",
        r"\bpi_old\b": "`pi_old`: the policy that made the rollout",
        r"\brho\b": "`rho`: ratio of a token's probability under `pi` to that under the policy that made the rollout",
        r"\bs\b": "`s`: geometric mean of the token ratios of a completion to the policy that made the rollout",
        r"\bw\b": "`w`: product of the token ratios of a completion to the policy that made the rollout",
        r"\bsg\b": "`sg`: no gradient is taken of it",
        r"\bpi_ref\b": "`pi_ref`: the reference policy",
        r"\bpi_prev\b": "`pi_prev`: the previous policy",
        r"\bKL\b": f"`KL`: {kl}",
        r"\bH\b": "`H`: entropy of the next token",
        r"\bT\b": "`T`: `max_completion_length`",
        r"\bN\b": "`N`: number of tokens in the batch",
        r"\bA\b": "`A`: advantage; `r` a completion's reward, `mean`, `std` and `var` those of its group",
    }
    return [meaning for symbol, meaning in meanings.items() if symbol == r"\bpi\b" or re.search(symbol, formula)]


def papers(args: GRPOVariantConfig) -> list[Paper]:
    """
    Publications of what a run uses.

    Args:
        args ([`GRPOVariantConfig`]):
            Resolved configuration.

    Returns:
        `list[Paper]`:
            That of the variant first, then those of parts that come from elsewhere.
    """
    used = [] if args.variant is None else [get_variant(args.variant).paper]
    if args.mirror_beta != 0.0 or args.reward_variance_epsilon is not None:
        used.append(GRPO_DYNAMICS)
    if args.owns_policy_term:
        used.append(TIC_GRPO)
    return list(dict.fromkeys(used))
