# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What an advantage alone says beforehand of the second task: which prompts it favours, and where open ones settle."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from trl_grpo_variants import get_variant, theory
from trl_grpo_variants.objective.advantages import ADVANTAGES


# Success on a hard and on a middling prompt.
HARD, MIDDLE = 0.05, 0.5


@dataclass(frozen=True)
class Prediction:
    """
    What is expected of a variant with an advantage that is a function of success.

    Parameters:
        weight (`float`):
            Weight of a prompt that is solved one time in twenty, in units of one that is solved every second time.
        favoured (`float`):
            Share of the favoured answer where the policy on open prompts comes to rest; 1 if it gives up the other one.
        passed (`dict[str, float]`):
            pass@k of the open prompts there, by `"pass@k"`.
    """

    weight: float
    favoured: float
    passed: dict[str, float]


def predict(variant: str, group_size: int, share: float, pass_at: tuple[int, ...]) -> Prediction | None:
    """
    Predict from the advantage alone.

    Gradient ascent with the signal Omega on a prompt of success p climbs F(p) with F' = Omega. On open prompts one
    policy, which gives the favoured answer with probability a, serves all: it climbs share F(a) + (1 - share) F(1 - a),
    and rests where share Omega(a) = (1 - share) Omega(1 - a).

    Args:
        variant (`str`):
            Name of a variant.
        group_size (`int`):
            Completions per prompt, unless the variant sets them.
        share (`float`):
            Share of the open prompts on which the favoured answer is right, above 0.5.
        pass_at (`tuple[int, ...]`):
            Each k.

    Returns:
        [`Prediction`], *optional*:
            `None` if the advantage is no function of success.
    """
    signal = _signal(variant, group_size)
    if signal is None:
        return None
    a = np.linspace(0.5, 1.0, 5001)
    pull = share * signal(a) - (1 - share) * signal(1 - a)
    # To the second answer only from where it pulls more; without such a place the first one takes all.
    rest = float(a[np.argmax(pull <= 0)]) if (pull <= 0).any() else 1.0
    passed = {f"pass@{k}": share * (1 - (1 - rest) ** k) + (1 - share) * (1 - rest**k) for k in pass_at}
    weights = signal(np.array([HARD, MIDDLE]))
    return Prediction(float(weights[0] / weights[1]), rest, passed)


def _signal(variant: str, group_size: int) -> Callable[[np.ndarray], np.ndarray] | None:
    """Omega that groups realise on average; `None` if the advantage has none."""
    settings = get_variant(variant).settings
    # What a variant leaves out is TRL's.
    advantage = get_variant(variant).parts.advantage or ADVANTAGES["group_std"]
    kwargs = dict(settings.get("advantage_kwargs") or {})
    kwargs |= {setting.name: settings[setting.name] for setting in advantage.settings if setting.name in settings}
    size = settings.get("num_generations", group_size)

    def signal(p: np.ndarray) -> np.ndarray:
        return theory.group_omega(p, size, advantage=advantage, advantage_kwargs=kwargs)

    try:
        signal(np.array([0.5]))
    except ValueError:
        return None
    return signal
