# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""How an explicit value, a preset, the parts that are named and TRL's defaults resolve the fields of a configuration."""

import copy
import inspect
from collections.abc import Mapping
from typing import Any

from .checks import UNSET
from .combinations import BOUNDS_OF_TRL
from .compat import trl_version
from .fields import KL_CORRECTION, OWN_DEFAULTS, SET_BY_PRESETS, TRL_DEFAULTS, VariantFields
from .objective.choice import AXES, importable_name
from .objective.policies.clipped import WEIGHTING_LOSS_TYPES
from .suggest import did_you_mean
from .variants import get_variant


# What belongs to a preset's part on an axis and is dropped with it when an explicit value replaces the part.
_BELONGINGS = {
    axis: {axis, field, f"{axis}_kwargs"}.union(setting.name for part in parts.values() for setting in part.settings)
    - {*BOUNDS_OF_TRL}
    for axis, (parts, field) in AXES.items()
}
_COMPILES = ("torch_compile", "torch_compile_backend", "torch_compile_mode")


def resolve(args: VariantFields, defaults: Mapping[str, Any]) -> tuple[set[str], list[str]]:
    """
    Give every field its value, and tell which ones the user has chosen and how that departs from the variant.

    `defaults` are those of the fields of TRL.
    """
    # TRL's own aliases, so that what follows compares names.
    if isinstance(args.scale_rewards, bool):
        args.scale_rewards = "group" if args.scale_rewards else "none"
    for axis in AXES:
        if inspect.isfunction(getattr(args, axis)):
            setattr(args, axis, importable_name(axis, getattr(args, axis)))
    given = {name: getattr(args, name) for name in (*TRL_DEFAULTS, *OWN_DEFAULTS) if not _is_open(args, name)}
    settings, departures = _settings_of_variant(args, given)
    _fill(args, settings)
    for axis, (parts, _) in AXES.items():
        named = parts.get(getattr(args, axis)) if isinstance(getattr(args, axis), str) else None
        _fill(args, named.fields or {} if named is not None else {})
    _fill(args, {**defaults, **OWN_DEFAULTS, KL_CORRECTION: UNSET})
    _fill(args, {KL_CORRECTION: defaults[KL_CORRECTION] if _seems_stock(args) else True})

    # Each number of rows and each width may be one more compilation.
    compiles = any(getattr(args, name) not in (None, False) for name in _COMPILES)
    saves = not compiles and not _seems_stock(args)
    if args.trim_padding is None:
        args.trim_padding = saves
    if args.skip_inert_rows is None:
        args.skip_inert_rows = saves and not args.relates_rows
    chosen = {name for name, value in given.items() if value != {**defaults, **OWN_DEFAULTS}[name]}
    return chosen, departures


def _is_open(args: VariantFields, name: str) -> bool:
    """Whether a field still holds the default that stands for nothing."""
    value = getattr(args, name)
    return value is UNSET or (value is None and args.__dataclass_fields__[name].default is None)


def _fill(args: VariantFields, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if _is_open(args, name):
            setattr(args, name, value)


def _seems_stock(args: VariantFields) -> bool:
    """As `has_stock_objective`, also where a name is wrong and will be refused."""
    try:
        return args.has_stock_objective
    except ValueError:
        return False


def _settings_of_variant(args: VariantFields, given: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """What the variant sets, without what explicit values replace, and the sentences that tell of a replaced part."""
    if args.variant is None:
        return {}, []
    # Dictionaries among them are the user's to change afterwards.
    settings = copy.deepcopy(dict(get_variant(args.variant).settings))
    inner_steps = settings.pop("inner_steps", None)
    for name in settings:
        if name in args.__dataclass_fields__ and args.__dataclass_fields__[name].default in (None, UNSET):
            continue
        variant = f"The variant {args.variant!r} sets `{name}`"
        if name in args.__dataclass_fields__:
            raise ValueError(f"{variant}, which no variant can: an explicit value could not be told from its default.")
        if name in SET_BY_PRESETS:
            raise ValueError(f"{variant}, which TRL {trl_version} does not have; install TRL 1.16 to use it.")
        raise ValueError(f"{variant}, which is no field{did_you_mean(name, args.__dataclass_fields__, quote='`')}")
    if inner_steps is not None and args.steps_per_generation is None and args.generation_batch_size is None:
        args.steps_per_generation = inner_steps * args.gradient_accumulation_steps
    replaced = {name for name in settings.keys() & given.keys() if given[name] != settings[name]}
    # A coefficient that differs is a choice; a part that is replaced or switched off is another method.
    departures = [
        f"{name}={given[name]!r} instead of {settings[name]!r}"
        for name in sorted(replaced)
        if isinstance(settings[name], str | bool) or not given[name]
    ]
    if "loss_type" in replaced and any(v["loss_type"] in WEIGHTING_LOSS_TYPES for v in (settings, given)):
        # A bound on the ratio means something else to another loss type.
        for name in BOUNDS_OF_TRL:
            settings.pop(name, None)
    for axis, (parts, field) in AXES.items():
        # A part that is named replaces one that a field chooses, and the other way round.
        choosing = {name for part in parts.values() for name in part.fields or {}}
        for new, old in ((axis, field), *((name, axis) for name in sorted(choosing))):
            if new != old and {new, axis} & given.keys() == {new} and {new, old} & settings.keys() == {old}:
                replaced |= {axis}
                departures.append(f"{new}={given[new]!r} instead of {old}={settings[old]!r}")
        if replaced & {axis, field}:
            for name in _BELONGINGS[axis]:
                settings.pop(name, None)
    return settings, departures
