# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The command on folders that are runs and on others: bad input is one sentence."""

import json
import os
import subprocess
import sys

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trl_grpo_variants.cli import main
from trl_grpo_variants.runs.trackers import Tracker, write_trackers
from trl_grpo_variants.runs.visits import FILE_NAME, JOURNAL_NAME, NO_VISITS, Visits, read_visits

from .made import SETTINGS, SIZE, history, made_rows, report, write_state


@pytest.fixture
def folder(tmp_path):
    # Of a Parquet file, the name of a folder is no column.
    folder = tmp_path / "visit=1" / "run <1>"
    store = Visits(folder, SETTINGS)
    store.start(pd.DataFrame(made_rows()))
    write_state(folder / "checkpoint-16", history())
    write_state(folder / "checkpoint-8", history()[:8], step=8)
    return folder


def test_another_folder_may_be_named(tmp_path):
    write_state(tmp_path / "run", [{"step": 1, "reward": 0.5, "completions/mean_length": 3.0}])
    assert main(["report", str(tmp_path / "run"), "--output", str(tmp_path / "a" / "b")]) == 0
    assert (tmp_path / "a" / "b" / "index.html").exists() and not (tmp_path / "run" / "report").exists()


def test_the_page_links_to_the_run_in_its_trackers(folder):
    trackers = [
        Tracker("Weights & Biases", "sorting", "https://example.org/run?a=1&b=2"),
        Tracker("Trackio", "huggingface"),
        Tracker("TensorBoard", str(folder / "logs")),
        Tracker("Comet", address="javascript:alert()"),
    ]
    write_trackers(folder, trackers)
    page = report(folder)
    links = [link["href"] for link in page.attributes("a") if not link["href"].startswith("#")]
    assert links == ["https://example.org/run?a=1&b=2"]
    text = " ".join(" ".join(page.texts).split())
    assert "Metrics in Weights & Biases (sorting) , Trackio (huggingface), TensorBoard, Comet" in text
    (folder / "trackers.json").write_text("[{]")
    assert main(["report", str(folder)]) != 0


def test_the_command_does_without_torch(folder):
    script = (
        "import sys; from trl_grpo_variants.cli import main; "
        f"assert main(['report', {str(folder)!r}]) == 0; "
        "assert not {'torch', 'trl', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


# ---- bad input -----------------------------------------------------------------------------------------------------


def foreign_parquet(folder):
    pq.write_table(pa.table({"a": [1]}), folder / FILE_NAME)


def cut_parquet(folder):
    Visits(folder, {}).start(NO_VISITS)
    (folder / FILE_NAME).write_bytes((folder / FILE_NAME).read_bytes()[:-30])


def state(text):
    return lambda folder: (folder / "trainer_state.json").write_text(text)


def pipe(name):
    return lambda folder: os.mkfifo(folder / name)


def edited(**columns):
    """A file of visits with other values in it."""

    def make(folder):
        Visits(folder, SETTINGS).start(pd.DataFrame([row | columns for row in made_rows()]))

    return make


def edited_journal(**columns):
    def make(folder):
        Visits(folder, SETTINGS).start(NO_VISITS)
        (folder / JOURNAL_NAME).write_text(json.dumps(made_rows()[0] | columns))

    return make


def foreign_settings(folder):
    Visits(folder, [1]).start(NO_VISITS)


def foreign_state(folder):
    write_state(folder, [{"step": 1, "loss": 0.5, "eval_accuracy": 0.7}])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda folder: None, f"holds nothing to report: it has no {FILE_NAME}, and no logs of a GRPO run are in it."),
        (foreign_parquet, f"{FILE_NAME} is no file of visits: its format is not 'trl_grpo_variants visits 1'."),
        (cut_parquet, f"{FILE_NAME} cannot be read: it is truncated or no file of visits."),
        (state('{"log_history": ['), f"it has no {FILE_NAME}, and trainer_state.json is truncated."),
        (state(""), "trainer_state.json is truncated."),
        (state('{"log_history": [], "global_step": 1}}'), "trainer_state.json is no JSON."),
        (state("[" * 100_000), "trainer_state.json is truncated."),
        (state("[1]"), "trainer_state.json is no state of a trainer."),
        (state('{"log_history": []}'), "trainer_state.json is no state of a trainer."),
        (state('{"log_history": {}, "global_step": 1}'), "trainer_state.json is no state of a trainer."),
        (state('{"log_history": [], "global_step": Infinity}'), "trainer_state.json is no state of a trainer."),
        (state('{"log_history": [], "global_step": "1"}'), "trainer_state.json is no state of a trainer."),
        (state('{"log_history": [1, {"step": "a"}], "global_step": 1}'), "no logs of a GRPO run are in it."),
        (pipe("trainer_state.json"), "trainer_state.json is no file."),
        (pipe(FILE_NAME), "no logs of a GRPO run are in it."),
        (foreign_state, "no logs of a GRPO run are in it."),
        (foreign_settings, f"{FILE_NAME} is no file of visits: it has been edited."),
        (edited(completions=0), f"{FILE_NAME} is no file of visits: it has been edited."),
        (edited(successes=-1), f"{FILE_NAME} is no file of visits: it has been edited."),
        (edited(successes=SIZE + 1), f"{FILE_NAME} is no file of visits: it has been edited."),
        (edited(groups=0), f"{FILE_NAME} is no file of visits: it has been edited."),
        (edited(groups_without_signal=2), f"{FILE_NAME} is no file of visits: it has been edited."),
        (edited(silent_all_succeed=2), f"{FILE_NAME} is no file of visits: it has been edited."),
        (edited(silent_none_succeeds=-1), f"{FILE_NAME} is no file of visits: it has been edited."),
        (edited(predicted=1.5), f"{FILE_NAME} is no file of visits: it has been edited."),
        (edited(step=None), f"{FILE_NAME} is no file of visits: it has been edited."),
        (edited_journal(rollout="0"), f"{JOURNAL_NAME} is no journal of visits: it has been edited."),
        (edited_journal(rollout=None), f"{JOURNAL_NAME} is no journal of visits: it has been edited."),
        (edited_journal(step=10**30), f"{JOURNAL_NAME} is no journal of visits: it has been edited."),
        (edited_journal(prompt=[1]), f"{JOURNAL_NAME} is no journal of visits: it has been edited."),
    ],
)
def test_a_folder_that_is_no_run_gives_one_sentence(tmp_path, capsys, make, sentence):
    make(tmp_path)
    assert_refused(capsys, [str(tmp_path)], sentence)
    assert not (tmp_path / "report").exists()


