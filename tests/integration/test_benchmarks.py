# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The benchmarks as `make benchmark-gpu` runs them, with a tiny model on whatever device there is."""

import re
import shutil
import subprocess
import sys
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch

from trl_grpo_variants.runs.style import LIGHT


BENCHMARKS = Path(__file__).parents[2] / "examples" / "benchmarks"


def load(name):
    """A module of the benchmarks, which are scripts and no package."""
    spec = spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def on_gpu():
    yield load("on_gpu")
    del sys.modules["on_gpu"]


def table(text, title):
    """Rows of a table by their first cell, cells by their heading."""
    lines = [line for line in text.partition(f"### {title}\n")[2].partition("###")[0].splitlines() if line[:1] == "|"]
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert all(len(cells) == len(head) for cells in rows)
    return {
        cells[0] if cells[1:2] != ["default"] else "default": dict(zip(head, cells, strict=True)) for cells in rows
    }


@pytest.mark.timeout(900)
def test_all_of_it_runs_with_a_tiny_model(tmp_path):
    readme = shutil.copy(BENCHMARKS / "README.md", tmp_path)
    command = [sys.executable, str(BENCHMARKS / "on_gpu.py"), "--model", "tiny", "--readme", readme]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    text = Path(readme).read_text().partition("<!-- cuda: begin")[2].partition("<!-- cuda: end -->")[0]
    assert "random weights of the size 'tiny'" in text
    assert not re.search("It failed|It was stopped", text), text

    update = table(text, "The update")["default"]
    assert float(update["time"]) < 0.8 and float(update["tokens"]) < 0.4
    assert torch.cuda.is_available() or float(update["gradient error"]) < 1e-5

    step = table(text, "A whole step")
    assert float(step["default"]["generated tokens"]) == 1.0
    assert float(step["default"]["update"]) < 0.9 and float(step["default"]["peak memory"]) < 1.1
    assert int(step["stock TRL"]["generated tokens"].replace(",", "")) > 80

    memory = table(text, "Memory over a 4-bit base")
    assert memory.keys() == {"stock TRL", "mirror"} and float(memory["mirror"]["ratio"]) == pytest.approx(
        1.0, abs=0.01
    )

    if find_spec("vllm") is None:
        assert "### Sending an adapter to vLLM\n\nLeft out: vllm is not installed." in text
    # Whatever stood there before and after is untouched.
    original = (BENCHMARKS / "README.md").read_text()
    assert Path(readme).read_text().startswith(original.partition("<!-- cuda: begin")[0])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_a_device_nothing_is_measured(on_gpu, capsys):
    assert on_gpu.main([]) == 1
    printed = capsys.readouterr()
    assert printed.out == "" and printed.err.count("\n") == 1
    assert printed.err.startswith("PyTorch finds no CUDA device here, so nothing was measured;")


def test_what_is_missing_is_told(on_gpu, capsys, monkeypatch):
    monkeypatch.setattr(on_gpu, "find_spec", lambda name: None if name in ("trl", "datasets") else find_spec(name))
    assert on_gpu.main([]) == 1
    assert capsys.readouterr().err == f"trl, datasets not installed for {sys.executable}: nothing was measured.\n"


@pytest.mark.parametrize(
    ("script", "needs", "seconds", "expected"),
    [
        ("print('| a |'); print('noise'); print('| 1 |')", None, 60, "| a |\n| 1 |"),
        (
            "print('| a |', flush=True); raise ValueError('no memory')",
            None,
            60,
            "| a |\n\nIt failed: ValueError: no memory",
        ),
        (
            "import time; print('| a |', flush=True); time.sleep(60)",
            None,
            2,
            "| a |\n\nIt was stopped after 2 seconds.",
        ),
        ("raise SystemExit(3)", None, 60, "It failed: it said nothing"),
        ("print('| a |')", "no_such_module", 60, "Left out: no_such_module is not installed."),
        ("print('| a |')", None, 0.5, "Left out: there was no time left."),
    ],
    ids=["table", "fails", "slow", "silent", "missing", "late"],
)
def test_a_benchmark_that_does_not_end_well_is_a_sentence(
    on_gpu, tmp_path, monkeypatch, script, needs, seconds, expected
):
    (tmp_path / "part.py").write_text(script)
    monkeypatch.setattr(on_gpu, "HERE", tmp_path)
    monkeypatch.setattr(on_gpu, "SHORTEST", 1)
    part = on_gpu.Part("Part", "part.py", (), (), 60, needs=needs, takes_model=False)
    assert on_gpu.measure(part, "tiny", seconds) == expected


def test_all_of_it_ends_within_its_time(on_gpu):
    assert sum(part.seconds for part in on_gpu.PARTS) <= on_gpu.LIMIT <= 480


def test_tables_go_between_the_markers(on_gpu, tmp_path):
    readme = tmp_path / "README.md"
    begin, end = on_gpu.MARKERS
    readme.write_text(f"before\n{begin}\nold\n{end}\nafter\n")
    on_gpu.write(readme, "new")
    assert readme.read_text() == f"before\n{begin}\n\nnew\n\n{end}\nafter\n"
    readme.write_text("nothing")
    with pytest.raises(ValueError, match="needs the lines"):
        on_gpu.write(readme, "new")
    assert on_gpu.README == BENCHMARKS / "README.md" and all(
        mark in on_gpu.README.read_text() for mark in on_gpu.MARKERS
    )


def test_the_figure_of_costs_has_the_values_of_the_tables(tmp_path):
    cost = load("cost")
    text = cost.README.read_text()
    drawn, noise, _ = cost.rows(text.replace("| **0.37** | **0.55** |", "| **0.31** | **0.51** |"))
    shares = {row.label: (row.time, row.memory) for row in drawn}
    assert shares["30 % of groups without signal"] == (0.31, 0.51)
    assert shares["the same, with share_prompt"] == (0.26, 0.27)
    assert noise == (0.90, 1.03)

    (axes,) = cost.figure(text, LIGHT).axes
    widths = [bar.get_width() for bar in axes.patches if bar.get_x() == 0.0]
    drawn, *_ = cost.rows(text)
    assert widths == [share for row in drawn if row.time for share in (row.time, row.memory)]
    del sys.modules["cost"]

    cost.save(lambda colors: cost.figure(text, colors), tmp_path / "cost")
    for name in ("cost-light.svg", "cost-dark.svg"):
        # Of these tables, and not of older ones.
        written, kept = (
            re.findall(">([^<>]+)</text>", (folder / name).read_text()) for folder in (tmp_path, BENCHMARKS)
        )
        assert written == kept != [], name
