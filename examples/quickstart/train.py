# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Trains a small policy with a variant of GRPO on a task whose answers are checked, on a CPU, without downloads:

    python examples/quickstart/train.py
    python examples/quickstart/train.py --variant mirror --lora
    python examples/quickstart/train.py --compare grpo,tic_grpo
"""

import argparse
import json
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from trl_grpo_variants import get_variant


if TYPE_CHECKING:
    from experiment import Run

SHIPPED_POLICY = Path(__file__).parent / "policy"


def main() -> None:
    args = parse_args()
    console = Console()
    console.print("Loading PyTorch and TRL ...")
    # Importing TRL takes seconds; who misspells an argument does not wait for it.
    from experiment import run
    from figure import save_figure

    output_dir: Path = args.output_dir
    output_dir.mkdir(parents=True, exist_ok=True)
    policy = SHIPPED_POLICY
    if args.from_scratch:
        from make_policy import make_policy

        policy = output_dir / "policy"
        make_policy(policy)

    comparing = args.compare is not None
    variants, seeds = (args.compare, args.seeds) if comparing else ([args.variant], [args.seed])
    runs: list[Run] = []
    with Progress(console=console, transient=True) as progress:
        for variant in variants:
            for seed in seeds:
                finished = run(
                    variant,
                    policy,
                    output_dir / "model",
                    seed=seed,
                    steps=args.steps,
                    lora=args.lora,
                    progress=progress,
                    verbose=not comparing,
                    save=not comparing,
                )
                runs.append(finished)
                if comparing:
                    console.print(f"{variant}, seed {seed}: rise {finished.rise}", highlight=False, markup=False)

    figure = output_dir / ("compare.png" if comparing else "quickstart.png")
    save_figure(runs, figure)
    result = output_dir / "result.json"
    result.write_text(json.dumps({"steps": args.steps, "runs": [asdict(r) for r in runs]}, indent=2) + "\n")

    if comparing:
        print_comparison(runs, console)
        console.print(f"Wrote {figure} and {result}", soft_wrap=True)
    else:
        print_run(runs[0], console)
        console.print(f"Wrote {figure}, {result} and the checkpoint in {output_dir / 'model'}", soft_wrap=True)
        print_next_steps(args.variant, console)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a small policy with a variant of GRPO, on a CPU.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--variant", default="tic_grpo", help="variant to train with (default: %(default)s)")
    what.add_argument("--compare", type=_names, metavar="V1,V2", help="train these variants and compare them")
    parser.add_argument("--lora", action="store_true", help="train a LoRA adapter instead of all weights")
    parser.add_argument("--seed", type=int, default=0, help="seed of a single run (default: %(default)s)")
    parser.add_argument("--seeds", type=_integers, default=[0, 1, 2], help="seeds of --compare (default: 0,1,2)")
    parser.add_argument("--steps", type=_positive, default=200, help="optimizer steps (default: %(default)s)")
    parser.add_argument("--from-scratch", action="store_true", help="remake the starting policy first (a minute)")
    parser.add_argument("--output-dir", type=Path, help="default: a folder of the run's own in runs/quickstart")
    args = parser.parse_args()
    try:
        for name in args.compare or [args.variant]:
            get_variant(name)
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    if args.output_dir is None:
        args.output_dir = Path("runs/quickstart") / _name(args)
    return args


def _name(args: argparse.Namespace) -> str:
    """Runs that differ in this have different folders, so that results stay."""
    what = [args.variant] if args.compare is None else ["compare", *args.compare]
    seeds = [args.seed] if args.compare is None else args.seeds
    return "-".join([*what, *(["lora"] if args.lora else []), f"seed{'+'.join(map(str, seeds))}"])


def print_run(run: "Run", console: Console) -> None:
    table = Table(title="Success on held-out prompts, with 95 % intervals over prompts")
    for header in ("", "before", "after", "rise"):
        table.add_column(header)
    table.add_row("sampled", str(run.curve[0].success), str(run.curve[-1].success), str(run.rise))
    table.add_row("greedy", str(run.greedy_before), str(run.greedy_after), "")
    console.print(table, markup=False)


def print_comparison(runs: list["Run"], console: Console) -> None:
    table = Table(title="Success on held-out prompts: mean (lowest-highest) over seeds")
    for header in ("variant", "before", "after", "completions", "seconds"):
        table.add_column(header, justify="left" if header == "variant" else "right")
    for variant in dict.fromkeys(r.variant for r in runs):
        members = [r for r in runs if r.variant == variant]
        table.add_row(
            variant,
            _spread([r.curve[0].success.mean for r in members]),
            _spread([r.curve[-1].success.mean for r in members]),
            str(members[0].completions),
            f"{statistics.median(r.seconds for r in members):.0f}",
        )
    console.print(table)
    console.print(
        "Where the ranges of two variants overlap, this comparison does not tell them apart.", soft_wrap=True
    )


def print_next_steps(variant: str, console: Console) -> None:
    other = "mirror" if variant != "mirror" else "tic_grpo"
    console.print("\nWhat to try next:")
    for arguments, meaning in (
        (f"--variant {other}", "another variant"),
        ("--lora", "a LoRA adapter instead of all weights"),
        (f"--compare {variant},{other}", "both variants with three seeds each, in a table and a figure"),
    ):
        console.print(f'  make quickstart ARGS="{arguments}"\n      {meaning}', highlight=False)


def _spread(values: list[float]) -> str:
    return f"{sum(values) / len(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def _names(text: str) -> list[str]:
    return text.split(",")


def _integers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {value}")
    return value


if __name__ == "__main__":
    main()
