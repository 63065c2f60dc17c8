# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Measures whole optimizer steps, side by side with stock TRL on the same prompts in alternating steps of one process:

    python examples/benchmarks/whole_step.py
    python examples/benchmarks/whole_step.py --contenders default,share_prompt

A step generates completions with the policy, scores them and makes one update. Of the prompts 30 % always succeed and 30 %
never do, which leaves their groups without signal; the others succeed half the time. The learning rate is 0 and the
sampling of a step has the same seed for all, so that they get the same completions. Every number is a ratio to stock
TRL: medians over the repetitions, each of which pairs two steps that ran one after the other; time on a CPU is that of the processor.
Waiting is the part of a step in which completions are generated and scored, and the update waits. The model has random weights and is made on the spot.
"""

import argparse
import random
import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from common import (
    CUDA,
    SHAPES,
    VOCABULARY,
    heading,
    machine,
    make_model,
    peak_memory,
    row,
    tokenizer_folder,
    work_time,
)
from datasets import Dataset
from transformers import PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar
from trl import GRPOConfig, GRPOTrainer

from trl_grpo_variants import GRPOVariantConfig, GRPOVariantTrainer


PROMPTS, GROUP, MICRO_BATCH = 10, 8, 16
ALWAYS, NEVER = 3, 3
CONTENDERS: dict[str, dict[str, Any]] = {
    "default": {"variant": "grpo", "trim_padding": True, "skip_inert_rows": True},
    "share_prompt": {"variant": "grpo", "trim_padding": True, "skip_inert_rows": True, "share_prompt": True},
    "mean_only": {"variant": "mean_only"},
}


@dataclass
class Step:
    """
    One optimizer step.

    Parameters:
        tokens (`int`):
            Tokens of the completions.
        waiting (`float`):
            Seconds in which completions are generated and scored.
        whole (`float`):
            Seconds.
    """

    tokens: int = 0
    waiting: float = 0.0
    whole: float = 0.0

    @property
    def update(self) -> float:
        return self.whole - self.waiting


def make_prompts(steps: int) -> list[str]:
    """Texts of 16 to 48 tokens, of which all differ."""
    rng = random.Random(0)
    return [
        " ".join(str(rng.randrange(VOCABULARY - 2)) for _ in range(rng.randint(16, 48)))
        for _ in range(steps * PROMPTS)
    ]


class Steps:
    """A trainer of which single steps are run and measured."""

    def __init__(
        self, folder: Path, sizes: dict[str, Any], prompts: list[str], settings: dict[str, Any] | None, length: int
    ):
        trainer_class, config_class = (
            (GRPOTrainer, GRPOConfig) if settings is None else (GRPOVariantTrainer, GRPOVariantConfig)
        )
        accumulation = PROMPTS * GROUP // MICRO_BATCH
        defaults = {
            "per_device_train_batch_size": MICRO_BATCH,
            "gradient_accumulation_steps": accumulation,
            "steps_per_generation": accumulation,
            "num_generations": GROUP,
            "max_completion_length": length,
            "learning_rate": 0.0,
            "use_cpu": not CUDA,
            "bf16": CUDA,
            "gradient_checkpointing": False,
            "report_to": "none",
            "save_strategy": "no",
            "dataloader_pin_memory": False,
        }
        model = make_model(sizes)
        # As many tokens end a completion as make lengths of a long tail, of which one in ten reaches the limit.
        ends = max(1, round(2.3 * sizes["vocab_size"] / length))
        model.generation_config.eos_token_id = list(range(1, 1 + ends))
        self.prompts = prompts
        self.trainer = trainer_class(
            model=model,
            args=config_class(str(folder / "run"), **(defaults | (settings or {}))),
            processing_class=PreTrainedTokenizerFast.from_pretrained(folder),
            reward_funcs=self._reward,
            train_dataset=Dataset.from_dict({"prompt": prompts}),
        )
        trainer = self.trainer
        trainer.current_gradient_accumulation_steps = accumulation
        trainer.model.to(trainer.accelerator.device).train()
        self.optimizer = trainer.create_optimizer()
        self.step = Step()
        trainer._generate = self._timed(trainer._generate)
        trainer._calculate_rewards = self._timed(trainer._calculate_rewards)

    def _reward(self, prompts: list[str], completion_ids: list[list[int]], **_: Any) -> list[float]:
        self.step.tokens += sum(map(len, completion_ids))
        places = [self.prompts.index(prompt) % PROMPTS for prompt in prompts]
        return [
            float(place < ALWAYS or (place < PROMPTS - NEVER and sum(ids) % 2))
            for place, ids in zip(places, completion_ids, strict=True)
        ]

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            started = work_time()
            output = function(*args)
            self.step.waiting += work_time() - started
            return output

        return timed

    def run(self, number: int) -> Step:
        """The step on the prompts of that number."""
        self.step = Step()
        rows = [{"prompt": self.prompts[PROMPTS * number + i]} for i in range(PROMPTS) for _ in range(GROUP)]
        torch.manual_seed(number)
        started = work_time()
        for _ in range(self.trainer.args.gradient_accumulation_steps):
            self.trainer.training_step(self.trainer.model, rows, None)
        self.optimizer.step()
        self.step.whole = work_time() - started
        self.optimizer.zero_grad()
        self.trainer._metrics["train"].clear()
        return self.step

    def peak_memory(self, number: int) -> int:
        """Bytes at the height of a step."""
        state = [v for values in self.optimizer.state.values() for v in values.values() if isinstance(v, torch.Tensor)]
        return peak_memory(lambda: self.run(number), [*self.trainer.model.parameters(), *state])


def compare(
    contenders: dict[str, dict[str, Any]], *, sizes: dict[str, Any], length: int, repeats: int
) -> tuple[dict[str, list[Step]], dict[str, int]]:
    """
    Run steps of stock TRL and of this package in turn.

    Args:
        contenders (`dict[str, dict[str, Any]]`):
            Fields of the configuration of each.
        sizes (`dict[str, Any]`):
            Those of the model.
        length (`int`):
            Limit of the completions, in tokens.
        repeats (`int`):
            Repetitions.

    Returns:
        `tuple[dict[str, list[Step]], dict[str, int]]`:
            Steps and bytes at the height of one, by contender, TRL first.
    """
    prompts = make_prompts(repeats + 1)
    with tokenizer_folder() as folder:
        runs = {
            name: Steps(folder, sizes, prompts, settings, length)
            for name, settings in {"TRL": None, **contenders}.items()
        }
        steps: dict[str, list[Step]] = {name: [] for name in runs}
        for run in runs.values():
            run.run(repeats)
        order = list(runs)
        for i in range(repeats):
            for name in order[i % len(order) :] + order[: i % len(order)]:
                steps[name].append(runs[name].run(i))
        return steps, {name: run.peak_memory(repeats) for name, run in runs.items()}


def ratio(steps: dict[str, list[Step]], name: str, quantity: str) -> str:
    pairs = zip(steps[name], steps["TRL"], strict=True)
    return f"{statistics.median(getattr(a, quantity) / getattr(b, quantity) for a, b in pairs):.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contenders", type=lambda value: value.split(","), default=["default"])
    parser.add_argument("--model", choices=SHAPES, default="tiny", help="Sizes of the model.")
    parser.add_argument("--length", type=int, default=256, help="Limit of the completions, in tokens.")
    parser.add_argument("--repeats", type=int, default=7)
    args = parser.parse_args()
    for name in args.contenders:
        if name not in CONTENDERS:
            parser.error(f"unknown name {name!r}; allowed are {', '.join(CONTENDERS)}")
    disable_progress_bar()
    warnings.simplefilter("ignore")

    contenders = {name: CONTENDERS[name] for name in args.contenders}
    steps, memory = compare(contenders, sizes=SHAPES[args.model], length=args.length, repeats=args.repeats)
    quantities = ("tokens", "update", "waiting", "whole")
    print(heading("", "generated tokens", "update", "waiting", "whole step", "peak memory"))
    stock = [statistics.median(getattr(step, name) for step in steps["TRL"]) for name in quantities]
    print(
        row(
            "stock TRL",
            f"{stock[0]:,.0f}",
            *(f"{value:.3g} s" for value in stock[1:]),
            f"{memory['TRL'] / 1e6:,.0f} MB",
        )
    )
    for name in contenders:
        numbers = [ratio(steps, name, quantity) for quantity in quantities]
        print(row(name, *numbers, f"{memory[name] / memory['TRL']:.2f}"))
    print(f"\n{machine()}.")


if __name__ == "__main__":
    main()
