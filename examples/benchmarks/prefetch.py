# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Measures `prefetch_rollout` beside generation and training in turn, with a vLLM server; in an environment with vLLM, such as
the one of `make test-vllm`:

    python examples/benchmarks/prefetch.py                                # a stand-in that takes as long as an update
    python examples/benchmarks/prefetch.py --write-base runs/base         # the base for an engine to serve
    python examples/benchmarks/prefetch.py --server http://localhost:8000 --base runs/base
    python examples/benchmarks/prefetch.py --success                      # what a rollout of an older policy costs

Both train the same adapter on the same prompts with TRL's own forward passes, in runs one after the other in turn; a
rollout is trained in four optimizer steps. Times are those of a clock, medians over the rollouts of all runs after the first
two of each.
"""

import argparse
import statistics
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from common import SHAPES, heading, machine, make_model, row, tokenizer_folder, wall_time
from datasets import Dataset
from peft import LoraConfig
from stand_in_server import standing_in
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
from transformers.utils.logging import disable_progress_bar
from whole_step import make_prompts

from trl_grpo_variants import GRPOVariantConfig, GRPOVariantTrainer


QUICKSTART = Path(__file__).parents[1] / "quickstart"
sys.path.insert(0, str(QUICKSTART))

import experiment  # noqa: E402
import measure  # noqa: E402
import task  # noqa: E402


GROUP, PROMPTS, STEPS_PER_ROLLOUT, LENGTH, ROLLOUTS = 8, 4, 4, 64, 9
WAYS = {"in turn": False, "prefetch_rollout": True}


def train(base: Path, dataset: Dataset, reward: Any, callback: TrainerCallback, folder: Path, **settings: Any) -> None:
    """Train an adapter with rollouts of a server."""
    args = GRPOVariantConfig(
        str(folder),
        variant="grpo",
        trim_padding=False,
        skip_inert_rows=False,
        use_vllm=True,
        vllm_mode="server",
        lr_scheduler_type="constant",
        steps_per_generation=STEPS_PER_ROLLOUT,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **settings,
    )
    trainer = GRPOVariantTrainer(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        processing_class=AutoTokenizer.from_pretrained(base),
        reward_funcs=reward,
        args=args,
        train_dataset=dataset,
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM"),
        callbacks=[callback],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()


class Rollouts(TrainerCallback):
    """Seconds of each rollout, from the begin of its first step to the end of its last."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % STEPS_PER_ROLLOUT == 0:
            self.begun = wall_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % STEPS_PER_ROLLOUT == 0:
            self.seconds.append(wall_time() - self.begun)


def seconds_of_rollouts(base: Path, address: str, prefetches: bool) -> list[float]:
    """Those of a run, without the first two, of which one has not been asked for before."""
    rollouts = Rollouts()

    def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
        return [float(sum(ids) % 2) for ids in completion_ids]

    with tempfile.TemporaryDirectory() as folder:
        train(
            base,
            Dataset.from_dict({"prompt": make_prompts(ROLLOUTS)}),
            reward,
            rollouts,
            Path(folder),
            vllm_server_base_url=address,
            prefetch_rollout=prefetches,
            per_device_train_batch_size=PROMPTS * GROUP // STEPS_PER_ROLLOUT,
            num_generations=GROUP,
            max_completion_length=LENGTH,
            learning_rate=1e-4,
            max_steps=ROLLOUTS * STEPS_PER_ROLLOUT,
        )
    # Nor without the last one, while which is trained nothing is made.
    return rollouts.seconds[2:-1]


def write_base(folder: Path) -> None:
    make_model(SHAPES["tiny"]).save_pretrained(folder)
    with tokenizer_folder() as tokenizer:
        AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)


def compare(base: Path, address: str, repeats: int) -> dict[str, float]:
    """Median seconds of a rollout, by the way."""
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        for way, prefetches in WAYS.items():
            seconds[way] += seconds_of_rollouts(base, address, prefetches)
    return {way: statistics.median(values) for way, values in seconds.items()}


