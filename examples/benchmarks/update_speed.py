# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Measures what an update costs, side by side with stock TRL on the same rollouts in alternating steps of one process:

    python examples/benchmarks/update_speed.py
    python examples/benchmarks/update_speed.py --lora --workloads long_tail_30,equal
    python examples/benchmarks/update_speed.py --scaling
    python examples/benchmarks/update_speed.py --model 0.6B --markdown

Every number is a ratio to stock TRL: medians over the repetitions, each of which pairs two updates that ran one after
the other. The model has random weights and is made on the spot; a CUDA device is used if there is one, in bfloat16.
"""

import argparse
import math
import random
import statistics
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from common import CUDA, SHAPES, VOCABULARY, heading, machine, make_model, peak_memory, row, shape, tokenizer_folder
from common import work_time as now
from datasets import Dataset
from peft import LoraConfig
from rich.console import Console
from rich.table import Table
from transformers import PreTrainedTokenizerFast, Qwen3ForCausalLM
from transformers.utils.logging import disable_progress_bar
from trl import GRPOConfig, GRPOTrainer

from trl_grpo_variants import GRPOVariantConfig, GRPOVariantTrainer


QUICKSTART = Path(__file__).parents[1] / "quickstart"


@dataclass(frozen=True)
class Workload:
    """
    One rollout, which is one optimizer step.

    Parameters:
        prompts (`list[int]`):
            Length of each prompt, in tokens.
        completions (`list[list[int]]`):
            Lengths of the completions of each prompt, in tokens.
        inert (`list[bool]`):
            Whether the completions of a prompt all get the same reward.
        micro_batch (`int`):
            Rows of a micro-batch.
    """

    prompts: list[int]
    completions: list[list[int]]
    inert: list[bool]
    micro_batch: int

    @property
    def group(self) -> int:
        return len(self.completions[0])

    @property
    def rows(self) -> int:
        return len(self.prompts) * self.group

    @property
    def tokens_with_gradient(self) -> int:
        groups = zip(self.prompts, self.completions, self.inert, strict=True)
        return sum(prompt + length for prompt, lengths, inert in groups for length in lengths if not inert)


def long_tail(
    inert_share: float, *, limit: int = 256, prompts: int = 8, group: int = 8, micro_batch: int = 16
) -> Workload:
    """Lengths from a log-normal distribution of which one in ten is at the limit."""
    rng = random.Random(0)
    # The 90th percentile of the logarithm is that of the limit.
    sigma = 0.9
    mean = math.log(limit) - 1.2816 * sigma
    lengths = [
        [max(1, min(limit, round(rng.lognormvariate(mean, sigma)))) for _ in range(group)] for _ in range(prompts)
    ]
    inert = [i < round(inert_share * prompts) for i in range(prompts)]
    rng.shuffle(inert)
    return Workload([rng.randint(16, 48) for _ in range(prompts)], lengths, inert, micro_batch)


def equal() -> Workload:
    """Nothing to save: rows of one length, all of which carry gradient."""
    return Workload([32] * 8, [[128] * 8] * 8, [False] * 8, 16)


def long_prompts(factor: int) -> Workload:
    """Prompts that are a multiple of their completions' length; a micro-batch could hold whole groups."""
    rng = random.Random(0)
    lengths = [[rng.randint(24, 40) for _ in range(8)] for _ in range(4)]
    return Workload([32 * factor] * 4, lengths, [False] * 4, 16)


