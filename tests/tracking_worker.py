# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""A run that is sent to all trackers there are, and what each then holds: `python -m tests.tracking_worker FOLDER NAME ...`"""

import json
import sys
from pathlib import Path

from trl_grpo_variants.runs.trackers import read_trackers

from .tiny import make_policy, make_trainer


def held_by_trackio(folder):
    from trackio.sqlite_storage import SQLiteStorage

    (name,) = SQLiteStorage.get_runs("huggingface")
    logs = SQLiteStorage.get_logs("huggingface", name)
    return SQLiteStorage.get_run_config("huggingface", name), sorted({metric for entry in logs for metric in entry})


def held_by_wandb(folder):
    import wandb

    return wandb.run.config.as_dict(), list(dict(wandb.run.summary))


def held_by_tensorboard(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (event,) = folder.rglob("events.out.tfevents.*")
    events = EventAccumulator(str(event.parent))
    events.Reload()
    texts = {name.removesuffix("/text_summary"): events.Tensors(name)[0] for name in events.Tags()["tensors"]}
    texts = {name: event.tensor_proto.string_val[0].decode() for name, event in texts.items()}
    return json.loads(texts["args"]) | {"objective": texts["objective"]}, events.Tags()["scalars"]


def main(folder, names):
    make_policy(folder / "policy")
    settings = {"variant": "dual", "success_monitor": True, "steps_per_generation": 2, "max_steps": 4}
    trainer = make_trainer(str(folder / "policy"), folder / "out", report_to=names, **settings)
    trainer.train()
    held = {name: globals()[f"held_by_{name}"](folder / "out") for name in names}
    kept = {tracker.name: tracker.project for tracker in read_trackers(folder / "out")}
    (folder / "held.json").write_text(json.dumps({"held": held, "kept": kept}, default=repr))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