def measure_times(base: Path | None, server: str | None, repeats: int) -> None:
    print(heading("server", "a rollout", "in turn", "`prefetch_rollout`", "ratio"), flush=True)
    if server is not None:
        assert base is not None
        times = compare(base, server, repeats)
        _print_times(server, "", times)
        return
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        write_base(base)
        with standing_in(str(base)) as address:
            update = statistics.median(seconds_of_rollouts(base, address, False))
        for share in (0.5, 1.0, 2.0):
            with standing_in(str(base), pace=share * update) as address:
                times = compare(base, address, repeats)
            _print_times("stand-in", f"{share:g} of an update, {share * update:.1f} s", times)


def _print_times(server: str, generation: str, times: dict[str, float]) -> None:
    first, second = times.values()
    print(row(server, generation, f"{first:.1f} s", f"{second:.1f} s", f"{second / first:.2f}"), flush=True)


class Success(TrainerCallback):
    """Success on held-out prompts of the quickstart at some steps."""

    def __init__(self, steps: list[int]) -> None:
        self.steps, self.found = steps, [0.0] * len(steps)
        self.start = AutoModelForCausalLM.from_pretrained(QUICKSTART / "policy")
        self.dataset = task.make_dataset("held_out", 256)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self.steps:
            found = measure.evaluate(kwargs["model"], self.start, kwargs["processing_class"], self.dataset, 4)
            self.found[self.steps.index(state.global_step)] = measure.Estimate.over_prompts(found.success).mean
            kwargs["model"].train()


def measure_success(seeds: list[int], steps: list[int]) -> None:
    print(heading("", *(f"step {step}" for step in steps)), flush=True)
    for way, prefetches in WAYS.items():
        found = []
        for seed in seeds:
            watch = Success(steps)
            with (
                tempfile.TemporaryDirectory() as folder,
                standing_in("policy", policy=QUICKSTART / "policy") as address,
            ):
                train(
                    QUICKSTART / "policy",
                    task.make_dataset("train", experiment.TRAINING_PROMPTS),
                    task.correct,
                    watch,
                    Path(folder),
                    vllm_server_base_url=address,
                    prefetch_rollout=prefetches,
                    seed=seed,
                    per_device_train_batch_size=experiment.COMPLETIONS_PER_STEP,
                    num_generations=experiment.GROUP_SIZE,
                    max_completion_length=task.MAX_COMPLETION_LENGTH,
                    learning_rate=experiment.LORA_LEARNING_RATE,
                    max_steps=steps[-1],
                )
            found.append(watch.found)
        cells = [f"{statistics.mean(v):.3f} [{min(v):.3f}, {max(v):.3f}]" for v in zip(*found, strict=True)]
        print(row(way, *cells), flush=True)


def _numbers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", help="Address of a vLLM server that serves the base; a stand-in without it.")
    parser.add_argument("--base", type=Path, help="Folder of the base that the server serves.")
    parser.add_argument("--write-base", type=Path, help="Only write the base to a folder.")
    parser.add_argument("--repeats", type=int, default=3, help="Runs of each way.")
    parser.add_argument("--success", action="store_true", help="Measure success of the quickstart's task instead.")
    parser.add_argument("--seeds", type=_numbers, default=[0, 1, 2])
    parser.add_argument("--steps", type=_numbers, default=[25, 50, 100, 200], help="Where success is measured.")
    args = parser.parse_args()
    if (args.server is None) != (args.base is None):
        parser.error("`--server` and `--base` go together")
    disable_progress_bar()
    warnings.simplefilter("ignore")
    if args.write_base is not None:
        write_base(args.write_base)
    elif args.success:
        measure_success(args.seeds, args.steps)
    else:
        measure_times(args.base, args.server, args.repeats)
    if args.write_base is None:
        print(f"\n{machine()}.")


if __name__ == "__main__":
    main()
