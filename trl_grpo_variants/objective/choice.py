# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Which parts a configuration means: those that it names, those that its fields choose, and a user's own functions."""

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

from ..checks import check_choice
from ..papers import RLOO, Paper
from ..suggest import did_you_mean
from .advantages import ADVANTAGES
from .advantages.lengths import LENGTH_WEIGHTS
from .divergences import ANCHORS, DIVERGENCES
from .policies import POLICY_TERMS
from .terms import Advantage, Divergence, P, Part, PolicyTerm, TokenAdvantage
from .token_advantages import TOKEN_ADVANTAGES


# The axes on which a configuration names a part: its field, the parts, and the field of TRL's that chooses one too, or
# its own field where TRL has none.
AXES: dict[str, tuple[Mapping[str, Any], str]] = {
    "advantage": (ADVANTAGES, "scale_rewards"),
    "policy_loss": (POLICY_TERMS, "importance_sampling_level"),
    "token_advantage": (TOKEN_ADVANTAGES, "token_advantage"),
}


# Fields that add to the loss or change it beside the parts, with the values at which they do not.
_OWN_TERMS = {"mirror_beta": 0.0, "mask_zero_variance_groups": False, "kl_placement": "loss"}
_OWN_TERMS |= {"prompt_weights": "equal"}


@dataclass(frozen=True)
class Parts:
    """
    The parts of a method. The advantage is `None` where neither a name nor a field says which, the weights of its
    completions where all have the same.
    """

    advantage: Advantage | None
    policy: PolicyTerm
    divergence: Divergence
    token_advantage: TokenAdvantage
    weights: Part | None = None

    def on(self, axis: str) -> Part | None:
        """The part on an axis, by the name of its field."""
        return getattr(self, axis.removesuffix("_loss"))

    @property
    def are_trls(self) -> bool:
        """Whether TRL computes all of them."""
        return all(part is None or part.function is None for part in map(self.on, AXES))

    def leave_loss_to_trl(self, values: Mapping[str, Any]) -> bool:
        """Whether TRL computes the whole loss, its KL to the reference among it."""
        stays = all(values.get(name) in (None, neutral) for name, neutral in _OWN_TERMS.items())
        return self.are_trls and self.weights is None and self.divergence.name == "k3" and stays

    def papers(self, values: Mapping[str, Any]) -> list[Paper]:
        """Publications of what TRL does not compute, each once."""
        papers: list[Paper | None] = [ANCHORS["previous"].paper] if values.get("mirror_beta") else []
        parts = [*map(self.on, AXES), self.weights]
        papers += [part.paper for part in parts if part is not None and part.function is not None]
        if loss_coefficients(values) and self.divergence.name != "k3":
            papers.append(self.divergence.paper)
        if penalizes_rewards(values):
            papers.append(RLOO)
        return [paper for paper in dict.fromkeys(papers) if paper is not None]


def chosen_parts(values: Mapping[str, Any]) -> Parts:
    """
    The parts that the fields of a configuration mean; those that are missing choose nothing.

    Raises a `ValueError` if a name is none of a part and cannot be imported either.
    """
    estimator = values.get("kl_estimator") or "k3"
    if estimator == "k1":
        raise ValueError(
            "`kl_estimator='k1'` has an expected gradient of zero in the loss while the policy is the one that made the "
            "rollout; use 'k3' or 'k2', whose gradient is that of the reverse KL, or `kl_placement='reward'`, where the KL is "
            "estimated by k1."
        )
    check_choice("kl_estimator", estimator, tuple(DIVERGENCES))
    return Parts(
        advantage=_chosen(ADVANTAGES, Advantage, "advantage", values),
        policy=_chosen(POLICY_TERMS, PolicyTerm, "policy_loss", values) or POLICY_TERMS["clipped"],
        divergence=DIVERGENCES[estimator],
        token_advantage=_chosen(TOKEN_ADVANTAGES, TokenAdvantage, "token_advantage", values)
        or TOKEN_ADVANTAGES["uniform"],
        weights=LENGTH_WEIGHTS if values.get("length_weight_power") else None,
    )


def penalizes_rewards(values: Mapping[str, Any]) -> bool:
    """Whether the KL to the reference is taken from the rewards, and no term of the loss."""
    return bool(values.get("beta")) and values.get("kl_placement") == "reward"


def loss_coefficients(values: Mapping[str, Any]) -> dict[str, float]:
    """Coefficient of each KL in the loss that has one, by the name of its anchor."""
    coefficients = {name: values.get(anchor.coefficient) for name, anchor in ANCHORS.items()}
    if penalizes_rewards(values):
        del coefficients["reference"]
    return {name: value for name, value in coefficients.items() if value}


def importable_name(axis: str, function: Callable[..., Any]) -> str:
    """`"module:function"`, under which another process finds a user's function; a `ValueError` if it does not."""
    name = f"{function.__module__}:{getattr(function, '__qualname__', '')}"
    module = sys.modules.get(function.__module__)
    if getattr(module, name.rpartition(":")[2], None) is not function:
        raise ValueError(
            f"`{axis}` must be a function at the top level of a module, so that a run that resumes finds it; got {name!r}."
        )
    return name


def _chosen(parts: Mapping[str, P], kind: type[P], field: str, values: Mapping[str, Any]) -> P | None:
    name = values.get(field)
    if name is None:
        return next((part for part in parts.values() if part.is_chosen_by(values)), None)
    if isinstance(name, str) and name in parts:
        return parts[name]
    if not isinstance(name, str) or ":" not in name:
        raise ValueError(
            f"`{field}` must be one of {', '.join(map(repr, parts))}, or a function of yours as 'module:function'; got "
            f"{name!r}{did_you_mean(str(name), parts)}"
        )
    return _imported(name, kind, field)  # type: ignore[arg-type]


@lru_cache
def _imported(name: str, kind: Any, field: str) -> Any:
    """A user's function, with the description that it then has, or a user's description."""
    module, _, attribute = name.partition(":")
    if os.getcwd() not in sys.path:
        # As TRL's scripts look for reward functions.
        sys.path.append(os.getcwd())
    try:
        value: Any = import_module(module)
        for part in attribute.split("."):
            value = getattr(value, part)
    except Exception as error:  # what a user's module raises may be anything
        raise ValueError(
            f"`{field}={name!r}` cannot be imported ({type(error).__name__}: {error}); give it as 'module:function' with "
            "a module that Python finds."
        ) from error
    if isinstance(value, kind):
        return value
    if not callable(value) or isinstance(value, Part):
        raise ValueError(f"`{field}={name!r}` must be a function or {kind.__name__} of yours; it is {value!r}.")
    symbols = {attribute: f"`{name}`, a function of the user's, whose formula is not known here"}
    # What it does is not known either, so nothing is concluded from it.
    if kind is Advantage:
        return Advantage(name, value, f"{attribute}(r)", None, symbols=symbols, is_zero_without_variance=False)
    if kind is TokenAdvantage:
        return TokenAdvantage(name, value, f"{attribute}(pi, a)", None, symbols=symbols, relates_rows=True)
    return PolicyTerm(name, value, f"{attribute}(pi, A)", None, symbols=symbols, is_inert_on_policy=False)
