# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Success of each prompt as it was measured, beside what the theory had predicted for it."""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.logging import get_logger
from pyarrow.compute import field  # type: ignore[import-untyped]
from transformers import TrainerCallback

from ..objective.advantage import full_reward, has_variance, weighted_rewards
from ..runs.visits import FILE_NAME, JOURNAL_NAME, SCHEMA, Visits, read_visits
from ..theory import zero_variance_probability
from .forecast import Counts, Forecast, why_not


logger = get_logger(__name__)

_SHOWN_CHARACTERS = 160
_MEDIA = ("image", "video", "audio", "input_image", "input_audio")
_LEARNED = ["rollout", "prompt_id", "visit", "successes", "completions", "signal"]
# In the file of a figure that is drawn anew; one that someone else has put there stays.
_OWN_FIGURE = "trl_grpo_variants success monitor"

Prompt = tuple[str, str]


def identify(row: dict[str, Any]) -> Prompt:
    """
    Identify a prompt by its text: images and other media in it do not count.

    Args:
        row (`dict[str, Any]`):
            Row of the data set. Its prompt is a text or a conversation; where there is none, an environment makes it
            from the other columns, which then stand for it.

    Returns:
        `tuple[str, str]`:
            Hash that is the same in every process and run, and the beginning of the text (of the last message).
    """
    prompt = row["prompt"] if "prompt" in row else dict(row)
    content = json.dumps(_without_media(prompt), sort_keys=True)
    last = prompt[-1].get("content") if isinstance(prompt, list) and prompt else prompt
    text = last if isinstance(last, str) else " ".join(_texts(_without_media(last)))
    return hashlib.sha256(content.encode()).hexdigest()[:16], " ".join(text.split())[:_SHOWN_CHARACTERS]


@dataclass
class _Known:
    """What is known of a prompt: successes and completions of its first and last visit, and the signal of the last."""

    visits: int
    reference: tuple[int, int]
    previous: tuple[int, int]
    signal: float | None