def quickstart() -> Workload:
    """Lengths and rewards of a rollout of the quickstart's policy on its task."""
    import sys

    sys.path.insert(0, str(QUICKSTART))
    from task import MAX_COMPLETION_LENGTH, correct, make_dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(0)
    policy = AutoModelForCausalLM.from_pretrained(QUICKSTART / "policy")
    tokenizer = AutoTokenizer.from_pretrained(QUICKSTART / "policy", padding_side="left")
    dataset = make_dataset("train", 8)
    inputs = tokenizer(list(dataset["prompt"]), return_tensors="pt", padding=True)
    sequences = policy.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        do_sample=True,
        top_k=0,
        num_return_sequences=8,
        max_new_tokens=MAX_COMPLETION_LENGTH,
    )
    completions = sequences[:, inputs["input_ids"].size(1) :]
    is_eos = completions == tokenizer.eos_token_id
    lengths = (is_eos.cumsum(dim=1) - is_eos.int() == 0).sum(dim=1).view(8, 8)
    answers = [answer for answer in dataset["answer"] for _ in range(8)]
    texts = tokenizer.batch_decode(completions, skip_special_tokens=True)
    rewards = torch.tensor(correct(texts, answers)).view(8, 8)
    return Workload(
        inputs["attention_mask"].sum(dim=1).tolist(),
        lengths.tolist(),
        (rewards.amax(dim=1) == rewards.amin(dim=1)).tolist(),
        64,
    )


WORKLOADS: dict[str, Callable[[], Workload]] = {
    "quickstart": quickstart,
    "long_tail_0": lambda: long_tail(0.0),
    "long_tail_30": lambda: long_tail(0.3),
    "long_tail_60": lambda: long_tail(0.6),
    "long_tail_30_wide": lambda: replace(long_tail(0.3), micro_batch=64),
    "long_tail_30_narrow": lambda: replace(long_tail(0.3), micro_batch=4),
    "equal": equal,
    "prompts_1x": lambda: long_prompts(1),
    "prompts_4x": lambda: long_prompts(4),
    "prompts_8x": lambda: long_prompts(8),
    "prompts_16x": lambda: long_prompts(16),
}
SAVINGS = {"trim_padding": True, "skip_inert_rows": True}
CONTENDERS: dict[str, dict[str, Any]] = {
    "default": SAVINGS,
    "pack_rollout": SAVINGS | {"pack_rollout": True},
    "share_prompt": SAVINGS | {"share_prompt": True},
    "mirror_padded": {
        "mirror_beta": 0.1,
        "trim_padding": False,
        "skip_inert_rows": False,
    },
}


class Updates:
    """A trainer of which single updates on a fixed rollout are run and measured."""

    def __init__(
        self, folder: Path, workload: Workload, model: Qwen3ForCausalLM, settings: dict[str, Any] | None, lora: bool
    ):
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        trainer_class, config_class = (
            (GRPOTrainer, GRPOConfig) if settings is None else (GRPOVariantTrainer, GRPOVariantConfig)
        )
        args = config_class(
            str(folder / "run"),
            per_device_train_batch_size=workload.micro_batch,
            gradient_accumulation_steps=workload.rows // workload.micro_batch,
            steps_per_generation=workload.rows // workload.micro_batch,
            num_generations=workload.group,
            max_completion_length=max(map(max, workload.completions)),
            learning_rate=0.0,
            use_cpu=not CUDA,
            bf16=CUDA,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            dataloader_pin_memory=False,
            **(settings or {}),
        )
        self.trainer = trainer_class(
            model=model,
            args=args,
            processing_class=tokenizer,
            reward_funcs=lambda completion_ids, prompts, **_: self._rewards(workload, prompts),
            train_dataset=Dataset.from_dict({"prompt": [str(i) for i in range(len(workload.prompts))]}),
            rollout_func=lambda prompts, trainer: rollout(workload, prompts),
            peft_config=LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM") if lora else None,
        )
        trainer = self.trainer
        trainer.current_gradient_accumulation_steps = args.gradient_accumulation_steps
        trainer.model.to(trainer.accelerator.device).train()
        self.optimizer = trainer.create_optimizer()
        self.batch = [{"prompt": str(i)} for i in range(len(workload.prompts)) for _ in range(workload.group)]
        self.tokens = 0
        trainer.model.get_input_embeddings().register_forward_hook(self._count)
        self.rollout_seconds = 0.0
        generate = trainer._generate_and_score_completions
        trainer._generate_and_score_completions = lambda inputs: self._timed(generate, inputs)

    @staticmethod
    def _rewards(workload: Workload, prompts: list[str]) -> list[float]:
        return [
            0.0 if workload.inert[int(prompt)] else float((i % workload.group) ** 2)
            for i, prompt in enumerate(prompts)
        ]

    def _count(self, _: Any, inputs: tuple[torch.Tensor, ...], __: torch.Tensor) -> None:
        if torch.is_grad_enabled():
            self.tokens += inputs[0].numel()

    def _timed(self, function: Callable[[Any], Any], inputs: Any) -> Any:
        started = now()
        output = function(inputs)
        self.rollout_seconds += now() - started
        return output

    def run(self) -> float:
        """One optimizer step; returns its seconds without the rollout."""
        self.tokens, self.rollout_seconds = 0, 0.0
        started = now()
        for _ in range(self.trainer.args.gradient_accumulation_steps):
            self.trainer.training_step(self.trainer.model, self.batch, None)
        self.optimizer.step()
        seconds = now() - started - self.rollout_seconds
        self.gradient = torch.cat(
            [p.grad.detach().flatten().float() for p in self.trainer.model.parameters() if p.grad is not None]
        )
        self.optimizer.zero_grad()
        self.trainer._metrics["train"].clear()
        return seconds

    def peak_memory(self) -> int:
        """Bytes at the height of one optimizer step: parameters, optimizer, gradients, activations."""
        state = [v for values in self.optimizer.state.values() for v in values.values() if isinstance(v, torch.Tensor)]
        return peak_memory(self.run, [*self.trainer.model.parameters(), *state])


