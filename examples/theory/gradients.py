# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
The expected gradient of each importance-sampling level, from the trainer's own loss over every trajectory of a small
policy, beside the gradients of the expected reward at the current policy and at the one that made the rollout:

    python examples/theory/gradients.py

The policy drifts away from the rollout along the gradient until the KL to it reaches given values. Writes
`gradients.png`, the same as SVG, light and dark, and `gradients.json` to `runs/theory`, or where `--output_dir` says.
"""

import argparse
import itertools
import json
import logging
import statistics
import tempfile
import warnings
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from rich.console import Console
from rich.progress import track
from rich.table import Table
from tokenizers import Tokenizer, models
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils.logging import disable_progress_bar

from trl_grpo_variants import GRPOVariantConfig, GRPOVariantTrainer
from trl_grpo_variants.runs.style import Sheet, save


VOCABULARY, LENGTH = 4, 4
KLS = (0.001, 0.01, 0.1, 0.5)
UNCLIPPED = {"epsilon": 1.0, "epsilon_high": 1e6}
CLIPPED = {"epsilon": 0.2, "epsilon_high": 0.28}
LEVELS: dict[str, dict[str, Any]] = {
    "trajectory": {"importance_sampling_level": "trajectory", "trajectory_clip": "none"},
    "token": {"importance_sampling_level": "token"} | UNCLIPPED,
    "sequence": {"importance_sampling_level": "sequence"} | UNCLIPPED,
    "none, current": {"importance_sampling_level": "none"},
    "none, frozen": {"importance_sampling_level": "none", "no_is_gradient": "frozen"},
    "trajectory, upper clip": {"importance_sampling_level": "trajectory"} | CLIPPED,
    "trajectory, two-sided clip": {"importance_sampling_level": "trajectory", "trajectory_clip": "two_sided"}
    | CLIPPED,
    "token, clip": {"importance_sampling_level": "token"} | CLIPPED,
}
# What differs by its clip only has one color.
COLORS = {
    "trajectory": "blue",
    "token": "orange",
    "sequence": "green",
    "none, current": "grey",
    "none, frozen": "plum",
    "trajectory, upper clip": "blue",
    "trajectory, two-sided clip": "blue",
    "token, clip": "orange",
}


@dataclass(frozen=True)
class Error:
    """
    How far an expected gradient is from two others, averaged over policies.

    Parameters:
        level (`str`):
            Importance-sampling level and clip.
        kl (`float`):
            KL of the rollout's policy to the current one, in nats.
        current (`float`):
            Norm of the difference to the gradient at the current policy, over the norm of that.
        rollout (`float`):
            The same at the policy that made the rollout.
        cosine (`float`):
            Cosine to the gradient at the current policy.
    """

    level: str
    kl: float
    current: float
    rollout: float
    cosine: float


def save_policy(folder: Path, seed: int) -> None:
    """An autoregressive policy all of whose tokens may follow each other; the prompt is the first of them."""
    disable_progress_bar()
    tokenizer = Tokenizer(models.WordLevel({str(i): i for i in range(VOCABULARY)}, unk_token="0"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="0", eos_token="0").save_pretrained(folder)
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        pad_token_id=0,
        eos_token_id=0,
        bos_token_id=None,
        tie_word_embeddings=False,
        initializer_range=0.4,
    )
    LlamaForCausalLM(config).save_pretrained(folder)


TRAJECTORIES = torch.tensor(list(itertools.product(range(VOCABULARY), repeat=LENGTH)))


def token_logps(model: Any) -> torch.Tensor:
    """Log-probs `(N, LENGTH)` of the tokens of every trajectory."""
    ids = torch.cat([torch.zeros(len(TRAJECTORIES), 1, dtype=torch.long), TRAJECTORIES], dim=1)
    logits = model(input_ids=ids).logits[:, :-1].double()
    return logits.log_softmax(dim=-1).gather(2, TRAJECTORIES.unsqueeze(2)).squeeze(2)


def flat(tensors: Any) -> torch.Tensor:
    return torch.cat([tensor.detach().flatten().double() for tensor in tensors])


def reward_gradient(model: Any, rewards: torch.Tensor) -> torch.Tensor:
    """Gradient of the expected reward, by enumeration."""
    expected = (token_logps(model).sum(dim=1).exp() * rewards).sum()
    return flat(torch.autograd.grad(expected, list(model.parameters())))


@torch.no_grad()
def drift(model: Any, direction: torch.Tensor, kl: float) -> None:
    """Move the parameters along a direction until the KL of the old policy to the new one is `kl` nats."""
    start = torch.nn.utils.parameters_to_vector(model.parameters()).clone()
    old = token_logps(model).sum(dim=1)

    def moved(step: float) -> float:
        torch.nn.utils.vector_to_parameters(start + step * direction.to(start.dtype), model.parameters())
        return float((old.exp() * (old - token_logps(model).sum(dim=1))).sum())

    low, high = 0.0, 1e-3
    while moved(high) < kl:
        high *= 2
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if moved(middle) < kl else (low, middle)
    moved(high)


def expected_gradient(
    folder: Path, settings: dict[str, Any], rewards: torch.Tensor, kl: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    The gradient that a training step leaves behind, and those of the expected reward now and at the rollout.

    Args:
        folder (`Path`):
            Folder of the policy that makes the rollout.
        settings (`dict[str, Any]`):
            Fields of the configuration.
        rewards (`torch.Tensor`):
            Of every trajectory `(N,)`.
        kl (`float`):
            How far the policy has drifted since, in nats.

    Returns:
        `tuple[torch.Tensor, torch.Tensor, torch.Tensor]`:
            Gradients of all parameters, the first as one of the objective and not of the loss.
    """
    rows = len(TRAJECTORIES)
    model = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    args = GRPOVariantConfig(
        str(folder / "run"),
        per_device_train_batch_size=rows,
        num_generations=rows,
        steps_per_generation=1,
        num_iterations=2,
        max_completion_length=LENGTH,
        loss_type="dr_grpo",
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        **settings,
    )
    trainer = GRPOVariantTrainer(
        model=model,
        args=args,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=Dataset.from_dict({"prompt": ["0"]}),
    )
    trainer.current_gradient_accumulation_steps = 1
    trainer._anchors.refresh(step=0)
    with torch.no_grad():
        old = token_logps(model)
    at_rollout = reward_gradient(model, rewards)
    drift(model, at_rollout, kl)
    probabilities = old.sum(dim=1).exp()
    # Every term of the loss is proportional to its advantage, so that weights on the rows are weights on advantages.
    advantages = rows * probabilities * (rewards - (probabilities * rewards).sum())
    trainer._buffered_inputs = [
        {
            "prompt_ids": torch.zeros(rows, 1, dtype=torch.long),
            "prompt_mask": torch.ones(rows, 1, dtype=torch.long),
            "completion_ids": TRAJECTORIES,
            "completion_mask": torch.ones_like(TRAJECTORIES),
            "old_per_token_logps": old.float(),
            "advantages": advantages.float(),
            "num_items_in_batch": torch.tensor(rows * LENGTH),
        }
    ]
    # Within a rollout, so that none is generated.
    trainer._step = 1
    trainer.training_step(trainer.model, None, None)
    estimate = -LENGTH * flat(parameter.grad for parameter in model.parameters())
    return estimate, reward_gradient(model, rewards), at_rollout


