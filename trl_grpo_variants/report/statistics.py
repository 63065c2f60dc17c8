# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What the visits of a run say, in numbers."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..runs.intervals import Array, Z, mean_over_prompts, mean_with_interval, measured_success, wilson_interval
from ..runs.parts import even_parts, parts_of_run
from ..runs.trajectories import Trajectory
from ..theory import zero_variance_probability


if TYPE_CHECKING:
    import pandas as pd

# Parts of a run that a line is made of, and the fewest visits that a mean is taken over.
TWELFTHS, FEWEST_VISITS = 12, 4
_MOST_GAPS = 10
_TENTHS = 10


class Interval(NamedTuple):
    """A mean with the ends of its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def holds_zero(self) -> bool:
        """Whether no difference is among what the mean may be."""
        return self.low <= 0.0 <= self.high

    @property
    def inside(self) -> "Interval":
        """The same as shares, which lie between 0 and 1."""
        return Interval(*(min(1.0, max(0.0, value)) for value in self))


class Point(NamedTuple):
    """A mean at a place of an axis, and over how many visits it is taken."""

    at: float
    value: Interval
    visits: int


@dataclass(frozen=True)
class Change:
    """Mean success at the first and at the last visit, over the prompts that have two, and its change."""

    first: float
    last: float
    change: Interval
    prompts: int


class Gap(NamedTuple):
    """Mean of measured - predicted over the visits of these numbers."""

    first_visit: int
    last_visit: int
    value: Interval


@dataclass(frozen=True)
class Agreement:
    """
    How far visits lie from their predictions.

    Parameters:
        measured (`float`), predicted (`float`):
            Means at the first visits that have a prediction.
        at_visit (`int`):
            Number of these visits.
        distance (`Interval`):
            Mean of |measured - predicted| over all visits with a prediction.
        by_sampling (`float`):
            What that would be if each prediction were right.
        overlap (`float`):
            Share of the visits at which the intervals overlap.
    """

    measured: float
    predicted: float
    at_visit: int
    distance: Interval
    by_sampling: float
    overlap: float

    @property
    def is_sampling(self) -> bool:
        """Whether sampling alone explains the distance."""
        return self.distance.low <= self.by_sampling


class Silence(NamedTuple):
    """Shares of the groups in a part of the run that have no signal, by why; and the share that was predicted."""

    step: float
    all_succeed: float
    none_succeeds: float
    others: float
    predicted: float

    @property
    def total(self) -> float:
        """All that have no signal."""
        return self.all_succeed + self.none_succeeds + self.others


def change(trajectories: Iterable[Trajectory]) -> Change | None:
    """
    Success from the first to the last visit; `None` where no prompt was visited twice.

    The interval is that of the mean of the prompts' differences, or where it is wider that of the sampling of
    completions: few prompts may happen to change alike.
    """
    ends = [(t.successes[[0, -1]], t.completions[[0, -1]]) for t in trajectories]
    if not ends:
        return None
    successes, completions = (np.array(values) for values in zip(*ends, strict=True))
    (first, low_1, _), (last, low_2, _) = (measured_success(successes[:, i], completions[:, i]) for i in (0, 1))
    half = math.hypot(first - low_1, last - low_2)
    if len(ends) > 1:
        differences = (successes / completions) @ [-1.0, 1.0]
        mean, low, _ = mean_over_prompts(differences)
        half = max(half, mean - low)
    moved = last - first
    return Change(first, last, Interval(moved, moved - half, moved + half), len(ends))


def measured_points(visits: "pd.DataFrame") -> list[Point]:
    """Measured success in the parts of a run."""
    return [Point(members["step"].mean(), _measured(members), len(members)) for members in _parts(visits)]


def predicted_points(visits: "pd.DataFrame") -> list[Point]:
    """Predicted success in the same parts, over the visits that have a prediction."""
    points = []
    for members in _parts(visits):
        predicted = members.dropna(subset="predicted")
        if len(predicted) >= min(FEWEST_VISITS, len(members)):
            columns = (
                predicted[name].to_numpy(np.float64) for name in ("predicted", "predicted_low", "predicted_high")
            )
            points.append(Point(predicted["step"].mean(), Interval(*mean_with_interval(*columns)), len(predicted)))
    return points


def gaps(visits: "pd.DataFrame") -> list[Gap]:
    """Measured - predicted by the number of the visit, in at most ten groups of at least four visits each."""
    predicted = visits.dropna(subset="predicted")
    numbers = predicted["visit"].to_numpy()
    groups = parts_of_run(numbers, min(_MOST_GAPS, len(predicted) // FEWEST_VISITS))
    values = predicted["gap"].to_numpy(np.float64)
    found = []
    for group in np.unique(groups):
        chosen = groups == group
        if chosen.sum() >= FEWEST_VISITS:
            mean = Interval(*mean_over_prompts(values[chosen]))
            found.append(Gap(int(numbers[chosen].min()), int(numbers[chosen].max()), mean))
    return found


def agrees_from(found: list[Gap]) -> Gap | None:
    """The first of at least two last groups all of whose intervals hold 0; `None` where there are none."""
    agreeing: list[Gap] = []
    for gap in reversed(found):
        if not gap.value.holds_zero:
            break
        agreeing.append(gap)
    return agreeing[-1] if len(agreeing) >= 2 else None


def agreement(visits: "pd.DataFrame") -> Agreement | None:
    """How far visits lie from their predictions; `None` where fewer than two have one."""
    predicted = visits.dropna(subset="predicted")
    if len(predicted) < 2:
        return None
    at_visit = int(predicted["visit"].min())
    first = predicted[predicted["visit"] == at_visit]
    overlap = (predicted["low"] <= predicted["predicted_high"]) & (predicted["predicted_low"] <= predicted["high"])
    expected = [_mean_deviation(n, p) for n, p in zip(predicted["completions"], predicted["predicted"], strict=True)]
    return Agreement(
        measured=float(first["success"].mean()),
        predicted=float(first["predicted"].mean()),
        at_visit=at_visit,
        distance=Interval(*mean_over_prompts(predicted["gap"].abs().to_numpy(np.float64))),
        by_sampling=float(np.mean(expected)),
        overlap=float(overlap.mean()),
    )


def _mean_deviation(completions: int, p: float) -> float:
    """Mean of |k / n - p| for k successes of n completions, by de Moivre's formula."""
    n, k = int(completions), math.floor(completions * p) + 1
    if p <= 0.0 or k > n:
        return 0.0
    log_choose = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return 2.0 * k / n * math.exp(log_choose + k * math.log(p) + (n - k + 1) * math.log1p(-p))


