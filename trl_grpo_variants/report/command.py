# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""`trl-variants report`: a page and figures of a run."""

import argparse
import os
from pathlib import Path

from ..parser import Parser
from ..runs.folder import read_run
from .page import panels, render


PAGE_NAME = "index.html"


def main(argv: list[str]) -> int:
    """Run the command with these arguments: 0, or a `ValueError` of one sentence if they are wrong."""
    arguments = _parser().parse_args(argv)
    run = read_run(arguments.run_dir)
    output = arguments.output or arguments.run_dir / "report"
    try:
        output.mkdir(parents=True, exist_ok=True)
        shown = panels(run)
        page = render(run, shown)
        for panel in shown:
            if panel.figure is not None:
                _write(output / f"{panel.name}.png", panel.png)
        _write(output / PAGE_NAME, page.encode())
    except OSError as error:
        raise ValueError(f"The report cannot be written to {output}: {error.strerror}.") from error
    print(f"Wrote {output / PAGE_NAME} and {sum(p.figure is not None for p in shown)} figures.")  # noqa: T201
    for panel in shown:
        if panel.figure is None:
            print(f"Left out: {panel.title}, because {panel.missing}.")  # noqa: T201
    if run.logs.history:
        for state in run.unreadable:
            print(f"Left out: {state}.")  # noqa: T201
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
        description="Make a page and figures of a run: predicted against measured success, what became of each "
        "prompt, what success has cost, KLs, weights of trajectories, and completion lengths.",
    )
    parser.add_argument(
        "run_dir", type=_folder, metavar="RUN_DIR", help="Output folder of a run, finished or cut off."
    )
    parser.add_argument(
        "--output", type=_folder, metavar="DIR", help="Folder of the report (default: `report` in the run's folder)."
    )
    return parser