def measure(seeds: int, kls: tuple[float, ...] = KLS) -> list[Error]:
    """
    Compare all levels.

    Args:
        seeds (`int`):
            Random policies and rewards to average over.
        kls (`tuple[float, ...]`, *optional*):
            Drifts, in nats.

    Returns:
        `list[Error]`:
            One for each level and drift.
    """
    found: dict[tuple[str, float], list[tuple[float, float, float]]] = {}
    for seed in track(range(seeds), description="Enumerating"):
        with tempfile.TemporaryDirectory() as name:
            save_policy(Path(name), seed)
            generator = torch.Generator().manual_seed(seed)
            rewards = (torch.rand(len(TRAJECTORIES), generator=generator) < 0.3).double()
            for (level, settings), kl in itertools.product(LEVELS.items(), kls):
                estimate, now, then = expected_gradient(Path(name), settings, rewards, kl)
                numbers = (
                    ((estimate - now).norm() / now.norm()).item(),
                    ((estimate - then).norm() / then.norm()).item(),
                    torch.cosine_similarity(estimate, now, dim=0).item(),
                )
                found.setdefault((level, kl), []).append(numbers)
    return [
        Error(level, kl, *(statistics.mean(column) for column in zip(*numbers, strict=True)))
        for (level, kl), numbers in found.items()
    ]


