# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What the theory says about a run before it happens: under which settings it says anything, and from which counts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..combinations import part_label
from ..runs.intervals import wilson_interval
from ..theory.logodds import Array, logit, sigmoid
from ..theory.signal import Signal, make_signal
from ..theory.step import Step


@dataclass(frozen=True)
class Counts:
    """
    Outcomes of one visit to each of several prompts.

    Parameters:
        successes (`np.ndarray`):
            Successful completions, shape `(n,)`.
        completions (`np.ndarray`):
            Completions that were scored, shape `(n,)`, each at least 1.
    """

    successes: Array
    completions: Array

    @property
    def estimate(self) -> Array:
        """
        Success rates of the policy, shape `(n,)`, always inside (0, 1): the share of successes, or where it is 0 or 1
        the Jeffreys mean (k + 1/2)/(n + 1). No or only successes in a sample do not make a prompt impossible or sure.
        """
        share = self.successes / self.completions
        inside = (share > 0.0) & (share < 1.0)
        return np.where(inside, share, (self.successes + 0.5) / (self.completions + 1.0))

    @property
    def interval(self) -> tuple[Array, Array]:
        """Wilson's 95 % intervals, two arrays of shape `(n,)`: from 0 without a success, to 1 without a failure."""
        low, high = wilson_interval(self.successes / self.completions, self.completions)
        # Rounding leaves the end on the wrong side of a share of 0 or 1.
        return np.where(self.successes > 0, low, 0.0), np.where(self.successes < self.completions, high, 1.0)


@dataclass(frozen=True)
class Forecast:
    """
    Success at the next visit to a prompt, from the counts of its first and of its last visit.

    The iteration is that of [Mroueh](https://huggingface.co/papers/2503.06639) in log-odds, with the signal that the
    groups of the last visit had in fact, k successes in G, as the trainer computes it:

        (beta + mirror_beta) L_n = beta L_ref + mirror_beta L_{n-1} + Omega_G(k),    Omega = 0 if k is 0 or G.

    Where no group was without signal this is [`success_step`] at the shares that were counted (derived for the rest:
    a group without signal has advantages of 0, so that only the KL terms act on it, or nothing if they are masked).
    Everything else that moves a policy between two visits to a prompt is left out: other prompts, the clip, and
    that a few gradient steps are no maximisation.

    Parameters:
        beta (`float`):
            Coefficient of the KL to the reference.
        mirror_beta (`float`):
            Coefficient of the KL to the previous policy; 0 where that term is inert.
        signal ([`~theory.signal.Signal`]):
            Omega of the advantage.
        masks_groups (`bool`):
            Whether groups without signal are masked.
    """

    beta: float
    mirror_beta: float
    signal: Signal
    masks_groups: bool

    @classmethod
    def from_config(cls, args: Any) -> "Forecast":
        """The forecast of a run with this resolved configuration, for which [`why_not`] has no reason."""
        part = args.parts.advantage
        fields = {
            setting.name: getattr(args, setting.name) for setting in part.settings if hasattr(args, setting.name)
        }
        return cls(
            beta=float(args.beta),
            mirror_beta=_active_mirror_beta(args),
            signal=make_signal(part, fields | (args.advantage_kwargs or {})),
            masks_groups=args.mask_zero_variance_groups,
        )

    @property
    def is_dual(self) -> bool:
        """Whether both KL terms act."""
        return self.beta > 0.0 and self.mirror_beta > 0.0

    def signals(self, groups: Counts) -> Array:
        """Omega of each group, as the trainer computes it from the group's own outcomes; 0 without signal."""
        mixed = (groups.successes > 0) & (groups.successes < groups.completions)
        omegas = np.zeros(mixed.shape)
        omegas[mixed] = self.signal.of_group(groups.successes[mixed], groups.completions[mixed])
        return omegas

    def predict(self, reference: Counts, previous: Counts, signals: Array) -> tuple[Array, Array, Array]:
        """
        Predict the success at the next visit from the counts of n first and n last visits and Omega of the last ones.

        The prediction rises with the success of both anchors, so that the ends of its interval are those for the ends
        of the anchors' 95 % intervals: as sure as these where one anchor acts, and rather too wide where two do. The
        interval is one for the success of the policy, without the sampling of the next groups.

        Returns:
            `tuple[np.ndarray, np.ndarray, np.ndarray]`:
                Predictions, lower and upper ends, each of shape `(n,)`.
        """
        step = Step(self.beta, self.mirror_beta, self.signal)
        unmoved = (signals == 0.0) & self.masks_groups

        def after(at_reference: Array, at_previous: Array) -> Array:
            moved = step.shifted(step.anchor(logit(at_previous), logit(at_reference)), signals)
            return np.where(unmoved, at_previous, sigmoid(moved))

        ends = zip(reference.interval, previous.interval, strict=True)
        low, high = (after(*anchors) for anchors in ends)
        return after(reference.estimate, previous.estimate), low, high

    def renyi_residual(self, log_ratios: Array, successes: NDArray[np.bool_]) -> float | None:
        r"""
        Estimate, from one group, the Renyi correction of the two-KL theorem, which exact iteration keeps at 0.

        With w = pi_ref(o)/pi_{n-1}(o) and alpha = beta/(beta + mirror_beta) it is Delta = log H_S - log H_F, where
        H_X = E[w^alpha | X] / E[w | X]^alpha over the successes, respectively failures, of pi_{n-1}: how much further
        the policy has moved from the reference within one set than within the other. With plain means for the
        expectations, small groups bias it towards 0.

        Takes log w and whether they succeeded of G completions, and returns Delta in nats of log-odds; `None` with fewer
        than two successes or two failures.
        """
        if min(successes.sum(), (~successes).sum()) < 2:
            return None
        alpha = self.beta / (self.beta + self.mirror_beta)
        parts = [
            _log_mean_exp(alpha * log_ratios[chosen]) - alpha * _log_mean_exp(log_ratios[chosen])
            for chosen in (successes, ~successes)
        ]
        return parts[0] - parts[1]


