# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The terms that are added to TRL's loss, from the parts of a method: each term, its weight, one sum."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from .advantages.normalized import trls_advantages
from .choice import chosen_parts, loss_coefficients, penalizes_rewards
from .divergences import ANCHORS
from .ratio import (
    MAX_DIVERGENCE_LOG_RATIO,
    MAX_IMPORTANCE_LOG_RATIO,
    bounded_anchor,
    importance_log_ratio,
    trajectory_log_weight,
)
from .terms import Domain, Part, TermInputs, TermOutput


def counted_tokens(inputs: Mapping[str, Any]) -> torch.Tensor:
    """Mask `(B, T)` of the tokens of a batch of TRL's that the policy has produced and that count."""
    return inputs["completion_mask"] * inputs.get("tool_mask", 1)


def term_inputs(inputs: Mapping[str, Any], logps: torch.Tensor, entropies: torch.Tensor) -> TermInputs:
    """
    What the terms may look at of a micro-batch `inputs`, as TRL has it.

    `logps` and `entropies` `(B, T)` are what TRL's forward pass has found.
    """
    old_logps = inputs.get("old_per_token_logps")
    # A ratio needs no bound before it is known what is made of it, so it is taken to what the rollout holds.
    old_logps = logps.detach() if old_logps is None else old_logps
    anchors = {"previous": inputs.get("mirror_per_token_logps", old_logps)}
    if inputs.get("ref_per_token_logps") is not None:
        anchors["reference"] = inputs["ref_per_token_logps"]
    sampled = inputs.get("sampling_per_token_logps")
    if sampled is not None:
        # NaN where the engine gives none.
        sampled = torch.where(sampled.isnan(), old_logps, sampled)
    return TermInputs(
        logps=logps,
        old_logps=old_logps,
        advantages=inputs["advantages"],
        mask=counted_tokens(inputs),
        entropies=entropies,
        anchors=anchors,
        sampling_logps=sampled,
    )


def _muted_anchors(
    inputs: Mapping[str, Any], logps: torch.Tensor, *, keeps_divergence: bool
) -> dict[str, torch.Tensor]:
    """
    Log-probs `(B, T)` of the anchors in a micro-batch with which TRL's terms are finite, and its KL is none unless it
    `keeps_divergence`.

    They depend on those of the policy, `logps` `(B, T)`.
    """
    anchors = {}
    if inputs.get("old_per_token_logps") is not None:
        old_logps = inputs["old_per_token_logps"].float()
        anchors["old_per_token_logps"] = bounded_anchor(old_logps, logps, MAX_IMPORTANCE_LOG_RATIO)
    if inputs.get("ref_per_token_logps") is not None:
        ref_logps = inputs["ref_per_token_logps"].float()
        # The KL to itself is zero and so is its gradient: TRL's KL term leaves the place to the one here.
        anchors["ref_per_token_logps"] = (
            bounded_anchor(ref_logps, logps, MAX_DIVERGENCE_LOG_RATIO) if keeps_divergence else logps.detach()
        )
    return anchors


