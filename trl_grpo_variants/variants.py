# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The named variants: each published method as a frozen bundle of small parts. Plain data, no torch, no TRL."""

import textwrap
from dataclasses import asdict, dataclass, field
from typing import Any

from .suggest import did_you_mean


@dataclass(frozen=True)
class Paper:
    """
    Publication that a variant comes from.

    Parameters:
        title (`str`):
            Title.
        id (`str`):
            arXiv id.
        citation (`str`):
            BibTeX entry.
    """

    title: str
    id: str
    citation: str


DEEPSEEKMATH = Paper(
    title="DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models",
    id="2402.03300",
    citation=textwrap.dedent("""\
        @article{shao2024deepseekmath,
            title        = {{DeepSeekMath: Pushing the Limits of Mathematical Reasoning in Open Language Models}},
            author       = {Zhihong Shao and others},
            year         = 2024,
            eprint       = {arXiv:2402.03300},
        }"""),
)
GRPO_DYNAMICS = Paper(
    title="Reinforcement Learning with Verifiable Rewards: GRPO's Effective Loss, Dynamics, and Success Amplification",
    id="2503.06639",
    citation=textwrap.dedent("""\
        @article{mroueh2025grpodynamics,
            title        = {{Reinforcement Learning with Verifiable Rewards: GRPO's Effective Loss, Dynamics, and Success Amplification}},
            author       = {Youssef Mroueh},
            year         = 2025,
            eprint       = {arXiv:2503.06639},
        }"""),  # noqa: E501
)
TIC_GRPO = Paper(
    title="TIC-GRPO: Provable and Efficient Optimization for Reinforcement Learning from Human Feedback",
    id="2508.02833",
    citation=textwrap.dedent("""\
        @article{pang2025ticgrpo,
            title        = {{TIC-GRPO: Provable and Efficient Optimization for Reinforcement Learning from Human Feedback}},
            author       = {Lei Pang and Jun Luo and Ruinan Jin},
            year         = 2025,
            eprint       = {arXiv:2508.02833},
        }"""),  # noqa: E501
)


# The fields of the parts are fields of `GRPOVariantConfig`, except `Schedule.inner_steps`; None leaves TRL's default.
@dataclass(frozen=True)
class Advantage:
    """How rewards become advantages within a group."""

    scale_rewards: str | None = None
    reward_variance_epsilon: float | None = None

    def __str__(self) -> str:
        if self.reward_variance_epsilon is not None:
            return f"(r - mean) / sqrt(var + {self.reward_variance_epsilon:g})"
        if self.scale_rewards == "group":
            return "(r - mean) / (std + 1e-4)"
        return "r - mean" if self.scale_rewards == "none" else "TRL's"


@dataclass(frozen=True)
class Ratio:
    """Importance ratio, its clip, and where the gradient is taken without one."""

    importance_sampling_level: str | None = None
    no_is_gradient: str | None = None
    trajectory_clip: str | None = None
    epsilon: float | None = None
    epsilon_high: float | None = None
    delta: float | None = None

    def __str__(self) -> str:
        if self.importance_sampling_level is None:
            return "TRL's"
        high = self.epsilon if self.epsilon_high is None else self.epsilon_high
        bounds = None
        if self.trajectory_clip == "upper" and high is not None:
            bounds = f"capped at {1 + high:g}"
        elif self.epsilon is not None and high is not None:
            bounds = f"clip {1 - self.epsilon:g} to {1 + high:g}"
        details = (
            self.importance_sampling_level,
            self.no_is_gradient and f"{self.no_is_gradient} gradient",
            bounds,
            self.delta and f"delta {self.delta:g}",
        )
        return ", ".join(text for text in details if text)


@dataclass(frozen=True)
class Divergence:
    """Coefficients of the KL to the fixed reference (`beta`) and to the previous policy (`mirror_beta`)."""

    beta: float | None = None
    mirror_beta: float | None = None

    def __str__(self) -> str:
        if self.beta is None and self.mirror_beta is None:
            return "TRL's"
        anchors = {"reference": self.beta, "previous": self.mirror_beta}
        return " + ".join(f"{beta:g} to {anchor}" for anchor, beta in anchors.items() if beta) or "none"


@dataclass(frozen=True)
class Schedule:
    """How a rollout is spent: `inner_steps` optimizer steps on different completions, `num_iterations` passes."""

    num_iterations: int | None = None
    inner_steps: int | None = None
    group_preserving_split: bool | None = None

    def __str__(self) -> str:
        details = (
            self.num_iterations and f"{self.num_iterations} pass{'es' if self.num_iterations > 1 else ''}",
            self.inner_steps and f"{self.inner_steps} steps per rollout",
            self.group_preserving_split and "whole groups",
        )
        return ", ".join(text for text in details if text) or "TRL's"


