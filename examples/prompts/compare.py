# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
What it saves to choose the prompts, on the quickstart's task and policy, on a CPU and without downloads:

    python examples/prompts/compare.py

Two kinds of training data. Spread: of 512 prompts 40 % always succeed (any answer is accepted), 30 % never do (no answer
is), and 30 % sometimes. Alike: all of them sometimes. Success is on held-out prompts of the last kind.
"""

import argparse
import json
import sys
import warnings
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any


QUICKSTART = Path(__file__).parents[1] / "quickstart"
sys.path.append(str(QUICKSTART))

from curves import figure  # noqa: E402
from measure import Estimate, evaluate  # noqa: E402
from task import MAX_COMPLETION_LENGTH, correct, make_dataset  # noqa: E402
from transformers import AutoModelForCausalLM, PrinterCallback, TrainerCallback  # noqa: E402
from transformers.utils.logging import disable_progress_bar  # noqa: E402

from trl_grpo_variants import GRPOVariantConfig, GRPOVariantTrainer  # noqa: E402
from trl_grpo_variants.runs.style import save  # noqa: E402


PROMPTS = 512
HELD_OUT_PROMPTS, SAMPLES = 256, 2
GROUP_SIZE, COMPLETIONS_PER_STEP = 8, 64
LEARNING_RATE = 2e-4
# Of ten prompts.
DATA = {"spread": ["always"] * 4 + ["never"] * 3 + ["sometimes"] * 3, "alike": ["sometimes"] * 10}
# Tokens that a run may generate for training.
BUDGETS = {"spread": 110_000, "alike": 60_000}
METHODS: dict[str, dict[str, Any]] = {
    "TRL's order": {},
    "refill": {"refill_groups": 6, "surplus_groups": "keep"},
    "signal": {"prompt_sampling": "signal"},
    "signal, unbiased": {"prompt_sampling": "signal", "prompt_weights": "unbiased"},
}
TARGETS = (0.75, 0.8, 0.85, 0.9)


@dataclass(frozen=True)
class Point:
    """The policy after some optimizer steps: tokens generated for training so far, and success on held-out prompts."""

    step: int
    tokens: int
    success: float


@dataclass(frozen=True)
class Run:
    """A finished run."""

    data: str
    method: str
    seed: int
    curve: list[Point]

    @property
    def smooth(self) -> list[float]:
        """Success at each point as the mean of up to three evaluations around it, which by themselves are noisy."""
        values = [point.success for point in self.curve]
        return [fmean(values[max(0, i - 1) : i + 2]) for i in range(len(values))]

    def tokens_to(self, target: float) -> float | None:
        """Tokens at which success first reaches a target, on a straight line between evaluations."""
        points = [(point.tokens, success) for point, success in zip(self.curve, self.smooth, strict=True)]
        for (start, before), (end, after) in pairwise(points):
            if after >= target:
                return end if before >= target else start + (target - before) / (after - before) * (end - start)
        return None


class CountedReward:
    """The quickstart's reward by kind of prompt, and the tokens of all completions that it has seen."""

    __name__ = "reward"

    def __init__(self) -> None:
        self.tokens = 0

    def __call__(
        self,
        completions: list[str],
        answer: list[str],
        kind: list[str],
        completion_ids: list[list[int]],
        **kwargs: Any,
    ) -> list[float]:
        self.tokens += sum(map(len, completion_ids))
        scores = correct(completions, answer)
        return [{"always": 1.0, "never": 0.0}.get(k, score) for k, score in zip(kind, scores, strict=True)]


class Watch(TrainerCallback):
    """Evaluates at the start, every few optimizer steps and at the end, and stops at a number of tokens."""

    def __init__(self, trainer: GRPOVariantTrainer, reward: CountedReward, every: int, budget: int) -> None:
        self.trainer, self.reward, self.every, self.budget = trainer, reward, every, budget
        self.start = AutoModelForCausalLM.from_pretrained(QUICKSTART / "policy")
        self.held_out = make_dataset("held_out", HELD_OUT_PROMPTS)
        self.curve: list[Point] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._add_point(0)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.reward.tokens >= self.budget:
            control.should_training_stop = True
        if state.global_step % self.every == 0 or self.reward.tokens >= self.budget:
            self._add_point(state.global_step)

    def _add_point(self, step: int) -> None:
        found = evaluate(
            self.trainer.model, self.start, self.trainer.processing_class, self.held_out, SAMPLES, seed=step
        )
        self.curve.append(Point(step, self.reward.tokens, Estimate.over_prompts(found.success).mean))


