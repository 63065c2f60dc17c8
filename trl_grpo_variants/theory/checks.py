# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What arrays and coefficients the theory accepts; everything else is refused with one sentence."""

from typing import Any

import numpy as np

from ..checks import check_number, shown
from .logodds import Array


def probabilities(name: str, value: Any) -> Array:
    """Float64 array of the given values, if all of them are in [0, 1]."""
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must hold numbers in one regular shape; got {shown(value)}.") from error
    wrong = array[~((array >= 0.0) & (array <= 1.0))]
    if wrong.size:
        raise ValueError(f"`{name}` must be between 0 and 1; got {wrong[0]:g}.")
    return array


def probability(name: str, value: Any) -> Array:
    """A float64 array of no dimensions, if the value is one number in [0, 1]."""
    array = probabilities(name, value)
    if array.ndim != 0:
        raise ValueError(f"`{name}` must be one number; got an array of shape {array.shape}.")
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
    values = (check_number("beta", beta, at_least=0.0), check_number("mirror_beta", mirror_beta, at_least=0.0))
    if values == (0.0, 0.0):
        raise ValueError(
            "`beta` and `mirror_beta` are both 0, and without a KL term any policy of success 1 is optimal; "
            "set one of them above 0."
        )
    return values