def rollout(workload: Workload, prompts: list[str]) -> dict[str, list[list[int]]]:
    """Random tokens of the workload's lengths, the same for every trainer."""
    prompt_ids, completion_ids = [], []
    for i, prompt in enumerate(map(int, prompts)):
        rng = random.Random(prompt)
        prompt_ids.append([rng.randrange(2, VOCABULARY) for _ in range(workload.prompts[prompt])])
        rng = random.Random(1000 + i)
        length = workload.completions[prompt][i % workload.group]
        completion_ids.append([rng.randrange(2, VOCABULARY) for _ in range(length - 1)] + [1])
    logprobs = [[0.0] * len(ids) for ids in completion_ids]
    return {"prompt_ids": prompt_ids, "completion_ids": completion_ids, "logprobs": logprobs}


@dataclass(frozen=True)
class Result:
    """
    Ratios to stock TRL.

    Parameters:
        time (`float`):
            Median over the repetitions.
        memory (`float`):
            Peak.
        tokens (`float`):
            Tokens computed.
        used (`float`):
            Share of the computed tokens that carry gradient: 1 is the floor.
        gradient_error (`float`):
            Norm of the difference of the gradients over the norm of TRL's.
        seconds (`float`):
            Of the update, median.
    """

    time: float
    memory: float
    tokens: float
    used: float
    gradient_error: float
    seconds: float


def compare(
    workload: Workload, contenders: dict[str, dict[str, Any]], *, lora: bool, repeats: int, sizes: dict[str, Any]
) -> dict[str, Result]:
    """
    Run updates of stock TRL and of this package in turn.

    Args:
        workload ([`Workload`]):
            The rollout.
        contenders (`dict[str, dict[str, Any]]`):
            Fields of the configuration of each.
        lora (`bool`):
            Whether an adapter is trained.
        repeats (`int`):
            Repetitions.
        sizes (`dict[str, Any]`):
            Those of the model.

    Returns:
        `dict[str, Result]`:
            By contender.
    """
    with tokenizer_folder() as folder:
        updates = {
            name: Updates(folder, workload, make_model(sizes), settings, lora)
            for name, settings in {"TRL": None, **contenders}.items()
        }
        for update in updates.values():
            update.run()
        seconds: dict[str, list[float]] = {name: [] for name in updates}
        order = list(updates)
        for i in range(repeats):
            for name in order[i % len(order) :] + order[: i % len(order)]:
                seconds[name].append(updates[name].run())
        memory = {name: update.peak_memory() for name, update in updates.items()}
    stock = updates["TRL"]
    return {
        name: Result(
            time=statistics.median(a / b for a, b in zip(seconds[name], seconds["TRL"], strict=True)),
            memory=memory[name] / memory["TRL"],
            tokens=update.tokens / stock.tokens,
            used=workload.tokens_with_gradient / update.tokens,
            gradient_error=((update.gradient - stock.gradient).norm() / stock.gradient.norm()).item(),
            seconds=statistics.median(seconds[name]),
        )
        for name, update in updates.items()
    }