def run(data: str, method: str, seed: int, budget: int, output_dir: Path) -> Run:
    """Train the quickstart's policy until so many tokens have been generated for it."""
    args = GRPOVariantConfig(
        output_dir=str(output_dir),
        variant="grpo",
        loss_type="grpo",
        seed=seed,
        max_steps=100_000,  # the tokens end it
        learning_rate=LEARNING_RATE,
        lr_scheduler_type="constant",
        per_device_train_batch_size=COMPLETIONS_PER_STEP,
        num_generations=GROUP_SIZE,
        max_completion_length=MAX_COMPLETION_LENGTH,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        **METHODS[method],
    )
    dataset = make_dataset("train", PROMPTS)
    kinds = DATA[data]
    reward = CountedReward()
    trainer = GRPOVariantTrainer(
        model=str(QUICKSTART / "policy"),
        reward_funcs=reward,
        args=args,
        train_dataset=dataset.add_column("kind", [kinds[i % len(kinds)] for i in range(PROMPTS)]),
    )
    trainer.remove_callback(PrinterCallback)
    watch = Watch(trainer, reward, every=4 if "refill_groups" in METHODS[method] else 10, budget=budget)
    trainer.add_callback(watch)
    trainer.train()
    return Run(data, method, seed, watch.curve)


def main() -> None:
    parser = argparse.ArgumentParser(description="Choose the prompts of rollouts in several ways, and compare.")
    parser.add_argument("--data", default=",".join(DATA), help="kinds of data (default: %(default)s)")
    parser.add_argument("--methods", default=";".join(METHODS), help="methods (default: all)")
    parser.add_argument("--seeds", default="0,1,2", help="seeds (default: %(default)s)")
    parser.add_argument("--share", type=float, default=1.0, help="share of the usual tokens (default: %(default)s)")
    parser.add_argument("--output-dir", type=Path, default=Path("runs/prompts"))
    parser.add_argument("--show", type=Path, metavar="FILE", help="only show what an earlier comparison has written")
    arguments = parser.parse_args()
    if arguments.show is not None:
        return show(read_runs(arguments.show), arguments.show.parent)
    disable_progress_bar()
    warnings.filterwarnings("ignore")
    arguments.output_dir.mkdir(parents=True, exist_ok=True)

    runs: list[Run] = []
    for data in arguments.data.split(","):
        for seed in map(int, arguments.seeds.split(",")):
            for method in arguments.methods.split(";"):
                budget = int(arguments.share * BUDGETS[data])
                runs.append(run(data, method, seed, budget, arguments.output_dir / "model"))
                reached = ", ".join(f"{t}: {runs[-1].tokens_to(t) or float('nan'):,.0f}" for t in TARGETS)
                print(f"{data}, {method}, seed {seed}: tokens to {reached}; end {runs[-1].curve[-1]}", flush=True)
                result = arguments.output_dir / "result.json"
                result.write_text(json.dumps([asdict(finished) for finished in runs], indent=1) + "\n")
    show(runs, arguments.output_dir)


def read_runs(path: Path) -> list[Run]:
    """Runs from a file that a comparison has written."""
    return [Run(**run | {"curve": [Point(**point) for point in run["curve"]]}) for run in json.loads(path.read_text())]


def show(runs: list[Run], folder: Path) -> None:
    """Print the table and draw the figure."""
    save(lambda colors: figure(runs, colors), folder / "prompts")
    print_table(runs)


def print_table(runs: list[Run]) -> None:
    """Tokens to each target as a share of those with TRL's order, by seed, and success at the end: mean (range)."""
    for data in dict.fromkeys(run.data for run in runs):
        base = {run.seed: run for run in runs if run.data == data and run.method == "TRL's order"}
        print(f"\n| {data} | {' | '.join(f'to {t}' for t in TARGETS)} | success at the end | tokens | steps |")
        print(f"|---|{'---|' * (len(TARGETS) + 3)}")
        for method in dict.fromkeys(run.method for run in runs if run.data == data):
            members = [run for run in runs if (run.data, run.method) == (data, method) and run.seed in base]
            cells = [
                _spread([_ratio(run.tokens_to(target), base[run.seed].tokens_to(target)) for run in members])
                for target in TARGETS
            ]
            tokens, steps = (fmean(getattr(run.curve[-1], name) for run in members) for name in ("tokens", "step"))
            cells += [_spread([run.smooth[-1] for run in members]), f"{tokens:,.0f}", f"{steps:.0f}"]
            print(f"| {method} | {' | '.join(cells)} |")


def _ratio(mine: float | None, theirs: float | None) -> float | None:
    return None if mine is None or theirs is None else mine / theirs


def _spread(values: list[float | None]) -> str:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return f"{len(known)} of {len(values)} seeds"
    return f"{fmean(known):.2f} ({min(known):.2f}-{max(known):.2f})"


if __name__ == "__main__":
    main()
