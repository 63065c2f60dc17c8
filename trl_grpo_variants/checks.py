# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Checks of single values, of a configuration and of a trainer; each refusal is one sentence."""

import math
from numbers import Integral, Real
from typing import Any


# The largest coefficient whose product with a bounded divergence is representable in each precision.
MAX_COEFFICIENT = 1e6
# Less than that is 0 in single precision, and 0 / 0 where all rewards of a group are equal.
LEAST_VARIANCE_EPSILON = 1e-30


def check_choice(config: Any, name: str, allowed: tuple[str, ...]) -> None:
    """
    Refuse a value that is none of those allowed.

    Args:
        config (`Any`):
            Configuration.
        name (`str`):
            Field.
        allowed (`tuple[str, ...]`):
            Its values.

    Raises:
        `ValueError`: If it is none of them.
    """
    value = getattr(config, name)
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}; got {value!r}.")


def check_number(
    config: Any,
    name: str,
    *,
    at_least: float | None = None,
    greater_than: float | None = None,
    at_most: float | None = None,
) -> None:
    """
    Refuse what is no finite number in a range; `None` passes.

    Args:
        config (`Any`):
            Configuration.
        name (`str`):
            Field.
        at_least (`float`, *optional*):
            Least value.
        greater_than (`float`, *optional*):
            Bound that is not reached from above.
        at_most (`float`, *optional*):
            Greatest value.

    Raises:
        `ValueError`: If it is no number, not finite, or out of the range.
    """
    value = getattr(config, name)
    if value is None:
        return
    number = _is_finite(value)
    if at_least is not None and not (number and value >= at_least):
        raise ValueError(f"`{name}` must be a number of at least {at_least:g}; got {value!r}.")
    if greater_than is not None and not (number and value > greater_than):
        raise ValueError(f"`{name}` must be a number greater than {greater_than:g}; got {value!r}.")
    if at_most is not None and not (number and value <= at_most):
        raise ValueError(f"`{name}` must be a number of at most {at_most:g}; got {value!r}.")


def check_whole_number(config: Any, name: str, *, at_least: int = 1, optional: bool = True) -> None:
    """
    Refuse what is no whole number.

    Args:
        config (`Any`):
            Configuration.
        name (`str`):
            Field.
        at_least (`int`, *optional*, defaults to `1`):
            Least value.
        optional (`bool`, *optional*, defaults to `True`):
            Whether `None` passes.

    Raises:
        `ValueError`: If it is no whole number, or too small.
    """
    value = getattr(config, name)
    if value is None and optional:
        return
    if not isinstance(value, Integral) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"`{name}` must be a whole number of at least {at_least}; got {value!r}.")


def check_flag(config: Any, name: str) -> None:
    """
    Refuse what is neither `True` nor `False`: a text such as `"no"` would count as true.

    Args:
        config (`Any`):
            Configuration.
        name (`str`):
            Field.

    Raises:
        `ValueError`: If it is neither.
    """
    value = getattr(config, name)
    if not isinstance(value, bool):
        raise ValueError(f"`{name}` must be True or False; got {value!r}.")


def check_model(model: Any) -> None:
    """
    Refuse what is neither a model nor the name of one.

    Args:
        model (`Any`):
            The trainer's `model` argument.

    Raises:
        `TypeError`: If it is neither.
    """
    # Planning checks numbers too, and does without PyTorch.
    from torch import nn

    if not isinstance(model, str | nn.Module):
        raise TypeError(f"`model` must be the name or the path of a model as a `str`, or a model; got {model!r}.")


def _is_finite(value: Any) -> bool:
    # Comparisons are false for NaN, and possible with integers that no float holds.
    return isinstance(value, Real) and not isinstance(value, bool) and -math.inf < value < math.inf  # type: ignore[operator]
