# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Which settings a configuration may have together. Names, ranges and uses come from the descriptions of the parts."""

import inspect
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .checks import MAX_COEFFICIENT, UNSET, check_choice, check_flag, check_number, check_whole_number
from .objective.advantages.lengths import LENGTH_WEIGHTS
from .objective.choice import AXES, chosen_parts, loss_coefficients
from .objective.divergences import ANCHORS, DIVERGENCES
from .objective.policies.clipped import WEIGHTING_LOSS_TYPES
from .objective.rewards import success_sizes
from .objective.terms import Part, Setting
from .prompts.settings import check_prompt_settings
from .reward_workers import check_reward_workers
from .suggest import did_you_mean
from .vllm.settings import check_vllm_settings


if TYPE_CHECKING:
    from .fields import VariantFields


# Sizes of a rollout and of an update; TRL computes with them unseen, and of the last two fills in one.
_GIVEN_SIZES = ("gradient_accumulation_steps", "per_device_train_batch_size", "num_generations")
SIZES = (*_GIVEN_SIZES, "steps_per_generation", "generation_batch_size")
# These loss types divide the terms of a completion by its length.
_LENGTH_LOSS_TYPES = ("grpo", "sapo")
# These loss types give all tokens of an optimizer step one weight, so that one term per trajectory has a weight too.
_UNIFORM_LOSS_TYPES = ("dr_grpo", "dapo", "bnpo")
_STOCK_CHOICES = {
    "scale_rewards": ("group", "batch", "none"),
    "loss_type": ("grpo", "dr_grpo", "dapo", "bnpo", "luspo", *WEIGHTING_LOSS_TYPES),
}
# Of TRL's settings, those that every script may set: where a part does not use them that is told and not refused.
BOUNDS_OF_TRL = ("epsilon", "epsilon_high")


def _settings() -> dict[str, Setting]:
    """Settings of all parts that are fields, by name, as the first part that has one describes it."""
    described: dict[str, Setting] = {}
    for parts, _ in AXES.values():
        for part in parts.values():
            for setting in part.settings:
                if not part.is_own(setting):
                    described.setdefault(setting.name, setting)
    return described


_SETTINGS = _settings()
# Allowed texts of the fields that choose or set a part.
CHOICES = {
    "importance_sampling_level": (
        "token",
        "sequence",
        *(part.fields["importance_sampling_level"] for part in AXES["policy_loss"][0].values() if part.fields),
    ),
    "kl_estimator": tuple(DIVERGENCES),
    "kl_placement": ("loss", "reward"),
    "prompt_sampling": ("uniform", "signal"),
    "prompt_weights": ("equal", "unbiased"),
    "surplus_groups": ("drop", "keep"),
} | {name: setting.choices for name, setting in _SETTINGS.items() if setting.choices}


def check_sizes(args: "VariantFields") -> None:
    """Check the sizes that others are computed from: a `ValueError` if one is no whole number."""
    for name in SIZES:
        if getattr(args, name) is not UNSET:
            check_whole_number(name, getattr(args, name), optional=name not in _GIVEN_SIZES)


def check_resolved(args: "VariantFields") -> None:
    """
    Check each value of a resolved configuration, and whether they mean something together; a `ValueError` if not.
    """
    _check_values(args)
    check_vllm_settings(args)
    _check_choices_agree(args)
    _check_uses(args)
    _check_policy_term(args)
    _check_divergences(args)
    _check_advantages(args)
    check_prompt_settings(args)
    check_reward_workers(args)
    if args.pack_rollout and args.share_prompt:
        raise ValueError(
            "`pack_rollout=True` and `share_prompt=True` are two ways to lay out the same rows; set one of them."
        )


