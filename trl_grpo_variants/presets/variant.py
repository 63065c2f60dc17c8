# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What a preset is: a published method, as the settings that make it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ..objective.choice import Parts, chosen_parts
from ..objective.divergences import ANCHORS
from ..objective.formula import objective_text
from ..objective.policies.clipped import off_policy_settings
from ..objective.terms import Advantage, Divergence, PolicyTerm, TokenAdvantage
from ..papers import Paper


# The axis of what TRL computes alone.
STOCK = "stock TRL"


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
    def is_stock(self) -> bool:
        """Whether TRL alone computes the loss."""
        return self.parts.leave_loss_to_trl(self.settings)

    @property
    def needs_vllm(self) -> bool:
        """Whether all that it sets is about the engine that samples."""
        return bool(self.settings) and all(name.startswith("vllm_") for name in self.settings)

    @property
    def axis(self) -> str:
        """What kind of part makes the method, or that TRL has them all."""
        if self.is_stock:
            return STOCK
        if any(self.settings.get(anchor.coefficient) for anchor in ANCHORS.values()):
            return Divergence.axis
        named = (PolicyTerm, TokenAdvantage, Advantage)
        own = [part for part in vars(self.parts).values() if isinstance(part, named) and part.function is not None]
        # A part that it takes along is another paper's.
        axes = {part.axis for part in own if part.paper == self.paper} or {part.axis for part in own}
        return next((kind.axis for kind in named if kind.axis in axes), Advantage.axis)

    @property
    def formula(self) -> str:
        """What is minimised, in plain text."""
        return objective_text(self.parts, self.settings)

    @property
    def inert_when(self) -> str:
        """Setting under which the variant does nothing that stock GRPO would not do."""
        settings = self.settings
        if self.needs_vllm:
            return "use_vllm is off, or vllm_importance_sampling_correction"
        one_step = "a rollout serves one optimizer step: raise num_iterations or steps_per_generation"
        if self.parts.policy.holds_correction(settings):
            return f"{one_step}, or use_vllm, whose log-probs are the anchor"
        if self.parts.policy.is_inert(settings) or off_policy_settings(settings):
            return one_step
        if settings.get("mirror_beta"):
            return f"{'(mirror part only) ' if settings.get('beta') else ''}{one_step}, or set mirror_sync_steps"
        return "never"