@dataclass(frozen=True)
class Objective:
    """
    The parts of a method with their settings, as functions of tensors.

    `advantage` gives advantages `(N,)` for rewards `(N,)`, a group size and, with `takes_lengths`, lengths `(N,)`;
    `domain` are the rewards that it takes, and `length_weights` gives factors `(N,)` of it for lengths, if any. `policy`
    gives the [`TermOutput`] of [`TermInputs`]; like `advantage` it is `None` where TRL computes it. `divergence` estimates
    a KL, see [`~objective.divergences.reverse_kl`], to each of the `anchors`; those with one of the `coefficients` are
    terms of the loss, which TRL adds where it computes all of it, `is_trls`, and that to the reference is taken from the
    rewards with the coefficient `penalty`. Where `corrects_divergences`, an estimate carries a ratio of this `level`,
    `"token"` or `"sequence"`. `token_advantage` gives advantages `(B, T)` for [`TermInputs`]; `holds_correction` says that
    the ratio of `policy` is to the engine's log-probs.
    """

    advantage: Callable[..., torch.Tensor] | None
    takes_lengths: bool
    is_zero_without_variance: bool
    domain: Domain
    length_weights: Callable[..., torch.Tensor] | None
    token_advantage: Callable[[TermInputs], torch.Tensor] | None
    policy: Callable[[TermInputs], Any] | None
    is_inert_on_policy: bool
    holds_correction: bool
    divergence: Callable[..., torch.Tensor]
    takes_mask: bool
    anchors: tuple[str, ...]
    coefficients: Mapping[str, float]
    penalty: float
    is_trls: bool
    level: str
    corrects_divergences: bool

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "Objective":
        """The parts that a resolved configuration means, with their settings."""
        parts = chosen_parts(values)
        penalty = values["beta"] if penalizes_rewards(values) else 0.0
        advantage = _bound(parts.advantage, values)
        if advantage is None and penalty:
            # TRL's are those of the rewards that it knows.
            advantage = partial(trls_advantages, scale_rewards=values["scale_rewards"])
        level = values["importance_sampling_level"]
        holds_correction = parts.policy.holds_correction(values)
        return cls(
            advantage=advantage,
            takes_lengths=parts.advantage is not None and parts.advantage.takes("lengths"),
            is_zero_without_variance=parts.advantage is None or parts.advantage.is_zero_without_variance,
            domain=Domain() if parts.advantage is None else parts.advantage.domain_of(values),
            length_weights=_bound(parts.weights, values),
            token_advantage=_bound(parts.token_advantage, values),
            policy=_bound(parts.policy, values),
            is_inert_on_policy=parts.policy.is_inert_on_policy and not holds_correction,
            holds_correction=holds_correction,
            divergence=_bound(parts.divergence, values),
            takes_mask=parts.divergence.takes("mask"),
            anchors=tuple(name for name, anchor in ANCHORS.items() if values[anchor.coefficient] != 0.0),
            coefficients=loss_coefficients(values),
            penalty=penalty,
            is_trls=parts.leave_loss_to_trl(values),
            # A policy term of another level leaves the KL terms a ratio of each token.
            level="sequence" if level == "sequence" else "token",
            corrects_divergences=values["use_bias_correction_kl"],
        )

    def scored(self, inputs: Mapping[str, Any], logps: torch.Tensor, entropies: torch.Tensor) -> dict[str, Any]:
        """
        What a forward pass changes in a micro-batch of TRL's: `"terms"`, the [`TermInputs`], and the tensors with which
        TRL's loss leaves to them what it does not compute; see [`term_inputs`].
        """
        terms = term_inputs(inputs, logps, entropies)
        if self.token_advantage is not None:
            terms = replace(terms, advantages=_token_advantages(self.token_advantage(terms), terms.mask))
        # Zero advantages take TRL's policy term out exactly; its other terms stay.
        weighted = _prompt_weighted(terms.advantages, inputs.get("prompt_weights"))
        advantages = weighted if self.policy is None else torch.zeros_like(weighted)
        anchors = _muted_anchors(inputs, logps, keeps_divergence=self.is_trls)
        return {"terms": terms, "advantages": advantages} | anchors

    def correction(self, terms: TermInputs, inputs: Mapping[str, Any]) -> torch.Tensor:
        """TRL's factor `(B, 1)` or `(B, T)` for the mismatch to the engine, 1 where the policy term has it in its ratio."""
        ones = torch.ones_like(terms.logps[:, :1])
        in_ratio = self.holds_correction and terms.sampling_logps is not None
        return ones if in_ratio else inputs.get("importance_sampling_ratio", ones)

    def reward_penalties(self, rollout: Mapping[str, Any], score: Callable[[], torch.Tensor]) -> torch.Tensor:
        """
        What is taken from the rewards `(B,)` of a rollout, in their unit: the coefficient times k1, the sum over the
        counted tokens of the log-ratio of the policy that made it to the reference.

        `score` gives that policy's log-probs `(B, T)` where the rollout does not hold them.
        """
        old_logps = rollout.get("old_per_token_logps")
        old_logps = (score() if old_logps is None else old_logps).float()
        reference = bounded_anchor(rollout["ref_per_token_logps"].float(), old_logps, MAX_DIVERGENCE_LOG_RATIO)
        return self.penalty * trajectory_log_weight(old_logps, reference, counted_tokens(rollout))

    def divergences(self, inputs: TermInputs) -> dict[str, torch.Tensor]:
        """KL `(B, T)` in nats to each anchor, by its name."""
        logps = inputs.logps
        old_logps = bounded_anchor(inputs.old_logps.float(), logps, MAX_IMPORTANCE_LOG_RATIO)
        log_ratio = importance_log_ratio(logps, old_logps, inputs.mask, self.level)
        if not self.corrects_divergences:
            log_ratio = torch.zeros_like(log_ratio)
        return {
            name: self.divergence(
                logps,
                bounded_anchor(inputs.anchors[name].float(), logps, MAX_DIVERGENCE_LOG_RATIO),
                log_ratio,
                **({"mask": inputs.mask} if self.takes_mask else {}),
            )
            for name in self.anchors
        }

    def added_loss(
        self,
        inputs: TermInputs,
        *,
        factor: torch.Tensor,
        weight: torch.Tensor,
        kept: torch.Tensor,
        on_policy: bool = False,
        prompt_weights: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """
        Sum of all that TRL does not compute, and values `(B, T)` or `(B,)` whose means are metrics.

        `factor` is what TRL multiplies its own policy term with, `(B, 1)` or `(B, T)`; `weight` that of a token, see
        [`~objective.aggregation.token_weight`]; `kept` are Booleans `(B, T)`: the tokens on which a KL acts;
        `prompt_weights` `(B,)` multiply all terms of a row. With
        `on_policy` the policy is the one that made the rollout, at which the metrics of some terms are constants,
        which are left out.
        """
        total = inputs.logps.new_zeros(())
        metrics: dict[str, torch.Tensor] = {}
        if self.policy is not None:
            output = self.policy(inputs)
            output = output if isinstance(output, TermOutput) else TermOutput(output)
            losses = _counted(output.losses, inputs.mask, factor, weight)
            total = total + (_prompt_weighted(losses, prompt_weights) * weight).sum()
            if not (on_policy and self.is_inert_on_policy):
                metrics |= output.metrics
        for name, values in self.divergences(inputs).items():
            metrics[ANCHORS[name].metric] = values
            if name in self.coefficients and not self.is_trls:
                counted = _prompt_weighted(torch.where(kept, values, 0.0), prompt_weights)
                total = total + self.coefficients[name] * (counted * weight).sum()
        return total, metrics


def _prompt_weighted(losses: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Losses or advantages `(B, T)` or `(B,)`, times a weight `(B,)` of each row's prompt if there is one."""
    if weights is None:
        return losses
    return losses * (weights if losses.dim() == 1 else weights.unsqueeze(1))


def _token_advantages(advantages: Any, mask: torch.Tensor) -> torch.Tensor:
    if not isinstance(advantages, torch.Tensor) or advantages.shape != mask.shape:
        shape = tuple(advantages.shape) if isinstance(advantages, torch.Tensor) else type(advantages).__name__
        raise ValueError(f"`token_advantage` gives one advantage per token, shape {tuple(mask.shape)}; got {shape}.")
    return advantages


def _counted(losses: Any, mask: torch.Tensor, factor: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Losses of the policy term, times their factor, and 0 where there is no token that counts."""
    if not isinstance(losses, torch.Tensor) or losses.shape not in (mask.shape, mask.shape[:1]):
        shape = tuple(losses.shape) if isinstance(losses, torch.Tensor) else type(losses).__name__
        raise ValueError(
            f"A policy term gives a loss per token, shape {tuple(mask.shape)}, or per trajectory, shape "
            f"{tuple(mask.shape[:1])}; got {shape}."
        )
    if losses.dim() == 2:
        return torch.where(mask.bool(), losses * factor, 0.0)
    if weight.dim() > 0 or factor.size(1) > 1:
        raise ValueError(
            "A policy term that gives one loss per trajectory needs a loss type that weights all tokens alike ('dr_grpo', "
            "'dapo', 'bnpo') and a factor per sequence from vLLM's correction."
        )
    return torch.where(mask.any(dim=1), losses * factor.squeeze(1), 0.0)


def _bound(part: Part | None, values: Mapping[str, Any]) -> Any:
    """A part's function with its settings."""
    if part is None or part.function is None:
        return None
    high = values["epsilon"] if values["epsilon_high"] is None else values["epsilon_high"]
    fields = {**values, "epsilon_high": high}
    own = {setting.name for setting in part.settings}
    settings = {name: fields[name] for name in part.keywords() if name in own and name in fields}
    return partial(part.function, **settings, **(values.get(part.kwargs_field) or {}))
