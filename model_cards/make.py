# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Makes the cards in this folder: one quickstart run with a LoRA adapter for each variant, about 20 seconds each on two
free CPU cores.

    python model_cards/make.py
    python model_cards/make.py tic_grpo mirror
"""

import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from trl_grpo_variants import list_variants
from trl_grpo_variants.card.from_trainer import FIGURE_NAME


HERE = Path(__file__).parent
QUICKSTART = HERE.parent / "examples" / "quickstart"
STEPS = 200


def main() -> None:
    sys.path.insert(0, str(QUICKSTART))
    from experiment import run

    console = Console(highlight=False)
    with Progress(console=console, transient=True) as progress, tempfile.TemporaryDirectory() as folder:
        for variant in sys.argv[1:] or list_variants():
            output = Path(folder) / variant
            finished = run(
                variant,
                QUICKSTART / "policy",
                output,
                seed=0,
                steps=STEPS,
                lora=True,
                progress=progress,
                verbose=False,
                save=True,
            )
            card = HERE / variant
            card.mkdir(exist_ok=True)
            # The text and the figure as a push would upload them; the weights are made again in seconds.
            for name in ("README.md", FIGURE_NAME):
                shutil.copy(output / name, card / name)
            console.print(f"{variant}: {finished.curve[0].success} -> {finished.curve[-1].success}", markup=False)


if __name__ == "__main__":
    main()