def check_filled(args: "VariantFields") -> None:
    """
    Check what TRL has filled in or parsed from text: sizes, and the settings of parts that are no fields.

    Raises a `ValueError` if a process would divide a group, a setting is unknown, missing or out of its range, a user's
    function cannot be called, or the best model is to be told by a success that is not measured.
    """
    for what in ("gradient_accumulation_steps", "steps_per_generation") if args.group_preserving_split else ():
        rows = getattr(args, what) * args.per_device_train_batch_size
        if rows % args.num_generations != 0:
            raise ValueError(
                f"`group_preserving_split=True` needs `per_device_train_batch_size * {what}` to be a multiple of "
                f"`num_generations`, so that a process holds whole groups; got {rows} and {args.num_generations}."
            )
    for axis in AXES:
        _check_part(args, axis)
    advantage = chosen_parts(vars(args)).advantage
    domain = "" if advantage is None else advantage.domain_of(vars(args)).text
    if args.kl_placement == "reward" and domain:
        raise ValueError(
            f"{part_label(args, 'advantage')} takes rewards {domain}, which they no longer are less their KL; leave "
            "`kl_placement` at 'loss', or choose another advantage."
        )
    _check_best_metric(args)


def _check_best_metric(args: "VariantFields") -> None:
    metric = args.metric_for_best_model or ""
    if not metric.removeprefix("eval_").startswith("success@"):
        return
    if not args.extends_trl:
        raise ValueError(
            f"`metric_for_best_model={metric!r}` is measured in runs of a variant only; set `variant`, which may be "
            "'grpo'."
        )
    group = args.num_generations_eval or args.num_generations
    measured = [f"success@{k}" for k in success_sizes(group)]
    if metric.removeprefix("eval_") not in measured:
        raise ValueError(
            f"`metric_for_best_model={metric!r}` is not measured with {group} completions of a prompt in an "
            f"evaluation, but {', '.join(measured)}; choose one of them or change `num_generations_eval`."
        )


def _check_values(args: "VariantFields") -> None:
    for name, allowed in CHOICES.items():
        check_choice(name, getattr(args, name), allowed)
    check_number("mirror_beta", args.mirror_beta, at_least=0.0, at_most=MAX_COEFFICIENT)
    for setting in LENGTH_WEIGHTS.settings:
        check_setting(setting, setting.name, getattr(args, setting.name))
    check_whole_number("mirror_sync_steps", args.mirror_sync_steps, optional=True)
    check_whole_number("num_iterations", args.num_iterations)
    # A stock configuration is TRL's to judge: a newer TRL may know values that are not known here.
    own = not args.has_stock_objective
    parts = args.parts
    chosen = [setting for part in map(parts.on, AXES) if part is not None for setting in part.settings]
    # A bound that no part reads may not be nonsense either.
    for name, setting in (_SETTINGS | {setting.name: setting for setting in chosen}).items():
        if not setting.choices and hasattr(args, name) and (own or name == "reward_variance_epsilon"):
            check_setting(setting, name, getattr(args, name), optional=name != "epsilon")
    for name, allowed in _STOCK_CHOICES.items():
        if own or not isinstance(getattr(args, name), str):
            check_choice(name, getattr(args, name), allowed)
    if not own:
        return
    check_number("beta", args.beta, at_least=0.0, at_most=MAX_COEFFICIENT)
    check_number("top_entropy_quantile", args.top_entropy_quantile, at_least=0.0, at_most=1.0)
    check_whole_number("max_completion_length", args.max_completion_length, optional=True)
    check_whole_number("num_generations_eval", args.num_generations_eval, at_least=0, optional=True)
    for name in ("use_vllm", "vllm_importance_sampling_correction", "use_bias_correction_kl", "sync_ref_model"):
        check_flag(name, getattr(args, name))
    if args.sync_ref_model:
        check_whole_number("ref_model_sync_steps", args.ref_model_sync_steps)
        check_number("ref_model_mixup_alpha", args.ref_model_mixup_alpha, at_least=0.0, at_most=1.0)