def by_prediction(visits: "pd.DataFrame") -> list[Point]:
    """Measured success of the visits in each tenth of the prediction, at the mean of their predictions."""
    predicted = visits.dropna(subset="predicted")
    tenths = np.clip((predicted["predicted"] * _TENTHS).astype(int), 0, _TENTHS - 1)
    return [
        Point(members["predicted"].mean(), _measured(members), len(members))
        for _, members in predicted.groupby(tenths)
    ]


def silences(visits: "pd.DataFrame", number: int | None = None) -> list[Silence]:
    """Groups without signal in twelfths of a run or so many parts; predicted where all visits of a part have a prediction."""
    # Completions that no function has scored make a group look smaller.
    size = round((visits["completions"] / visits["groups"]).max()) if len(visits) else 0
    found = []
    for members in _parts(visits, number):
        columns = ["groups", "groups_without_signal", "silent_all_succeed", "silent_none_succeeds"]
        groups, silent, *why = members[columns].sum()
        is_predicted = size >= 2 and members["predicted"].notna().all()
        expected = zero_variance_probability(members["predicted"], size).mean() if is_predicted else math.nan
        shares = [float(number / groups) for number in (*why, silent - sum(why))]
        found.append(Silence._make([float(members["step"].mean()), *shares, float(expected)]))
    return found


def silent_quarters(visits: "pd.DataFrame") -> tuple[Silence, Silence] | None:
    """Groups without signal in the first and in the last quarter of the rollouts; `None` without any visit."""
    quarters = silences(visits, 4)
    return (quarters[0], quarters[-1]) if quarters else None


@dataclass(frozen=True)
class Rows:
    """
    The prompts of one kind that the map shows.

    Parameters:
        kind (`str`):
            What became of them.
        total (`int`):
            How many there are.
        shown (`list[Trajectory]`):
            Evenly spaced ones, by how much they changed.
    """

    kind: str
    total: int
    shown: list[Trajectory]


def rows_by_kind(trajectories: dict[str, list[Trajectory]], most: int) -> list[Rows]:
    """Of each kind as many as its share of at most so many rows, at least one."""
    total, spare = sum(map(len, trajectories.values())), most - len(trajectories)
    found = []
    for kind, members in trajectories.items():
        ordered = sorted(members, key=lambda member: -member.change)
        kept = len(members) if total <= most else 1 + math.floor(spare * len(members) / total)
        kept = min(kept, len(members))
        places = np.linspace(0, len(members) - 1, kept).round().astype(int) if kept > 1 else [len(members) // 2]
        found.append(Rows(kind, len(members), [ordered[place] for place in places]))
    return found


def cells(trajectory: Trajectory, columns: int, last_step: float) -> Array:
    """Pooled success in equal parts of the run, of shape `(columns,)`; NaN without a visit."""
    column = np.minimum(trajectory.steps * columns / max(last_step, 1.0), columns - 1).astype(int)
    successes, completions = (
        np.bincount(column, counts, columns) for counts in (trajectory.successes, trajectory.completions)
    )
    return np.divide(successes, completions, out=np.full(columns, np.nan), where=completions > 0)


def later_interval(trajectory: Trajectory) -> tuple[float, float]:
    """Ends of the interval of success in the later half of the visits."""
    successes, completions = trajectory.halves
    low, high = wilson_interval(successes[1] / completions[1], completions[1])
    return float(low), float(high)


def change_of_series(values: Array) -> Change | None:
    """
    A logged metric in the first and in the last tenth of its entries; `None` with fewer than three of them.

    The spread of an entry is that between neighbours, in which a trend has no part.
    """
    if len(values) < 3:
        return None
    tenth = max(1, len(values) // 10)
    first, last = float(values[:tenth].mean()), float(values[-tenth:].mean())
    half = Z * math.sqrt(np.square(np.diff(values)).mean() / tenth)
    return Change(first, last, Interval(last - first, last - first - half, last - first + half), 0)


def _parts(visits: "pd.DataFrame", number: int | None = None) -> "list[pd.DataFrame]":
    """The visits of so many parts of a run, twelfths if not given, of at least four visits where there are as many."""
    number = number or even_parts(visits["rollout"].nunique(), TWELFTHS)
    parts = parts_of_run(visits["rollout"], max(1, min(number, len(visits) // FEWEST_VISITS)))
    return [members for _, members in visits.groupby(parts)]


def _measured(visits: "pd.DataFrame") -> Interval:
    counts = (visits[name].to_numpy(np.float64) for name in ("successes", "completions"))
    return Interval(*measured_success(*counts)).inside
