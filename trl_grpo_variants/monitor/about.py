# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What the file of visits says about its run: neither a path nor a token."""

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..card.coefficients import coefficients
from ..objective.formula import legend, objective_text
from ..version import __version__
from .forecast import Forecast


# Those that a report computes with or puts into a sentence, as they are.
_NAMES = (
    "variant",
    "beta",
    "mirror_beta",
    "importance_sampling_level",
    "loss_type",
    "scale_rewards",
    "reward_variance_epsilon",
    "mask_zero_variance_groups",
    "epsilon",
    "epsilon_high",
    "num_generations",
    "num_iterations",
    "steps_per_generation",
    "gradient_accumulation_steps",
    "learning_rate",
    "max_completion_length",
)
_LIBRARIES = ("trl", "transformers", "torch")


def settings_of(args: Any, forecast: Forecast | None, reason: str | None) -> dict[str, Any]:
    """What is minimised and how, and what the theory makes of it or why it makes nothing."""
    decisive, others = coefficients(args)
    return {name: getattr(args, name) for name in _NAMES} | {
        "signal": None if forecast is None else forecast.signal.name,
        "not_predicted_because": reason,
        "metrics": dict(args.parts.policy.metrics),
        "objective": objective_text(args.parts, vars(args)),
        "legend": legend(args.parts, vars(args)),
        "all": decisive | others,
    }


def subject_of(trainer: Any) -> dict[str, str]:
    """What a trainer trains, on what, and with which versions."""
    model = getattr(trainer.model.config, "_name_or_path", "")
    info = getattr(trainer.train_dataset, "info", None)
    dataset = getattr(info, "dataset_name", None) or getattr(info, "builder_name", None)
    rows = f"{len(trainer.train_dataset):,} rows" if hasattr(trainer.train_dataset, "__len__") else "a stream"
    return {
        # A folder is named without those that it is in.
        "model": Path(model).name if Path(model).exists() else model,
        "data": f"{dataset}, {rows}" if dataset else rows,
        "rewards": ", ".join(trainer.reward_func_names),
        "seed": str(trainer.args.seed),
        "begun": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "trl_grpo_variants": __version__,
    } | {name: version(name) for name in _LIBRARIES}