@dataclass(frozen=True)
class Variant:
    """
    A published method as a bundle of parts.

    Parameters:
        name (`str`):
            Name, as given in the `variant` field of [`GRPOVariantConfig`].
        summary (`str`):
            One sentence.
        formula (`str`):
            Objective of one rollout, in plain text.
        paper ([`Paper`]):
            Source.
        inert_when (`str`, *optional*, defaults to `"never"`):
            Setting under which the variant does nothing that stock GRPO would not do.
        advantage ([`Advantage`], *optional*):
            Advantage normalisation.
        ratio ([`Ratio`], *optional*):
            Importance ratio and clip.
        divergence ([`Divergence`], *optional*):
            KL coefficients.
        loss_type (`str`, *optional*):
            TRL's `loss_type`; `None` leaves TRL's default.
        schedule ([`Schedule`], *optional*):
            Use of a rollout.
    """

    name: str
    summary: str
    formula: str
    paper: Paper
    inert_when: str = "never"
    advantage: Advantage = field(default=Advantage())
    ratio: Ratio = field(default=Ratio())
    divergence: Divergence = field(default=Divergence())
    loss_type: str | None = None
    schedule: Schedule = field(default=Schedule())

    @property
    def settings(self) -> dict[str, Any]:
        """The config fields that the variant sets, with `inner_steps` among them."""
        parts = (self.advantage, self.ratio, self.divergence, self.schedule)
        merged = {"loss_type": self.loss_type} | {key: value for part in parts for key, value in asdict(part).items()}
        return {key: value for key, value in merged.items() if value is not None}


_VARIANTS: dict[str, Variant] = {}


def register_variant(variant: Variant) -> None:
    """
    Make a variant selectable by its name.

    Args:
        variant ([`Variant`]):
            Bundle of parts under a new name.

    Raises:
        `TypeError`: If it is not a [`Variant`].
        `ValueError`: If the name is taken.
    """
    if not isinstance(variant, Variant):
        raise TypeError(f"`variant` must be a Variant; got {variant!r}.")
    if variant.name in _VARIANTS:
        raise ValueError(f"A variant named {variant.name!r} is already registered; choose another name.")
    _VARIANTS[variant.name] = variant


def list_variants() -> list[str]:
    """
    Names of the registered variants.

    Returns:
        `list[str]`:
            Names in the order of registration.
    """
    return list(_VARIANTS)


def get_variant(name: str) -> Variant:
    """
    Look a variant up.

    Args:
        name (`str`):
            Name of a registered variant.

    Returns:
        [`Variant`]:
            Its parts.

    Raises:
        `ValueError`: If there is no such variant; the message lists the known names and suggests the nearest.
    """
    if not isinstance(name, str):
        raise ValueError(f"`variant` must be the name of a variant; got {name!r}.")
    if name not in _VARIANTS:
        raise ValueError(
            f"Unknown variant {name!r}; the known variants are {', '.join(_VARIANTS)}{did_you_mean(name, _VARIANTS)}"
        )
    return _VARIANTS[name]


_SMOOTHED = Advantage(scale_rewards="group", reward_variance_epsilon=1e-5)
_MEAN_ONLY = Advantage(scale_rewards="none")
_TRL_STD = Advantage(scale_rewards="group")
_TOKEN = Ratio(importance_sampling_level="token", epsilon=0.2, epsilon_high=0.2)
_INNER_STEPS = Schedule(inner_steps=4)
_DISJOINT_PROMPTS = Schedule(inner_steps=4, num_iterations=1, group_preserving_split=True)
_REUSED = Schedule(num_iterations=4)

_ONE_STEP = "a rollout serves one optimizer step: raise num_iterations or steps_per_generation"
_MIRROR_INERT = f"{_ONE_STEP}, or set mirror_sync_steps"

_A_STD = "A = (r - mean) / sqrt(var + 1e-5)"
_A_MEAN = "A = r - mean"
_POLICY = "-min(rho A, clip(rho, 0.8, 1.2) A)"


def _regularized(name: str, advantage: Advantage, anchors: str, **parts: Any) -> Variant:
    """One cell of the grid {mean + variance, mean-only} x {reference, mirror, dual} of paper 2503.06639."""
    normalization = "mean-only" if advantage is _MEAN_ONLY else "mean + variance"
    terms = {
        "reference": "0.1 KL(pi || pi_ref)",
        "mirror": "0.1 KL(pi || pi_prev)",
        "dual": "0.05 KL(pi || pi_ref) + 0.05 KL(pi || pi_prev)",
    }
    betas = {
        "reference": Divergence(beta=0.1, mirror_beta=0.0),
        "mirror": Divergence(beta=0.0, mirror_beta=0.1),
        "dual": Divergence(beta=0.05, mirror_beta=0.05),
    }
    towards = {
        "reference": "the fixed reference",
        "mirror": "the previous policy",
        "dual": "both the fixed reference and the previous policy",
    }
    return Variant(
        name=name,
        summary=f"GRPO with {normalization} advantages, regularised towards {towards[anchors]}.",
        formula=f"(1/T) mean_i sum_t [{_POLICY} + {terms[anchors]}],  "
        f"{_A_MEAN if advantage is _MEAN_ONLY else _A_STD}",
        paper=GRPO_DYNAMICS,
        advantage=advantage,
        ratio=_TOKEN,
        divergence=betas[anchors],
        loss_type="dr_grpo",
        **parts,
    )


