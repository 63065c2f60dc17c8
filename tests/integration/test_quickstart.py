# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The embedded quickstart: its task, its starting policy, and its command."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer


FOLDER = Path(__file__).parents[2] / "examples" / "quickstart"
sys.path.insert(0, str(FOLDER))

import task  # noqa: E402
import train as command  # noqa: E402


def train(output_dir, *arguments):
    return subprocess.run(
        [sys.executable, str(FOLDER / "train.py"), "--output-dir", str(output_dir), *arguments],
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_reward_checks_the_answer():
    completions = ["1 2 3", " 1 2  3 ", "1 2", "1 2 3 3", "3 2 1", "", "<unk> 1 2 3"]
    assert task.correct(completions=completions, answer=["1 2 3"] * 7) == [1, 1, 0, 0, 0, 0, 0]


def test_held_out_prompts_are_never_trained_on():
    train_set = set(task.make_dataset("train", 2000, seed=1)["prompt"])
    held_out = set(task.make_dataset("held_out", 500, seed=2)["prompt"])
    assert (len(train_set), len(held_out)) == (2000, 500)
    assert not train_set & held_out


def test_answers_are_sorted_digits():
    for row in task.make_dataset("train", 50):
        digits = row["prompt"].split()[1:-1]
        assert row["answer"].split() == sorted(digits)
        assert 3 <= len(digits) <= 10


def test_demonstrations_are_right_only_sometimes_and_wrong_ones_change_length():
    rng = random.Random(0)
    drawn = [
        (digits, task.demonstrate(digits, rng).split())
        for digits in (task.draw_digits("train", rng) for _ in range(2000))
    ]
    right = [answer == [str(d) for d in sorted(digits)] for digits, answer in drawn]
    assert 0.3 < sum(right) / len(right) < 0.7
    assert any(len(answer) < len(digits) for digits, answer in drawn)
    assert any(len(answer) > len(digits) for digits, answer in drawn)


def test_the_shipped_policy_is_small_and_generates():
    assert sum(path.stat().st_size for path in (FOLDER / "policy").iterdir()) < 1_000_000
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "policy")
    policy = AutoModelForCausalLM.from_pretrained(FOLDER / "policy")
    prompt = tokenizer("sort 3 1 4 :", return_tensors="pt")
    generated = policy.generate(**prompt, do_sample=False, max_new_tokens=task.MAX_COMPLETION_LENGTH)
    assert tokenizer.decode(generated[0, prompt["input_ids"].size(1) :], skip_special_tokens=True).split()


