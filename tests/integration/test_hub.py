# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What reaches the Hub, with the real client, and what does not."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import ModelCard

from .hub_server import Hub
from .hub_worker import LITTER


# Put together here, so that no file of the suite holds it in one piece.
TOKEN = "hf_" + "NotARealToken" + "0123456789"

MODEL_CARD = {"README.md"}
TOKENIZER = {"tokenizer.json", "tokenizer_config.json"}
ADAPTER = {"adapter_config.json", "adapter_model.safetensors"}
FULL_MODEL = {"config.json", "generation_config.json", "model.safetensors"}
STATE = {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"}


def in_folder(folder, names):
    return {f"{folder}/{name}" for name in names}


@pytest.fixture(scope="module")
def pushed(policy_path, tmp_path_factory):
    """The stand-in after all runs of the worker, and what these say."""
    output = tmp_path_factory.mktemp("pushed")
    environment = os.environ | {
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HOME": str(output / "home"),
        "NO_PROXY": "127.0.0.1",
    }
    environment.pop("HF_TOKEN", None)
    with Hub(TOKEN) as hub:
        worker = subprocess.run(
            [sys.executable, "-m", "tests.integration.hub_worker", policy_path, str(output), TOKEN],
            cwd=Path(__file__).parents[2],
            env=environment | {"HF_ENDPOINT": hub.endpoint},
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
    results = output / "results.json"
    assert results.exists(), worker.stderr[-3000:]
    return SimpleNamespace(
        hub=hub, results=json.loads(results.read_text()), output=output, log=worker.stdout + worker.stderr
    )


CASES = {
    "adapter": ("adapter", MODEL_CARD | TOKENIZER | ADAPTER | {"success.png"}),
    "full_model": ("full", MODEL_CARD | TOKENIZER | FULL_MODEL),
    "checkpoint": (
        "checkpoint",
        MODEL_CARD | TOKENIZER | ADAPTER | in_folder("last-checkpoint", TOKENIZER | ADAPTER | STATE),
    ),
    "all_checkpoints": (
        "all",
        MODEL_CARD
        | TOKENIZER
        | FULL_MODEL
        | in_folder("checkpoint-1", TOKENIZER | FULL_MODEL | STATE)
        | in_folder("checkpoint-2", TOKENIZER | FULL_MODEL | STATE),
    ),
    "retrained_adapter": (
        "retrained",
        MODEL_CARD | TOKENIZER | ADAPTER | in_folder("last-checkpoint", TOKENIZER | ADAPTER | STATE),
    ),
    "later_token": ("later_token", MODEL_CARD | TOKENIZER | FULL_MODEL),
}


@pytest.mark.parametrize("name", CASES)
def test_the_model_and_its_card_are_uploaded_and_nothing_else(pushed, name):
    assert pushed.results[name] == "passed", pushed.results[name]
    repository, expected = CASES[name]
    assert set(pushed.hub.repositories[f"someone/{repository}"].files) == expected


def test_every_route_was_one_of_the_hubs(pushed):
    assert pushed.hub.unknown == []


def test_weights_went_through_large_file_storage(pushed):
    assert "adapter_model.safetensors" in pushed.hub.repositories["someone/adapter"].lfs
    assert "model.safetensors" in pushed.hub.repositories["someone/full"].lfs


@pytest.mark.parametrize("name", [*CASES, "stock"])
def test_the_token_is_in_no_uploaded_byte(pushed, name):
    repository = CASES[name][0] if name in CASES else name
    files = pushed.hub.repositories[f"someone/{repository}"].files
    assert not [path for path, content in files.items() if TOKEN.encode() in content]


def test_the_token_is_in_no_request_body_log_or_written_file(pushed):
    # TRL's own trainer, pushed beside, shows that this would be noticed: its arguments go up with the token.
    assert TOKEN.encode() in pushed.hub.repositories["someone/trl"].files["training_args.bin"]
    of_trl = next(
        index
        for index, (path, body) in enumerate(pushed.hub.received)
        if path == "/api/repos/create" and json.loads(body)["name"] == "trl"
    )
    leaks = [TOKEN.encode() in path.encode() + body for path, body in pushed.hub.received]
    assert any(leaks[of_trl:]) and not any(leaks[:of_trl])
    assert TOKEN not in pushed.log
    for folder in pushed.output.iterdir():
        for path in folder.rglob("*"):
            relative = path.relative_to(folder)
            if path.is_file() and relative.parts[0] != "trl" and relative.as_posix() not in LITTER:
                assert TOKEN.encode() not in path.read_bytes(), path


@pytest.mark.parametrize("name", CASES)
def test_the_card_is_valid_and_names_the_run(pushed, name, policy_path):
    files = pushed.hub.repositories[f"someone/{CASES[name][0]}"].files
    content = files["README.md"].decode()
    assert content in pushed.hub.validated
    assert pushed.hub.metadata_errors(content) == []
    card = ModelCard(content)
    is_adapter = "adapter_config.json" in files
    assert card.data.library_name == ("peft" if is_adapter else "transformers")
    assert {"trl", "grpo", "trl-grpo-variants"} <= set(card.data.tags)
    assert ("peft" in card.data.tags) == is_adapter
    assert str(pushed.output) not in content
    assert policy_path not in content
    assert f"someone/{CASES[name][0]}" in content


def test_the_adapters_card(pushed):
    card = ModelCard(pushed.hub.repositories["someone/adapter"].files["README.md"].decode())
    assert card.data.license == "apache-2.0"
    assert card.data.datasets == ["someone/prompts"]
    assert "tic_grpo" in card.data.tags
    assert "(1/T) mean_i [-min(w, 1.28) A + sum_t 0.1 KL(pi || pi_prev)],  A = r - mean" in card.content
    assert "| training rollouts, 8 prompts | " in card.content
    assert "![Success over the optimizer steps](success.png)" in card.content


def test_a_run_without_a_variant_uploads_what_trl_does(pushed):
    assert pushed.results["stock"] == "passed", pushed.results["stock"]
    ours, trls = (pushed.hub.repositories[f"someone/{name}"].files for name in ("stock", "trl"))
    assert ours.keys() == trls.keys()
    # TRL writes the card's tags in the order of a set.
    body = [ModelCard(files["README.md"].decode()).text for files in (ours, trls)]
    assert body[0].replace("someone/stock", "someone/trl").replace("for stock", "for trl") == body[1]
