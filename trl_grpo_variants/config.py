# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Configuration: the new fields, how a preset resolves them, and which combinations mean something."""

from collections.abc import Hashable
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

import numpy as np
from trl import GRPOConfig
from trl.trainer import grpo_config

from .checks import LEAST_VARIANCE_EPSILON, MAX_COEFFICIENT, check_choice, check_flag, check_number, check_whole_number
from .idle import idle_settings
from .variants import get_variant
from .warn import warn_user, warnings_at_the_user


# Fields of TRL that variants set. The class declares them again with the default None, so that a value the user gives
# can be told from one the user leaves to the variant. Their types are those of the resolved values.
_TRL_DEFAULTS = {
    f.name: f.default
    for f in fields(GRPOConfig)
    if f.name
    in (
        "beta",
        "delta",
        "epsilon",
        "epsilon_high",
        "importance_sampling_level",
        "loss_type",
        "num_iterations",
        "scale_rewards",
    )
}
# What a preset sets along with a field, and drops with it when an explicit value replaces the field.
_DEPENDENTS = {
    "importance_sampling_level": ("trajectory_clip", "no_is_gradient", "delta"),
    "scale_rewards": ("reward_variance_epsilon",),
}
_OWN_DEFAULTS: dict[str, Any] = {
    "no_is_gradient": "current",
    "trajectory_clip": "upper",
    "mirror_beta": 0.0,
    "mirror_sync_steps": None,
    "reward_variance_epsilon": None,
    "mask_zero_variance_groups": False,
    "group_preserving_split": False,
}

# Sizes of a rollout and of an update; TRL computes with them unseen.
_SIZES = ("gradient_accumulation_steps", "per_device_train_batch_size", "num_generations")
_OPTIONAL_SIZES = ("steps_per_generation", "generation_batch_size")

# These loss types give all tokens of an optimizer step one weight, so that one term per sequence has a weight too.
_TRAJECTORY_LOSS_TYPES = ("dr_grpo", "dapo", "bnpo")


def _help(meaning: str, trl_default: str | None = None) -> Any:
    default = "" if trl_default is None else f" If not set, the variant's value, else TRL's ({trl_default})."
    return field(default=None, metadata={"help": meaning + default})


