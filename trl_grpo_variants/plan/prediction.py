# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""A plan and what follows from it: paths, groups without signal, a histogram, and the lines of a configuration."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import theory
from .method import Method


Array = NDArray[np.float64]

HISTOGRAM_EDGES = np.arange(11) / 10
# The one run that the paper reports: coefficient, success before and after.
PAPER_RUN = {"beta": 0.1, "before": 0.21, "after": 0.375}
_SHORTEST_PATH = 6
# Rows of a micro-batch, if nothing is said.
_DEFAULT_BATCH = 8


@dataclass(frozen=True)
class Prediction:
    """
    What a plan predicts.

    Parameters:
        rates (`np.ndarray`):
            Success of the reference: 0-dimensional, or shape `(n,)`.
        target (`float`):
            Success to end at.
        method ([`~plan.method.Method`]):
            What is trained with.
        group_size (`int`):
            Completions per prompt.
        mirror_steps (`int`, *optional*):
            Iterations of a mirror plan.
    """

    rates: Array
    target: float
    method: Method
    group_size: int
    mirror_steps: int | None = None

    @cached_property
    def plan(self) -> theory.Plan:
        """The coefficients."""
        return theory.plan(self.rates, self.target, mirror_steps=self.mirror_steps, **self.advantages)

    @property
    def advantages(self) -> dict[str, Any]:
        """What the functions of `theory` need to know of the advantage, as keyword arguments."""
        return {"advantage": self.method.advantage, "advantage_kwargs": self.method.settings}

    @property
    def settings(self) -> dict[str, Any]:
        """Keyword arguments of the functions of `theory` under the plan."""
        return {"beta": self.plan.beta, "mirror_beta": self.plan.mirror_beta, **self.advantages}

    @property
    def steps(self) -> int:
        """Iterations that are shown."""
        return self.mirror_steps or max(len(self.plan.path) - 1, _SHORTEST_PATH)

    @cached_property
    def exact(self) -> Array:
        """Success of exact iteration, shape `(steps + 1, ...)`."""
        return theory.success_path(self.rates, self.steps, **self.settings)

    @cached_property
    def clipped(self) -> Array | None:
        """As `exact`, of the clipped objective; `None` where the theory has no clip like that of the method."""
        if self.method.clip is None:
            return None
        low, high = self.method.clip
        return theory.clipped_path(self.rates, self.steps, epsilon=low, epsilon_high=high, **self.settings)

    @cached_property
    def grouped(self) -> Array | None:
        """As `exact`, with the mean signal of groups; `None` where that is not known."""
        if self.method.signal.why_not_groups is not None:
            return None
        return theory.success_path(self.rates, self.steps, num_generations=self.group_size, **self.settings)

    @property
    def clip_text(self) -> str:
        """The clip range, or both."""
        low, high = self.method.clip or (0.0, 0.0)
        return f"{low:g}" if low == high else f"{low:g} / {high:g}"

    @property
    def is_single(self) -> bool:
        """Whether it is about one success rate, and not about those of several prompts."""
        return self.rates.ndim == 0

    @property
    def paths(self) -> dict[str, Array]:
        """The paths that there are, by name, of the mean over prompts, each of shape `(steps + 1,)`."""
        paths = {"exact": self.exact, "clipped": self.clipped, "groups": self.grouped}
        return {
            name: path if self.is_single else path.mean(axis=1) for name, path in paths.items() if path is not None
        }

    @property
    def no_signal(self) -> tuple[float, float]:
        """Expected share of groups whose rewards are all equal, at the start and at the end."""
        before, after = (
            theory.zero_variance_probability(rates, self.group_size).mean() for rates in (self.rates, self.plan.end)
        )
        return float(before), float(after)

    @property
    def histogram(self) -> tuple[Array, Array]:
        """Prompts per tenth of success, before and after."""
        before, after = (np.histogram(rates, HISTOGRAM_EDGES)[0] for rates in (self.rates, self.plan.end))
        return before.astype(np.float64), after.astype(np.float64)

    @property
    def limit(self) -> theory.Limit:
        """Where one prompt ends under the plan."""
        return theory.limit(float(self.rates), **self.settings)

    @property
    def limit_without_mirror(self) -> theory.Limit:
        """Where one prompt would end under the plan's `beta` alone."""
        return theory.limit(float(self.rates), **(self.settings | {"mirror_beta": 0.0}))

    @property
    def config(self) -> dict[str, Any]:
        """Fields of [`GRPOVariantConfig`] that put the plan into practice."""
        fields = self.method.fields({"beta": self.plan.beta, "mirror_beta": self.plan.mirror_beta})
        fields["num_generations"] = self.group_size
        if _DEFAULT_BATCH % self.group_size:
            # A rollout has to hold whole groups.
            fields["per_device_train_batch_size"] = self.group_size
        return fields

    @property
    def yaml(self) -> str:
        """The fields as lines of a recipe."""
        return "\n".join(f"{name}: {_yaml(value)}" for name, value in self.config.items())

    @property
    def title(self) -> str:
        """One line that says what is predicted."""
        start = f"p_ref = {float(self.rates):g}" if self.is_single else f"{self.rates.size} prompts"
        named = {"beta": self.plan.beta, "mirror_beta": self.plan.mirror_beta}
        coefficients = ", ".join(f"{name} = {value:.4g}" for name, value in named.items() if value > 0.0)
        return f"{start}, target {self.target}: {coefficients} ({self.method.advantage.name})"


def paper_prediction() -> tuple[float, int]:
    """Success that exact iteration predicts for the paper's run, and after how many iterations it is within 0.001."""
    path = theory.success_path(PAPER_RUN["before"], 20, beta=PAPER_RUN["beta"])
    return float(path[-1]), int(np.argmax(np.abs(path - path[-1]) < 1e-3))


def _yaml(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {_yaml(entry)}' for name, entry in value.items())}}}"
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, float):
        return str(value)
    # YAML reads 1e-05 as text: it wants a decimal point.
    mantissa, exponent, power = repr(value).partition("e")
    return mantissa + (".0" if exponent and "." not in mantissa else "") + exponent + power
