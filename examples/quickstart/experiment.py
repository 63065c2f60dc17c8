# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""One training run, watched on held-out prompts."""

import time
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

from figure import figure_of_runs
from measure import Evaluation, evaluate, pass_at
from peft import LoraConfig
from results import Estimate, Point, Run, difficulty
from rich.progress import Progress
from spread import SPREAD
from task import MAX_COMPLETION_LENGTH, Task, correct, demonstrate, draw_digits, make_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer, PrinterCallback, TrainerCallback
from transformers.utils.logging import disable_progress_bar

from trl_grpo_variants import GRPOVariantConfig, GRPOVariantTrainer, get_variant
from trl_grpo_variants.card.from_trainer import FIGURE_NAME
from trl_grpo_variants.runs.style import LIGHT, save_png


GROUP_SIZE = 8
COMPLETIONS_PER_STEP = 64
STEPS_PER_ROLLOUT = 4
LEARNING_RATE = 2e-4
LORA_LEARNING_RATE = 1e-3

TRAINING_PROMPTS = 4096
HELD_OUT_PROMPTS = 256
SAMPLES_PER_PROMPT = 4
EVALUATIONS = 8
# To tell how hard a prompt is for the starting policy: other samples than those that its success is measured with, and
# enough of them.
SORTING_SAMPLES = 64


SORT = Task(
    name="sort",
    policy=Path(__file__).parent / "policy",
    policy_steps=1500,
    draw_digits=draw_digits,
    demonstrate=demonstrate,
    make_dataset=make_dataset,
    training_prompts=TRAINING_PROMPTS,
    held_out_prompts=HELD_OUT_PROMPTS,
    group_size=GROUP_SIZE,
    completions_per_step=COMPLETIONS_PER_STEP,
    max_completion_length=MAX_COMPLETION_LENGTH,
    learning_rate=LEARNING_RATE,
    samples=SAMPLES_PER_PROMPT,
)
TASKS = {task.name: task for task in (SORT, SPREAD)}


def configure(
    variant: str, output_dir: Path, *, seed: int, steps: int, lora: bool = False, task: Task = SORT
) -> GRPOVariantConfig:
    """
    Make the configuration of a run.

    Args:
        variant (`str`):
            Name of the variant.
        output_dir (`Path`):
            Where the trained checkpoint and its card go.
        seed (`int`):
            Seed of training.
        steps (`int`):
            Optimizer steps.
        lora (`bool`, *optional*, defaults to `False`):
            Whether to train an adapter instead of all weights.
        task ([`Task`], *optional*, defaults to sorting):
            What is trained on.

    Returns:
        [`GRPOVariantConfig`]:
            Settings that all variants share, and the variant's own.

    Raises:
        `ValueError`: If the task lacks what the variant needs.
    """
    settings = get_variant(variant).settings
    if get_variant(variant).needs_vllm:
        raise ValueError("it corrects for generation with vLLM, and the task generates without")
    if "multi_objective_aggregation" in settings:
        raise ValueError("it combines several rewards, and the task has one")
    # Deprecations inside the libraries are nothing a reader can act on.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    shared = {
        "learning_rate": LORA_LEARNING_RATE if lora else task.learning_rate,
        "lr_scheduler_type": "constant",
        "per_device_train_batch_size": task.completions_per_step,
        "num_generations": task.group_size,
        # So that all variants take the same number of steps away from the policy that made the rollout.
        "steps_per_generation": max(1, STEPS_PER_ROLLOUT // settings.get("num_iterations", 1)),
        "max_completion_length": task.max_completion_length,
    }
    return GRPOVariantConfig(
        output_dir=str(output_dir),
        variant=variant,
        seed=seed,
        max_steps=steps,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        # A variant that is a group size keeps its own.
        **{name: value for name, value in shared.items() if name not in settings},
    )


