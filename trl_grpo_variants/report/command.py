# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""`trl-variants report`: a page of a run."""

import argparse
import os
from pathlib import Path

from ..parser import Parser
from ..runs.folder import read_run
from .page import render


PAGE_NAME = "index.html"


def main(argv: list[str]) -> int:
    """Run the command with these arguments: 0, or a `ValueError` of one sentence if they are wrong."""
    arguments = _parser().parse_args(argv)
    run = read_run(arguments.run_dir)
    output = arguments.output or arguments.run_dir / "report"
    page, left = render(run)
    try:
        output.mkdir(parents=True, exist_ok=True)
        _write(output / PAGE_NAME, page.encode())
    except OSError as error:
        raise ValueError(f"The report cannot be written to {output}: {error.strerror}.") from error
    print(f"Wrote {output / PAGE_NAME}: {len(page.encode()) / 1000:.0f} kB.")  # noqa: T201
    for because, titles in left.items():
        print(f"Left out: {', '.join(titles)}, because {because}.")  # noqa: T201
    return 0


def _write(path: Path, content: bytes) -> None:
    # Whole or not at all, and whatever is there already.
    partial = path.with_suffix(".partial")
    partial.write_bytes(content)
    os.replace(partial, path)


def _folder(given: str) -> Path:
    if not given:
        raise argparse.ArgumentTypeError("an empty text is no folder")
    return Path(given)


def _parser() -> Parser:
    parser = Parser(
        prog="trl-variants report",
        description="Make a page of a run that needs no other file, no script and no network: what happened, measured "
        "against predicted success, what became of each prompt, what lies behind it, and what it cost.",
    )
    parser.add_argument(
        "run_dir", type=_folder, metavar="RUN_DIR", help="Output folder of a run, finished or cut off."
    )
    parser.add_argument(
        "--output", type=_folder, metavar="DIR", help="Folder of the report (default: `report` in the run's folder)."
    )
    return parser
