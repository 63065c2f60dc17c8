# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""How an explicit value, a preset, the parts that are named and TRL's defaults resolve the fields of a configuration."""

import copy
import inspect
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from trl import GRPOConfig

from .combinations import BOUNDS_OF_TRL
from .objective.choice import AXES, importable_name
from .suggest import did_you_mean
from .variants import get_variant


if TYPE_CHECKING:
    from .config import GRPOVariantConfig


# Fields of TRL that variants set. The class declares them again with the default None, so that a value the user gives
# can be told from one the user leaves to the variant.
_SET_BY_VARIANTS = {"beta", "delta", "epsilon", "epsilon_high", "importance_sampling_level", "loss_type"}
_SET_BY_VARIANTS |= {"num_iterations", "scale_rewards"}
TRL_DEFAULTS = {f.name: f.default for f in fields(GRPOConfig) if f.name in _SET_BY_VARIANTS}
OWN_DEFAULTS: dict[str, Any] = {
    "advantage": None,
    "advantage_kwargs": None,
    "policy_loss": None,
    "policy_loss_kwargs": None,
    "kl_estimator": "k3",
    "no_is_gradient": "current",
    "trajectory_clip": "upper",
    "mirror_beta": 0.0,
    "mirror_sync_steps": None,
    "reward_variance_epsilon": None,
    "mask_zero_variance_groups": False,
    "group_preserving_split": False,
    "prompt_sampling": "uniform",
    "prompt_weights": "equal",
    "prompt_success_rates": None,
    "refill_groups": None,
    "surplus_groups": "drop",
}
# What belongs to a preset's part on an axis and is dropped with it when an explicit value replaces the part.
_BELONGINGS = {
    axis: {axis, field, f"{axis}_kwargs"}.union(setting.name for part in parts.values() for setting in part.settings)
    - {*BOUNDS_OF_TRL}
    for axis, (parts, field) in AXES.items()
}
_COMPILES = ("torch_compile", "torch_compile_backend", "torch_compile_mode")


def resolve(args: "GRPOVariantConfig") -> tuple[set[str], list[str]]:
    """Give every field its value, and tell which ones the user has chosen and how that departs from the variant."""
    # TRL's own aliases, so that what follows compares names.
    if isinstance(args.scale_rewards, bool):
        args.scale_rewards = "group" if args.scale_rewards else "none"
    for axis in AXES:
        if inspect.isfunction(getattr(args, axis)):
            setattr(args, axis, importable_name(axis, getattr(args, axis)))
    given = {name: getattr(args, name) for name in (*TRL_DEFAULTS, *OWN_DEFAULTS)}
    given = {name: value for name, value in given.items() if value is not None}
    settings, departures = _settings_of_variant(args, given)
    for name, value in settings.items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    for axis, (parts, _) in AXES.items():
        named = parts.get(getattr(args, axis)) if isinstance(getattr(args, axis), str) else None
        for name, value in (named.fields or {} if named is not None else {}).items():
            if getattr(args, name) is None:
                setattr(args, name, value)
    for name, default in (TRL_DEFAULTS | OWN_DEFAULTS).items():
        if getattr(args, name) is None:
            setattr(args, name, default)

    # Each number of rows and each width may be one more compilation.
    compiles = any(getattr(args, name) not in (None, False) for name in _COMPILES)
    saves = not compiles and not _seems_stock(args)
    for name, acts in (("trim_padding", True), ("skip_inert_rows", not args.relates_rows)):
        if getattr(args, name) is None:
            setattr(args, name, acts and saves)
    chosen = {name for name, value in given.items() if value != (TRL_DEFAULTS | OWN_DEFAULTS)[name]}
    return chosen, departures


def _seems_stock(args: "GRPOVariantConfig") -> bool:
    """As `has_stock_objective`, also where a name is wrong and will be refused."""
    try:
        return args.has_stock_objective
    except ValueError:
        return False


def _settings_of_variant(args: "GRPOVariantConfig", given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What the variant sets, without what explicit values replace, and the sentences that tell of a replaced part."""
    if args.variant is None:
        return {}, []
    # Dictionaries among them are the user's to change afterwards.
    settings = copy.deepcopy(dict(get_variant(args.variant).settings))
    inner_steps = settings.pop("inner_steps", None)
    for name in settings:
        if not hasattr(args, name):
            near = did_you_mean(name, args.__dataclass_fields__, quote="`")
            raise ValueError(f"The variant {args.variant!r} sets `{name}`, which is no field{near}")
    if inner_steps is not None and args.steps_per_generation is None and args.generation_batch_size is None:
        args.steps_per_generation = inner_steps * args.gradient_accumulation_steps
    replaced = {name for name in settings.keys() & given.keys() if given[name] != settings[name]}
    # A coefficient that differs is a choice; a part that is replaced or switched off is another method.
    departures = [
        f"{name}={given[name]!r} instead of {settings[name]!r}"
        for name in sorted(replaced)
        if isinstance(settings[name], str | bool) or given[name] == 0
    ]
    for axis, (parts, field) in AXES.items():
        # A part that is named replaces one that a field chooses, and the other way round.
        choosing = {name for part in parts.values() for name in part.fields or {}}
        for new, old in ((axis, field), *((name, axis) for name in sorted(choosing))):
            if {new, axis} & given.keys() == {new} and {new, old} & settings.keys() == {old}:
                replaced |= {axis}
                departures.append(f"{new}={given[new]!r} instead of {old}={settings[old]!r}")
        if replaced & {axis, field}:
            for name in _BELONGINGS[axis]:
                settings.pop(name, None)
    return settings, departures