def why_not(args: Any, reward_weights: Sequence[float]) -> str | None:
    """Why the theory predicts nothing for a run, as part of a sentence; `None` where there is a prediction."""
    if args.beta == 0.0 and args.mirror_beta == 0.0:
        return "there is no KL term (`beta` and `mirror_beta` are 0), and any policy of success 1 is optimal"
    if args.beta == 0.0 and _active_mirror_beta(args) == 0.0:
        return (
            "the only KL term is inert: with one optimizer step per rollout the KL to the previous policy has no "
            "gradient"
        )
    if args.mirror_beta != 0.0 and args.mirror_sync_steps is not None:
        return "the previous policy is a snapshot (`mirror_sync_steps`), which made no rollout to count successes in"
    if args.sync_ref_model:
        return "the reference moves (`sync_ref_model`), so that the first visit does not tell its success"
    if args.beta != 0.0 and not args.use_bias_correction_kl:
        return "`use_bias_correction_kl=False` minimises another divergence, the forward KL"
    if args.multi_objective_aggregation != "sum_then_normalize":
        return f"`multi_objective_aggregation={args.multi_objective_aggregation!r}` normalises each reward by itself"
    label, advantage = part_label(args, "advantage"), args.parts.advantage
    if advantage is not None and advantage.is_of_rollout:
        return f"{label} takes statistics over all prompts of a rollout, which ties their advantages together"
    if advantage is None or _signal(args) is None:
        return f"{label} has no signal that is known as a function of the prompt's success alone"
    if not advantage.is_zero_without_variance:
        return f"{label} moves groups whose rewards are all equal, of which its step knows nothing"
    if args.length_weight_power != 0.0:
        return f"`length_weight_power={args.length_weight_power}` gives completions of different lengths different weights"
    if args.entropy_coef != 0.0 or args.use_adaptive_entropy:
        return "the entropy bonus is a term that it does not have"
    if [weight for weight in reward_weights if weight != 0.0] != [1.0]:
        return "it is about one reward of 0 or 1, and here are several reward functions or a weight other than 1"
    return None


def _signal(args: Any) -> Signal | None:
    """Signal of a run's advantage; `None` where it has none."""
    part = args.parts.advantage
    fields = {setting.name: getattr(args, setting.name) for setting in part.settings if hasattr(args, setting.name)}
    try:
        return make_signal(part, fields | (args.advantage_kwargs or {}))
    except ValueError:
        return None


def _active_mirror_beta(args: Any) -> float:
    is_inert = args.is_on_policy and args.mirror_sync_steps is None
    return 0.0 if is_inert else float(args.mirror_beta)


def _log_mean_exp(values: Array) -> float:
    highest = values.max()
    return float(highest + np.log(np.mean(np.exp(values - highest))))
