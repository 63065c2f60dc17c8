# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Configuration: what the fields mean, and how they are resolved and checked."""

from dataclasses import dataclass

import numpy as np
from trl import GRPOConfig
from trl.trainer import grpo_config

from .checks import UNSET, check_flag
from .combinations import SIZES, check_filled, check_resolved, check_sizes
from .field_help import documented
from .fields import TRL_DEFAULTS, OpenFields, VariantFields
from .idle import idle_settings
from .objective.choice import AXES
from .resolution import resolve
from .warn import warn_user, warnings_at_the_user


@documented
@dataclass
class GRPOVariantFields(VariantFields):
    r"""
    Fields of the [`GRPOVariantConfig`], to be mixed into another subclass of [`GRPOConfig`], before it.

    This class includes only the parameters that are specific to the variants, and the parameters of [`GRPOConfig`]
    that a variant may set. Those default to `None`, which stands for the variant's value or, without a variant, TRL's
    default; an explicit value always wins. After construction every field holds its resolved value. Further parameters
    of [`GRPOConfig`] that the presets set (the temperatures of SAPO, the entropy of tokens, vLLM's correction, ...) can
    be left to them in the same way. For a full list of training arguments, please refer to the [`GRPOConfig`]
    documentation.

    Parameters:
        > Parameters that select a variant

        variant (`str`, *optional*):
            Name of a variant, see `trl-variants list`. Without one, with the parameters below left alone, stock GRPO.

        > Parameters that control the policy term

        importance_sampling_level (`str`, *optional*):
            TRL's default is `"token"`. Besides it and TRL's `"sequence"`: `"trajectory"`, one importance weight per
            trajectory, the product of the token ratios
            ([TIC-GRPO](https://huggingface.co/papers/2508.02833), Eq. 8), or `"none"`, no importance sampling.
        policy_loss (`str`, *optional*):
            Policy term by its name, or a function of yours as `"module:function"`: it takes
            [`~objective.terms.TermInputs`] and gives losses `(B, T)` or `(B,)`, or a [`~objective.terms.TermOutput`]
            with metrics. If not set, the one that `importance_sampling_level` and `loss_type` stand for.
        policy_loss_kwargs (`dict[str, Any]` or `str`, *optional*):
            Settings of that term that are no fields here, as keywords of its function.
        token_advantage (`str`, *optional*):
            How the advantage of a completion becomes those of its tokens, by its name, or a function of yours as
            `"module:function"`: it takes [`~objective.terms.TermInputs`] and gives advantages `(B, T)`, for TRL's policy
            term as for others. If not set, all tokens have that of their completion.
        token_advantage_kwargs (`dict[str, Any]` or `str`, *optional*):
            Settings of that function, as its keywords.
        trajectory_clip (`str`, *optional*, defaults to `"upper"`):
            Clip of the trajectory weight: `"upper"` caps it at `1 + epsilon_high` for both signs of the advantage,
            `"two_sided"` is PPO's clip between `1 - epsilon` and `1 + epsilon_high`, `"none"` leaves it unbounded.
        no_is_gradient (`str`, *optional*, defaults to `"current"`):
            Where `importance_sampling_level="none"` takes its gradient: at the `"current"` policy, or `"frozen"` at
            the policy that made the rollout. Frozen, the whole loss is differentiated there.
        epsilon (`float`, *optional*):
            Lower clip range; with a variant at most `1`. TRL's default is `0.2`.
        epsilon_high (`float`, *optional*):
            Upper clip range. TRL's default is that of `epsilon`.
        delta (`float`, *optional*):
            Upper bound of two-sided GRPO on the token ratio; with a variant greater than `1`. TRL's default is `None`.
        loss_type (`str`, *optional*):
            Aggregation of the loss. TRL's default is `"dapo"`.

        > Parameters that control the advantages

        advantage (`str`, *optional*):
            Advantage by its name, or a function of yours as `"module:function"`: it takes the rewards `(N,)` of all
            processes, the groups one after the other and NaN where a completion was not scored, the group size, and
            if it asks for them the `lengths` `(N,)`, and gives advantages `(N,)`. If not set, the one that
            `scale_rewards` and `reward_variance_epsilon` stand for.
        advantage_kwargs (`dict[str, Any]` or `str`, *optional*):
            Settings of that advantage that are no fields here, as keywords of its function.
        scale_rewards (`str`, *optional*):
            Scaling of the rewards; `"none"` gives mean-only advantages. TRL's default is `"group"`.
        reward_variance_epsilon (`float`, *optional*):
            If set, advantages are divided by `sqrt(var + reward_variance_epsilon)` with the population variance of the
            group, as [Mroueh](https://huggingface.co/papers/2503.06639) writes them, in squared reward units. If not
            set, TRL's `std + 1e-4` with the sample standard deviation.
        length_weight_power (`float`, *optional*, defaults to `0.0`):
            If greater than 0, each advantage is multiplied by the number of its completion's tokens to minus this power,
            over the mean of that in the rollout
            ([Delta L Normalization](https://huggingface.co/papers/2509.07558)). The paper takes `1.0` for short tasks,
            `0.75` for mathematics, and `loss_type="dr_grpo"`; loss types that divide by the length of a completion are
            refused.
        mask_zero_variance_groups (`bool`, *optional*, defaults to `False`):
            Whether groups whose rewards are all equal are left out of the policy term and the KL terms alike, as in
            [off-policy GRPO](https://huggingface.co/papers/2505.22257). Normalisers and the entropy bonus still count
            them.

        > Parameters that control the KL terms

        beta (`float`, *optional*):
            Coefficient of the KL to the reference policy. TRL's default is `0.0`.
        kl_estimator (`str`, *optional*, defaults to `"k3"`):
            How the KL terms in the loss are estimated: `"k3"` as in TRL, or `"k2"`, which has the same gradient, each with
            the ratio to the policy that made the rollout; without it, as penalties, `"squared"` for half the squared
            log-ratio of each token, or `"sequence_squared"` for that of a completion over its length.
        kl_placement (`str`, *optional*, defaults to `"loss"`):
            Where the KL to the reference is: a term of the `"loss"`, or `"reward"`, where `beta` times the log-ratio of
            the completion to the reference is taken from its reward before any baseline, as in
            [RLOO](https://huggingface.co/papers/2402.14740).
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

        > Parameters that control which prompts a rollout holds

        prompt_sampling (`str`, *optional*, defaults to `"uniform"`):
            How prompts are drawn: `"uniform"`, each once per epoch, or `"signal"`, in proportion to the chance that the
            rewards of their group will differ, for a Beta belief about their success that is learned in the run, above
            a floor of a tenth uniform draws. Success is full reward from every reward function of
            positive weight; a group of graded rewards that differ though none or all succeed counts as half successes.
            Epochs then count steps.
        prompt_weights (`str`, *optional*, defaults to `"equal"`):
            Weight of a drawn prompt in the loss: `"equal"`, so that prompts with signal count more often, or
            `"unbiased"`, `1 / (N q)` for one of `N` prompts that is drawn with probability `q`, so that the expected
            gradient is that of uniform draws; `q` is then proportional to the root of that chance, which makes the
            variance least.
        prompt_success_rates (`str`, *optional*):
            File with the success rates that prompts are known to have when the run begins, as `trl-variants plan` reads
            it, with one rate per row of the training data in its order; each counts as one group.
        refill_groups (`int`, *optional*):
            If set, groups whose advantages are all zero are replaced by groups of further prompts, in up to this many
            further generations per rollout, each of as many prompts as are expected to fill it
            ([DAPO](https://huggingface.co/papers/2503.14476)); what is still lacking then is trained as it is. A run
            ends when as many groups as there are prompts, and as a rollout with all its further generations may hold,
            one after the other had no signal.
        surplus_groups (`str`, *optional*, defaults to `"drop"`):
            What becomes of groups with signal for which a refilled rollout has no room: `"drop"`, or `"keep"` for the
            next rollout, with the log-probs of the policy that made them. It costs one forward pass per rollout where
            TRL needs none for them.

        > Parameters that control how rewards are computed

        reward_num_workers (`int`, *optional*, defaults to `0`):
            Processes, for each process that trains, in which synchronous reward functions are called, several of them at
            the same time; `0` calls them in the trainer's, as TRL does. A function gets one completion at a time (lists
            of one) with the columns of its row, and nothing of the trainer (`trainer_state`, `log_extra`, `log_metric`).
        reward_timeout (`float`, *optional*):
            Seconds that a reward function in such a process may take for a completion before the run ends.

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
            except for stock GRPO, with `torch_compile`, and where a term relates the rows of a micro-batch.

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

        prefetch_rollout (`bool`, *optional*, defaults to `False`):
            Whether a vLLM server makes the next rollout, with the policy as it is when this one is there, while this one
            is scored and trained. Each rollout but a run's first is then sampled by the policy of one rollout before,
            never an older one, and that policy's log-probs are the old ones: ratios, clips, the correction for the
            mismatch to the engine, the previous policy of `mirror_beta` and that of `no_is_gradient="frozen"` are its. It
            costs a copy of the trainable parameters. Prompts come in the order of TRL's sampler, and beliefs about them
            are one rollout older too. An evaluation waits for the rollout in the making. A run that resumes asks the
            policy that was asked for it again: it is the same if requests have a seed (`generation_kwargs`). Text only, in
            a single turn.
        vllm_lora_sync (`bool`, *optional*, defaults to `True`):
            Whether the engine runs a LoRA adapter beside the base and is given the new adapter before each rollout,
            instead of a merged model. Where vLLM cannot, TRL's way is taken with a warning, or refused over a 4-bit
            base. A server must run with LoRA enabled and see `output_dir`.

    Raises:
        `ValueError`: If a value is out of range, the variant is unknown, or parameters contradict each other.
    """

    # The variant that the fields have been resolved for.
    _resolved_variant = UNSET

    def __post_init__(self) -> None:
        self._VALID_DICT_FIELDS = [*super()._VALID_DICT_FIELDS, *(f"{axis}_kwargs" for axis in AXES)]
        for name in dict.fromkeys((*SIZES, *TRL_DEFAULTS, *VariantFields.__annotations__)):
            # A number of NumPy's is one, but no JSON holds it.
            value = getattr(self, name)
            if isinstance(value, np.generic | np.ndarray) and value.ndim == 0:
                setattr(self, name, value.item())
        check_sizes(self)
        # Those of the configuration that the fields are mixed into, which need not be TRL's.
        defaults = {name: getattr(super(OpenFields, self), name) for name in TRL_DEFAULTS}
        chosen, departures = resolve(self, defaults)
        self._resolved_variant = self.variant
        self._check_resolved()
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
        check_filled(self)
        if departures:
            told = ", ".join(departures)
            warn_user(f"The run departs from the variant {self.variant!r}: explicit values set {told}.")
        for sentence in idle_settings(self, chosen):
            warn_user(sentence)

    def check_changes(self) -> None:
        """
        Check what has been set since construction as if it had been given there.

        Raises:
            `ValueError`: If a value or a combination is wrong, or the variant has been replaced, which no longer sets
                anything.
            `TypeError`: If the class of the configuration does not resolve the fields.
        """
        if self._resolved_variant is UNSET:
            raise TypeError(
                f"`{type(self).__name__}` leaves the fields of GRPOVariantFields as they are given: let GRPOVariantFields "
                "stand before GRPOConfig among its bases, and each `__post_init__` call that of its super class."
            )
        if self.variant != self._resolved_variant:
            raise ValueError(
                f"`variant={self.variant!r}` was set on a finished configuration (of `variant={self._resolved_variant!r}`"
                "), where it changes nothing; give it to the constructor."
            )
        self._check_resolved()
        check_filled(self)

    def _check_resolved(self) -> None:
        for name, kind in VariantFields.__annotations__.items():
            if kind is bool:
                check_flag(name, getattr(self, name))
        check_resolved(self)


@dataclass
class GRPOVariantConfig(GRPOVariantFields, GRPOConfig):
    """
    Configuration class for the [`GRPOVariantTrainer`]: the [`GRPOConfig`] with the fields of [`GRPOVariantFields`].
    """

    # The one that dataclasses write would print tokens.
    __repr__ = GRPOConfig.__str__
