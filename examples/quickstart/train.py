# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Trains a small policy with a variant of GRPO on a task whose answers are checked, on a CPU, without downloads:

    python examples/quickstart/train.py
    python examples/quickstart/train.py --variant mirror --lora
    python examples/quickstart/train.py --compare grpo,tic_grpo
    python examples/quickstart/train.py --compare
    python examples/quickstart/train.py --task spread --compare mean_only,grpo,rs_grpo
"""

import argparse
import json
import os
from dataclasses import asdict
from functools import partial
from itertools import chain, count
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from trl_grpo_variants import get_variant, list_variants


if TYPE_CHECKING:
    from experiment import Run

# By task, the optimizer steps after which the curves are flat or what was predicted is seen.
STEPS = {"sort": 200, "spread": 400}
ABOUT = {
    "sort": "Task: put three to ten digits in order. The policy has seen it done, often wrongly, and is right half the time.",
    "spread": "Task: put digits in rising or falling order, as the first one says; the policy is right on some prompts and "
    "hardly ever on others.",
}
RUNS = Path("runs/quickstart")
BASELINE = "grpo"


def main() -> None:
    args = parse_args()
    args.output_dir.mkdir(parents=True, exist_ok=True)
    console = Console()
    console.print(ABOUT[args.task])
    if args.compare is None:
        train(args, console)
    elif not compare(args, console):
        raise SystemExit(1)
    print_next_steps(args, console)


def train(args: argparse.Namespace, console: Console) -> None:
    """Train with one variant."""
    console.print("Loading PyTorch and TRL ...")
    # Importing TRL takes seconds; who misspells an argument does not wait for it.
    from experiment import TASKS, run
    from figure import figure_of_runs

    from trl_grpo_variants.runs.style import LIGHT, save_png

    task = TASKS[args.task]
    policy = remade_policy(args) or task.policy
    with Progress(console=console, transient=True) as progress:
        finished = run(
            args.variant,
            policy,
            args.output_dir / "model",
            seed=args.seed,
            steps=args.steps,
            lora=args.lora,
            progress=progress,
            verbose=True,
            save=True,
            task=task,
        )
    figure = args.output_dir / "quickstart.png"
    save_png(figure_of_runs([finished], LIGHT), figure)
    result = save_result([finished], args)
    print_run(finished, console)
    console.print(f"Wrote {figure}, {result} and the checkpoint in {args.output_dir / 'model'}", soft_wrap=True)


def compare(args: argparse.Namespace, console: Console) -> bool:
    """Train with several variants and seeds; whether none of them failed."""
    from comparison import Job, outcomes

    policy = remade_policy(args)
    folder = args.output_dir / "runs"
    # Seed by seed, so that a comparison that is interrupted has seen all variants.
    jobs = [
        Job(variant, seed, args.steps, args.lora, args.task, policy, folder)
        for seed in args.seeds
        for variant in args.compare
    ]
    console.print(
        f"{len(jobs)} runs, {args.workers} at a time; interrupted, the same command goes on where it was ..."
    )
    runs: list[Run] = []
    missing: dict[str, str] = {}
    failed = False
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("runs", total=len(jobs))
        for outcome in outcomes(jobs, args.workers):
            progress.advance(bar)
            name = f"{outcome.job.variant}, seed {outcome.job.seed}"
            if outcome.run is None:
                missing[outcome.job.variant] = f"{outcome.how}: {outcome.reason}"
                failed |= outcome.how == "failed"
            else:
                runs.append(outcome.run)
                name += f": rise {outcome.run.rise}"
            console.print(f"{name} ({outcome.how})", highlight=False, markup=False)
    for variant, reason in missing.items():
        console.print(f"{variant} {reason}", highlight=False, markup=False, soft_wrap=True)
    # In the order in which they were asked for, whichever ended first; a variant with all of its seeds or not at all.
    order = {(job.variant, job.seed): i for i, job in enumerate(jobs)}
    runs = sorted((r for r in runs if r.variant not in missing), key=lambda r: order[r.variant, r.seed])
    if runs:
        report(runs, args, console)
    return not failed


def report(runs: list["Run"], args: argparse.Namespace, console: Console) -> None:
    """Print and write the tables and the figure of a comparison."""
    from figure import MANY, figure_of_classes, figure_of_runs, ranking
    from predict import predict
    from tables import caution, table_of_predictions, table_of_success, tables_of_classes

    from trl_grpo_variants.runs.style import save

    tables = [table_of_success(runs, BASELINE)]
    variants = dict.fromkeys(run.variant for run in runs)
    draw = partial(figure_of_runs, runs)
    if args.task == "spread":
        from experiment import SPREAD
        from spread import FAVOURED_SHARE

        predictions = {v: predict(v, SPREAD.group_size, FAVOURED_SHARE, SPREAD.pass_at) for v in variants}
        tables += [table_of_predictions(predictions), *tables_of_classes(runs, predictions)]
        draw = partial(figure_of_classes, runs, predictions)
    if len(variants) > MANY:
        draw = partial(ranking, runs, BASELINE)
    figure = args.output_dir / "compare"
    save(draw, figure)
    for table in tables:
        shown = Table(title=table.title)
        for i, header in enumerate(table.headers):
            shown.add_column(header, justify="right" if i else "left")
        for row in table.rows:
            shown.add_row(*row)
        # A number that is cut off to fit a narrow terminal would be of no use.
        console.print(shown, width=max(console.width, 112), crop=False, overflow="ignore")
    console.print(caution(runs, BASELINE), soft_wrap=True)
    text = args.output_dir / "compare.md"
    text.write_text("\n".join(table.markdown for table in tables))
    console.print(f"Wrote {figure}.png, {text} and {save_result(runs, args)}", soft_wrap=True)


def remade_policy(args: argparse.Namespace) -> Path | None:
    """Folder of a starting policy that is made first, where that is asked for."""
    if not args.from_scratch:
        return None
    from experiment import TASKS
    from make_policy import make_policy

    policy = args.output_dir / "policy"
    make_policy(policy, TASKS[args.task])
    return policy


def save_result(runs: list["Run"], args: argparse.Namespace) -> Path:
    result = args.output_dir / "result.json"
    result.write_text(json.dumps({"steps": args.steps, "runs": [asdict(r) for r in runs]}, indent=2) + "\n")
    return result


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Train a small policy with a variant of GRPO, on a CPU.")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--variant", default="tic_grpo", help="variant to train with (default: %(default)s)")
    what.add_argument(
        "--compare",
        type=_names,
        nargs="?",
        const=[],
        metavar="V1,V2",
        help="train these variants and compare them; without names, all that the task can train",
    )
    parser.add_argument("--task", choices=list(STEPS), default="sort", help="what to learn (default: %(default)s)")
    parser.add_argument("--lora", action="store_true", help="train a LoRA adapter instead of all weights")
    parser.add_argument("--seed", type=int, default=0, help="seed of a single run (default: %(default)s)")
    parser.add_argument("--seeds", type=_integers, default=[0, 1, 2], help="seeds of --compare (default: 0,1,2)")
    parser.add_argument("--steps", type=_positive, help="optimizer steps (default: 200 to sort, 400 for spread)")
    parser.add_argument("--from-scratch", action="store_true", help="remake the starting policy first (a minute)")
    parser.add_argument(
        "--workers",
        type=_positive,
        default=min(2, os.cpu_count() or 1),
        help="runs of --compare at a time, of one thread each (default: %(default)s)",
    )
    parser.add_argument("--output-dir", type=Path, help="default: a folder of the run's own in runs/quickstart")
    return parser


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        for name in args.compare or [args.variant]:
            get_variant(name)
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    if args.output_dir is None:
        args.output_dir = RUNS / _name(args)
        if args.compare is None:
            args.output_dir = _unused(args.output_dir)
    if args.steps is None:
        args.steps = STEPS[args.task]
    if args.compare == []:
        args.compare = list_variants()
    return args


def _unused(folder: Path) -> Path:
    """A folder that holds no result: that of an earlier run stays. A comparison goes on in its own."""
    numbered = (folder.with_name(f"{folder.name}-{number}") for number in count(2))
    return next(path for path in chain([folder], numbered) if not (path / "result.json").exists())


def _name(args: argparse.Namespace) -> str:
    """Runs that differ in this have different folders, so that results stay."""
    what = [args.variant] if args.compare is None else ["compare", *(args.compare or ["all"])]
    seeds = [args.seed] if args.compare is None else args.seeds
    flags = [*(["lora"] if args.lora else []), *([] if args.task == "sort" else [args.task])]
    flags += [*([] if args.steps is None else [f"{args.steps}steps"]), *(["scratch"] if args.from_scratch else [])]
    return "-".join([*what, *flags, f"seed{'+'.join(map(str, seeds))}"])


def print_run(run: "Run", console: Console) -> None:
    table = Table(title="Success on held-out prompts, with 95 % intervals over prompts")
    for header in ("", "before", "after", "rise"):
        table.add_column(header)
    table.add_row("sampled", str(run.curve[0].success), str(run.curve[-1].success), str(run.rise))
    table.add_row("greedy", str(run.greedy_before), str(run.greedy_after), "")
    for name, before in run.curve[0].passed.items():
        for k, value in before.items():
            table.add_row(f"{name} prompts, {k}", f"{value:.2f}", f"{run.curve[-1].passed[name][k]:.2f}", "")
    console.print(table, markup=False)


def next_steps(args: argparse.Namespace) -> list[tuple[str, str]]:
    """Arguments that were not given now and have left no result, with what they are for."""
    run = [args.variant] if args.compare is None else args.compare
    task = "" if args.task == "sort" else f"--task {args.task} "
    candidates = [(f"{task}--variant {run[0]} --lora", "a LoRA adapter instead of all weights")]
    for other in [name for name in ("mirror", "tic_grpo", "maxrl", "grpo") if name not in run][:1]:
        candidates.insert(0, (f"{task}--variant {other}", "another variant"))
        meaning = "both variants with three seeds each, in a table and a figure"
        candidates.append((f"{task}--compare {run[0]},{other}", meaning))
    candidates += [
        ("--task spread --compare mean_only,maxrl", "a task on which the methods differ: prompts from easy to hard"),
        ("--compare", "all variants that the task can train"),
    ]
    ran = Path(args.output_dir).name
    done = [ran, *(path.parent.name for path in RUNS.glob("*/result.json"))]
    return [(text, meaning) for text, meaning in candidates if _name(_parser().parse_args(text.split())) not in done][
        :3
    ]


def print_next_steps(args: argparse.Namespace, console: Console) -> None:
    console.print("\nWhat to try next; earlier results stay where they are:")
    for arguments, meaning in next_steps(args):
        console.print(f'  make quickstart ARGS="{arguments}"\n      {meaning}', highlight=False)


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
