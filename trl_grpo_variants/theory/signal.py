# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
The learning signal Omega = A+ - A-: how strongly an advantage separates success from failure.

The exact step of [Mroueh](https://huggingface.co/papers/2503.06639) is proportional to exp(A / (beta + mirror_beta)),
so that whatever an advantage gives to successes and failures alike, a baseline, cancels: of any advantage only Omega
as a function of the success enters (derived). Here it is one of the log-odds L.
"""

import inspect
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np

from ..combinations import check_relations, check_setting
from ..objective.advantages import ADVANTAGES
from ..objective.choice import chosen_parts
from ..objective.terms import Advantage
from ..suggest import did_you_mean
from . import checks
from .logodds import Array, logit, probabilities


DEFAULT_ADVANTAGE = "smoothed_std"
# Imaginary step of a derivative: nothing is subtracted, so that it may be far below rounding.
_TINY = 1e-10
# Log-odds at which a signal is tried out; at none of them something special is to be expected.
_PROBES = np.linspace(-2.03, 2.01, 31)
# Where turns of a slope are looked for. Success and failure are still numbers of full precision at 700.
_NEAR = np.linspace(-40.0, 40.0, 8001)
_FAR = np.linspace(40.1, 700.0, 6600)
_GRID = np.concatenate([-_FAR[::-1], _NEAR, _FAR])
# A turn is one if it stands out from rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Signal:
    """
    Omega of an advantage, with what a map of log-odds needs to know of its slope dOmega/dL.

    Turns of the slope are looked for between log-odds of -700 and 700, in steps of 0.01 up to 40 and of 0.1 beyond, and
    then refined. Between neighbouring turns the slope is monotone, hence crosses a level once or not at all, and none
    of a map's fixed points is missed. What this cannot see is a pair of turns within one step.

    Parameters:
        name (`str`):
            Name of the advantage.
        function (`Callable`):
            Omega of success and failure, two arrays of one shape.
        of_groups (`Callable`, *optional*):
            Omega of the number of successes and the size of a group; `None` where it is that of the share.
        why_not_groups (`str`, *optional*):
            Why more than exact iteration cannot be known from it, as the end of a sentence.
    """

    name: str
    function: Callable[[Array, Array], Any]
    of_groups: Callable[[Array, Any], Any] | None = None
    why_not_groups: str | None = None

    def __post_init__(self) -> None:
        values = self.omega(_PROBES)
        if not (np.isfinite(values) & (values > 0.0)).all():
            raise ValueError(
                f"`advantage` must have a signal above 0 where success is between 0 and 1; {self.name} has none."
            )

    def omega(self, log_odds: Array) -> Array:
        """Omega at the given log-odds, same shape; it may be infinite at -inf and inf."""
        # A scalar would be computed by other code, and in the last digit otherwise, than the same number in an array.
        success, failure = probabilities(np.ravel(log_odds))
        with np.errstate(all="ignore"):
            return _checked(self.function(success, failure), success).reshape(np.shape(log_odds))

    def of_group(self, successes: Array, num_generations: Any) -> Array:
        """Omega that a group with this many successes computes from its own statistics; both may be arrays."""
        with np.errstate(all="ignore"):
            if self.of_groups is not None:
                values = np.asarray(self.of_groups(successes, num_generations), dtype=np.float64)
                # A group that is too small for an advantage has none.
                return _checked(np.where(np.isnan(values), 0.0, values), successes)
            share, rest = successes / num_generations, (num_generations - successes) / num_generations
            return _checked(self.function(share, rest), successes)

    def check_groups(self) -> None:
        """Refuse with a `ValueError` what depends on more of an advantage than Omega: finite groups and clips."""
        if self.why_not_groups is not None:
            raise ValueError(f"Of `advantage={self.name!r}` only exact iteration is known: {self.why_not_groups}.")

    def slope(self, log_odds: Array) -> Array:
        """dOmega/dL at the given log-odds, same shape; 0 at -inf and inf."""
        flat = np.ravel(log_odds)
        with np.errstate(all="ignore"):
            slopes = np.where(np.isinf(flat), 0.0, self._derivative(flat))
        return slopes.reshape(np.shape(log_odds))

    @cached_property
    def _derivative(self) -> Callable[[Array], Array]:
        numerical = self._difference(_PROBES)
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings():
                # Of an imaginary part that is dropped; the values tell.
                warnings.simplefilter("ignore")
                found = self._imaginary(_PROBES)
        except (TypeError, ValueError):
            return self._difference
        agrees = np.allclose(found, numerical, rtol=1e-6, atol=1e-6 * np.abs(self.omega(_PROBES)).max())
        return self._imaginary if agrees else self._difference

    def _imaginary(self, log_odds: Array) -> Array:
        """The derivative to the last digits, as the imaginary part at L + i tiny, of what can be computed there."""
        success, failure = probabilities(log_odds)
        step = 1j * _TINY * success * failure
        return np.broadcast_to(np.imag(self.function(success + step, failure - step)) / _TINY, log_odds.shape)

    def _difference(self, log_odds: Array) -> Array:
        """The derivative from eight neighbours, to about twelve digits of Omega."""
        weights = {1: 4 / 5, 2: -1 / 5, 3: 4 / 105, 4: -1 / 280}
        step = 0.02
        pairs = (w * (self.omega(log_odds + k * step) - self.omega(log_odds - k * step)) for k, w in weights.items())
        return np.asarray(sum(pairs) / step)

    def _signed_slope(self, sign: float, log_odds: Array) -> Array:
        return sign * self.slope(log_odds)

    @cached_property
    def turns(self) -> tuple[Array, Array]:
        """Log-odds at which the slope is largest, and smallest, in its surroundings; each ascending."""
        slopes = self.slope(_GRID)
        found = []
        for sign in (1.0, -1.0):
            before, here, after = sign * slopes[:-2], sign * slopes[1:-1], sign * slopes[2:]
            rounding = _ROUNDING * np.abs(here) + 0.01 * _ROUNDING * self.omega(_GRID[1:-1])
            stands_out = here - np.minimum(before, after) > rounding
            index = np.flatnonzero((here >= before) & (here >= after) & stands_out)
            found.append(_highest(partial(self._signed_slope, sign), _GRID[index], _GRID[index + 2]))
        return found[0], found[1]

    @cached_property
    def nodes(self) -> Array:
        """Ascending log-odds, between neighbours of which the slope is monotone."""
        return np.unique(np.concatenate([_GRID, *self.turns]))

    @cached_property
    def _slopes(self) -> Array:
        return self.slope(self.nodes)

    @cached_property
    def _largest_beyond(self) -> Array:
        """Largest Omega at each node and all beyond it, and at infinity."""
        values = self.omega(np.append(self.nodes, np.inf))
        return np.asarray(np.maximum.accumulate(values[::-1])[::-1])

    def largest_from(self, log_odds: Array) -> Array:
        """A bound of Omega at these log-odds and above them, same shape; nearly its supremum."""
        return np.maximum(self.omega(log_odds), self._largest_beyond[np.searchsorted(self.nodes, log_odds)])

    @property
    def is_constant(self) -> bool:
        """Whether Omega is the same at every success, so that exact iteration is that of mean-only advantages."""
        values = self.omega(_NEAR)
        return bool(np.ptp(values) <= _ROUNDING * values.max())

    def turning_points(self, level: float) -> tuple[Array, bool]:
        """Ascending log-odds where the slope crosses a positive level, and whether it is above the level before them."""
        above = self._slopes > level
        index = np.flatnonzero(above[1:] != above[:-1])
        sign = np.where(above[index], 1.0, -1.0)
        crossings = bisect(lambda x: sign * (self.slope(x) - level), self.nodes[index], self.nodes[index + 1])
        return crossings, bool(above[0])

    def least_slope(self, low: Array, high: Array) -> Array:
        """Smallest slope on each interval [low, high] of log-odds, two arrays of one shape."""
        low, high = np.asarray(low), np.asarray(high)
        least, troughs = np.minimum(self.slope(low), self.slope(high)), self.turns[1]
        inside = (low[..., None] <= troughs) & (troughs <= high[..., None])
        return np.minimum(least, np.where(inside, self.slope(troughs), np.inf).min(axis=-1, initial=np.inf))


def make_signal(advantage: Any, advantage_kwargs: Mapping[str, Any] | None = None) -> Signal:
    """
    The signal of an advantage: the name of one, a description, or a function Omega(p). A `ValueError` if it has none, or
    does not take the settings.
    """
    if callable(advantage):
        if advantage_kwargs:
            raise ValueError(
                "`advantage_kwargs` are settings of an advantage that is named; a function Omega(p) takes none."
            )
        return Signal("omega", lambda success, failure: advantage(success))
    if not isinstance(advantage, Advantage):
        found = chosen_parts({"advantage": advantage}).advantage if isinstance(advantage, str) else None
        if found is None:
            raise ValueError(f"`advantage` must be the name of one or a function Omega(p); got {advantage!r}.")
        advantage = found
    if advantage.omega is None:
        raise ValueError(
            f"`advantage={advantage.name!r}` has no signal that is a function of a prompt's success alone, which exact "
            f"iteration is about; {', '.join(map(repr, filter(_has_signal, ADVANTAGES)))} have one."
        )
    settings = _settings(advantage, dict(advantage_kwargs or {}))
    return Signal(
        advantage.name,
        partial(advantage.omega, **settings),
        None if advantage.group_omega is None else partial(advantage.group_omega, **settings),
        _why_not_groups(advantage),
    )


def _has_signal(name: str) -> bool:
    try:
        return ADVANTAGES[name].omega is not None and make_signal(name) is not None
    except ValueError:
        return False


def _why_not_groups(part: Advantage) -> str | None:
    if part.is_of_rollout:
        return "other groups of the rollout have a part in its advantages"
    if not part.is_centered or not part.is_zero_without_variance:
        return (
            "its advantages do not add up to 0 in each group, and what then remains of its baseline, in groups of finite "
            "size and under a clip, is no function of Omega"
        )
    return None


def _settings(part: Advantage, given: dict[str, Any]) -> dict[str, Any]:
    """Values of all settings: those given, which are checked, else what naming the part or its function gives them."""
    fields = part.fields or {}
    settings = part.keywords() | {
        setting.name: fields[setting.name] for setting in part.settings if setting.name in fields
    }
    for name in given:
        if name not in settings:
            allowed = f"takes {', '.join(f'`{known}`' for known in settings)}" if settings else "takes none"
            near = did_you_mean(name, settings, quote="`") if settings else "."
            raise ValueError(f"`advantage_kwargs` sets `{name}`, but `advantage={part.name!r}` {allowed}{near}")
    settings |= given
    for setting in part.settings:
        if settings[setting.name] is inspect.Parameter.empty:
            raise ValueError(f"`advantage={part.name!r}` needs `{setting.name}`; give it in `advantage_kwargs`.")
        check_setting(setting, setting.name, settings[setting.name])
    check_relations(part, settings, {}, f"`advantage={part.name!r}`")
    return settings


def omega(p: Any, *, advantage: Any = DEFAULT_ADVANTAGE, advantage_kwargs: Mapping[str, Any] | None = None) -> Array:
    """
    Signal strength Omega(p) of an advantage: that of a success less that of a failure, for rewards of 0 and 1 in large
    groups.

    For `"smoothed_std"` it is 1/sqrt(p(1 - p) + epsilon) and for `"mean_only"` 1, both from
    [Mroueh](https://huggingface.co/papers/2503.06639), GRPO's effective loss; for the others it is derived from their
    papers' formulas.

    Args:
        p (array-like):
            Success rates of any shape.
        advantage (`str`, [`Advantage`] or `Callable`, *optional*, defaults to `"smoothed_std"`):
            Advantage by its name in a configuration, or its description, or a function Omega(p) of your own: of an
            array of success rates, with values of that shape, above 0 between success 0 and 1.
        advantage_kwargs (`Mapping[str, Any]`, *optional*):
            Settings of the advantage, as in a configuration, and `reward_variance_epsilon`.

    Returns:
        `np.ndarray`:
            Omega, of the shape of `p`; it may be infinite at p = 0 and p = 1.

    Raises:
        `ValueError`: If an argument is out of range, or the advantage is no function of the success.
    """
    return make_signal(advantage, advantage_kwargs).omega(logit(checks.probabilities("p", p)))


def bisect(function: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Zeros, to the last digit, of functions that act entry by entry, and are positive at `low` and not at `high`."""
    low, high = (np.array(end, dtype=np.float64) for end in np.broadcast_arrays(low, high))
    while True:
        middle = low + (high - low) / 2.0
        if np.all((middle <= low) | (middle >= high)):
            return high
        positive = function(middle) > 0.0
        low = np.where(positive, middle, low)
        high = np.where(positive, high, middle)


def _highest(function: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Where functions that act entry by entry are highest, if each has one maximum between `low` and `high`."""
    golden = (5.0**0.5 - 1.0) / 2.0
    for _ in range(45):
        left, right = high - golden * (high - low), low + golden * (high - low)
        falls = function(left) > function(right)
        low, high = np.where(falls, low, left), np.where(falls, right, high)
    return (low + high) / 2.0


def _checked(values: Any, like: Array) -> Array:
    values = np.broadcast_to(np.asarray(values, dtype=np.float64), np.shape(like))
    if not (values >= 0.0).all():
        wrong = values[~(values >= 0.0)].flat[0]
        raise ValueError(f"`advantage` must have a signal of at least 0 at every success; got {wrong:g}.")
    return values
