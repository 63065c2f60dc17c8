# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
The quickstart's task, trained as one would train it, beside what the theory predicts for the same coefficients:

    python examples/theory/practice.py

The theory maximises over all policies on every rollout and treats prompts one by one; the run takes a few clipped
gradient steps on a shared network and sees most prompts never. The gap is what those differences make.
"""

import argparse
import sys
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

from trl_grpo_variants import get_variant, theory


QUICKSTART = Path(__file__).parents[1] / "quickstart"
sys.path.insert(0, str(QUICKSTART))

import experiment  # noqa: E402
import measure  # noqa: E402
import task  # noqa: E402


VARIANTS = ("reference", "mirror", "dual")
CLIP = 0.2
SAMPLES = 32


@dataclass(frozen=True)
class Gap:
    """
    A run and its predictions, as mean success on the held-out prompts.

    Parameters:
        variant (`str`):
            Preset.
        before (`float`):
            Success of the starting policy.
        after (`Estimate`):
            Success of the trained policy.
        first (`float`):
            Exact iteration, after one rollout.
        last (`float`):
            Exact iteration, after as many rollouts as the run had.
        clipped (`float`):
            The same with the run's clip on the probability ratio.
    """

    variant: str
    before: float
    after: measure.Estimate
    first: float
    last: float
    clipped: float


def reference_success() -> np.ndarray:
    """Success of the starting policy on each held-out prompt, away from 0 and 1 by half a sample."""
    policy = AutoModelForCausalLM.from_pretrained(QUICKSTART / "policy")
    tokenizer = AutoTokenizer.from_pretrained(QUICKSTART / "policy")
    prompts = task.make_dataset("held_out", experiment.HELD_OUT_PROMPTS)
    found = np.array(measure.evaluate(policy, policy, tokenizer, prompts, samples=SAMPLES).success)
    # From a few samples a prompt that was never solved is not known to be unsolvable, which 0 would say.
    return (found * SAMPLES + 0.5) / (SAMPLES + 1)


def compare(variant: str, p_ref: np.ndarray, steps: int, progress: Progress) -> Gap:
    """
    Train with a variant and predict.

    Args:
        variant (`str`):
            Preset with a KL term.
        p_ref (`np.ndarray`):
            Success `(prompts,)` of the starting policy.
        steps (`int`):
            Optimizer steps.
        progress ([`~rich.progress.Progress`]):
            Progress display, already started.

    Returns:
        [`Gap`]:
            Both.
    """
    with tempfile.TemporaryDirectory() as folder:
        finished = experiment.run(
            variant, QUICKSTART / "policy", Path(folder),
            seed=0, steps=steps, lora=False, progress=progress, verbose=False, save=False,
        )  # fmt: skip
    settings = get_variant(variant).settings
    coefficients = {name: settings.get(name, 0.0) for name in ("beta", "mirror_beta")}
    rollouts = steps // experiment.STEPS_PER_ROLLOUT
    exact = theory.success_path(p_ref, rollouts, **coefficients).mean(axis=1)
    clipped = theory.clipped_path(p_ref, rollouts, epsilon=CLIP, **coefficients).mean(axis=1)
    return Gap(
        variant, float(p_ref.mean()), finished.curve[-1].success, float(exact[1]), float(exact[-1]), float(clipped[-1])
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="Optimizer steps of each run.")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)

    p_ref = reference_success()
    with Progress(transient=True) as progress:
        gaps = [compare(variant, p_ref, args.steps, progress) for variant in VARIANTS]
    rollouts = args.steps // experiment.STEPS_PER_ROLLOUT
    table = Table(title=f"Success on held-out prompts, {args.steps} steps, {rollouts} rollouts")
    columns = (
        "variant",
        "before",
        "measured",
        "exact, 1 rollout",
        f"exact, {rollouts}",
        f"clipped, {rollouts}",
        "gap",
    )
    for column in columns:
        table.add_column(column, justify="left" if column == "variant" else "right")
    for gap in gaps:
        numbers = (f"{value:.3f}" for value in (gap.first, gap.last, gap.clipped))
        table.add_row(gap.variant, f"{gap.before:.3f}", str(gap.after), *numbers, f"{gap.after.mean - gap.last:+.3f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