def test_a_run_writes_figure_result_checkpoint_and_card(tmp_path):
    """Also into a folder that was used before, which then holds one kind of weights."""
    for arguments, variant, weights in (
        (["--lora", "--variant", "mirror"], "mirror", "adapter_model.safetensors"),
        ([], "tic_grpo", "model.safetensors"),
    ):
        finished = train(tmp_path, "--steps", "8", *arguments)
        assert finished.returncode == 0, finished.stderr[-3000:]
        for text in (
            "Task: put three to ten digits in order",
            "step   8",
            "Success on held-out prompts, with 95 % intervals",
            "What to try next",
            "--variant",
        ):
            assert text in finished.stdout
        assert (tmp_path / "quickstart.png").read_bytes().startswith(b"\x89PNG")
        (run,) = json.loads((tmp_path / "result.json").read_text())["runs"]
        assert run["variant"] == variant
        assert 0.3 < run["curve"][0]["success"]["mean"] < 0.6
        assert run["curve"][0]["kl"] == pytest.approx(0, abs=1e-6)
        assert run["curve"][-1]["kl"] > 0
        assert variant in (tmp_path / "model" / "README.md").read_text()
        assert [path.name for path in (tmp_path / "model").glob("*.safetensors")] == [weights]
        if arguments:
            base = AutoModelForCausalLM.from_pretrained(FOLDER / "policy")
            assert PeftModel.from_pretrained(base, tmp_path / "model").active_adapter == "default"
        else:
            AutoModelForCausalLM.from_pretrained(tmp_path / "model")
            assert not (tmp_path / "model" / "adapter_config.json").exists()


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ("", "tic_grpo-seed0"),
        ("--lora", "tic_grpo-lora-seed0"),
        ("--variant dual", "dual-seed0"),
        ("--seed 1", "tic_grpo-seed1"),
        ("--task spread", "tic_grpo-spread-seed0"),
        ("--steps 9", "tic_grpo-9steps-seed0"),
        ("--from-scratch", "tic_grpo-scratch-seed0"),
        ("--compare grpo,dual --lora", "compare-grpo-dual-lora-seed0+1+2"),
        ("--compare --seeds 0", "compare-all-seed0"),
    ],
)
def test_runs_have_their_own_folders_and_keep_earlier_results(tmp_path, monkeypatch, arguments, name):
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/quickstart") / name
    folders = []
    for _ in range(3):
        folders.append(command.parse_args(arguments.split()).output_dir)
        folders[-1].mkdir(parents=True, exist_ok=True)
        (folders[-1] / "result.json").touch()
    # A comparison goes on in its own.
    numbers = ("", "", "") if "--compare" in arguments else ("", "-2", "-3")
    assert folders == [folder.with_name(folder.name + number) for number in numbers]


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "--lora",
        "--variant mirror",
        "--compare mirror,tic_grpo",
        "--task spread",
        "--compare",
        "--task spread --lora",
    ],
)
def test_what_is_suggested_can_be_run_and_was_not(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    for _ in range(5):
        args = command.parse_args(arguments.split())
        suggested = [command.parse_args(text.split()).output_dir for text, _ in command.next_steps(args)]
        assert args.output_dir not in suggested
        assert not any((folder / "result.json").exists() for folder in suggested)
        if not suggested:
            break
        # Whoever does as told is told something else.
        arguments = command.next_steps(args)[0][0]
        args.output_dir.mkdir(parents=True, exist_ok=True)
        (args.output_dir / "result.json").touch()


def test_a_comparison_that_was_killed_goes_on_where_it_was(tmp_path):
    arguments = ["--compare", "grpo,no_is_frozen", "--seeds", "0,1", "--steps", "4", "--workers", "1"]
    runs = tmp_path / "runs"
    with subprocess.Popen(
        [sys.executable, str(FOLDER / "train.py"), "--output-dir", str(tmp_path), *arguments]
    ) as cut:
        deadline = time.monotonic() + 200
        while not list(runs.glob("*.json")) and time.monotonic() < deadline:
            time.sleep(0.1)
        workers = Path(f"/proc/{cut.pid}/task/{cut.pid}/children")
        children = workers.read_text().split() if workers.exists() else []
        cut.kill()
    for child in children:
        while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not Path(f"/proc/{child}").exists(), "a worker outlives the comparison"
    first = {path.name: path.stat().st_mtime_ns for path in runs.glob("*.json")}
    assert 0 < len(first) < 4

    finished = train(tmp_path, *arguments)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert finished.stdout.count("(found)") == len(first)
    assert finished.stdout.count("(trained)") == 4 - len(first)
    assert all((runs / name).stat().st_mtime_ns == changed for name, changed in first.items())
    for variant in ("grpo", "no_is_frozen"):
        assert any(variant in line and "│" in line for line in finished.stdout.splitlines())
        assert f"| `{variant}` |" in (tmp_path / "compare.md").read_text()
    stored = json.loads((tmp_path / "result.json").read_text())["runs"]
    assert [(run["variant"], run["seed"]) for run in stored] == [
        (variant, seed) for seed in (0, 1) for variant in ("grpo", "no_is_frozen")
    ]
    for name in ("compare.png", "compare-light.svg", "compare-dark.svg"):
        assert (tmp_path / name).exists()


@pytest.mark.parametrize("arguments", [["--variant", "tic"], ["--compare", "grpo,tic"]])
def test_an_unknown_variant_is_one_sentence_and_exit_code_two(tmp_path, arguments):
    finished = train(tmp_path, *arguments)
    assert finished.returncode == 2
    assert finished.stderr.startswith("Unknown variant 'tic'; the known variants are")
    assert finished.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