class SuccessMonitor(TrainerCallback):
    """
    Records, for each prompt of a training rollout, its success and the theory's prediction of it.

    A completion succeeds if every reward function of positive weight that scored it gave at least 1. A visit is what
    one rollout holds of a prompt. Success of the reference is estimated from the first visit, that of the previous
    policy from the last one, and the prediction for a visit from these two, see [`Forecast`]. A first visit that comes
    after the first update estimates the reference from a policy that has already moved. Evaluations are no visits.

    Scalars for the trainer's log, each over the prompts of one rollout:

    - `theory/predicted_success`: mean of the predictions that had been made for this visit.
    - `theory/gap`: mean of measured - predicted, over the same prompts.
    - `theory/groups_without_signal`: share of the groups whose rewards are all equal.
    - `theory/expected_groups_without_signal`: mean of [`zero_variance_probability`] at the predictions and the size of
      the groups.
    - `theory/renyi_residual`: of dual runs, mean of [`Forecast.renyi_residual`] over the groups that have at least two
      successes and two failures. Exact iteration keeps it at 0.

    Where the theory predicts nothing, the reason is said once and only the third is logged. Only the main
    process knows the visits; it writes them to `success_monitor.parquet` in the output folder, see [`Visits`]. There
    are texts in it, so it is not uploaded. A resumed run continues the file.

    Args:
        args ([`GRPOVariantConfig`]):
            Resolved configuration.
        reward_weights (`torch.Tensor`):
            Weights of the reward functions, of shape `(F,)`.
    """

    def __init__(self, args: Any, reward_weights: torch.Tensor) -> None:
        self._weights = reward_weights.cpu()
        self.reason = why_not(args, self._weights.tolist())
        self._forecast = Forecast.of(args) if self.reason is None else None
        self._visits = Visits(Path(args.output_dir), _settings(args, self._forecast, self.reason))
        self._folder = Path(args.output_dir)
        self._prompts: dict[str, _Known] = {}
        self._rollouts = 0
        self._warned = False
        self.checkpoint: str | None = None

    @property
    def needs_log_ratios(self) -> bool:
        """Whether [`record`] has a use for the completions' log-ratios of the reference to the previous policy."""
        return self._forecast is not None and self._forecast.is_dual

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        if self.reason is not None:
            logger.warning(f"The success of each prompt is recorded but not predicted: {self.reason}.")
        # A rollout is made after the checkpoint of its step, so that one of the same step is made again.
        self._restore(Path(self.checkpoint).parent if self.checkpoint else self._folder, state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self._visits.merge()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self._visits.merge()

    def record(
        self,
        step: int,
        prompts: Sequence[Prompt],
        rewards_per_func: torch.Tensor,
        num_generations: int,
        log_ratios: torch.Tensor | None = None,
    ) -> dict[str, float]:
        """
        Record a rollout. In the main process only, with the rows of all processes.

        Args:
            step (`int`):
                Optimizer steps taken before it.
            prompts (`Sequence[tuple[str, str]]`):
                Prompt of each completion, as [`identify`] gives it, N of them.
            rewards_per_func (`torch.Tensor`):
                Rewards of shape `(N, F)`, the groups one after the other; NaN where a function did not score.
            num_generations (`int`):
                Group size G; it divides N.
            log_ratios (`torch.Tensor`, *optional*):
                log pi_ref(o) - log pi_{n-1}(o) of each completion, of shape `(N,)`.

        Returns:
            `dict[str, float]`:
                Scalars to log, without those that have no value in this rollout.
        """
        rewards_per_func = rewards_per_func.cpu()
        rewards = weighted_rewards(rewards_per_func, self._weights)
        full, scored = full_reward(rewards_per_func, self._weights)
        is_binary = (rewards.isnan() | (rewards == 0) | (rewards == 1)).view(-1, num_generations).all(dim=1).numpy()
        silent = ~has_variance(rewards, num_generations).view(-1, num_generations)[:, 0].numpy()
        groups = Counts(*(_per_group(values, num_generations) for values in (full.numpy(), scored.numpy())))
        kept = groups.completions > 0
        self._warn_of_graded_rewards(is_binary[kept])
        signals = None if self._forecast is None else self._forecast.signals(groups)

        members: dict[str, list[int]] = {}
        for group in np.flatnonzero(kept).tolist():
            members.setdefault(prompts[group * num_generations][0], []).append(group)
        texts = dict(prompts)
        rows = []
        for prompt_id, its in members.items():
            known = self._prompts.get(prompt_id)
            rows.append(
                dict.fromkeys(SCHEMA.names)
                | {
                    "rollout": self._rollouts,
                    "step": step,
                    "prompt_id": prompt_id,
                    "prompt": texts[prompt_id] if known is None else None,
                    "visit": 1 if known is None else known.visits + 1,
                    "successes": int(groups.successes[its].sum()),
                    "completions": int(groups.completions[its].sum()),
                    "groups": len(its),
                    "groups_without_signal": int(silent[its].sum()),
                    "signal": float(signals[its].mean()) if signals is not None and is_binary[its].all() else None,
                }
            )
        self._add_estimates(rows)
        scalars = _scalars(rows, num_generations)
        if log_ratios is not None and self._forecast is not None:
            residuals = [
                self._forecast.renyi_residual(ratios[usable], successes[usable])
                for ratios, successes, usable in zip(
                    *(
                        values.reshape(-1, num_generations)
                        for values in (log_ratios.double().cpu().numpy(), full, scored.numpy())
                    ),
                    strict=True,
                )
            ]
            found = [residual for residual in residuals if residual is not None]
            if found:
                scalars["theory/renyi_residual"] = float(np.mean(found))
        for row in rows:
            self._learn(row)
        self._visits.append(rows)
        self._rollouts += 1
        return scalars

    def draw(self, path: Path) -> None:
        """
        Draw predicted against measured success, unless a figure of another origin is there already.

        Args:
            path (`Path`):
                File to write.
        """
        if path.exists() and _OWN_FIGURE.encode() not in path.read_bytes()[:4096]:
            return
        try:
            table, _ = read_visits(self._folder)
        except FileNotFoundError:
            return
        from ..report.figures import save, success_figure
        from ..runs.columns import columns

        try:
            figure = success_figure(columns(table))
        except ValueError as error:
            logger.warning(f"The card has no figure of success. {error}")
            return
        if figure is not None:
            save(figure, path, software=_OWN_FIGURE)

    def _restore(self, source: Path, before_step: int) -> None:
        self._prompts, self._rollouts = {}, 0
        try:
            table, _ = read_visits(source)
        except FileNotFoundError:
            table = SCHEMA.empty_table()
        except ValueError as error:
            for name in (FILE_NAME, JOURNAL_NAME):
                if (source / name).exists():
                    os.replace(source / name, source / f"{name}.unreadable")
            logger.warning(f"{error} It is kept as {FILE_NAME}.unreadable and a new one is begun.")
            table = SCHEMA.empty_table()
        if before_step == 0 and table.num_rows > 0:
            logger.warning(f"{source / FILE_NAME} holds the visits of an earlier run, which this one replaces.")
        table = table.filter(field("step") < before_step)
        if before_step > 0 and table.num_rows == 0:
            logger.warning(
                f"There are no visits from before step {before_step} to continue: the reference's success is estimated "
                "from the first visits from now on, to a policy that has already been trained."
            )
        # In batches: as Python objects, all rows of a long run at once would take gigabytes.
        for batch in table.select(_LEARNED).to_batches(max_chunksize=65536):
            for row in batch.to_pylist():
                self._learn(row)
                self._rollouts = row["rollout"] + 1
        self._visits.start(table)

    def _learn(self, row: dict[str, Any]) -> None:
        counts = (row["successes"], row["completions"])
        known = self._prompts.setdefault(row["prompt_id"], _Known(0, counts, counts, None))
        known.visits, known.previous, known.signal = row["visit"], counts, row["signal"]

    def _add_estimates(self, rows: list[dict[str, Any]]) -> None:
        if not rows:
            return
        measured = _counts((row["successes"], row["completions"]) for row in rows)
        _fill(rows, success=measured.successes / measured.completions)
        _fill(rows, **dict(zip(("low", "high"), measured.interval, strict=True)))
        again = [row for row in rows if row["visit"] > 1]
        known = [self._prompts[row["prompt_id"]] for row in again]
        reference, previous = _counts(k.reference for k in known), _counts(k.previous for k in known)
        _fill(again, reference=reference.estimate, previous=previous.estimate)
        if self._forecast is None:
            return
        pairs = [(row, k) for row, k in zip(again, known, strict=True) if k.signal is not None]
        if not pairs:
            return
        reference, previous = _counts(k.reference for _, k in pairs), _counts(k.previous for _, k in pairs)
        predicted = self._forecast.predict(reference, previous, np.array([k.signal for _, k in pairs]))
        predictable = [row for row, _ in pairs]
        _fill(predictable, **dict(zip(("predicted", "predicted_low", "predicted_high"), predicted, strict=True)))
        for row in predictable:
            row["gap"] = row["success"] - row["predicted"]

    def _warn_of_graded_rewards(self, is_binary: np.ndarray) -> None:
        if self._forecast is not None and not self._warned and not is_binary.all():
            self._warned = True
            logger.warning(
                "There are rewards other than 0 and 1, which the theory is not about: nothing is predicted from visits "
                "that have them."
            )


def _settings(args: Any, forecast: Forecast | None, reason: str | None) -> dict[str, Any]:
    """What a report says about the run: neither a path nor a token."""
    names = (
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
    return {name: getattr(args, name) for name in names} | {
        "normalization": None if forecast is None else forecast.normalization,
        "not_predicted_because": reason,
    }


def _scalars(rows: list[dict[str, Any]], num_generations: int) -> dict[str, float]:
    scalars = {}
    if rows:
        counted, groups = (sum(row[name] for row in rows) for name in ("groups_without_signal", "groups"))
        scalars["theory/groups_without_signal"] = counted / groups
    predicted = [row for row in rows if row["predicted"] is not None]
    if predicted:
        expected = np.array([row["predicted"] for row in predicted])
        scalars["theory/predicted_success"] = float(expected.mean())
        silent = zero_variance_probability(expected, num_generations).mean()
        scalars["theory/expected_groups_without_signal"] = float(silent)
        scalars["theory/gap"] = float(np.mean([row["gap"] for row in predicted]))
    return scalars


def _counts(pairs: Iterable[tuple[int, int]]) -> Counts:
    return Counts(*np.array(list(pairs), dtype=np.float64).reshape(-1, 2).T)


def _per_group(values: np.ndarray, num_generations: int) -> np.ndarray:
    return values.reshape(-1, num_generations).sum(axis=1).astype(np.float64)


def _fill(rows: list[dict[str, Any]], **columns: np.ndarray) -> None:
    for name, values in columns.items():
        for row, value in zip(rows, values, strict=True):
            row[name] = float(value)


def _without_media(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_without_media(item) for item in value]
    if isinstance(value, dict):
        kind = value.get("type")
        if isinstance(kind, str) and kind.startswith(_MEDIA):
            return {"type": kind}
        return {str(name): _without_media(item) for name, item in value.items()}
    return type(value).__name__


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for name, item in value.items() if name != "type" for text in _texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []
