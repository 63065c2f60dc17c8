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

from ..papers import Paper
from ..suggest import did_you_mean
from .advantages import ADVANTAGES
from .divergences import ANCHORS, DIVERGENCES
from .policies import POLICY_TERMS
from .terms import Advantage, Divergence, P, Part, PolicyTerm


# The axes on which a configuration names a part: its field, the parts, and the field of TRL's that chooses one too.
AXES: dict[str, tuple[Mapping[str, Any], str]] = {
    "advantage": (ADVANTAGES, "scale_rewards"),
    "policy_loss": (POLICY_TERMS, "importance_sampling_level"),
}


# Fields that add to the loss or change it beside the parts, with the values at which they do not.
_OWN_TERMS = {"mirror_beta": 0.0, "mask_zero_variance_groups": False}


@dataclass(frozen=True)
class Parts:
    """The parts of a method. The advantage is `None` where neither a name nor a field says which."""

    advantage: Advantage | None
    policy: PolicyTerm
    divergence: Divergence

    @property
    def are_trls(self) -> bool:
        """Whether TRL computes all of them."""
        return self.policy.function is None and (self.advantage is None or self.advantage.function is None)

    def leave_loss_to_trl(self, values: Mapping[str, Any]) -> bool:
        """Whether TRL computes the whole loss, its KL to the reference among it."""
        stays = all(values.get(name) in (None, neutral) for name, neutral in _OWN_TERMS.items())
        return self.are_trls and self.divergence.name == "k3" and stays

    def papers(self, values: Mapping[str, Any]) -> list[Paper]:
        """Publications of what TRL does not compute, each once."""
        papers: list[Paper | None] = [ANCHORS["previous"].paper] if values.get("mirror_beta") else []
        papers += [
            part.paper for part in (self.advantage, self.policy) if part is not None and part.function is not None
        ]
        if any(values.get(anchor.coefficient) for anchor in ANCHORS.values()) and self.divergence.name != "k3":
            papers.append(self.divergence.paper)
        return [paper for paper in dict.fromkeys(papers) if paper is not None]


def chosen_parts(values: Mapping[str, Any]) -> Parts:
    """
    The parts that the fields of a configuration mean; those that are missing choose nothing.

    Raises a `ValueError` if a name is none of a part and cannot be imported either.
    """
    return Parts(
        advantage=_chosen(ADVANTAGES, Advantage, "advantage", values),
        policy=_chosen(POLICY_TERMS, PolicyTerm, "policy_loss", values) or POLICY_TERMS["clipped"],
        divergence=DIVERGENCES[values.get("kl_estimator") or "k3"],
    )


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
    return PolicyTerm(name, value, f"{attribute}(pi, A)", None, symbols=symbols, is_inert_on_policy=False)