for _variant in (
    Variant(
        name="grpo",
        summary="Stock TRL; the baseline of every comparison.",
        formula="agg(-min(rho A, clip(rho, 1 - eps, 1 + eps_high) A) + beta KL(pi || pi_ref))",
        paper=DEEPSEEKMATH,
    ),
    Variant(
        name="mean_only",
        summary="Stock TRL with mean-only advantages.",
        formula=f"agg({_POLICY}),  {_A_MEAN}",
        paper=GRPO_DYNAMICS,
        advantage=_MEAN_ONLY,
        ratio=Ratio(importance_sampling_level="token"),
    ),
    _regularized("mirror", _SMOOTHED, "mirror", schedule=_REUSED, inert_when=_MIRROR_INERT),
    _regularized("mirror_mean_only", _MEAN_ONLY, "mirror", schedule=_REUSED, inert_when=_MIRROR_INERT),
    _regularized("dual", _SMOOTHED, "dual", schedule=_REUSED, inert_when=f"(mirror part only) {_MIRROR_INERT}"),
    _regularized(
        "dual_mean_only", _MEAN_ONLY, "dual", schedule=_REUSED, inert_when=f"(mirror part only) {_MIRROR_INERT}"
    ),
    _regularized("reference", _SMOOTHED, "reference"),
    _regularized("reference_mean_only", _MEAN_ONLY, "reference"),
    Variant(
        name="no_is",
        summary="Importance sampling removed; the gradient is the score at the current policy.",
        formula="mean_i (1/|o_i|) sum_t -A log pi,  A = (r - mean) / (std + 1e-4)",
        paper=TIC_GRPO,
        inert_when=_ONE_STEP,
        advantage=_TRL_STD,
        ratio=Ratio(importance_sampling_level="none", no_is_gradient="current"),
        divergence=Divergence(beta=0.0, mirror_beta=0.0),
        loss_type="grpo",
        schedule=_INNER_STEPS,
    ),
    Variant(
        name="no_is_frozen",
        summary="Importance sampling removed; every inner step differentiates at the policy that made the rollout.",
        formula="gradient of mean_i (1/|o_i|) sum_t -A log pi at pi = pi_old,  A = (r - mean) / (std + 1e-4)",
        paper=TIC_GRPO,
        inert_when=_ONE_STEP,
        advantage=_TRL_STD,
        ratio=Ratio(importance_sampling_level="none", no_is_gradient="frozen"),
        divergence=Divergence(beta=0.0, mirror_beta=0.0),
        loss_type="grpo",
        schedule=_INNER_STEPS,
    ),
    Variant(
        name="tic_grpo",
        summary="TIC-GRPO (v5): one importance weight per trajectory, capped from above for both signs of A.",
        formula=f"-(1/T) mean_i min(w_i, 1.28) A_i,  w_i = prod_t rho_it,  {_A_MEAN}",
        paper=TIC_GRPO,
        inert_when=_ONE_STEP,
        advantage=_MEAN_ONLY,
        ratio=Ratio(importance_sampling_level="trajectory", trajectory_clip="upper", epsilon_high=0.28),
        divergence=Divergence(beta=0.0, mirror_beta=0.0),
        loss_type="dr_grpo",
        schedule=_DISJOINT_PROMPTS,
    ),
    Variant(
        name="tic_grpo_v2",
        summary="TIC-GRPO (v2): one importance weight per trajectory, standardised advantages, PPO's two-sided clip.",
        formula="-(1/T) mean_i min(w_i A_i, clip(w_i, 0.8, 1.2) A_i),  w_i = prod_t rho_it,  "
        "A = (r - mean) / (std + 1e-4)",
        paper=TIC_GRPO,
        inert_when=_ONE_STEP,
        advantage=_TRL_STD,
        ratio=Ratio(
            importance_sampling_level="trajectory", trajectory_clip="two_sided", epsilon=0.2, epsilon_high=0.2
        ),
        divergence=Divergence(beta=0.0, mirror_beta=0.0),
        loss_type="dr_grpo",
        schedule=_DISJOINT_PROMPTS,
    ),
    Variant(
        name="grpo_upper_clip",
        summary="TIC-GRPO's intermediate: token ratios capped from above for both signs of A. Stock TRL computes it.",
        formula=f"-(1/T) mean_i sum_t min(rho_it, 1.28) A_i,  {_A_MEAN}",
        paper=TIC_GRPO,
        inert_when=_ONE_STEP,
        advantage=_MEAN_ONLY,
        ratio=Ratio(importance_sampling_level="token", epsilon=1.0, epsilon_high=0.28, delta=1.28),
        divergence=Divergence(beta=0.0, mirror_beta=0.0),
        loss_type="dr_grpo",
        schedule=_DISJOINT_PROMPTS,
    ),
):
    register_variant(_variant)
