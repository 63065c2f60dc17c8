# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What a plan is for: an advantage with its settings, and the preset in which it stands."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ..objective.choice import chosen_parts
from ..objective.terms import Advantage
from ..theory.signal import Signal, make_signal
from ..variants import Variant, get_variant


# What TRL does where a preset leaves it open.
_TRLS: Mapping[str, Any] = {"scale_rewards": "group", "epsilon": 0.2}
# Presets of arXiv 2503.06639 with these advantages, each by the anchors of its KL terms.
_ANCHORED = {"smoothed_std": "{}", "mean_only": "{}_mean_only"}


@dataclass(frozen=True)
class Method:
    """
    An advantage, its settings and a preset.

    Parameters:
        advantage ([`Advantage`]):
            Advantage.
        settings (`Mapping[str, Any]`):
            Its settings, without those that are left at their defaults.
        variant ([`Variant`], *optional*):
            Preset that the recipe names; if not set, one of these advantages with the KL terms of the plan.
        place (`str`, *optional*):
            Module and name of an advantage that is a user's own.
    """

    advantage: Advantage
    settings: Mapping[str, Any] = field(default_factory=dict)
    variant: Variant | None = None
    place: str | None = None

    @classmethod
    def named(cls, variant: str | None, advantage: str | None, given: Mapping[str, Any]) -> "Method":
        """
        The method of these names, of which the advantage's comes first; a `ValueError` if there is none, the theory does
        not know its advantage, or that does not take the settings.
        """
        preset = None if variant is None else get_variant(variant)
        values: dict[str, Any] = {"advantage": "smoothed_std"} if preset is None else dict(preset.settings)
        part = chosen_parts({**_TRLS, **values} if advantage is None else {"advantage": advantage}).advantage
        assert part is not None  # TRL's, at the least
        settings = dict(given)
        if advantage is None:
            kwargs = values.get("advantage_kwargs") or {}
            fields = {setting.name: values[setting.name] for setting in part.settings if setting.name in values}
            settings = {**fields, **kwargs, **given}
        make_signal(part, settings)
        place = advantage if advantage is not None else values.get("advantage")
        return cls(part, settings, preset, place if place is not None and ":" in place else None)

    @cached_property
    def signal(self) -> Signal:
        """Its signal."""
        return make_signal(self.advantage, self.settings)

    @property
    def clip(self) -> tuple[float, float] | None:
        """Clip ranges of the preset, where they are PPO's and act as the theory's do."""
        values = {**_TRLS, **(self.variant.settings if self.variant is not None else {})}
        if (
            chosen_parts(values).policy.function is not None
            or values.get("delta") is not None
            or self.signal.why_not_groups
        ):
            return None
        return values["epsilon"], values.get("epsilon_high", values["epsilon"])

    def fields(self, coefficients: Mapping[str, float]) -> dict[str, Any]:
        """Fields of a configuration with these coefficients, which are rounded to six digits."""
        shown = {name: float(f"{value:.6g}") for name, value in coefficients.items() if value > 0.0}
        preset = self.variant or self._preset(shown)
        values = preset.settings
        # What the preset would set otherwise.
        shown |= {name: 0.0 for name in coefficients if name not in shown and values.get(name)}
        fields: dict[str, Any] = {"variant": preset.name, **shown}
        if shown.get("mirror_beta") and values.get("no_is_gradient") == "frozen":
            raise ValueError(
                f"`--variant {preset.name}` differentiates at the policy that made the rollout, where the KL to it has no "
                "gradient, and this plan needs that term; take another preset."
            )
        if preset.parts.advantage is not self.advantage:
            fields |= self.advantage.fields or {"advantage": self.place or self.advantage.name}
        kwargs = {name: value for name, value in self.settings.items() if name not in (self.advantage.fields or {})}
        if kwargs and kwargs != values.get("advantage_kwargs"):
            fields["advantage_kwargs"] = kwargs
        fields |= {
            name: value for name, value in self.settings.items() if name not in kwargs and value != values.get(name)
        }
        if "loss_type" not in values:
            # The policy term and the KL terms are to be summed alike.
            fields["loss_type"] = "dr_grpo"
        if shown.get("mirror_beta") and not {"num_iterations", "inner_steps"} & values.keys():
            # With one optimizer step a rollout there is no previous policy; the other presets see to that.
            fields["num_iterations"] = get_variant("mirror").settings["num_iterations"]
        return fields

    def _preset(self, coefficients: Mapping[str, float]) -> Variant:
        anchors = "dual" if len(coefficients) == 2 else "reference" if "beta" in coefficients else "mirror"
        return get_variant(_ANCHORED.get(self.advantage.name, "grpo").format(anchors))
