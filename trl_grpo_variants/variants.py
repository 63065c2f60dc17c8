# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The named variants: the presets of this package, and those that a user registers."""

from .presets import PRESETS
from .presets.variant import Variant
from .suggest import did_you_mean


_VARIANTS: dict[str, Variant] = {}


def register_variant(variant: Variant) -> None:
    """
    Make a variant selectable by its name.

    Args:
        variant ([`Variant`]):
            Bundle of parts under a new name.

    Raises:
        `TypeError`: If it is not a [`Variant`].
        `ValueError`: If the name is taken.
    """
    if not isinstance(variant, Variant):
        raise TypeError(f"`variant` must be a Variant; got {variant!r}.")
    if variant.name in _VARIANTS:
        raise ValueError(f"A variant named {variant.name!r} is already registered; choose another name.")
    _VARIANTS[variant.name] = variant


def list_variants() -> list[str]:
    """
    Names of the registered variants.

    Returns:
        `list[str]`:
            Names in the order of registration.
    """
    return list(_VARIANTS)


def get_variant(name: str) -> Variant:
    """
    Look a variant up.

    Args:
        name (`str`):
            Name of a registered variant.

    Returns:
        [`Variant`]:
            Its parts.

    Raises:
        `ValueError`: If there is no such variant; the message lists the known names and suggests the nearest.
    """
    if not isinstance(name, str):
        raise ValueError(f"`variant` must be the name of a variant; got {name!r}.")
    if name not in _VARIANTS:
        raise ValueError(
            f"Unknown variant {name!r}; the known variants are {', '.join(_VARIANTS)}{did_you_mean(name, _VARIANTS)}"
        )
    return _VARIANTS[name]


for _variant in PRESETS:
    register_variant(_variant)
