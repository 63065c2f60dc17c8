# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The named variants: each published method as the settings that make it. Plain data."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from .objective.choice import Parts, chosen_parts
from .objective.formula import objective_text
from .papers import DEEPSEEKMATH, GMPO, GRPO_DYNAMICS, K2, RS_GRPO, TIC_GRPO, Paper
from .suggest import did_you_mean


@dataclass(frozen=True)
class Variant:
    """
    A published method, as the settings that make it.

    Parameters:
        name (`str`):
            Name, as given in the `variant` field of [`GRPOVariantConfig`].
        summary (`str`):
            One sentence.
        paper ([`~papers.Paper`]):
            Source.
        settings (`Mapping[str, Any]`):
            Fields of [`GRPOVariantConfig`] with their values, and `inner_steps`, the optimizer steps on different
            completions of a rollout. What is missing is left to TRL.
    """

    name: str
    summary: str
    paper: Paper
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "settings", MappingProxyType(dict(self.settings)))

    @property
    def parts(self) -> Parts:
        """The parts of the method."""
        return chosen_parts(self.settings)

    @property
    def formula(self) -> str:
        """What is minimised, in plain text."""
        return objective_text(self.parts, self.settings)

    @property
    def inert_when(self) -> str:
        """Setting under which the variant does nothing that stock GRPO would not do."""
        settings = self.settings
        one_step = "a rollout serves one optimizer step: raise num_iterations or steps_per_generation"
        if self.parts.policy.is_inert_on_policy or settings.get("delta") is not None:
            return one_step
        if settings.get("mirror_beta"):
            return f"{'(mirror part only) ' if settings.get('beta') else ''}{one_step}, or set mirror_sync_steps"
        return "never"


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


_MEAN_ONLY = {"scale_rewards": "none"}
_TRL_STD = {"scale_rewards": "group"}
_SMOOTHED = {"scale_rewards": "group", "reward_variance_epsilon": 1e-5}
_TOKEN = {"importance_sampling_level": "token", "epsilon": 0.2, "epsilon_high": 0.2}
_TRAJECTORY = {"importance_sampling_level": "trajectory", "loss_type": "dr_grpo"}
_NO_IS = {"importance_sampling_level": "none", "loss_type": "grpo", "inner_steps": 4}
_NO_KL = {"beta": 0.0, "mirror_beta": 0.0}
_DISJOINT_PROMPTS = {"inner_steps": 4, "num_iterations": 1, "group_preserving_split": True}
# Mean + variance or mean-only advantages, pulled towards the reference, the previous policy, or both.
_REGULARIZED = {
    "mirror": ("the previous policy", {"beta": 0.0, "mirror_beta": 0.1, "num_iterations": 4}),
    "dual": (
        "both the fixed reference and the previous policy",
        {"beta": 0.05, "mirror_beta": 0.05, "num_iterations": 4},
    ),
    "reference": ("the fixed reference", {"beta": 0.1, "mirror_beta": 0.0}),
}

for _variant in (
    Variant("grpo", "Stock TRL; the baseline of every comparison.", DEEPSEEKMATH),
    Variant(
        "mean_only",
        "Stock TRL with mean-only advantages.",
        GRPO_DYNAMICS,
        _MEAN_ONLY | {"importance_sampling_level": "token"},
    ),
    *(
        Variant(
            f"{_name}{_suffix}",
            f"GRPO with {_words} advantages, regularised towards {_anchors}.",
            GRPO_DYNAMICS,
            _advantage | _TOKEN | _settings | {"loss_type": "dr_grpo"},
        )
        for _name, (_anchors, _settings) in _REGULARIZED.items()
        for _suffix, _words, _advantage in (
            ("", "mean + variance", _SMOOTHED),
            ("_mean_only", "mean-only", _MEAN_ONLY),
        )
    ),
    Variant(
        "reference_k2",
        "GRPO with mean + variance advantages, regularised towards the fixed reference with the k2 estimator.",
        K2,
        _SMOOTHED | _TOKEN | _REGULARIZED["reference"][1] | {"loss_type": "dr_grpo", "kl_estimator": "k2"},
    ),
    Variant(
        "no_is",
        "Importance sampling removed; the gradient is the score at the current policy.",
        TIC_GRPO,
        _TRL_STD | _NO_IS | _NO_KL | {"no_is_gradient": "current"},
    ),
    Variant(
        "no_is_frozen",
        "Importance sampling removed; every inner step differentiates at the policy that made the rollout.",
        TIC_GRPO,
        _TRL_STD | _NO_IS | _NO_KL | {"no_is_gradient": "frozen"},
    ),
    Variant(
        "tic_grpo",
        "TIC-GRPO (v5): one importance weight per trajectory, capped from above for both signs of A.",
        TIC_GRPO,
        _MEAN_ONLY | _TRAJECTORY | _NO_KL | _DISJOINT_PROMPTS | {"trajectory_clip": "upper", "epsilon_high": 0.28},
    ),
    Variant(
        "tic_grpo_v2",
        "TIC-GRPO (v2): one importance weight per trajectory, standardised advantages, PPO's two-sided clip.",
        TIC_GRPO,
        _TRL_STD
        | _TRAJECTORY
        | _NO_KL
        | _DISJOINT_PROMPTS
        | {"trajectory_clip": "two_sided", "epsilon": 0.2, "epsilon_high": 0.2},
    ),
    Variant(
        "grpo_upper_clip",
        "TIC-GRPO's intermediate: token ratios capped from above for both signs of A. Stock TRL computes it.",
        TIC_GRPO,
        _MEAN_ONLY
        | _NO_KL
        | _DISJOINT_PROMPTS
        | {"importance_sampling_level": "token", "epsilon": 1.0, "epsilon_high": 0.28, "delta": 1.28}
        | {"loss_type": "dr_grpo"},
    ),
    Variant(
        "gmpo",
        "GMPO: the geometric mean of the token ratios of a completion, each clipped in log space.",
        GMPO,
        _TRL_STD
        | _NO_KL
        | {"policy_loss": "geometric", "epsilon": 0.4, "epsilon_high": 0.4, "loss_type": "grpo", "inner_steps": 4},
    ),
    Variant(
        "rs_grpo",
        "RS-GRPO: advantages of a risk-seeking objective, which favours the best completions of a group.",
        RS_GRPO,
        _TOKEN
        | _NO_KL
        | {"advantage": "risk_sensitive", "advantage_kwargs": {"risk": 2.0}, "loss_type": "dr_grpo", "inner_steps": 4},
    ),
):
    register_variant(_variant)
