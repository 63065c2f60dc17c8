# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Trains a one-token policy with the real trainer and prints its success beside the one that the theory predicts:

    python examples/theory/agreement.py

Each iteration is a rollout on which the objective is maximised to near-convergence. Writes `agreement.png`, the same as
SVG, light and dark, and `agreement.json` to `runs/theory`, or where `--output_dir` says.
"""

import argparse
import json
import tempfile
import warnings
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import one_token
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from transformers import PrinterCallback, TrainerCallback

from trl_grpo_variants import GRPOVariantConfig, GRPOVariantTrainer, theory
from trl_grpo_variants.runs.style import EDGE, LINES, Sheet, save


LEARNING_RATE = 0.05
REPLICAS = 8
# Two-sided 95 % quantile of Student's t for a mean of that many.
STUDENT = 2.365
# Height of a row of panels, in pixels.
ROW = 190


@dataclass(frozen=True)
class Case:
    """
    One run.

    Parameters:
        name (`str`):
            What it shows.
        advantage (`str`):
            Advantage, by its name in a configuration.
        advantage_kwargs (`dict`, *optional*):
            Its settings.
        beta (`float`):
            Coefficient of the KL to the reference.
        mirror_beta (`float`):
            Coefficient of the KL to the previous policy.
        p_ref (`tuple[float, ...]`):
            Success rates at the start.
        replicas (`int`):
            Prompts of each success rate.
        group (`int`):
            Completions per prompt.
        inner_steps (`int`):
            Optimizer steps on each rollout.
        iterations (`int`):
            Rollouts.
        sampled (`bool`):
            Whether completions are drawn by the trainer, or stand in proportion to their probabilities.
    """

    name: str
    advantage: str
    advantage_kwargs: dict[str, Any] | None = None
    beta: float = 0.0
    mirror_beta: float = 0.0
    p_ref: tuple[float, ...] = (0.1, 0.3, 0.6)
    replicas: int = 1
    group: int = 512
    inner_steps: int = 150
    iterations: int = 5
    sampled: bool = False


@dataclass(frozen=True)
class Outcome:
    """
    Success of the policy after each iteration.

    Parameters:
        case ([`Case`]):
            The run.
        measured (`list[list[float]]`):
            Of the trained policy, exactly: one row per iteration from the start on, one column per success rate.
        half_width (`list[list[float]]`):
            Half of the 95 % interval of their means over the replicas; 0 without any.
        predicted (`list[list[float]]`):
            By exact iteration; with the case's group size if completions are sampled.
    """

    case: Case
    measured: list[list[float]]
    half_width: list[list[float]]
    predicted: list[list[float]]

    @property
    def largest_gap(self) -> float:
        return float(np.abs(np.array(self.measured) - np.array(self.predicted)).max())

    @property
    def share_inside(self) -> float:
        """Share of the measured means whose interval holds the prediction, from the first iteration on."""
        gaps = np.abs(np.array(self.measured) - np.array(self.predicted))[1:]
        return float((gaps <= np.array(self.half_width)[1:]).mean())


def exact_cases() -> list[Case]:
    """
    Every cell of the paper's grid, with coefficients that leave success away from 1: a group in which nothing fails
    has no signal, however large it is, and the KL to the reference then takes the policy back.
    """
    anchors = {
        "reference": {"beta": 2.0},
        "mirror": {"mirror_beta": 2.0},
        "dual": {"beta": 2.0, "mirror_beta": 2.0},
    }
    return [
        Case(f"{anchor}, {advantage}", advantage, **coefficients)
        for advantage in ("mean_only", "smoothed_std")
        for anchor, coefficients in anchors.items()
    ]


def other_advantages() -> list[Case]:
    """Advantages whose signal is another function of success, again with coefficients that leave it away from 1."""
    methods = {
        "MaxRL": ("maximum_likelihood", None, 4.0),
        "pass@4": ("pass_at_k", {"k": 4}, 1.0),
        "RS-GRPO": ("risk_sensitive", {"risk": 2.0}, 1.0),
    }
    return [
        Case(f"{anchor}, {name}", advantage, settings, beta=beta, mirror_beta=share * beta)
        for name, (advantage, settings, beta) in methods.items()
        for anchor, share in (("reference", 0.0), ("dual", 1.0))
    ]


def sampled_cases() -> list[Case]:
    return [
        replace(case, name=f"{case.name}, sampled", replicas=REPLICAS, group=256, sampled=True)
        for case in (*exact_cases()[3:], *other_advantages()[1::2])
    ]


def oscillating_cases() -> list[Case]:
    """Rare successes whose fixed points are unstable, and the same `beta` with a mirror term that damps them."""
    rare = {"p_ref": (0.004,), "group": 2048, "iterations": 8, "beta": 2.0, "inner_steps": 300}
    # MaxRL's is unstable below 1 / (1 + beta): it is 0.158 here.
    scarce = rare | {"p_ref": (0.05,), "beta": 5.0}
    return [
        Case("reference, oscillating", "smoothed_std", **rare),
        Case("dual, damped", "smoothed_std", **rare, mirror_beta=2.0),
        Case("reference, MaxRL, oscillating", "maximum_likelihood", **scarce),
        Case("dual, MaxRL, damped", "maximum_likelihood", **scarce, mirror_beta=5.0),
    ]


class Record(TrainerCallback):
    """Success after each iteration."""

    def __init__(self, start: np.ndarray):
        self.path = [start]

    def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        if state.global_step % args.num_iterations == 0:
            self.path.append(one_token.success(model))


def run(case: Case, *, seed: int = 0) -> Outcome:
    """
    Train and predict.

    Args:
        case ([`Case`]):
            The run.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the draws.

    Returns:
        [`Outcome`]:
            Both successes.
    """
    start = [p for p in case.p_ref for _ in range(case.replicas)]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        one_token.make_policy(folder, start)
        args = GRPOVariantConfig(
            str(folder / "run"),
            beta=case.beta,
            mirror_beta=case.mirror_beta,
            advantage=case.advantage,
            advantage_kwargs=case.advantage_kwargs,
            # The theory has no clip.
            epsilon=1.0,
            epsilon_high=1e6,
            loss_type="dr_grpo",
            max_completion_length=1,
            per_device_train_batch_size=case.group * len(start),
            num_generations=case.group,
            steps_per_generation=1,
            num_iterations=case.inner_steps,
            max_steps=case.inner_steps * case.iterations,
            learning_rate=LEARNING_RATE,
            lr_scheduler_type="constant",
            adam_beta2=0.9,
            max_grad_norm=0.0,
            top_k=0,
            seed=seed,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        trainer = GRPOVariantTrainer(
            model=one_token.load_policy(folder),
            reward_funcs=one_token.right,
            args=args,
            train_dataset=one_token.dataset(len(start)),
            rollout_func=None if case.sampled else one_token.in_proportion,
        )
        trainer.remove_callback(PrinterCallback)
        record = Record(one_token.success(trainer.model))
        trainer.add_callback(record)
        trainer.train()

    measured = np.array(record.path).reshape(case.iterations + 1, len(case.p_ref), case.replicas)
    error = measured.std(axis=2, ddof=1) / case.replicas**0.5 if case.replicas > 1 else np.zeros(measured.shape[:2])
    predicted = theory.success_path(
        np.array(case.p_ref),
        case.iterations,
        beta=case.beta,
        mirror_beta=case.mirror_beta,
        advantage=case.advantage,
        advantage_kwargs=case.advantage_kwargs,
        num_generations=case.group if case.sampled else None,
    )
    return Outcome(case, measured.mean(axis=2).tolist(), (STUDENT * error).tolist(), predicted.tolist())


def figure(outcomes: dict[str, list[Outcome]], colors: dict[str, str]) -> Any:
    """
    Predicted success as lines, measured success as points, over the iterations of each run.

    Args:
        outcomes (`dict[str, list[Outcome]]`):
            Finished runs by what is said of them, a row of panels each.
        colors (`dict[str, str]`):
            Light or dark.

    Returns:
        [`~matplotlib.figure.Figure`]:
            One panel per run.
    """
    sheet = Sheet(72 + ROW * len(outcomes), colors)
    for row, (said, runs) in enumerate(outcomes.items()):
        top, pitch = 98 + ROW * row, 714 / len(runs)
        sheet.write(EDGE, top - 10, said, color="text", weight="bold")
        for column, outcome in enumerate(runs):
            name = outcome.case.name.removesuffix(", sampled").replace(", ", "\n", 1)
            panel = sheet.add_panel(44 + pitch * column, top + 42, pitch - 14, 92, title=name)
            panel.set(xlim=(-0.2, outcome.case.iterations + 0.2), ylim=(0.0, 1.0), yticks=[0.0, 0.5, 1.0])
            panel.set_xticks([0, outcome.case.iterations])
            panel.tick_params(labelleft=column == 0)
            _draw(panel, outcome, colors)
    sheet.add_heading(
        "A trained policy beside what exact iteration predicts",
        "success over the iterations; lines: theory, points: the trained policy",
    )
    return sheet.figure


def _draw(panel: Any, outcome: Outcome, colors: dict[str, str]) -> None:
    """Both successes from each start."""
    steps = range(outcome.case.iterations + 1)
    for i in range(len(outcome.case.p_ref)):
        looks = {"color": colors[LINES[i + 1]], "clip_on": False, "zorder": 3}
        predicted, measured, half_width = (
            np.array(values)[:, i] for values in (outcome.predicted, outcome.measured, outcome.half_width)
        )
        panel.plot(steps, predicted, linewidth=1.2, **looks)
        panel.errorbar(steps, measured, half_width, fmt="o", markersize=3.5, capsize=2, **looks)


def table(outcomes: list[Outcome]) -> Table:
    output = Table(title="Success after the last iteration, and the largest gap of all iterations")
    for column in ("run", "start", "predicted", "measured", "largest gap", "inside the interval"):
        output.add_column(column, justify="left" if column == "run" else "right")
    for outcome in outcomes:
        for i, p in enumerate(outcome.case.p_ref):
            first = i == 0
            output.add_row(
                outcome.case.name if first else "",
                f"{p:g}",
                f"{outcome.predicted[-1][i]:.3f}",
                f"{outcome.measured[-1][i]:.3f}",
                f"{outcome.largest_gap:.4f}" if first else "",
                f"{outcome.share_inside:.0%}" if first and outcome.case.sampled else "",
            )
    return output


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/theory"))
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)

    cases = {
        "Exact: 512 outputs of each prompt, in proportion to their probabilities": exact_cases(),
        "Exact, with other advantages": other_advantages(),
        "Sampled: 256 outputs of each prompt; 95 % intervals over eight prompts": sampled_cases(),
        "Rare successes, from 0.004 and 0.05": oscillating_cases(),
    }
    outcomes = {said: [run(case) for case in track(group, description=said)] for said, group in cases.items()}
    finished = [outcome for group in outcomes.values() for outcome in group]
    args.output_dir.mkdir(parents=True, exist_ok=True)
    save(lambda colors: figure(outcomes, colors), args.output_dir / "agreement")
    (args.output_dir / "agreement.json").write_text(json.dumps([asdict(o) for o in finished], indent=2) + "\n")
    console = Console(width=110)
    console.print(table(finished))
    console.print(f"Wrote agreement.png and agreement.json to {args.output_dir}", soft_wrap=True)


if __name__ == "__main__":
    main()