def check_setting(setting: Setting, name: str, value: Any, *, optional: bool = False) -> None:
    """Check one value of a setting, named as the user knows it; a `ValueError` if it is not allowed."""
    if setting.choices:
        check_choice(name, value, setting.choices)
    elif setting.is_whole and setting.at_most is None:
        check_whole_number(name, value, at_least=int(setting.at_least or 0), optional=optional)
    else:
        bounds = {"greater_than": setting.greater_than, "at_least": setting.at_least, "at_most": setting.at_most}
        check_number(name, value, **bounds, optional=optional)


def _check_part(args: "VariantFields", axis: str) -> None:
    """The settings of a part that are no fields, and, of a user's function, whether it takes them."""
    part, field = _part(args, axis), f"{axis}_kwargs"
    kwargs = {} if getattr(args, field) is None else getattr(args, field)
    if not isinstance(kwargs, dict) or not all(isinstance(name, str) for name in kwargs):
        raise ValueError(f"`{field}` must be a dictionary with names of settings; got {kwargs!r}.")
    known = {name: default for name, default in part.keywords().items() if not hasattr(args, name)}
    for name in kwargs:
        if name not in known:
            allowed = f"takes {', '.join(f'`{name}`' for name in known)}" if known else "takes none"
            near = did_you_mean(name, known, quote="`") if known else "."
            raise ValueError(f"`{field}` sets `{name}`, but {part_label(args, axis)} {allowed}{near}")
    missing = [name for name, default in known.items() if default is inspect.Parameter.empty and name not in kwargs]
    if missing:
        raise ValueError(f"{part_label(args, axis)} needs `{missing[0]}`; give it in `{field}`.")
    for setting in part.settings:
        if setting.name in kwargs:
            check_setting(setting, f"{field}[{setting.name!r}]", kwargs[setting.name])
    check_relations(part, part.values_of(vars(args)), vars(args), part_label(args, axis))
    if part.function is not None:
        _check_signature(part, args, axis, known)


def check_relations(part: Part, settings: Mapping[str, Any], fields: Mapping[str, Any], label: str) -> None:
    """Check settings whose bound is another setting of the part, or a field if that is known; a `ValueError`."""
    for setting in part.settings:
        for others, words in ((setting.below, "less than"), (setting.within, "at most")):
            for other in others:
                # A field without a value is one of `None`, or, where TRL counts, of 0.
                bound = settings[other] if other in settings else fields.get(other) or None
                value = settings[setting.name]
                if bound is not None and not (value < bound or (value == bound and others is setting.within)):
                    raise ValueError(
                        f"`{setting.name}` of {label} must be {words} `{other}`; got {value!r} and {bound!r}."
                    )


def _check_signature(part: Part, args: "VariantFields", axis: str, known: dict[str, Any]) -> None:
    fields = [setting.name for setting in part.settings if setting.name in part.keywords()]
    provided = [name for name in part.provided if part.takes(name)]
    try:
        signature = inspect.signature(part.function)  # type: ignore[arg-type]
        signature.bind(*[None] * part.positional, **dict.fromkeys([*fields, *provided, *known]))
    except (TypeError, ValueError) as error:
        arguments = "(rewards, num_generations)" if axis == "advantage" else "(inputs)"
        raise ValueError(
            f"{part_label(args, axis)} must be callable as `function{arguments}`, with its settings as keywords: {error}."
        ) from error


def _part(args: "VariantFields", axis: str) -> Part:
    part = chosen_parts(vars(args)).on(axis)
    # Without a part there is a value of TRL's that is not known here.
    return part if part is not None else AXES["advantage"][0]["group_std"]


def part_label(args: "VariantFields", axis: str) -> str:
    """
    The choice of a part as a user makes it: the field that names it, or the one of TRL's that chooses it, with its
    value.
    """
    if getattr(args, axis) is not None:
        return f"`{axis}={getattr(args, axis)!r}`"
    field = list(_part(args, axis).fields or {}) or [AXES[axis][1]]
    return f"`{field[-1]}={getattr(args, field[-1])!r}`"


