# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What a preset is: a published method, as the settings that make it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ..objective.choice import Parts, chosen_parts
from ..objective.formula import objective_text
from ..papers import Paper


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
        if self.parts.policy.holds_correction(settings):
            return f"{one_step}, or use_vllm, whose log-probs are the anchor"
        if self.parts.policy.is_inert(settings) or settings.get("delta") is not None:
            return one_step
        if settings.get("mirror_beta"):
            return f"{'(mirror part only) ' if settings.get('beta') else ''}{one_step}, or set mirror_sync_steps"
        return "never"