COLUMNS = ("workload", "setting", "time", "peak memory", "tokens", "useful tokens", "gradient error", "seconds")


def cells(workload: str, name: str, result: Result) -> list[str]:
    numbers = [f"{value:.2f}" for value in (result.time, result.memory, result.tokens, result.used)]
    return [workload, name, *numbers, f"{result.gradient_error:.0e}", f"{result.seconds:.2f}"]


def table(title: str, rows: list[list[str]]) -> Table:
    output = Table(title=title)
    for column in COLUMNS:
        output.add_column(column, justify="left" if column in ("workload", "setting") else "right")
    for row_cells in rows:
        output.add_row(*row_cells)
    return output


def growing() -> dict[str, tuple[Workload, dict[str, Any]]]:
    """Cost against work: the group, the lengths and the model grow, one at a time."""
    cases: dict[str, tuple[Workload, dict[str, Any]]] = {}
    for group in (4, 8, 16):
        cases[f"G = {group}"] = (long_tail(0.3, group=group, micro_batch=2 * group), SHAPES["tiny"])
    for limit in (128, 256, 512):
        cases[f"length {limit}"] = (long_tail(0.3, limit=limit), SHAPES["tiny"])
    for sizes in (shape(64, 2), shape(128, 4), shape(256, 6)):
        parameters = sum(p.numel() for p in make_model(sizes).parameters())
        cases[f"{parameters / 1e6:.1f} M parameters"] = (long_tail(0.3), sizes)
    return cases


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", type=lambda value: value.split(","), default=list(WORKLOADS))
    parser.add_argument("--contenders", type=lambda value: value.split(","), default=["default"])
    parser.add_argument("--lora", action="store_true", help="Train an adapter instead of all weights.")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--model", choices=SHAPES, default="tiny", help="Sizes of the model.")
    parser.add_argument("--scaling", action="store_true", help="Let group, length and model grow instead.")
    parser.add_argument("--markdown", action="store_true", help="Print each row as it is measured, in Markdown.")
    args = parser.parse_args()
    for names, known in ((args.workloads, WORKLOADS), (args.contenders, CONTENDERS)):
        for name in names:
            if name not in known:
                parser.error(f"unknown name {name!r}; allowed are {', '.join(known)}")
    disable_progress_bar()
    warnings.simplefilter("ignore")

    if args.scaling:
        cases, contenders = growing(), {"default": SAVINGS}
    else:
        cases = {name: (WORKLOADS[name](), SHAPES[args.model]) for name in args.workloads}
        contenders = {name: CONTENDERS[name] for name in args.contenders}
    what = "an adapter" if args.lora else "all weights"
    title = f"Update of {what}, as a ratio to stock TRL ({machine()}, {torch.get_num_threads()} thread(s))"
    if args.markdown:
        print(heading(*COLUMNS), flush=True)
    rows = []
    for name, (workload, sizes) in cases.items():
        results = compare(workload, contenders, lora=args.lora, repeats=args.repeats, sizes=sizes)
        measured = [cells(name, contender, result) for contender, result in results.items()]
        if args.markdown:
            print("\n".join(row(*line) for line in measured), flush=True)
        rows += measured
    if not args.markdown:
        Console(width=130).print(table(title, rows))


if __name__ == "__main__":
    main()
