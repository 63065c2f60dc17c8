# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The fields of a configuration with their types and defaults, and what follows from them. Config and checks stand above."""

from dataclasses import dataclass, field, fields, make_dataclass
from typing import TYPE_CHECKING, Any

from trl import GRPOConfig

from .checks import UNSET
from .objective.choice import Parts, chosen_parts
from .objective.loss import Objective
from .presets import PRESETS
from .variants import get_variant


# Fields of TRL that the presets set. The configuration declares them again with a default that stands for nothing, so
# that a value the user gives can be told from one the user leaves to the variant.
SET_BY_PRESETS = {name for preset in PRESETS for name in preset.settings}
# Without it the reference's KL of a variant has another gradient. TRL's default is off before 1.10.
KL_CORRECTION = "use_bias_correction_kl"
TRL_DEFAULTS = {f.name: f.default for f in fields(GRPOConfig) if f.name in {*SET_BY_PRESETS, KL_CORRECTION}}
OWN_DEFAULTS: dict[str, Any] = {
    "advantage": None,
    "advantage_kwargs": None,
    "policy_loss": None,
    "policy_loss_kwargs": None,
    "token_advantage": None,
    "token_advantage_kwargs": None,
    "kl_estimator": "k3",
    "kl_placement": "loss",
    "no_is_gradient": "current",
    "trajectory_clip": "upper",
    "mirror_beta": 0.0,
    "mirror_sync_steps": None,
    "reward_variance_epsilon": None,
    "length_weight_power": 0.0,
    "mask_zero_variance_groups": False,
    "group_preserving_split": False,
    "prompt_sampling": "uniform",
    "prompt_weights": "equal",
    "prompt_success_rates": None,
    "refill_groups": None,
    "surplus_groups": "drop",
    "prefetch_rollout": False,
}
# Of fields that always have a value once they are resolved, which is what their types are.
_UNSET: Any = None


def _opened(field_of_trl: Any) -> Any:
    """A field of TRL's with a default that stands for the variant's value, or TRL's."""
    sentences = field_of_trl.metadata["help"].replace("%%", "%"), "If not set, the variant's value, or TRL's default,"
    help_text = f"{' '.join(sentences)} `{field_of_trl.default!r}`.".replace("%", "%%").replace("`", "'")
    return field_of_trl.name, field_of_trl.type, field(default=UNSET, metadata={"help": help_text})


if TYPE_CHECKING:
    # What the fields are mixed into.
    from trl import GRPOConfig as OpenFields
else:
    OpenFields = make_dataclass("OpenFields", [_opened(f) for f in fields(GRPOConfig) if f.name in TRL_DEFAULTS])


@dataclass
class VariantFields(OpenFields):
    """The fields that are new, after those of TRL that a variant may set, and what they say of a run together."""

    variant: str | None = None
    importance_sampling_level: str = _UNSET
    policy_loss: str | None = None
    policy_loss_kwargs: dict[str, Any] | str | None = None
    token_advantage: str | None = None
    token_advantage_kwargs: dict[str, Any] | str | None = None
    trajectory_clip: str = _UNSET
    no_is_gradient: str = _UNSET
    epsilon: float = _UNSET
    epsilon_high: float | None = None
    delta: float | None = None
    loss_type: str = _UNSET
    advantage: str | None = None
    advantage_kwargs: dict[str, Any] | str | None = None
    scale_rewards: str = _UNSET
    reward_variance_epsilon: float | None = None
    length_weight_power: float = _UNSET
    mask_zero_variance_groups: bool = _UNSET
    beta: float = _UNSET
    mirror_beta: float = _UNSET
    mirror_sync_steps: int | None = None
    kl_estimator: str = _UNSET
    kl_placement: str = _UNSET
    num_iterations: int = _UNSET
    group_preserving_split: bool = _UNSET
    prompt_sampling: str = _UNSET
    prompt_weights: str = _UNSET
    prompt_success_rates: str | None = None
    refill_groups: int | None = None
    surplus_groups: str = _UNSET
    prefetch_rollout: bool = _UNSET
    reward_num_workers: int = 0
    reward_timeout: float | None = None
    trim_padding: bool = _UNSET
    skip_inert_rows: bool = _UNSET
    pack_rollout: bool = False
    share_prompt: bool = False
    stop_on_nonfinite: bool = True
    success_monitor: bool = False
    allow_objective_change: bool = False
    vllm_lora_sync: bool = True

    if TYPE_CHECKING:  # TRL's types are not followed
        generation_batch_size: int | None = None
        steps_per_generation: int = _UNSET

    @property
    def parts(self) -> Parts:
        """The parts of the method, with their descriptions."""
        return chosen_parts(vars(self))

    @property
    def objective(self) -> Objective:
        """The parts of the method with their settings, as functions of tensors."""
        return Objective.from_values(vars(self))

    @property
    def has_stock_objective(self) -> bool:
        """Whether training is TRL's own: neither a variant nor a parameter of this class departs from TRL."""
        return (
            (self.variant is None or not get_variant(self.variant).settings)
            and self.parts.are_trls
            and all(getattr(self, name) == default for name, default in OWN_DEFAULTS.items())
        )

    @property
    def extends_trl(self) -> bool:
        """Whether anything of this package is asked for; a variant that is stock TRL still is, for its metrics."""
        return self.variant is not None or not self.has_stock_objective or self.trims_forward or self.success_monitor

    @property
    def trims_forward(self) -> bool:
        """Whether anything is left out of the forward passes."""
        return self.trim_padding or self.skip_inert_rows or self.pack_rollout or self.share_prompt

    @property
    def is_on_policy(self) -> bool:
        """Whether the policy that made a rollout is also the one that it updates: one optimizer step per rollout."""
        one_step = self.gradient_accumulation_steps % (self.steps_per_generation * self.num_iterations) == 0
        return one_step and self.surplus_groups != "keep" and not self.prefetch_rollout

    @property
    def chooses_prompts(self) -> bool:
        """Whether the prompts of a rollout are not those that TRL's dataloader has fetched for it."""
        return self.prompt_sampling != "uniform" or self.refill_groups is not None or self.prefetch_rollout

    @property
    def relates_rows(self) -> bool:
        """Whether a term of the loss looks at the rows of a micro-batch together."""
        has_entropy_term = self.entropy_coef != 0.0 or self.use_adaptive_entropy or self.top_entropy_quantile != 1.0
        return has_entropy_term or self.parts.policy.relates_rows or self.parts.token_advantage.relates_rows
