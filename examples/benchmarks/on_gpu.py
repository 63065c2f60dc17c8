# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Runs the benchmarks on a CUDA device and writes their tables into the README, within eight minutes and without network:

    make benchmark-gpu
    make benchmark-gpu ARGS="--model 1.7B"

Models have random weights at the sizes of published ones and are made on the spot. What a benchmark needs and is not
installed (bitsandbytes, vLLM) is told in place of its table, and so is one that fails or takes too long. Without a CUDA
device nothing is measured, unless the model is `tiny`: then all of it runs on the CPU, and the tables are printed only.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any


HERE = Path(__file__).parent
README = HERE / "README.md"
MARKERS = ("<!-- cuda: begin, written by `make benchmark-gpu` -->", "<!-- cuda: end -->")
# Seconds for all of it, and the fewest for which a benchmark is begun.
LIMIT = 480
SHORTEST = 15


@dataclass(frozen=True)
class Part:
    """
    A benchmark.

    Parameters:
        title (`str`):
            Heading of its table.
        script (`str`):
            Name of its file.
        arguments (`tuple[str, ...]`):
            Of its command.
        tiny (`tuple[str, ...]`):
            Those for a tiny model, with which it is short.
        seconds (`int`):
            How long it may take.
        needs (`str`, *optional*):
            Module that it needs.
        takes_model (`bool`, *optional*, defaults to `True`):
            Whether the model is chosen by `--model`.
    """

    title: str
    script: str
    arguments: tuple[str, ...]
    tiny: tuple[str, ...]
    seconds: int
    needs: str | None = None
    takes_model: bool = True


def _only(*names: str) -> tuple[str, ...]:
    return tuple(word for name in names for word in ("--only", name))


PARTS = (
    Part(
        "The update",
        "update_speed.py",
        ("--markdown", "--repeats", "3", "--contenders", "default,share_prompt", "--workloads")
        + ("long_tail_0,long_tail_30,long_tail_60,equal,prompts_8x",),
        ("--markdown", "--repeats", "1", "--workloads", "long_tail_60"),
        150,
    ),
    Part("A whole step", "whole_step.py", ("--repeats", "3"), ("--repeats", "1", "--length", "32"), 130),
    Part(
        "Memory over a 4-bit base",
        "qlora_memory.py",
        _only("stock TRL", "stock TRL, beta=0.1", "mirror", "dual", "tic_grpo", "no_is_frozen")
        + _only("mirror, mirror_sync_steps=8"),
        _only("stock TRL", "mirror"),
        100,
        needs="bitsandbytes",
    ),
    Part("Sending an adapter to vLLM", "adapter_sync.py", (), (), 90, needs="vllm", takes_model=False),
)


def measure(part: Part, model: str, seconds: float) -> str:
    """The table of a benchmark, or a sentence that says why there is none, or why it ends early."""
    if part.needs is not None and find_spec(part.needs) is None:
        return f"Left out: {part.needs} is not installed."
    if seconds < SHORTEST:
        return "Left out: there was no time left."
    chosen = ("--model", model) if part.takes_model else ()
    arguments = part.tiny if model == "tiny" else part.arguments
    command = [sys.executable, str(HERE / part.script), *arguments, *chosen]
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "PYTHONPATH": os.pathsep.join([str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        output, errors = process.communicate(timeout=seconds)
        problem = None if process.returncode == 0 else f"It failed: {_last_line(errors)}"
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
        problem = f"It was stopped after {seconds:.0f} seconds."
    table = [line for line in output.splitlines() if line.startswith("|")]
    return "\n".join(table + ([""] if table and problem else []) + ([problem] if problem else []))


def _last_line(errors: str) -> str:
    return (errors.strip().splitlines() or ["it said nothing"])[-1][:300]


def tables(model: str, machine: str) -> Iterator[str]:
    """The machine and each benchmark under its heading, as they are measured."""
    end = time.monotonic() + LIMIT
    yield f"{machine}, random weights of the size {model!r}, {datetime.now(UTC):%Y-%m-%d}."
    for part in PARTS:
        yield f"### {part.title}"
        yield measure(part, model, min(part.seconds, end - time.monotonic()))


def write(readme: Path, text: str) -> None:
    """Put a text between the markers of a file."""
    before, _, rest = readme.read_text(encoding="utf-8").partition(MARKERS[0])
    _, _, after = rest.partition(MARKERS[1])
    if not after:
        raise ValueError(f"{readme} needs the lines {MARKERS[0]} and {MARKERS[1]}, between which the tables go.")
    readme.write_text(f"{before}{MARKERS[0]}\n\n{text}\n\n{MARKERS[1]}{after}", encoding="utf-8")


def main(argv: list[str] | None = None) -> int:
    """Run the command: 0, or 1 with a sentence where nothing could be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("tiny", "0.6B", "1.7B"), default="0.6B", help="Sizes of the models.")
    parser.add_argument(
        "--readme", type=Path, help="File to write the tables into (on a GPU: that of the benchmarks)."
    )
    arguments: Any = parser.parse_args(argv)
    missing = [name for name in ("torch", "transformers", "trl", "datasets", "peft") if find_spec(name) is None]
    if missing:
        print(f"{', '.join(missing)} not installed for {sys.executable}: nothing was measured.", file=sys.stderr)
        return 1
    import torch

    if not torch.cuda.is_available() and arguments.model != "tiny":
        print(
            "PyTorch finds no CUDA device here, so nothing was measured; `--model tiny` tries the benchmarks on the CPU.",
            file=sys.stderr,
        )
        return 1
    from common import machine

    written = []
    for text in tables(arguments.model, machine()):
        print(f"{text}\n", flush=True)
        written.append(text)
    readme = arguments.readme or (README if torch.cuda.is_available() and arguments.model != "tiny" else None)
    if readme is not None:
        write(readme, "\n\n".join(written))
    return 0


if __name__ == "__main__":
    sys.exit(main())
