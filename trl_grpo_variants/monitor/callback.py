# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Success of each prompt as it was measured, beside what the theory had predicted for it."""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.logging import get_logger
from accelerate.utils import gather_object
from transformers import TrainerCallback

from ..objective.loss import counted_tokens
from ..objective.ratio import trajectory_log_weight
from ..objective.rewards import full_reward, has_variance, weighted_rewards
from ..runs.figures import success_figure
from ..runs.prompts import Prompt
from ..runs.style import save_png
from ..runs.visits import FILE_NAME, JOURNAL_NAME, NO_VISITS, REASONS, SCHEMA, Visits, read_visits
from ..theory import zero_variance_probability
from .about import settings_of
from .forecast import Counts, Forecast, why_not


logger = get_logger(__name__)

# In the file of a figure that is drawn anew; one that someone else has put there stays.
_OWN_FIGURE = "trl_grpo_variants success monitor"


@dataclass
class _Known:
    """What is known of a prompt: successes and completions of its first and last visit, and the signal of the last."""

    visits: int = 0
    reference: tuple[float, float] = (np.nan, np.nan)
    previous: tuple[float, float] = (np.nan, np.nan)
    signal: float = np.nan


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
    - `theory/groups_without_signal`: share of the groups whose rewards are all equal and which have no advantage.
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
        subject (`dict[str, str]`, *optional*):
            What is trained, see [`subject_of`].
    """

    def __init__(self, args: Any, reward_weights: torch.Tensor, subject: dict[str, str] | None = None) -> None:
        self._weights = reward_weights.cpu()
        self.reason = why_not(args, self._weights.tolist())
        self._forecast = Forecast.from_config(args) if self.reason is None else None
        self._folder = Path(args.output_dir)
        settings = settings_of(args, self._forecast, self.reason)
        self._visits = Visits(self._folder, settings | {"subject": subject or {}})
        self._prompts: dict[str, _Known] = {}
        self._rollouts = 0
        self._warned = False
        self.checkpoint: str | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if not state.is_world_process_zero:
            return
        if self.reason is not None:
            logger.warning(f"The success of each prompt is recorded but not predicted: {self.reason}.")
        self._visits.update(max_steps=state.max_steps, global_step=state.global_step)
        # A rollout is made after the checkpoint of its step, so that one of the same step is made again.
        self._restore(Path(self.checkpoint).parent if self.checkpoint else self._folder, state.global_step)

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self._visits.update(global_step=state.global_step)
            self._visits.merge()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.is_world_process_zero:
            self._visits.update(global_step=state.global_step)
            self._visits.merge()

    def observe(
        self,
        step: int,
        prompts: Sequence[Prompt],
        rollout: dict[str, Any],
        rewards_per_func: torch.Tensor,
        num_generations: int,
        accelerator: Accelerator,
    ) -> dict[str, float]:
        """
        Record a rollout of which each process has its own prompts and completions, and all rewards. To be called in all
        of them; returns what [`record`] does, and nothing outside of the main process.
        """
        log_ratios = None
        ref_logps, old_logps = rollout.get("ref_per_token_logps"), rollout.get("old_per_token_logps")
        if self._forecast is not None and self._forecast.is_dual and ref_logps is not None and old_logps is not None:
            mask = counted_tokens(rollout)
            log_ratios = accelerator.gather(trajectory_log_weight(ref_logps, old_logps, mask))
        # A group may have its rows in several processes.
        prompts = gather_object(prompts)
        advantages = accelerator.gather(rollout["advantages"])
        if not accelerator.is_main_process:
            return {}
        return self.record(step, prompts, rewards_per_func, num_generations, log_ratios, advantages)

    def record(
        self,
        step: int,
        prompts: Sequence[Prompt],
        rewards_per_func: torch.Tensor,
        num_generations: int,
        log_ratios: torch.Tensor | None = None,
        advantages: torch.Tensor | None = None,
    ) -> dict[str, float]:
        """
        Record a rollout. In the main process only, with the rows of all processes.

        Args:
            step (`int`):
                Optimizer steps taken before it.
            prompts (`Sequence[tuple[str, str]]`):
                Prompt of each completion, as [`identify`] gives it, N of them.
            rewards_per_func (`torch.Tensor`):
                Rewards of shape `(N, F)` on the CPU, the groups one after the other; NaN where a function did not score.
            num_generations (`int`):
                Group size G; it divides N.
            log_ratios (`torch.Tensor`, *optional*):
                log pi_ref(o) - log pi_{n-1}(o) of each completion, of shape `(N,)`.
            advantages (`torch.Tensor`, *optional*):
                Advantages of shape `(N,)`, which groups of equal rewards may have too. If not given, they have none.

        Returns:
            `dict[str, float]`:
                Scalars to log, without those that have no value in this rollout.
        """
        full, scored = (flags.view(-1, num_generations) for flags in full_reward(rewards_per_func, self._weights))
        learns = has_variance(weighted_rewards(rewards_per_func, self._weights), num_generations)
        if advantages is not None:
            learns = learns | (advantages.cpu() != 0)
        has_signal = learns.view(-1, num_generations).any(dim=1)
        visits = self._counted(prompts[::num_generations], rewards_per_func, full, scored, has_signal)
        visits["rollout"], visits["step"] = self._rollouts, step
        self._add_estimates(visits)
        scalars = _scalars(visits, num_generations)
        if log_ratios is not None and self._forecast is not None:
            groups = zip(log_ratios.cpu().double().view(-1, num_generations), full, scored, strict=True)
            residuals = [
                self._forecast.renyi_residual(w[usable].numpy(), k[usable].numpy()) for w, k, usable in groups
            ]
            if measured := [residual for residual in residuals if residual is not None]:
                scalars["theory/renyi_residual"] = float(np.mean(measured))
        self._learn(visits)
        self._visits.append(visits)
        self._rollouts += 1
        return scalars

    def draw(self, path: Path) -> None:
        """Draw predicted against measured success to this file, unless a figure of another origin is there already."""
        if path.exists() and _OWN_FIGURE.encode() not in path.read_bytes()[:4096]:
            return
        try:
            figure = success_figure(read_visits(self._folder)[0])
        except FileNotFoundError:
            return
        except ValueError as error:
            logger.warning(f"The card has no figure of success. {error}")
            return
        if figure is not None:
            save_png(figure, path, software=_OWN_FIGURE)

    def _restore(self, source: Path, before_step: int) -> None:
        try:
            visits, _ = read_visits(source)
        except FileNotFoundError:
            visits = NO_VISITS
        except ValueError as error:
            for name in (FILE_NAME, JOURNAL_NAME):
                if (source / name).exists():
                    os.replace(source / name, source / f"{name}.unreadable")
            logger.warning(f"{error} It is kept as {FILE_NAME}.unreadable and a new one is begun.")
            visits = NO_VISITS
        if before_step == 0 and len(visits) > 0:
            logger.warning(f"{source / FILE_NAME} holds the visits of an earlier run, which this one replaces.")
        visits = visits[visits["step"] < before_step]
        if before_step > 0 and visits.empty:
            logger.warning(
                f"There are no visits from before step {before_step} to continue: the reference's success is estimated "
                "from the first visits from now on, to a policy that has already been trained."
            )
        self._prompts = {}
        self._learn(visits)
        self._rollouts = 0 if visits.empty else int(visits["rollout"].max()) + 1
        self._visits.start(visits)

    def _counted(
        self,
        prompts: Sequence[Prompt],
        rewards_per_func: torch.Tensor,
        full: torch.Tensor,
        scored: torch.Tensor,
        has_signal: torch.Tensor,
    ) -> pd.DataFrame:
        """Outcomes by prompt, from the prompts of the groups; groups without a scored completion do not count."""
        rewards, (num_groups, size) = weighted_rewards(rewards_per_func, self._weights), full.shape
        successes, completions = full.sum(dim=1).numpy(), scored.sum(dim=1).numpy()
        is_silent = ~has_signal.numpy()
        groups = pd.DataFrame(
            {
                "prompt_id": [prompt_id for prompt_id, _ in prompts],
                "prompt": [text for _, text in prompts],
                "successes": successes,
                "completions": completions,
                "groups": 1,
                "groups_without_signal": is_silent,
                "silent_all_succeed": is_silent & (successes == completions),
                "silent_none_succeeds": is_silent & (successes == 0),
                "signal": np.nan if self._forecast is None else self._forecast.signals(Counts(successes, completions)),
                "is_binary": (rewards.isnan() | (rewards == 0) | (rewards == 1)).view(num_groups, size).all(1).numpy(),
            }
        )
        groups = groups[groups["completions"] > 0]
        self._warn_of_graded_rewards(groups["is_binary"])
        sums = dict.fromkeys((*("successes", "completions", "groups", "groups_without_signal"), *REASONS), "sum")
        by_prompt = groups.groupby("prompt_id", sort=False, as_index=False)
        visits = by_prompt.agg({"prompt": "first", **sums, "signal": "mean", "is_binary": "all"})
        visits["signal"] = visits["signal"].where(visits["is_binary"].astype(bool))
        return visits.reindex(columns=SCHEMA.names)

    def _add_estimates(self, visits: pd.DataFrame) -> None:
        known = [self._prompts.get(prompt_id, _Known()) for prompt_id in visits["prompt_id"]]
        visits["visit"] = [k.visits + 1 for k in known]
        visits["prompt"] = visits["prompt"].where(visits["visit"] == 1)
        measured = Counts(visits["successes"].to_numpy(), visits["completions"].to_numpy())
        visits["success"] = measured.successes / measured.completions
        visits["low"], visits["high"] = measured.interval
        reference, previous = _counts(k.reference for k in known), _counts(k.previous for k in known)
        visits["reference"], visits["previous"] = reference.estimate, previous.estimate
        signals = np.array([k.signal for k in known], dtype=np.float64)
        usable = ~np.isnan(signals)
        if self._forecast is not None and usable.any():
            first, last = (Counts(c.successes[usable], c.completions[usable]) for c in (reference, previous))
            predicted = self._forecast.predict(first, last, signals[usable])
            visits.loc[usable, ["predicted", "predicted_low", "predicted_high"]] = np.stack(predicted, axis=1)
            visits["gap"] = visits["success"] - visits["predicted"]

    def _learn(self, visits: pd.DataFrame) -> None:
        for visit in visits.itertuples():
            counts = (visit.successes, visit.completions)
            known = self._prompts.setdefault(visit.prompt_id, _Known(reference=counts))
            known.visits, known.previous, known.signal = visit.visit, counts, visit.signal

    def _warn_of_graded_rewards(self, is_binary: pd.Series) -> None:
        if self._forecast is not None and not self._warned and not is_binary.all():
            self._warned = True
            logger.warning(
                "There are rewards other than 0 and 1, which the theory is not about: nothing is predicted from visits "
                "that have them."
            )


def _counts(pairs: Iterable[tuple[float, float]]) -> Counts:
    return Counts(*np.array(list(pairs), dtype=np.float64).reshape(-1, 2).T)


def _scalars(visits: pd.DataFrame, num_generations: int) -> dict[str, float]:
    scalars = {}
    if not visits.empty:
        silent = visits["groups_without_signal"].sum() / visits["groups"].sum()
        scalars["theory/groups_without_signal"] = float(silent)
    visits = visits.dropna(subset="predicted")
    if not visits.empty:
        scalars["theory/predicted_success"] = float(visits["predicted"].mean())
        expected = zero_variance_probability(visits["predicted"], num_generations).mean()
        scalars["theory/expected_groups_without_signal"] = float(expected)
        scalars["theory/gap"] = float(visits["gap"].mean())
    return scalars
