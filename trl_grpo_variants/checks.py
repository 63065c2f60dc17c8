# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Checks of single values, which fields and arguments share; each refusal is one sentence. No torch, no TRL."""

import math
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np


# The largest coefficient whose product with a bounded divergence is representable in each precision.
MAX_COEFFICIENT = 1e6
# Less than that is 0 in single precision, and 0 / 0 where all rewards of a group are equal.
LEAST_VARIANCE_EPSILON = 1e-30


class _Unset:
    def __repr__(self) -> str:
        return "the variant's value"


# Default of a field whose `None` would be a value like any other.
UNSET: Any = _Unset()


def check_choice(name: str, value: Any, allowed: Sequence[str]) -> str:
    """A value that is one of those allowed; any other is refused with a `ValueError`."""
    if not isinstance(value, str) or value not in allowed:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, allowed))}; got {shown(value)}.")
    return value


def check_number(
    name: str,
    value: Any,
    *,
    greater_than: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
    optional: bool = False,
) -> Any:
    """
    A finite number in a range of which one bound at least is given, as a float; a `ValueError` for anything else.
    """
    if value is None and optional:
        return None
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    # Comparisons are false for NaN, and possible with integers that no float holds.
    number = isinstance(value, Real) and not isinstance(value, bool) and -math.inf < value < math.inf  # type: ignore[operator]
    if greater_than is not None and not (number and value > greater_than):
        raise ValueError(f"`{name}` must be a number greater than {greater_than:g}; got {shown(value)}.")
    if at_least is not None and not (number and value >= at_least):
        raise ValueError(f"`{name}` must be a number of at least {at_least:g}; got {shown(value)}.")
    if at_most is not None and not (number and value <= at_most):
        raise ValueError(f"`{name}` must be a number of at most {at_most:g}; got {shown(value)}.")
    return float(value)


def check_whole_number(name: str, value: Any, *, at_least: int = 1, optional: bool = False) -> Any:
    """A whole number that is large enough, or `None` where that may pass; a `ValueError` for anything else."""
    if value is None and optional:
        return None
    if not isinstance(value, Integral) or isinstance(value, bool) or value < at_least:
        raise ValueError(f"`{name}` must be a whole number of at least {at_least}; got {shown(value)}.")
    return int(value)


def check_flag(name: str, value: Any) -> None:
    """Refuse what is neither `True` nor `False` with a `ValueError`: a text such as `"no"` would count as true."""
    if not isinstance(value, bool):
        raise ValueError(f"`{name}` must be True or False; got {shown(value)}.")


def shown(value: Any) -> str:
    """A value as it stands in a sentence: on one line, and not too long for it."""
    written = " ".join(repr(value).split())
    return written if len(written) <= 60 else f"{written[:57]}..."


def check_model(model: Any) -> None:
    """Refuse a `model` argument that is neither a model nor the name of one, with a `TypeError`."""
    # Planning checks numbers too, and does without PyTorch.
    from torch import nn

    if not isinstance(model, str | nn.Module):
        raise TypeError(f"`model` must be the name or the path of a model as a `str`, or a model; got {model!r}.")
