# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What a method is made of: typed inputs and outputs of its parts, and the description beside each of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ..papers import Paper


if TYPE_CHECKING:
    import torch


# Rewards are float32, and a weighted sum of them rounds once per function.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class TermInputs:
    """
    What a term of the loss may look at: a micro-batch of B completions with up to T tokens.

    Parameters:
        logps (`torch.Tensor`):
            Log-probs `(B, T)` of the policy; the only tensor with a gradient.
        old_logps (`torch.Tensor`):
            Log-probs `(B, T)` of the policy that made the rollout.
        advantages (`torch.Tensor`):
            Advantages `(B,)`, or `(B, T)` where tools or a user give one per token.
        mask (`torch.Tensor`):
            `(B, T)`, 1 for the tokens that the policy produced and that count.
        entropies (`torch.Tensor`):
            Entropies `(B, T)` of the policy, in nats, without a gradient unless the loss has an entropy bonus.
        anchors (`Mapping[str, torch.Tensor]`):
            Log-probs `(B, T)` of other policies by name, see [`~objective.divergences.ANCHORS`].
    """

    logps: torch.Tensor
    old_logps: torch.Tensor
    advantages: torch.Tensor
    mask: torch.Tensor
    entropies: torch.Tensor
    anchors: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @property
    def token_advantages(self) -> torch.Tensor:
        """Advantages that broadcast to tokens: `(B, 1)` or `(B, T)`."""
        return self.advantages.unsqueeze(1) if self.advantages.dim() == 1 else self.advantages