WRONG_ARGUMENTS = [
    ([], "The following arguments are required: RUN_DIR; see `trl-variants report --help`."),
    ([""], "Argument RUN_DIR: an empty text is no folder; see"),
    (["none"], "none is not a folder; give the output folder of a run."),
    (["n" * 300], "is not a folder; give the output folder of a run."),
    (["file"], "file is not a folder; give the output folder of a run."),
    (["pipe"], "pipe is not a folder; give the output folder of a run."),
    (["/dev/null"], "/dev/null is not a folder; give the output folder of a run."),
    (["empty"], "empty holds nothing to report"),
    (["RUN", "RUN"], "Unrecognized arguments: "),
    (["RUN", "--colour"], "Unrecognized arguments: --colour"),
    (["RUN", "--output"], "Argument --output: expected one argument; see"),
    (["RUN", "--output", ""], "Argument --output: an empty text is no folder; see"),
    (["RUN", "--output", "file"], "The report cannot be written to file: File exists."),
    (["RUN", "--output", "file/below"], "The report cannot be written to file/below: Not a directory."),
    (["RUN", "--output", "pipe"], "The report cannot be written to pipe: File exists."),
    (["RUN", "--output", "n" * 300], "File name too long."),
    (["RUN", "--output", "blocked"], "The report cannot be written to blocked: Is a directory."),
]


@pytest.mark.parametrize(("arguments", "sentence"), WRONG_ARGUMENTS, ids=lambda value: str(value)[:40])
def test_wrong_arguments_give_one_sentence(folder, tmp_path, capsys, monkeypatch, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    os.mkfifo("pipe")
    (tmp_path / "empty").mkdir()
    (tmp_path / "blocked" / "index.html").mkdir(parents=True)
    assert_refused(capsys, [str(folder) if argument == "RUN" else argument for argument in arguments], sentence)


def test_what_is_in_the_way_of_a_report_is_replaced(folder):
    """A page of an earlier run, or a pipe, which would wait for a reader."""
    (folder / "report").mkdir()
    os.mkfifo(folder / "report" / "index.html")
    report(folder)
    assert not list((folder / "report").glob("*.partial"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"global_step": 16, "log_hist', "trainer_state.json is truncated"),
        ('{"global_step": 16, "log_history": [{"step": 1, "kl": 1e999999, "mirror_kl": 1' + "0" * 400 + "}]}", None),
        (None, "there are no logs; a run writes them with its checkpoints"),
    ],
    ids=["truncated", "numbers out of range", "none"],
)
def test_logs_that_cannot_be_read_are_not_logs_without_a_kl(tmp_path, capsys, text, reason):
    Visits(tmp_path, SETTINGS).start(pd.DataFrame(made_rows()))
    if text is not None:
        (tmp_path / "trainer_state.json").write_text(text)
    report(tmp_path)
    told = reason or "the logs hold none; there is one where `beta` is not 0"
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "KL to the reference" in line]
    assert line.endswith(f", because {told}.")


def test_help_names_the_arguments(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["report", "--help"])
    assert stop.value.code == 0
    assert {"RUN_DIR", "--output"} <= set(capsys.readouterr().out.split())


def assert_refused(capsys, arguments, sentence):
    assert main(["report", *arguments]) == 2
    output = capsys.readouterr()
    assert output.out == "" and output.err.count("\n") == 1
    assert output.err.startswith("trl-variants: ") and sentence in output.err


def test_visits_of_a_missing_file_are_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="a run writes it with `success_monitor: true`"):
        read_visits(tmp_path)