def figure(errors: list[Error], colors: dict[str, str]) -> Any:
    """
    Relative errors over the drift.

    Args:
        errors (`list[Error]`):
            What [`measure`] returns.
        colors (`dict[str, str]`):
            Light or dark.

    Returns:
        [`~matplotlib.figure.Figure`]:
            One panel for each of the two gradients.
    """
    kls = sorted({error.kl for error in errors})
    highest = max(max(error.current, error.rollout) for error in errors)
    sheet = Sheet(424, colors)
    for left, name, title in ((44, "current", "at the current policy"), (420, "rollout", "at the rollout's policy")):
        panel = sheet.add_panel(left, 106, 160, 264, title=title, across="KL between the two, in nats")
        ends = []
        for level in LEVELS:
            points = [(error.kl, getattr(error, name)) for error in errors if error.level == level]
            looks = {"color": colors[COLORS[level]], "linestyle": "--" if "clip" in level else "-", "label": level}
            panel.plot(*zip(*points, strict=True), marker="o", markersize=4, clip_on=False, zorder=3, **looks)
            ends.append((*points[-1], level, COLORS[level]))
        panel.set(xscale="log", ylim=(0.0, 1.02 * highest))
        panel.set_xticks(kls, [f"{kl:g}" for kl in kls])
        panel.xaxis.minorticks_off()
        sheet.name_ends(panel, ends)
    sheet.add_heading(
        "How far a level's gradient is from that of the expected reward",
        "relative error, as the policy drifts away from the one that made the rollout; dashed: clipped",
    )
    return sheet.figure


def table(errors: list[Error]) -> Table:
    kls = sorted({error.kl for error in errors})
    output = Table(title="Relative error to the gradient now / at the rollout, and cosine to the one now")
    output.add_column("level")
    for kl in kls:
        output.add_column(f"KL {kl:g}", justify="right")
    by_place = {(error.level, error.kl): error for error in errors}
    for level in LEVELS:
        cells = (by_place[level, kl] for kl in kls)
        output.add_row(level, *(f"{_short(e.current)} / {_short(e.rollout)}, {e.cosine:.2f}" for e in cells))
    return output


def _short(error: float) -> str:
    return f"{error:.3f}" if error >= 1e-3 else f"{error:.0e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path("runs/theory"))
    parser.add_argument("--seeds", type=int, default=5)
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    # It would say once per model that the sequence level weights sequences by their length.
    logging.getLogger("trl").setLevel(logging.ERROR)
    torch.set_num_threads(1)

    errors = measure(args.seeds)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    save(lambda colors: figure(errors, colors), args.output_dir / "gradients")
    (args.output_dir / "gradients.json").write_text(json.dumps([asdict(error) for error in errors], indent=2) + "\n")
    console = Console(width=130)
    console.print(table(errors))
    console.print(f"Wrote gradients.png and gradients.json to {args.output_dir}", soft_wrap=True)


if __name__ == "__main__":
    main()