def unused_settings(args: "VariantFields") -> Iterator[tuple[str, str, bool]]:
    """Settings that the chosen parts do not read: field, what does not use it, and whether it needs another part."""
    for axis, (parts, _) in AXES.items():
        part = _part(args, axis)
        own, read = {setting.name: setting for setting in part.settings}, part.reads(vars(args))
        names = {setting.name for other in parts.values() for setting in other.settings if hasattr(args, setting.name)}
        # The upper bound is the lower one's mirror image where it is not given.
        if "epsilon_high" in read and args.epsilon_high is None:
            read = read | {"epsilon"}
        for name in sorted(names - read):
            if name in own:
                field = next(f for f, allowed in own[name].only_with.items() if getattr(args, f) not in allowed)
                yield name, f"`{field}={getattr(args, field)!r}`", False
            else:
                yield name, part_label(args, axis), True


def _check_uses(args: "VariantFields") -> None:
    """Settings that the chosen parts do not read."""
    for name, user, needs_another in unused_settings(args):
        is_set = getattr(args, name) != CHOICES.get(name, (None,))[0]
        if needs_another and is_set and name not in BOUNDS_OF_TRL and not args.has_stock_objective:
            others = [part for parts, _ in AXES.values() for part in parts.values() if name in part.reads(vars(args))]
            wanted = (others[0].fields or {}) if others else {}
            fields = [
                f"`{field}={value!r}`"
                for field, value in wanted.items()
                if getattr(args, field) != value and field != name
            ]
            remedy = f"it needs {fields[0]}" if fields else "leave it unset"
            raise ValueError(f"`{name}={getattr(args, name)!r}` is not used by {user}; {remedy}.")


def _check_choices_agree(args: "VariantFields") -> None:
    """A part that is named, and the one that the fields of TRL's choose."""
    for axis, (parts, _) in AXES.items():
        if getattr(args, axis) is None:
            continue
        named = _part(args, axis)
        by_fields = next((part for part in parts.values() if part.is_chosen_by(vars(args))), None)
        if (
            by_fields is not None
            and by_fields is not named
            and by_fields.name not in ("group_std", "clipped", "uniform")
        ):
            field = list(by_fields.fields or {})[-1]
            raise ValueError(
                f"{part_label(args, axis)} and `{field}={getattr(args, field)!r}` choose two different parts; leave one of "
                "them unset."
            )


def _check_policy_term(args: "VariantFields") -> None:
    part, user = chosen_parts(vars(args)).policy, part_label(args, "policy_loss")
    if not args.has_stock_objective and args.loss_type == "dr_grpo" and args.max_completion_length is None:
        raise ValueError(
            "`loss_type='dr_grpo'` divides by `max_completion_length`, which is None; give it a whole number of at "
            "least 1."
        )
    if part.function is None:
        return
    if args.loss_type in WEIGHTING_LOSS_TYPES:
        raise ValueError(
            f"`loss_type={args.loss_type!r}` is a way to weight tokens by their ratio, which {user} replaces; use a loss "
            f"type that only aggregates{f', {part.loss_type!r} for that of the paper' if part.loss_type else ''}."
        )
    if not part.is_per_trajectory:
        return
    if args.parts.token_advantage.function is not None:
        raise ValueError(
            f"{part_label(args, 'token_advantage')} gives an advantage per token, but {user} has one term per sequence; "
            "leave one of them unset."
        )
    if args.loss_type not in _UNIFORM_LOSS_TYPES:
        raise ValueError(
            f"`loss_type={args.loss_type!r}` weights a sequence by its length, but {user} has one term per sequence; use "
            f"one of {', '.join(map(repr, _UNIFORM_LOSS_TYPES))} ({part.loss_type!r} is the paper's)."
        )
    if args.top_entropy_quantile < 1.0:
        raise ValueError(
            f"`top_entropy_quantile={args.top_entropy_quantile}` selects tokens, but {user} has one term per sequence; "
            "leave it at 1.0."
        )
    if args.use_vllm and args.vllm_importance_sampling_correction:
        if not args.vllm_importance_sampling_mode.startswith("sequence"):
            raise ValueError(
                f"`vllm_importance_sampling_mode={args.vllm_importance_sampling_mode!r}` gives a factor per token, but "
                f"{user} has one term per sequence; use 'sequence_truncate' or 'sequence_mask'."
            )


