# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""One training run, watched on held-out prompts."""

import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from figure import save_figure
from measure import Estimate, Evaluation, evaluate
from peft import LoraConfig
from rich.progress import Progress
from task import MAX_COMPLETION_LENGTH, correct, make_dataset
from transformers import AutoModelForCausalLM, PrinterCallback, TrainerCallback
from transformers.utils.logging import disable_progress_bar

from trl_grpo_variants import GRPOVariantConfig, GRPOVariantTrainer, get_variant
from trl_grpo_variants.card.from_trainer import FIGURE_NAME


GROUP_SIZE = 8
COMPLETIONS_PER_STEP = 64
STEPS_PER_ROLLOUT = 4
LEARNING_RATE = 2e-4
LORA_LEARNING_RATE = 1e-3

TRAINING_PROMPTS = 4096
HELD_OUT_PROMPTS = 256
SAMPLES_PER_PROMPT = 4
EVALUATIONS = 10


@dataclass(frozen=True)
class Point:
    """
    The policy after some optimizer steps, on the held-out prompts.

    Parameters:
        step (`int`):
            Optimizer steps so far.
        success (`Estimate`):
            Share of right completions at temperature 1.
        kl (`float`):
            KL to the starting policy, in nats per completion.
        length (`float`):
            Tokens per completion.
    """

    step: int
    success: Estimate
    kl: float
    length: float


@dataclass(frozen=True)
class Run:
    """
    A finished run.

    Parameters:
        variant (`str`):
            Name of the variant.
        lora (`bool`):
            Whether an adapter was trained instead of all weights.
        seed (`int`):
            Seed of training and of the evaluations.
        completions (`int`):
            Completions generated for training.
        curve (`list[Point]`):
            Evaluations, from the starting policy to the trained one.
        rise (`Estimate`):
            Difference in success between the two ends of the curve, paired by prompt.
        greedy_before (`Estimate`):
            Success of greedy decoding at the start.
        greedy_after (`Estimate`):
            Success of greedy decoding at the end.
        seconds (`float`):
            Wall time, evaluations included.
    """

    variant: str
    lora: bool
    seed: int
    completions: int
    curve: list[Point]
    rise: Estimate
    greedy_before: Estimate
    greedy_after: Estimate
    seconds: float


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

    Returns:
        [`Run`]:
            What was measured.
    """
    # Progress bars for loading 0.4 MB, and deprecations inside the libraries, are nothing a reader can act on.
    disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")

    started = time.perf_counter()
    # So that all variants take the same number of steps away from the policy that made the rollout.
    num_iterations = get_variant(variant).settings.get("num_iterations", 1)
    steps_per_generation = STEPS_PER_ROLLOUT // num_iterations
    args = GRPOVariantConfig(
        output_dir=str(output_dir),
        variant=variant,
        seed=seed,
        max_steps=steps,
        learning_rate=LORA_LEARNING_RATE if lora else LEARNING_RATE,
        lr_scheduler_type="constant",
        per_device_train_batch_size=COMPLETIONS_PER_STEP,
        num_generations=GROUP_SIZE,
        steps_per_generation=steps_per_generation,
        max_completion_length=MAX_COMPLETION_LENGTH,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    trainer = GRPOVariantTrainer(
        model=str(policy),
        reward_funcs=correct,
        args=args,
        train_dataset=make_dataset("train", TRAINING_PROMPTS),
        peft_config=LoraConfig(r=8, lora_alpha=16, target_modules="all-linear") if lora else None,
    )
    # It prints the final dictionary of metrics; the evaluations below say the same in readable form.
    trainer.remove_callback(PrinterCallback)
    watch = _Watch(trainer, policy, progress, verbose)
    trainer.add_callback(watch)

    greedy_before = watch.evaluate(samples=0)
    trainer.train()
    greedy_after = watch.evaluate(samples=0)
    finished = Run(
        variant=variant,
        lora=lora,
        seed=seed,
        completions=-(-steps // STEPS_PER_ROLLOUT) * steps_per_generation * COMPLETIONS_PER_STEP,
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
        save_figure([finished], output_dir / FIGURE_NAME)
        trainer.create_model_card(model_name=f"quickstart-{variant}{'-lora' if lora else ''}")
    return finished


class _Watch(TrainerCallback):
    def __init__(self, trainer: GRPOVariantTrainer, policy: Path, progress: Progress, verbose: bool) -> None:
        self.trainer = trainer
        self.start = AutoModelForCausalLM.from_pretrained(policy)
        self.dataset = make_dataset("held_out", HELD_OUT_PROMPTS)
        self.progress = progress
        self.verbose = verbose
        self.curve: list[Point] = []
        self.first: Evaluation
        self.last: Evaluation

    def evaluate(self, samples: int) -> Evaluation:
        model, tokenizer = self.trainer.model, self.trainer.processing_class
        return evaluate(model, self.start, tokenizer, self.dataset, samples, seed=self.trainer.args.seed)

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
        self.last = self.evaluate(SAMPLES_PER_PROMPT)
        point = Point(step, Estimate.over_prompts(self.last.success), self.last.kl, self.last.length)
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