def run(
    variant: str,
    policy: Path,
    output_dir: Path,
    *,
    seed: int,
    steps: int,
    lora: bool,
    progress: Progress,
    verbose: bool,
    save: bool,
    task: Task = SORT,
) -> Run:
    """
    Train the starting policy with a variant of GRPO.

    Args:
        variant (`str`):
            Name of the variant.
        policy (`Path`):
            Folder of the starting policy.
        output_dir (`Path`):
            Where the trained checkpoint and its card go.
        seed (`int`):
            Seed of training and of the evaluations.
        steps (`int`):
            Optimizer steps.
        lora (`bool`):
            Whether to train an adapter instead of all weights.
        progress ([`~rich.progress.Progress`]):
            Progress display, already started.
        verbose (`bool`):
            Whether to print each evaluation.
        save (`bool`):
            Whether to write the checkpoint, its card and the card's figure.
        task ([`Task`], *optional*, defaults to sorting):
            What is trained on.

    Returns:
        [`Run`]:
            What was measured.
    """
    # A progress bar for loading 0.4 MB is nothing to look at.
    disable_progress_bar()
    started = time.perf_counter()
    args = configure(variant, output_dir, seed=seed, steps=steps, lora=lora, task=task)
    trainer = GRPOVariantTrainer(
        model=str(policy),
        reward_funcs=correct,
        args=args,
        train_dataset=task.make_dataset("train", task.training_prompts),
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear") if lora else None,
    )
    # It prints the final dictionary of metrics; the evaluations below say the same in readable form.
    trainer.remove_callback(PrinterCallback)
    watch = _Watch(trainer, task, policy, progress, verbose)
    trainer.add_callback(watch)

    greedy_before = watch.evaluate(samples=0)
    trainer.train()
    greedy_after = watch.evaluate(samples=0)
    finished = Run(
        variant=variant,
        lora=lora,
        seed=seed,
        completions=-(-steps // (args.steps_per_generation * args.num_iterations))
        * args.steps_per_generation
        * task.completions_per_step,
        curve=watch.curve,
        rise=Estimate.over_prompts([b - a for a, b in zip(watch.first.success, watch.last.success, strict=True)]),
        greedy_before=Estimate.over_prompts(greedy_before.success),
        greedy_after=Estimate.over_prompts(greedy_after.success),
        seconds=time.perf_counter() - started,
    )
    if save:
        # An adapter of an earlier run would be taken for one of these weights, and the other way round.
        for weights in (*output_dir.glob("adapter_*"), *output_dir.glob("model*.safetensors")):
            weights.unlink()
        trainer.save_model()
        # Where the model card looks for a figure.
        save_png(figure_of_runs([finished], LIGHT), output_dir / FIGURE_NAME)
        trainer.create_model_card(model_name=f"quickstart-{variant}{'-lora' if lora else ''}")
    return finished


@lru_cache
def classes_of_prompts(task: Task, policy: Path) -> list[str]:
    """
    How hard each held-out prompt is for the starting policy; `"open"` where the answer cannot be known.

    Args:
        task ([`Task`]):
            Task with an `is_open` column.
        policy (`Path`):
            Folder of the starting policy.

    Returns:
        `list[str]`:
            `"easy"`, `"middle"`, `"hard"` or `"open"`, for each prompt.
    """
    prompts = task.make_dataset("held_out", task.held_out_prompts)
    model, tokenizer = AutoModelForCausalLM.from_pretrained(policy), AutoTokenizer.from_pretrained(policy)
    # Not the seeds of training, with which success is measured.
    found = evaluate(
        model, model, tokenizer, prompts, SORTING_SAMPLES, seed=-1, max_new_tokens=task.max_completion_length
    )
    return [
        "open" if is_open else difficulty(success)
        for is_open, success in zip(prompts["is_open"], found.success, strict=True)
    ]


class _Watch(TrainerCallback):
    def __init__(
        self, trainer: GRPOVariantTrainer, task: Task, policy: Path, progress: Progress, verbose: bool
    ) -> None:
        self.trainer = trainer
        self.task = task
        self.start = AutoModelForCausalLM.from_pretrained(policy)
        self.dataset = task.make_dataset("held_out", task.held_out_prompts)
        self.classes = classes_of_prompts(task, policy) if task.pass_at else []
        self.progress = progress
        self.verbose = verbose
        self.curve: list[Point] = []
        self.first: Evaluation
        self.last: Evaluation

    def evaluate(self, samples: int) -> Evaluation:
        model, tokenizer = self.trainer.model, self.trainer.processing_class
        seed, longest = self.trainer.args.seed, self.task.max_completion_length
        return evaluate(model, self.start, tokenizer, self.dataset, samples, seed, longest)

    def _passed(self, name: str) -> dict[str, float]:
        """pass@k over the held-out prompts of a class."""
        members = [success for success, its in zip(self.last.success, self.classes, strict=True) if its == name]
        return {f"pass@{k}": pass_at(k, members, self.task.samples) for k in self.task.pass_at}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.bar = self.progress.add_task(f"{args.variant}, seed {args.seed}", total=args.max_steps)
        self._add_point(0)
        self.first = self.last

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress.update(self.bar, completed=state.global_step)
        every = max(1, args.max_steps // EVALUATIONS)
        if state.global_step == args.max_steps or state.global_step % every == 0:
            self._add_point(state.global_step)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.progress.remove_task(self.bar)

    def _add_point(self, step: int) -> None:
        self.last = self.evaluate(self.task.samples)
        passed = {name: self._passed(name) for name in sorted(set(self.classes))}
        point = Point(step, Estimate.over_prompts(self.last.success), self.last.kl, self.last.length, passed)
        self.curve.append(point)
        # Where the model card looks for success.
        self.trainer.state.log_history.append(
            {
                "step": step,
                "eval_success": point.success.mean,
                "eval_success_low": point.success.low,
                "eval_success_high": point.success.high,
            }
        )
        if self.verbose:
            self.progress.console.print(
                f"step {step:3d}   success {point.success}   KL {point.kl:.2f}   length {point.length:.1f}",
                highlight=False,
                markup=False,
            )
