# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What the functions of this package accept; everything else is refused with one sentence."""

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

from .logodds import Array


def probabilities(name: str, value: Any) -> Array:
    """Float64 array of the given values, if all of them are in [0, 1]."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must hold numbers in one regular shape; got {_short(value)}.") from error
    wrong = array[~((array >= 0.0) & (array <= 1.0))]
    if wrong.size:
        raise ValueError(f"`{name}` must be between 0 and 1; got {wrong[0]:g}.")
    return array


def same_shape(**arrays: Array) -> None:
    """Refuse arrays that do not broadcast against one another."""
    try:
        np.broadcast_shapes(*(array.shape for array in arrays.values()))
    except ValueError as error:
        shapes = ", ".join(f"`{name}` of shape {array.shape}" for name, array in arrays.items())
        raise ValueError(f"The shapes do not broadcast against one another: {shapes}.") from error


def coefficients(beta: Any, mirror_beta: Any) -> tuple[float, float]:
    """The two KL coefficients, if neither is negative and one of them is positive."""
    values = (number("beta", beta, at_least=0.0), number("mirror_beta", mirror_beta, at_least=0.0))
    if values == (0.0, 0.0):
        raise ValueError(
            "`beta` and `mirror_beta` are both 0, and without a KL term any policy of success 1 is optimal; "
            "set one of them above 0."
        )
    return values


def number(name: str, value: Any, *, at_least: float | None = None, greater_than: float | None = None) -> float:
    """A finite number within its bound."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    usable = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    if at_least is not None and not (usable and value >= at_least):
        raise ValueError(f"`{name}` must be a number of at least {at_least:g}; got {_short(value)}.")
    if greater_than is not None and not (usable and value > greater_than):
        raise ValueError(f"`{name}` must be a number greater than {greater_than:g}; got {_short(value)}.")
    return float(value)


def whole_number(name: str, value: Any, *, at_least: int) -> int:
    """A whole number within its bound."""
    if not isinstance(value, Integral) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"`{name}` must be a whole number of at least {at_least}; got {_short(value)}.")
    return int(value)


def choice(name: str, value: Any, allowed: Sequence[str]) -> str:
    """One of the names."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}; got {_short(value)}.")
    return value


def _short(value: Any) -> str:
    written = " ".join(repr(value).split())
    return written if len(written) <= 60 else f"{written[:57]}..."