@dataclass(frozen=True)
class TermOutput:
    """
    What a policy term gives.

    Parameters:
        losses (`torch.Tensor`):
            Losses `(B, T)` of tokens or `(B,)` of trajectories, to be minimised, before they are aggregated.
        metrics (`Mapping[str, torch.Tensor]`):
            Values `(B, T)` or `(B,)` by name, whose means over tokens or trajectories are logged.
    """

    losses: torch.Tensor
    metrics: Mapping[str, torch.Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Setting:
    """
    Value that a part reads: a field of the configuration of that name, else an entry of the part's `*_kwargs`.

    Parameters:
        name (`str`):
            Name, that of the function's keyword.
        choices (`tuple[str, ...]`, *optional*):
            Allowed texts; without any the setting is a number.
        at_least (`float`, *optional*):
            Least number.
        greater_than (`float`, *optional*):
            Bound that a number does not reach.
        at_most (`float`, *optional*):
            Greatest number.
        is_whole (`bool`):
            Whether the number is a whole one.
        below (`tuple[str, ...]`, *optional*):
            Fields of the configuration, or other settings of the part, below whose values it lies; a field without a value
            bounds nothing.
        within (`tuple[str, ...]`, *optional*):
            The same for those that it may reach.
        only_with (`Mapping[str, tuple]`, *optional*):
            Values of other fields with which it is read; by default always.
    """

    name: str
    choices: tuple[str, ...] = ()
    at_least: float | None = None
    greater_than: float | None = None
    at_most: float | None = None
    is_whole: bool = False
    below: tuple[str, ...] = ()
    within: tuple[str, ...] = ()
    only_with: Mapping[str, tuple] = field(default_factory=dict)


@dataclass(frozen=True)
class Domain:
    """
    Rewards that an advantage takes: each completion's, summed over the reward functions with their weights. By default
    any.

    Parameters:
        values (`tuple[float, ...]`, *optional*):
            The only ones.
        at_least (`float` or `str`, *optional*):
            The least one, or the name of the setting that is it.
        at_most (`float` or `str`, *optional*):
            The greatest one, or the name of the setting that is it.
    """

    values: tuple[float, ...] = ()
    at_least: float | str | None = None
    at_most: float | str | None = None

    def given(self, settings: Mapping[str, Any]) -> Domain:
        """The same with numbers in the place of the settings that it names."""
        low, high = (settings.get(bound, bound) for bound in (self.at_least, self.at_most))  # type: ignore[arg-type]
        return replace(self, at_least=low, at_most=high)

    @property
    def text(self) -> str:
        """What the rewards are, to stand behind that word."""
        if self.values:
            return f"of {' or '.join(f'{value:g}' for value in self.values)}"
        bounds = {"at least": self.at_least, "at most": self.at_most}
        return " and ".join(f"of {words} {bound:g}" for words, bound in bounds.items() if bound is not None)

    def excludes(self, rewards: torch.Tensor) -> torch.Tensor:
        """Where rewards `(N,)` lie outside by more than their rounding; one that is NaN does not."""
        outside = (rewards == rewards) & bool(self.values)
        for value in self.values:
            outside = outside & ((rewards - value).abs() > _ROUNDING * max(1.0, abs(value)))
        for bound, sign in ((self.at_least, 1), (self.at_most, -1)):
            if bound is not None:
                number = float(bound)
                outside = outside | (sign * (rewards - number) < -_ROUNDING * max(1.0, abs(number)))
        return outside


@dataclass(frozen=True)
class Part:
    """
    Description of one part of a method, from which its names, checks, texts and tests are made.

    Parameters:
        name (`str`):
            Name.
        function (`Callable`, *optional*):
            What computes it; `None` where TRL does.
        formula (`str` or `Callable`):
            Formula in plain text, or a function that writes it for the values of a configuration.
        paper ([`~papers.Paper`], *optional*):
            Source; only a user's own function has none.
        settings (`tuple[Setting, ...]`):
            What it reads.
        symbols (`Mapping[str, str]`):
            Symbols of the formula that no other part explains, with their meanings.
        fields (`Mapping[str, Any]`, *optional*):
            Fields of the configuration that choose it, with the values that naming it gives them. Without, it is
            chosen by its name alone.
    """

    name: str
    function: Callable[..., Any] | None
    formula: str | Callable[[Mapping[str, Any]], str]
    paper: Paper | None
    settings: tuple[Setting, ...] = ()
    symbols: Mapping[str, str] = field(default_factory=dict)
    fields: Mapping[str, Any] | None = None

    # Field of the configuration with the settings that are no fields.
    kwargs_field: ClassVar[str] = ""
    # Of the function's arguments, those that the trainer gives: the first so many, and these by name.
    positional: ClassVar[int] = 1
    provided: ClassVar[tuple[str, ...]] = ()

    def text(self, values: Mapping[str, Any]) -> str:
        """The formula in plain text; a setting that neither `values` nor a default gives is written as its symbol."""
        defaults = {name: value for name, value in self.keywords().items() if value is not inspect.Parameter.empty}
        given = values.get(self.kwargs_field) or {}
        return self.formula if isinstance(self.formula, str) else self.formula({**defaults, **values, **given})

    def reads(self, values: Mapping[str, Any]) -> set[str]:
        """Names of the settings that act with these fields."""
        return {
            setting.name
            for setting in self.settings
            if all(values.get(name) in allowed for name, allowed in setting.only_with.items())
        }

    def is_chosen_by(self, values: Mapping[str, Any]) -> bool:
        """Whether each field has the value that the part is chosen by; of a field that it reads, any value."""
        read = {setting.name for setting in self.settings}
        return self.fields is not None and all(
            (name in read and value is not None and values.get(name) is not None) or values.get(name) == value
            for name, value in self.fields.items()
        )

    def values_of(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The settings that a configuration gives the function: fields, entries of `*_kwargs`, and defaults."""
        defaults = {name: value for name, value in self.keywords().items() if value is not inspect.Parameter.empty}
        own = {setting.name: values[setting.name] for setting in self.settings if setting.name in values}
        given = {name: value for name, value in own.items() if name in self.keywords()}
        return {**defaults, **given, **(values.get(self.kwargs_field) or {})}

    def keywords(self) -> dict[str, Any]:
        """
        Keywords that a configuration may give the function, with their defaults: `inspect.Parameter.empty` for none.
        """
        parameters = {} if self.function is None else inspect.signature(self.function).parameters
        given = [*list(parameters)[: self.positional], *self.provided]
        return {name: parameter.default for name, parameter in parameters.items() if name not in given}

    def takes(self, name: str) -> bool:
        """Whether the function has an argument of this name."""
        return self.function is not None and name in inspect.signature(self.function).parameters


@dataclass(frozen=True)
class Advantage(Part):
    """
    How rewards become advantages, once per rollout: `function(rewards, num_generations, **settings)` takes the rewards
    `(N,)` of all processes, the groups one after the other, NaN where a completion could not be scored, and gives
    advantages `(N,)`. It may ask for `lengths` `(N,)`, the tokens of each completion that count.

    Parameters:
        is_zero_without_variance (`bool`):
            Whether groups of equal rewards have no advantage; they are then exactly zero. Where they have one, the mean
            step of finite groups is not that of `group_omega` alone, which is about groups of both outcomes.
        domain ([`Domain`]):
            Rewards that it takes; any other ends the run.
        omega (`Callable`, *optional*):
            Its signal Omega = A+ - A- for rewards of 0 and 1 in large groups: `omega(success, failure, **settings)` takes
            the success of a prompt and 1 less it, NumPy arrays of one shape in float64, and gives an array of that shape.
            `None` where it is no function of the success.
        group_omega (`Callable`, *optional*):
            The same in one group, where that is not `omega` at the group's share of successes:
            `group_omega(successes, num_generations, **settings)`.
        is_centered (`bool`):
            Whether the advantages of a group add up to 0. Where they do not, the baseline cancels in exact iteration, but
            neither in groups of finite size nor under a clip.
        is_of_rollout (`bool`):
            Whether other groups of the rollout have a part in the advantages of a group; if there is an `omega` too, as
            one scale of all prompts.
    """

    is_zero_without_variance: bool = True
    domain: Domain = field(default_factory=Domain)
    omega: Callable[..., Any] | None = None
    group_omega: Callable[..., Any] | None = None
    is_centered: bool = True
    is_of_rollout: bool = False
    kwargs_field: ClassVar[str] = "advantage_kwargs"
    positional: ClassVar[int] = 2
    provided: ClassVar[tuple[str, ...]] = ("lengths",)

    def domain_of(self, values: Mapping[str, Any]) -> Domain:
        """Rewards that it takes with the settings of a configuration."""
        return self.domain.given(self.values_of(values))


@dataclass(frozen=True)
class PolicyTerm(Part):
    """
    Policy term of the loss: `function(inputs, **settings)` takes [`TermInputs`] and gives a [`TermOutput`].

    Parameters:
        is_per_trajectory (`bool`):
            Whether it has one loss per trajectory, which only a loss type that weights all tokens alike can sum.
        is_inert_on_policy (`bool`):
            Whether it is the plain policy gradient while the policy is the one that made the rollout.
        loss_type (`str`, *optional*):
            The paper's aggregation.
    """

    is_per_trajectory: bool = False
    is_inert_on_policy: bool = True
    loss_type: str | None = None
    kwargs_field: ClassVar[str] = "policy_loss_kwargs"


@dataclass(frozen=True)
class Divergence(Part):
    """
    Estimator of the KL to an anchor: `function(logps, anchor_logps, log_ratio)` gives values `(B, T)`, see
    [`~objective.divergences.reverse_kl`].
    """

    positional: ClassVar[int] = 3


def written(values: Mapping[str, Any], name: str, start: float = 0, sign: int = 1) -> str:
    """Write `start + sign * value` of a setting: a number, or an expression with its name where it has no value."""
    value = values.get(name)
    if value is None:
        return f"{start:g} {'+' if sign > 0 else '-'} {name}" if start else name
    number = start + sign * value
    # A sum is rounded; a value that was given is not.
    text = f"{number:g}" if start or float(f"{number:g}") == number else str(number)
    return re.sub(r"e-0(\d)$", r"e-\1", text)


def upper_range(values: Mapping[str, Any]) -> str:
    """The setting that is the upper clip range: TRL mirrors `epsilon` where `epsilon_high` is not given."""
    return "epsilon" if values.get("epsilon_high") is None and values.get("epsilon") is not None else "epsilon_high"


P = TypeVar("P", bound=Part)


def registry(*parts: P) -> dict[str, P]:
    """Parts of an axis by name; a `ValueError` if two share one, or one lacks its formula or its paper."""
    named: dict[str, P] = {}
    for part in parts:
        if part.name in named:
            raise ValueError(f"Two parts are named {part.name!r}; choose another name.")
        if not part.formula or part.paper is None:
            raise ValueError(f"{part.name!r} needs a formula and the paper that it is from.")
        named[part.name] = part
    return named
