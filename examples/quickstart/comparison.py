# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Many variants with several seeds: runs in worker processes, resumed where they were cut."""

import hashlib
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from results import Run


# Versions on which the numbers may depend.
_LIBRARIES = ("trl_grpo_variants", "trl", "transformers", "peft", "torch")


@dataclass(frozen=True)
class Job:
    """
    A run to be made.

    Parameters:
        variant (`str`):
            Name of the variant.
        seed (`int`):
            Seed.
        steps (`int`):
            Optimizer steps.
        lora (`bool`):
            Whether to train an adapter instead of all weights.
        task (`str`):
            Name of the task.
        policy (`Path`, *optional*):
            Folder of the starting policy, if it is not the task's own.
        folder (`Path`):
            Where the results of finished runs lie.
    """

    variant: str
    seed: int
    steps: int
    lora: bool
    task: str
    policy: Path | None
    folder: Path

    @property
    def path(self) -> Path:
        """File of the result."""
        return self.folder / f"{self.variant}-seed{self.seed}.json"


@dataclass(frozen=True)
class Outcome:
    """
    What became of a job.

    Parameters:
        job ([`Job`]):
            The job.
        how (`str`):
            `"trained"`; `"found"`, where an earlier call has finished it; `"left out"`, where the task lacks what the
            variant needs; or `"failed"`.
        run ([`Run`], *optional*):
            The finished run.
        reason (`str`):
            Why there is none.
    """

    job: Job
    how: Literal["trained", "found", "left out", "failed"]
    run: Run | None = None
    reason: str = ""


def outcomes(jobs: list[Job], workers: int) -> Iterator[Outcome]:
    """
    Do the jobs in worker processes of one thread each. What has been finished before is not done again.

    Args:
        jobs (`list[Job]`):
            Jobs, in the order in which they are begun.
        workers (`int`):
            Number of processes.

    Yields:
        [`Outcome`]:
            One for each job, as they end.
    """
    # Before PyTorch is imported there: with one thread a run does not depend on how many run beside it.
    os.environ["OMP_NUM_THREADS"] = "1"
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context, initializer=_start_worker)
    try:
        for done in as_completed([pool.submit(work, job) for job in jobs]):
            yield done.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def work(job: Job) -> Outcome:
    """
    Find or make a run.

    Args:
        job ([`Job`]):
            The run to be made.

    Returns:
        [`Outcome`]:
            With the run, or why there is none.
    """
    from experiment import TASKS, configure, run
    from rich.progress import Progress

    task = TASKS[job.task]
    basis = _basis(job)
    found = read(job.path, basis)
    if found is not None:
        return Outcome(job, "found", found)
    try:
        configure(job.variant, job.folder, seed=job.seed, steps=job.steps, lora=job.lora, task=task)
    except ValueError as error:
        return Outcome(job, "left out", reason=str(error))
    try:
        finished = run(
            job.variant,
            job.policy or task.policy,
            job.folder,
            seed=job.seed,
            steps=job.steps,
            lora=job.lora,
            progress=Progress(disable=True),
            verbose=False,
            save=False,
            task=task,
        )
    except Exception as error:  # the others are still worth their time
        return Outcome(job, "failed", reason=f"{type(error).__name__}: {error}")
    write(job.path, basis, finished)
    return Outcome(job, "trained", finished)


def read(path: Path, basis: dict[str, Any]) -> Run | None:
    """
    Read a finished run.

    Args:
        path (`Path`):
            Its file.
        basis (`dict[str, Any]`):
            All that the run depends on.

    Returns:
        [`Run`], *optional*:
            `None` if there is none, or one that something else was the basis of.
    """
    if not path.exists():
        return None
    stored = json.loads(path.read_text())
    return Run.from_dict(stored["run"]) if stored["basis"] == basis else None


def write(path: Path, basis: dict[str, Any], run: Run) -> None:
    """
    Write a finished run.

    Args:
        path (`Path`):
            Its file.
        basis (`dict[str, Any]`):
            All that the run depends on.
        run ([`Run`]):
            The run.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # Whoever interrupts the writing leaves no half of a file that is read the next time.
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps({"basis": basis, "run": asdict(run)}, indent=2) + "\n")
    unfinished.replace(path)


def _basis(job: Job) -> dict[str, Any]:
    """All that a run depends on, as JSON gives it back."""
    import experiment

    from trl_grpo_variants import get_variant

    # Functions and folders say nothing of what is in them, so the policy's weights are looked at.
    task = experiment.TASKS[job.task]
    weights = (job.policy or task.policy) / "model.safetensors"
    basis = {
        "job": asdict(replace(job, policy=None, folder=Path())),
        "task": {name: value for name, value in asdict(replace(task, policy=Path())).items() if not callable(value)},
        "policy": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "rollout": [experiment.STEPS_PER_ROLLOUT, experiment.LORA_LEARNING_RATE, experiment.EVALUATIONS],
        "settings": dict(get_variant(job.variant).settings),
        "versions": {library: version(library) for library in _LIBRARIES},
    }
    return json.loads(json.dumps(basis, default=str))


def _start_worker() -> None:
    # Interrupted from the keyboard, workers end without a word, and they do not outlive whom they work for.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = multiprocessing.parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