@dataclass
class GRPOVariantConfig(GRPOConfig):
    r"""
    Configuration class for the [`GRPOVariantTrainer`].

    This class includes only the parameters that are specific to the variants, and the parameters of [`GRPOConfig`]
    that a variant may set. Those default to `None`, which stands for the variant's value or, without a variant, TRL's
    default; an explicit value always wins. After construction every field holds its resolved value. For a full list of
    training arguments, please refer to the [`GRPOConfig`] documentation.

    Parameters:
        > Parameters that select a variant

        variant (`str`, *optional*):
            Name of a registered variant, see [`list_variants`]. Without one, and with the parameters below left alone,
            training is stock GRPO.

        > Parameters that control the policy term

        importance_sampling_level (`str`, *optional*):
            Besides TRL's `"token"` (its default) and `"sequence"`: `"trajectory"`, one importance weight per
            trajectory, the product of the token ratios
            ([TIC-GRPO](https://huggingface.co/papers/2508.02833), Eq. 8), or `"none"`, no importance sampling.
        trajectory_clip (`str`, *optional*, defaults to `"upper"`):
            Clip of the trajectory weight: `"upper"` caps it at `1 + epsilon_high` for both signs of the advantage,
            `"two_sided"` is PPO's clip between `1 - epsilon` and `1 + epsilon_high`, `"none"` leaves it unbounded.
        no_is_gradient (`str`, *optional*, defaults to `"current"`):
            Where `importance_sampling_level="none"` takes its gradient: at the `"current"` policy, or `"frozen"` at
            the policy that made the rollout. Frozen, the whole loss is differentiated there.
        epsilon (`float`, *optional*):
            Lower clip range; with a variant at most `1`. TRL's default is `0.2`.
        epsilon_high (`float`, *optional*):
            Upper clip range. TRL's default is the value of `epsilon`.
        delta (`float`, *optional*):
            Upper bound of two-sided GRPO on the token ratio; with a variant greater than `1`. Not set by default.
        loss_type (`str`, *optional*):
            Aggregation of the loss. TRL's default is `"dapo"`.

        > Parameters that control the advantages

        scale_rewards (`str`, *optional*):
            Scaling of the rewards; `"none"` gives mean-only advantages. TRL's default is `"group"`.
        reward_variance_epsilon (`float`, *optional*):
            If set, advantages are divided by `sqrt(var + reward_variance_epsilon)` with the population variance of the
            group, as [Mroueh](https://huggingface.co/papers/2503.06639) writes them, in squared reward units. If not
            set, TRL's `std + 1e-4` with the sample standard deviation.
        mask_zero_variance_groups (`bool`, *optional*, defaults to `False`):
            Whether groups whose rewards are all equal are left out of the policy term and the KL terms alike, as in
            [off-policy GRPO](https://huggingface.co/papers/2505.22257). Normalisers and the entropy bonus still count
            them.

        > Parameters that control the KL terms

        beta (`float`, *optional*):
            Coefficient of the KL to the reference policy. TRL's default is `0.0`.
        mirror_beta (`float`, *optional*, defaults to `0.0`):
            Coefficient of the KL to the previous policy. With `beta`, the dual KL of
            [Mroueh](https://huggingface.co/papers/2503.06639): his (beta, alpha) are `beta = alpha * beta` and
            `mirror_beta = (1 - alpha) * beta`.
        mirror_sync_steps (`int`, *optional*):
            If not set, the previous policy is the one that made the rollout, at no cost. If set, it is a snapshot,
            refreshed at the first rollout after this many optimizer steps; it costs one forward pass per rollout and
            the memory of the trainable parameters.

        > Parameters that control how a rollout is spent

        num_iterations (`int`, *optional*):
            Passes over a rollout. TRL's default is `1`.
        group_preserving_split (`bool`, *optional*, defaults to `False`):
            Whether each optimizer step gets whole prompt groups. TRL shuffles completions over the steps of a rollout,
            so that siblings meet different policies; the unbiasedness of TIC-GRPO (Lemma A.1) needs disjoint prompts.

        > Parameters that control the cost of the update

        trim_padding (`bool`, *optional*):
            Whether forward passes are only as wide as the rows in them, and rows of similar length share a pass and,
            within an optimizer step, a micro-batch. Losses and gradients are the same up to rounding. On by default,
            except for stock GRPO, which stays the same to the bit, and with `torch_compile`, where it makes more
            shapes to compile for; there a micro-batch has one forward pass. Models whose positions depend on the
            padding keep it where it matters.
        skip_inert_rows (`bool`, *optional*):
            Whether rows without any effect on the gradient are left out of the forward pass: those of groups whose
            rewards are all equal where no KL or entropy term acts on them, and those without a token in the loss.
            Normalisers still count them; metrics such as `entropy` are then those of the other rows. On by default,
            except for stock GRPO, with `torch_compile`, and where an entropy term relates the rows of a micro-batch.

        pack_rollout (`bool`, *optional*, defaults to `False`):
            Whether several completions share a row without padding, where the model's attention tells them apart; a
            forward pass at construction checks that it does, with FSDP and DeepSpeed one at the beginning of training.
            Where it does not, rows are trimmed, with a warning.
        share_prompt (`bool`, *optional*, defaults to `False`):
            Whether the prompt of a group is computed once per forward pass instead of once per completion. It pays
            where prompts are long and micro-batches hold several completions of a prompt. Refused for models whose
            attention takes no mask (other than `"sdpa"` and `"eager"`) or has a sliding window.

        > Parameters that control monitoring

        stop_on_nonfinite (`bool`, *optional*, defaults to `True`):
            Whether a run stops at the first loss or gradient that is infinite or not a number, before it reaches the
            weights and with a checkpoint from before it, and at the first infinite reward, which is named. Stock GRPO
            goes on, and DeepSpeed stops at a loss or a reward only.
        success_monitor (`bool`, *optional*, defaults to `False`):
            Whether the success of each prompt is recorded and compared with what
            [Mroueh](https://huggingface.co/papers/2503.06639) predicts for the run's coefficients, see
            [`SuccessMonitor`]. It costs no forward pass. `trl-variants report` shows it.

        > Parameters that control resuming

        allow_objective_change (`bool`, *optional*, defaults to `False`):
            Whether a run may resume from a checkpoint that was saved under another objective: another variant,
            coefficient, clip range, reward function or weight. The rollout in progress is then generated anew.

        > Parameters that control vLLM generation

        vllm_lora_sync (`bool`, *optional*, defaults to `True`):
            Whether the engine runs a LoRA adapter beside the base and is given the new adapter before each rollout,
            instead of a merged model. Where vLLM cannot, TRL's way is taken with a warning, or refused over a 4-bit
            base. A server must run with LoRA enabled and see `output_dir`.

    Raises:
        `ValueError`: If a value is out of range, the variant is unknown, or parameters contradict each other.

    > [!NOTE]
    > Loss types combine with the trajectory weight only if they weight all tokens alike: `"dr_grpo"` (the paper's 1/T),
    > `"dapo"` and `"bnpo"`.
    """

    variant: str | None = field(
        default=None,
        metadata={"help": "Name of a GRPO variant; `trl-variants list` shows them. If not set, stock GRPO."},
    )
    importance_sampling_level: str = _help(
        "Level of the importance ratio: 'token', 'sequence', 'trajectory' (one weight per trajectory, TIC-GRPO) or "
        "'none' (no importance sampling).",
        "'token'",
    )
    trajectory_clip: str = _help(
        "Clip of the trajectory weight: 'upper' (default; capped at 1 + epsilon_high for both signs of the advantage), "
        "'two_sided' (PPO's clip) or 'none'."
    )
    no_is_gradient: str = _help(
        "Policy at which importance_sampling_level 'none' takes the gradient: 'current' (default), or 'frozen' for "
        "the one that made the rollout."
    )
    epsilon: float = _help("Lower clip range of the importance ratio.", "0.2")
    epsilon_high: float | None = _help("Upper clip range of the importance ratio.", "the value of epsilon")
    delta: float | None = _help("Upper bound of two-sided GRPO on the token ratio.", "none")
    loss_type: str = _help(
        "Aggregation of the loss: 'grpo', 'dr_grpo', 'dapo', 'bnpo', 'cispo', 'sapo', 'luspo' or 'vespo'.", "'dapo'"
    )
    scale_rewards: str = _help("Scaling of the rewards: 'group', 'batch' or 'none' (mean-only advantages).", "'group'")
    reward_variance_epsilon: float | None = _help(
        "If set, advantages are divided by sqrt(population variance + this value) instead of TRL's standard deviation "
        "+ 1e-4."
    )
    mask_zero_variance_groups: bool = _help(
        "Whether groups whose rewards are all equal are left out of the loss, KL terms included. Off by default."
    )
    beta: float = _help("Coefficient of the KL to the reference policy.", "0.0")
    mirror_beta: float = _help("Coefficient of the KL to the previous policy. 0.0 by default.")
    mirror_sync_steps: int | None = _help(
        "Optimizer steps for which a snapshot serves as the previous policy. If not set, the previous policy is the "
        "one that made the rollout."
    )
    num_iterations: int = _help("Passes over a rollout.", "1")
    group_preserving_split: bool = _help(
        "Whether each optimizer step gets whole prompt groups instead of shuffled completions. Off by default."
    )

    trim_padding: bool = _help(
        "Whether forward passes are only as wide as the rows in them. On by default, except for stock GRPO and with "
        "torch_compile."
    )
    skip_inert_rows: bool = _help(
        "Whether rows without any effect on the gradient are left out of the forward pass. On by default, except for "
        "stock GRPO and with torch_compile."
    )

    pack_rollout: bool = field(
        default=False,
        metadata={"help": "Whether several completions share a row without padding in the forward passes."},
    )
    share_prompt: bool = field(
        default=False,
        metadata={"help": "Whether the prompt of a group is computed once per forward pass, not per completion."},
    )

    stop_on_nonfinite: bool = field(
        default=True,
        metadata={
            "help": "Whether a run of a variant stops, with a checkpoint from before it, at the first loss, gradient or "
            "reward that is not finite."
        },
    )
    success_monitor: bool = field(
        default=False,
        metadata={
            "help": "Whether the success of each prompt is recorded in the output folder and compared with the "
            "theory's prediction for the run."
        },
    )

    allow_objective_change: bool = field(
        default=False,
        metadata={"help": "Whether a run may resume from a checkpoint that was saved under another objective."},
    )

    vllm_lora_sync: bool = field(
        default=True,
        metadata={
            "help": "Whether vLLM runs a LoRA adapter beside the base and is given only the new adapter before each "
            "rollout, instead of a merged model."
        },
    )

    if TYPE_CHECKING:  # TRL's types are not followed
        generation_batch_size: int | None = _help("")
        steps_per_generation: int = _help("")

    # The one that dataclasses write would print tokens.
    __repr__ = GRPOConfig.__str__

    def __post_init__(self) -> None:
        self._check_sizes()
        chosen, departures = self._resolve_variant()
        self._resolved_variant = self.variant
        self._check_values()
        self._check_combinations()
        # A resolved config holds both sizes of the rollout, of which TRL takes one and derives the other.
        given_batch_size = self.generation_batch_size
        if self.steps_per_generation is not None:
            self.generation_batch_size = None
        with warnings_at_the_user(grpo_config):
            super().__post_init__()
        if given_batch_size is not None and self.generation_batch_size != given_batch_size:
            raise ValueError(
                f"`generation_batch_size={given_batch_size}` and `steps_per_generation={self.steps_per_generation}` "
                f"contradict each other: {self.per_device_train_batch_size} completions per device and step on "
                f"{self.world_size} process(es) make {self.generation_batch_size}. Set one of them."
            )
        if departures:
            warn_user(
                f"The run departs from the variant {self.variant!r}: explicit values set {', '.join(departures)}."
            )
        self._check_schedule()
        for sentence in idle_settings(self, chosen):
            warn_user(sentence)

    def check_changes(self) -> None:
        """
        Check what has been set since construction as if it had been given there.

        Raises:
            `ValueError`: If a value or a combination is wrong, or the variant has been replaced, which no longer sets
                anything.
        """
        if self.variant != self._resolved_variant:
            raise ValueError(
                f"`variant={self.variant!r}` was set on a finished configuration (of `variant={self._resolved_variant!r}`"
                "), where it changes nothing; give it to the constructor."
            )
        self._check_values()
        self._check_combinations()

    @property
    def owns_policy_term(self) -> bool:
        """Whether the policy term is one that TRL does not have."""
        return self.importance_sampling_level in ("trajectory", "none")

    @property
    def adds_terms(self) -> bool:
        """Whether the loss has terms that TRL does not have."""
        return self.owns_policy_term or self.mirror_beta != 0.0

    @property
    def is_stock(self) -> bool:
        """Whether training is TRL's own: neither a variant nor a parameter of this class departs from TRL."""
        return (
            (self.variant is None or not get_variant(self.variant).settings)
            and not self.owns_policy_term
            and all(getattr(self, name) == default for name, default in _OWN_DEFAULTS.items())
        )

    @property
    def extends_trl(self) -> bool:
        """Whether anything of this package is asked for; a variant that is stock TRL still is, for its metrics."""
        return self.variant is not None or not self.is_stock or self.trims or self.success_monitor

    @property
    def trims(self) -> bool:
        """Whether anything is left out of the forward passes."""
        return self.trim_padding or self.skip_inert_rows or self.pack_rollout or self.share_prompt

    @property
    def is_on_policy(self) -> bool:
        """Whether the policy that made a rollout is also the one that it updates: one optimizer step per rollout."""
        return self.gradient_accumulation_steps % (self.steps_per_generation * self.num_iterations) == 0

    @property
    def relates_rows(self) -> bool:
        """Whether a term of the loss looks at the rows of a micro-batch together."""
        return self.entropy_coef != 0.0 or self.use_adaptive_entropy or self.top_entropy_quantile != 1.0

    def _check_sizes(self) -> None:
        for name in (*_SIZES, *_OPTIONAL_SIZES, *GRPOVariantConfig.__annotations__):
            # A number of NumPy's is one, but no JSON holds it.
            value = getattr(self, name)
            if isinstance(value, np.generic | np.ndarray) and value.ndim == 0:
                setattr(self, name, value.item())
        for name in (*_SIZES, *_OPTIONAL_SIZES):
            check_whole_number(name, getattr(self, name), optional=name in _OPTIONAL_SIZES)

    def _resolve_variant(self) -> tuple[set[str], list[str]]:
        """Give every field its value, and tell which ones the user has chosen and how that departs from the variant."""
        # TRL's own aliases, so that what follows compares names.
        if isinstance(self.scale_rewards, bool):
            self.scale_rewards = "group" if self.scale_rewards else "none"
        if self.variant is not None and not isinstance(self.variant, str):
            raise ValueError(f"`variant` must be the name of a variant; got {self.variant!r}.")
        settings = {} if self.variant is None else get_variant(self.variant).settings
        inner_steps = settings.pop("inner_steps", None)
        if inner_steps is not None and self.steps_per_generation is None and self.generation_batch_size is None:
            self.steps_per_generation = inner_steps * self.gradient_accumulation_steps

        explicit = {name: getattr(self, name) for name in settings if getattr(self, name) is not None}
        replaced = {name for name, value in explicit.items() if value != settings[name]}
        for name in replaced & _DEPENDENTS.keys():
            for dependent in _DEPENDENTS[name]:
                settings.pop(dependent, None)
        chosen = set()
        for name, default in {**_TRL_DEFAULTS, **_OWN_DEFAULTS}.items():
            if getattr(self, name) is None:
                setattr(self, name, settings.get(name, default))
            elif getattr(self, name) != default:
                chosen.add(name)

        # Each number of rows and each width may be one more compilation.
        compiles = self.torch_compile or self.torch_compile_backend is not None or self.torch_compile_mode is not None
        for name, acts in (("trim_padding", True), ("skip_inert_rows", not self.relates_rows)):
            if getattr(self, name) is None:
                setattr(self, name, acts and not self.is_stock and not compiles)

        # A coefficient that differs is a choice; a part that is replaced or switched off is another method.
        departures = [
            f"{name}={explicit[name]!r} instead of {settings[name]!r}"
            for name in sorted(replaced)
            if isinstance(settings[name], str | bool) or explicit[name] == 0
        ]
        return chosen, departures

    def _check_values(self) -> None:
        check_choice(
            "importance_sampling_level", self.importance_sampling_level, ("token", "sequence", "trajectory", "none")
        )
        check_choice("trajectory_clip", self.trajectory_clip, ("upper", "two_sided", "none"))
        check_choice("no_is_gradient", self.no_is_gradient, ("current", "frozen"))
        check_number("mirror_beta", self.mirror_beta, at_least=0.0, at_most=MAX_COEFFICIENT)
        check_number(
            "reward_variance_epsilon",
            self.reward_variance_epsilon,
            greater_than=0.0,
            at_least=LEAST_VARIANCE_EPSILON,
            at_most=MAX_COEFFICIENT,
            optional=True,
        )
        check_whole_number("mirror_sync_steps", self.mirror_sync_steps, optional=True)
        check_whole_number("num_iterations", self.num_iterations)
        for name, kind in GRPOVariantConfig.__annotations__.items():
            if kind is bool:
                check_flag(name, getattr(self, name))
        if not isinstance(self.scale_rewards, Hashable):
            check_choice("scale_rewards", self.scale_rewards, ("group", "batch", "none"))
        # A stock configuration is TRL's to judge: a newer TRL may know values that are not known here.
        if not self.is_stock:
            check_number("beta", self.beta, at_least=0.0, at_most=MAX_COEFFICIENT)
            # A lower bound of `1 - epsilon` below 0 bounds nothing.
            check_number("epsilon", self.epsilon, at_least=0.0, at_most=1.0)
            check_number("epsilon_high", self.epsilon_high, at_least=0.0, at_most=MAX_COEFFICIENT, optional=True)
            # A bound of 1 or less would take the gradient of every token that has become likelier.
            check_number("delta", self.delta, greater_than=1.0, at_most=MAX_COEFFICIENT, optional=True)
            check_number("top_entropy_quantile", self.top_entropy_quantile, at_least=0.0, at_most=1.0)
            check_choice("scale_rewards", self.scale_rewards, ("group", "batch", "none"))
            check_choice(
                "loss_type", self.loss_type, ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo")
            )
            check_whole_number("max_completion_length", self.max_completion_length, optional=True)
            check_whole_number("num_generations_eval", self.num_generations_eval, at_least=0, optional=True)
            for name in (
                "use_vllm",
                "vllm_importance_sampling_correction",
                "use_bias_correction_kl",
                "sync_ref_model",
            ):
                check_flag(name, getattr(self, name))
            if self.sync_ref_model:
                check_whole_number("ref_model_sync_steps", self.ref_model_sync_steps)
                check_number("ref_model_mixup_alpha", self.ref_model_mixup_alpha, at_least=0.0, at_most=1.0)
            if self.use_vllm:
                modes = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")
                check_choice("vllm_importance_sampling_mode", self.vllm_importance_sampling_mode, modes)

    def _check_combinations(self) -> None:
        self._check_policy_term()
        self._check_divergences()
        self._check_advantages()
        if self.pack_rollout and self.share_prompt:
            raise ValueError(
                "`pack_rollout=True` and `share_prompt=True` are two ways to lay out the same rows; set one of them."
            )

    def _check_policy_term(self) -> None:
        level = self.importance_sampling_level
        if not self.is_stock and self.loss_type == "dr_grpo" and self.max_completion_length is None:
            raise ValueError(
                "`loss_type='dr_grpo'` divides by `max_completion_length`, which is None; give it a whole number of at "
                "least 1."
            )
        if level != "trajectory" and self.trajectory_clip != "upper":
            raise ValueError(
                f"`trajectory_clip={self.trajectory_clip!r}` needs `importance_sampling_level='trajectory'`; "
                f"got {level!r}, which has no trajectory weight to clip."
            )
        if level != "none" and self.no_is_gradient != "current":
            raise ValueError(
                f"`no_is_gradient={self.no_is_gradient!r}` needs `importance_sampling_level='none'`; got {level!r}, "
                "whose ratio corrects for the policy that made the rollout."
            )
        if not self.owns_policy_term:
            return
        if self.delta is not None:
            raise ValueError(
                f"`delta={self.delta}` bounds the token ratio, which `importance_sampling_level={level!r}` does not "
                "use; leave `delta` unset."
            )
        if self.loss_type in ("cispo", "sapo", "vespo"):
            raise ValueError(
                f"`loss_type={self.loss_type!r}` is a way to weight tokens by their ratio, which "
                f"`importance_sampling_level={level!r}` replaces; use a loss type that only aggregates, "
                f"{'dr_grpo' if level == 'trajectory' else 'grpo'!r} for the paper's."
            )
        if level == "trajectory":
            if self.loss_type not in _TRAJECTORY_LOSS_TYPES:
                raise ValueError(
                    f"`loss_type={self.loss_type!r}` weights a sequence by its length, but "
                    "`importance_sampling_level='trajectory'` has one term per sequence; use one of "
                    f"{', '.join(map(repr, _TRAJECTORY_LOSS_TYPES))} ('dr_grpo' is the paper's)."
                )
            if self.top_entropy_quantile < 1.0:
                raise ValueError(
                    f"`top_entropy_quantile={self.top_entropy_quantile}` selects tokens, but "
                    "`importance_sampling_level='trajectory'` has one term per sequence; leave it at 1.0."
                )
            if self.use_vllm and self.vllm_importance_sampling_correction:
                if not self.vllm_importance_sampling_mode.startswith("sequence"):
                    raise ValueError(
                        f"`vllm_importance_sampling_mode={self.vllm_importance_sampling_mode!r}` gives a factor per "
                        "token, but `importance_sampling_level='trajectory'` has one term per sequence; use "
                        "'sequence_truncate' or 'sequence_mask'."
                    )

    def _check_divergences(self) -> None:
        if self.mirror_sync_steps is not None and self.mirror_beta == 0.0:
            raise ValueError(
                f"`mirror_sync_steps={self.mirror_sync_steps}` holds an anchor that nothing uses; set `mirror_beta` "
                "to a value greater than 0, or leave `mirror_sync_steps` unset."
            )
        if self.mirror_beta != 0.0:
            if self.no_is_gradient == "frozen" and self.mirror_sync_steps is None:
                raise ValueError(
                    f"`mirror_beta={self.mirror_beta}` can never act with `no_is_gradient='frozen'`: the KL to the "
                    "policy that made the rollout has no gradient at that policy. Set `mirror_sync_steps` for an "
                    "older anchor, or use `no_is_gradient='current'`."
                )
            if not self.use_bias_correction_kl:
                raise ValueError(
                    "`use_bias_correction_kl=False` would turn the KL to the previous policy "
                    f"(`mirror_beta={self.mirror_beta}`) into a forward KL; leave it at True."
                )
        if self.sync_ref_model and self.beta == 0.0:
            raise ValueError("`sync_ref_model=True` moves a reference that `beta=0.0` does not use; set `beta` > 0.")

    def _check_advantages(self) -> None:
        if self.reward_variance_epsilon is not None:
            if self.scale_rewards != "group":
                raise ValueError(
                    f"`reward_variance_epsilon={self.reward_variance_epsilon}` smooths the variance of a group, so it "
                    f"needs `scale_rewards='group'`; got {self.scale_rewards!r}."
                )
            self._require_summed_rewards("reward_variance_epsilon")
        if self.mask_zero_variance_groups:
            if self.beta == 0.0 and self.mirror_beta == 0.0:
                raise ValueError(
                    "`mask_zero_variance_groups=True` can never act without a KL term: the policy term of such a group "
                    "is zero already. Set `beta` or `mirror_beta`, or leave it off."
                )
            self._require_summed_rewards("mask_zero_variance_groups")

    def _require_summed_rewards(self, name: str) -> None:
        if self.multi_objective_aggregation != "sum_then_normalize":
            raise ValueError(
                f"`{name}={getattr(self, name)}` works on the summed reward of a group, so it needs "
                f"`multi_objective_aggregation='sum_then_normalize'`; got {self.multi_objective_aggregation!r}."
            )

    def _check_schedule(self) -> None:
        if self.group_preserving_split:
            for what, rows in (
                ("gradient_accumulation_steps", self.gradient_accumulation_steps),
                ("steps_per_generation", self.steps_per_generation),
            ):
                rows *= self.per_device_train_batch_size
                if rows % self.num_generations != 0:
                    raise ValueError(
                        f"`group_preserving_split=True` needs `per_device_train_batch_size * {what}` to be a multiple "
                        f"of `num_generations`, so that a process holds whole groups; got {rows} and "
                        f"{self.num_generations}."
                    )

        if self.importance_sampling_level == "trajectory" and self.num_iterations > 1:
            warn_user(
                f"`num_iterations={self.num_iterations}` passes over the same completions again, for which "
                "`importance_sampling_level='trajectory'` is no longer unbiased (Lemma A.1 of TIC-GRPO needs new prompts "
                "in each optimizer step): set `num_iterations=1` and raise `steps_per_generation` instead."
            )
        if self.is_on_policy:
            remedy = "raise `steps_per_generation` above `gradient_accumulation_steps`, or `num_iterations` above 1"
            because = (
                f"with one optimizer step per rollout (`gradient_accumulation_steps={self.gradient_accumulation_steps}`, "
                f"`steps_per_generation={self.steps_per_generation}`, `num_iterations={self.num_iterations}`)"
            )
            if self.importance_sampling_level in ("trajectory", "none"):
                # More passes over the same completions are none for a trajectory's weight, see above.
                split = remedy.partition(",")[0] if self.importance_sampling_level == "trajectory" else remedy
                warn_user(
                    f"`importance_sampling_level={self.importance_sampling_level!r}` does nothing {because}: the "
                    f"policy has not moved since the rollout and every ratio is 1. To let it act, {split}."
                )
            if self.delta is not None and not self.is_stock:
                warn_user(f"`delta={self.delta}` does nothing {because}: every ratio is 1. To let it act, {remedy}.")
            if self.mirror_beta != 0.0 and self.mirror_sync_steps is None:
                warn_user(
                    f"`mirror_beta={self.mirror_beta}` does nothing {because}: the KL to the policy that made the "
                    f"rollout has no gradient at that policy. To let it act, {remedy}, or set `mirror_sync_steps`."
                )
        if self.mirror_sync_steps is not None:
            steps = max(1, self.steps_per_generation * self.num_iterations // self.gradient_accumulation_steps)
            if self.mirror_sync_steps <= steps:
                warn_user(
                    f"`mirror_sync_steps={self.mirror_sync_steps}` does not outlive a rollout ({steps} optimizer "
                    "steps), so the snapshot is the policy that made the rollout, at the price of one more forward "
                    f"pass. Set it above {steps}, or leave it unset."
                )