def _check_divergences(args: "VariantFields") -> None:
    if args.mirror_sync_steps is not None and args.mirror_beta == 0.0:
        raise ValueError(
            f"`mirror_sync_steps={args.mirror_sync_steps}` holds an anchor that nothing uses; set `mirror_beta` "
            "to a value greater than 0, or leave `mirror_sync_steps` unset."
        )
    if args.mirror_beta != 0.0:
        if args.no_is_gradient == "frozen" and args.mirror_sync_steps is None:
            raise ValueError(
                f"`mirror_beta={args.mirror_beta}` can never act with `no_is_gradient='frozen'`: the KL to the "
                "policy that made the rollout has no gradient at that policy. Set `mirror_sync_steps` for an "
                "older anchor, or use `no_is_gradient='current'`."
            )
        if not args.use_bias_correction_kl and args.kl_estimator == "k3":
            raise ValueError(
                "`use_bias_correction_kl=False` would turn the KL to the previous policy "
                f"(`mirror_beta={args.mirror_beta}`) into a forward KL; leave it at True."
            )
    if args.sync_ref_model and args.beta == 0.0:
        raise ValueError("`sync_ref_model=True` moves a reference that `beta=0.0` does not use; set `beta` > 0.")
    if args.kl_placement == "reward" and args.beta == 0.0:
        raise ValueError("`kl_placement='reward'` places a KL that `beta=0.0` leaves out; set `beta` > 0.")
    if args.kl_estimator != "k3" and not loss_coefficients(vars(args)):
        if args.kl_placement == "reward":
            raise ValueError(
                f"`kl_estimator={args.kl_estimator!r}` is about KL terms in the loss, and there is none: with "
                "`kl_placement='reward'` the KL to the reference is estimated by k1; leave it at 'k3', or set `mirror_beta`."
            )
        coefficients = " or ".join(f"`{anchor.coefficient}`" for anchor in ANCHORS.values())
        raise ValueError(f"`kl_estimator={args.kl_estimator!r}` estimates a KL that nothing uses; set {coefficients}.")


def _check_advantages(args: "VariantFields") -> None:
    advantage = chosen_parts(vars(args)).advantage
    is_zero = advantage is None or advantage.is_zero_without_variance
    if args.mask_zero_variance_groups and is_zero and not loss_coefficients(vars(args)):
        raise ValueError(
            "`mask_zero_variance_groups=True` can never act without a KL term in the loss: the policy term of such a group "
            "is zero already. Set `beta` or `mirror_beta`, or leave it off."
        )
    sums = {
        "mask_zero_variance_groups": args.mask_zero_variance_groups,
        "advantage": args.advantage is not None and _part(args, "advantage").function is not None,
        "kl_placement": args.kl_placement == "reward",
    }
    for name, needs_sum in sums.items():
        if needs_sum and args.multi_objective_aggregation != "sum_then_normalize":
            raise ValueError(
                f"`{name}={getattr(args, name)!r}` works on the summed reward of a completion, so it needs "
                f"`multi_objective_aggregation='sum_then_normalize'`; got {args.multi_objective_aggregation!r}."
            )
    if args.length_weight_power != 0.0 and args.loss_type in _LENGTH_LOSS_TYPES:
        raise ValueError(
            f"`length_weight_power={args.length_weight_power}` weights completions by their length, which "
            f"`loss_type={args.loss_type!r}` does already; use 'dr_grpo', which is the paper's, or another that weights all "
            "tokens alike."
        )
