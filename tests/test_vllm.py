# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Which adapters vLLM runs beside the base, and what happens with the others; no engine is needed to decide."""

import pickle
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from threading import Event, Thread, Timer
from types import SimpleNamespace
from urllib.error import URLError

import pytest
from peft import LoraConfig, PromptTuningConfig
from safetensors import SafetensorError
from transformers import BitsAndBytesConfig
from trl.generation import vllm_generation
from trl.generation.vllm_client import VLLMClient
from trl.generation.vllm_generation import VLLMGeneration
from trl.trainer import grpo_trainer

from trl_grpo_variants.vllm import client as vllm_client
from trl_grpo_variants.vllm import server as vllm_server
from trl_grpo_variants.vllm.adapter import AdapterVLLMGeneration, adapter_generation
from trl_grpo_variants.vllm.client import GIVES_UP_AFTER, GenerationError, GenerationServerError, WatchedVLLMClient
from trl_grpo_variants.vllm.eligibility import adapter_obstacle, check_quantization, engine_rank
from trl_grpo_variants.vllm.server import WatchedVLLMGeneration

from .tiny import make_config


FOUR_BIT = BitsAndBytesConfig(load_in_4bit=True)


def constructed(args, peft_config, quantization_config=None, model="some/model"):
    """Class that TRL's trainer would construct."""
    with adapter_generation(args, model, peft_config, quantization_config):
        factory = grpo_trainer.VLLMGeneration
    assert grpo_trainer.VLLMGeneration is VLLMGeneration
    return getattr(factory, "func", factory)


@pytest.fixture
def args(tmp_path):
    return make_config(tmp_path, use_vllm=True)


def test_lora_is_synchronised_as_an_adapter(args):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert constructed(args, LoraConfig(r=8)) is AdapterVLLMGeneration
        assert constructed(args, LoraConfig(r=8), FOUR_BIT) is AdapterVLLMGeneration


@pytest.mark.parametrize("settings", [{"use_vllm": False}, {"use_vllm": True, "vllm_lora_sync": False}])
def test_elsewhere_generation_is_trls(tmp_path, settings):
    assert constructed(make_config(tmp_path, **settings), LoraConfig(r=8)) is VLLMGeneration


def test_full_fine_tuning_is_trls(args):
    assert constructed(args, None) is VLLMGeneration


@pytest.mark.parametrize("settings", [{}, {"vllm_lora_sync": False}])
def test_a_server_is_watched(tmp_path, settings):
    args = make_config(tmp_path, use_vllm=True, vllm_mode="server", **settings)
    assert constructed(args, LoraConfig(r=8) if settings else None) is WatchedVLLMGeneration


OBSTACLES = [
    (PromptTuningConfig(task_type="CAUSAL_LM"), "it is no LoRA adapter but a PromptTuningConfig"),
    (LoraConfig(use_dora=True), "it has `use_dora=True`"),
    (LoraConfig(modules_to_save=["lm_head"]), r"it has `modules_to_save=\['lm_head'\]`"),
    (LoraConfig(bias="all"), "it has `bias='all'`"),
    (LoraConfig(r=1024), "its rank 1024 exceeds vLLM's 512"),
    (LoraConfig(r=8, rank_pattern={"q_proj": 1024}), "its rank 1024 exceeds vLLM's 512"),
    (LoraConfig(init_lora_weights="pissa_niter_4"), "`init_lora_weights='pissa_niter_4'` changes the base"),
    (LoraConfig(init_lora_weights="olora"), "`init_lora_weights='olora'` changes the base"),
]


@pytest.mark.parametrize(("peft_config", "reason"), OBSTACLES)
def test_other_adapters_take_trls_way_with_a_warning(args, peft_config, reason):
    with pytest.warns(UserWarning, match=f"beside its base, because {reason}"):
        assert constructed(args, peft_config) is WatchedVLLMGeneration


@pytest.mark.parametrize(("peft_config", "reason"), OBSTACLES)
def test_over_a_four_bit_base_they_are_refused(args, peft_config, reason):
    refused = f"{reason}, and merging it into a 4-bit base would"
    for arguments in ({"quantization_config": FOUR_BIT}, {"model": SimpleNamespace(is_loaded_in_4bit=True)}):
        with pytest.raises(ValueError, match=refused):
            constructed(args, peft_config, **arguments)
    # A checkpoint that turns out to be in 4 bits.
    with pytest.warns(UserWarning), adapter_generation(args, "some/model", peft_config, None):
        with pytest.raises(ValueError, match=refused):
            grpo_trainer.VLLMGeneration(model=SimpleNamespace(is_loaded_in_4bit=True))


def four_bit_model(pre_quantized=False, **settings):
    config = BitsAndBytesConfig(load_in_4bit=True, **settings)
    quantizer = SimpleNamespace(pre_quantized=pre_quantized, quantization_config=config)
    return SimpleNamespace(is_loaded_in_4bit=True, hf_quantizer=quantizer)


def test_a_base_that_is_not_in_four_bits_is_not_refused(monkeypatch):
    made = []
    monkeypatch.setattr(VLLMGeneration, "__init__", lambda self, **kwargs: made.append(kwargs))
    WatchedVLLMGeneration(four_bit_refusal="refused", model=SimpleNamespace())
    WatchedVLLMGeneration(model=SimpleNamespace(is_loaded_in_4bit=True))
    assert len(made) == 2


@pytest.mark.parametrize("rank", [8, 16, 32, 64, 128, 256, 320, 512])
def test_the_engine_makes_room_for_the_next_rank_that_it_knows(rank):
    assert engine_rank(LoraConfig(r=rank)) == engine_rank(LoraConfig(r=rank - 1)) == rank
    assert engine_rank(LoraConfig(r=4, rank_pattern={"q_proj": rank})) == rank
    assert adapter_obstacle(LoraConfig(r=rank)) is None
    assert rank == 512 or engine_rank(LoraConfig(r=rank + 1)) > rank
    assert rank != 512 or "its rank 513 exceeds vLLM's 512" in adapter_obstacle(LoraConfig(r=513))


def test_a_base_that_vllm_would_quantise_otherwise_is_refused():
    nf4 = {"bnb_4bit_quant_type": "nf4"}
    check_quantization(SimpleNamespace())
    check_quantization(four_bit_model(**nf4))
    check_quantization(four_bit_model(**nf4, llm_int8_skip_modules=["lm_head"]))
    # vLLM reads how these are quantised.
    check_quantization(four_bit_model(pre_quantized=True))
    with pytest.raises(ValueError, match="so with `bnb_4bit_quant_type='fp4'` it would sample from another policy"):
        check_quantization(four_bit_model())
    with pytest.raises(ValueError, match=r"so with `llm_int8_skip_modules=\['down_proj'\]` it would"):
        check_quantization(four_bit_model(**nf4, llm_int8_skip_modules=["down_proj"]))


def test_a_sleeping_engine_loses_its_base(tmp_path):
    args = make_config(tmp_path, use_vllm=True, vllm_enable_sleep_mode=True)
    with pytest.warns(UserWarning, match="`vllm_enable_sleep_mode=True` discards the engine's base") as caught:
        assert constructed(args, LoraConfig(r=8)) is WatchedVLLMGeneration
    assert caught[0].filename == __file__


def test_a_sharded_adapter_is_left_to_trl(args, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.warns(UserWarning, match="because FSDP shards it"):
        assert constructed(args, LoraConfig(r=8)) is WatchedVLLMGeneration


def test_trls_class_is_back_when_the_construction_fails(args):
    with pytest.raises(RuntimeError, match="boom"), adapter_generation(args, "some/model", LoraConfig(r=8), None):
        raise RuntimeError("boom")
    assert grpo_trainer.VLLMGeneration is VLLMGeneration


def watched(mode="server"):
    generation = WatchedVLLMGeneration.__new__(WatchedVLLMGeneration)
    generation.mode, generation.server_base_url = mode, "http://somewhere"
    generation.model = SimpleNamespace(name_or_path="some/model")
    generation.accelerator = SimpleNamespace(is_main_process=True, process_index=0)
    return generation


def adapting(mode, folder):
    generation = AdapterVLLMGeneration.__new__(AdapterVLLMGeneration)
    vars(generation).update(vars(watched(mode)), folder=folder, server_timeout=1.0)
    generation.model = SimpleNamespace(
        name_or_path="some/model",
        active_adapter="default",
        peft_config={"default": LoraConfig(r=8)},
        save_pretrained=lambda *args, **kwargs: None,
    )
    generation.vllm_client = SimpleNamespace(raise_failure=lambda: None)
    return generation


class Answers(BaseHTTPRequestHandler):
    """A server whose health is what its class says."""

    status = 200

    def do_GET(self):
        self.send_response(self.status if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.mark.parametrize(("status", "sentence"), [(200, None), (503, "answers 503"), (None, "does not answer")])
def test_a_server_is_waited_for_until_the_time_limit(status, sentence):
    generation = watched()
    with HTTPServer(("127.0.0.1", 0), type("Handler", (Answers,), {"status": status})) as server:
        generation.server_base_url = f"http://127.0.0.1:{server.server_port}"
        generation.server_timeout = 0.5
        if status is not None:
            Thread(target=server.serve_forever, daemon=True).start()
        else:
            server.server_close()
        if sentence is None:
            generation._wait_for_server()
        else:
            with pytest.raises(GenerationServerError, match=f"{sentence} after `vllm_server_timeout=0.5` seconds"):
                generation._wait_for_server()
        # Only one process asks.
        generation.accelerator.is_main_process = False
        generation._wait_for_server()
        if status is not None:
            server.shutdown()


def test_a_server_that_starts_late_is_not_waited_for_until_the_time_limit(monkeypatch):
    now = 0.0

    def sleep(seconds):
        nonlocal now
        now += seconds

    def answer(url, timeout):
        if now < 10.0:
            raise URLError("refused")
        return BytesIO()

    monkeypatch.setattr(vllm_server, "time", SimpleNamespace(monotonic=lambda: now, sleep=sleep))
    monkeypatch.setattr(vllm_server, "urlopen", answer)
    generation = watched()
    generation.server_timeout = 240.0
    generation._wait_for_server()
    assert 10.0 <= now < 20.0


@pytest.mark.parametrize(("kind", "opens_channel"), [(WatchedVLLMGeneration, True), (AdapterVLLMGeneration, False)])
def test_a_channel_for_weights_is_opened_where_weights_travel(monkeypatch, kind, opens_channel):
    asked = []
    monkeypatch.setattr(VLLMGeneration, "_init_vllm", lambda self: asked.append(vllm_generation.VLLMClient.keywords))
    generation = kind.__new__(kind)
    client = SimpleNamespace(raise_failure=lambda: asked.append("failure"))
    vars(generation).update(vars(watched()), server_timeout=1.0, vllm_client=client)
    monkeypatch.setattr(kind, "_wait_for_server", lambda self: None)
    WatchedVLLMGeneration._init_vllm(generation)
    assert asked[0]["opens_channel"] is opens_channel
    assert asked[0]["complaint"] == generation._complaint
    # As long as a server may take to start.
    assert asked[0]["silence_limit"] == GIVES_UP_AFTER
    assert asked[1:] == ["failure"]


def failing_with(error):
    def fail(*args, **kwargs):
        raise error

    return fail


class RequestsConnectionError(OSError):
    """As those of `requests`, which TRL's client uses, and which are `OSError`s like that of a full disk."""


SERVERS = {
    ConnectionError("refused"): r"http://somewhere does not answer \(ConnectionError\).*some/model",
    TimeoutError(): r"does not answer \(TimeoutError\)",
    URLError("no host"): r"does not answer \(URLError\)",
    RequestsConnectionError("refused"): r"does not answer \(RequestsConnectionError\)",
    Exception("Request failed: 500, broken"): r"http://somewhere fails \(Request failed: 500, broken\)",
}


@pytest.mark.parametrize("error", SERVERS, ids=repr)
def test_what_a_client_raises_is_one_error(monkeypatch, error):
    monkeypatch.setattr(vllm_client, "NETWORK_ERRORS", (*vllm_client.NETWORK_ERRORS, RequestsConnectionError))
    with pytest.raises(GenerationServerError, match=SERVERS[error]) as raised:
        watched()._on_all_processes(failing_with(error))
    assert raised.value.__cause__ is error


@pytest.mark.parametrize("error", [KeyError("bug"), OSError(28, "No space left on device"), RuntimeError("bug")])
@pytest.mark.parametrize("mode", ["server", "colocate"])
def test_other_errors_stay_what_they_are(error, mode):
    with pytest.raises(type(error)) as raised:
        watched(mode)._on_all_processes(failing_with(error))
    assert raised.value is error


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), SafetensorError("No space left on device")])
@pytest.mark.parametrize("mode", ["server", "colocate"])
def test_a_full_disk_is_not_the_servers(tmp_path, error, mode):
    generation = adapting(mode, tmp_path)
    generation.model.save_pretrained = failing_with(error)
    sentence = f"^The adapter could not be written to {tmp_path}: No space left on device.$"
    with pytest.raises(GenerationError, match=sentence) as raised:
        generation.sync_weights()
    assert type(raised.value) is GenerationError


def test_only_a_server_that_answers_is_sent_weights(monkeypatch):
    """Sharded, the processes gather the model together, and would wait there for the one that has failed."""
    sent, asked, refused = [], [], []

    def get(url, timeout):
        asked.append((url, timeout))
        return SimpleNamespace(raise_for_status=failing_with(refused[0]) if refused else lambda: None)

    monkeypatch.setattr(VLLMGeneration, "sync_weights", lambda self: sent.append("weights"))
    generation = watched()
    generation.server_timeout = 60.0
    client = SimpleNamespace(base_url="http://somewhere", session=SimpleNamespace(get=get), raise_failure=lambda: None)
    generation.vllm_client = client
    generation.sync_weights()
    refused.append(ConnectionError("refused"))
    with pytest.raises(GenerationServerError, match=r"does not answer \(ConnectionError\)"):
        generation.sync_weights()
    # All six attempts of the client fit into the time limit.
    assert sent == ["weights"] and asked == [("http://somewhere/health", 10.0)] * 2
    generation.accelerator.is_main_process = False
    generation.sync_weights()
    assert len(sent) == 2 and len(asked) == 2


def test_the_process_that_talks_to_the_server_knows_why_there_is_no_rollout(monkeypatch):
    generation, cause = watched(), ConnectionError("refused")
    monkeypatch.setattr(VLLMGeneration, "generate", lambda self, *args: args)
    assert generation.generate([[2]], None, 1) == ([[2]], None, 1)
    client = generation.vllm_client = WatchedVLLMClient.__new__(WatchedVLLMClient)
    client.complaint, client.failure = "It {}.".format, cause
    monkeypatch.setattr(VLLMGeneration, "generate", failing_with(GenerationServerError("As told.")))
    with pytest.raises(GenerationServerError, match=r"^It does not answer \(ConnectionError\)\.$") as raised:
        generation.generate([[2]], None, 1)
    assert raised.value.__cause__ is cause and client.failure is None
    client.failure, generation.accelerator.is_main_process = cause, False
    with pytest.raises(GenerationServerError, match=r"^As told\.$"):
        generation.generate([[2]], None, 1)


@pytest.mark.parametrize(
    ("base", "warned"),
    [("some/model", False), ("/another/place/of/model", False), ("some/model-of-another-kind", True)],
)
def test_an_adapter_goes_to_the_server_before_the_first_rollout(monkeypatch, tmp_path, base, warned):
    asked = []

    def post(url, json, timeout):
        asked.append((url, json))
        return SimpleNamespace(status_code=200)

    client = SimpleNamespace(
        base_url="http://somewhere",
        session=SimpleNamespace(post=post),
        get_server_info=lambda: {"model_config": {"model": base, "quantization": None}},
        reset_prefix_cache=lambda: asked.append("cache"),
        raise_failure=lambda: None,
    )
    monkeypatch.setattr(WatchedVLLMGeneration, "_init_vllm", lambda self: vars(self).update(vllm_client=client))
    generation = adapting("server", tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        generation._init_vllm()
    assert [f"has {base} as its base" in str(warning.message) for warning in caught] == [True] * warned
    handed_over = {"lora_name": client.model, "lora_path": str(tmp_path), "load_inplace": True}
    assert asked == [("http://somewhere/v1/load_lora_adapter", handed_over), "cache"]


def test_an_engine_generates_with_the_adapter(monkeypatch, tmp_path):
    monkeypatch.setattr(vllm_generation, "LLM", lambda **options: SimpleNamespace(**options), raising=False)
    monkeypatch.setattr(AdapterVLLMGeneration, "_request", lambda self: f"adapter in {self.folder}")

    def init(self):
        self.llm = vllm_generation.LLM(generate=lambda *args, **kwargs: (args, kwargs))

    monkeypatch.setattr(WatchedVLLMGeneration, "_init_vllm", init)
    generation = adapting("colocate", tmp_path)
    generation._init_vllm()
    assert (generation.llm.enable_lora, generation.llm.max_lora_rank) == (True, 8)
    assert generation.llm.generate("x") == (("x",), {"lora_request": f"adapter in {tmp_path / '0'}"})


def test_a_client_keeps_its_first_error_until_it_is_asked(monkeypatch):
    """What TRL calls in between does nothing, but that all weights are gathered."""
    calls = []
    monkeypatch.setattr(VLLMClient, "__init__", lambda client: None)
    monkeypatch.setattr(VLLMClient, "image_features", failing_with(ConnectionError("refused")))
    for name in ("generate", "update_named_params", "init_communicator", "reset_prefix_cache"):
        monkeypatch.setattr(VLLMClient, name, lambda *args, name=name, **kwargs: calls.append(name))
    client = WatchedVLLMClient(complaint="It {}.".format, silence_limit=60.0, opens_channel=True)
    client.init_communicator()
    client.reset_prefix_cache()
    assert calls == ["init_communicator", "reset_prefix_cache"]
    assert client.image_features([None, None]) == [None, None]
    payload = client.generate(prompts=[[2]])
    with pytest.raises(GenerationServerError, match=r"It does not answer \(ConnectionError\)\."):
        list(pickle.loads(pickle.dumps(payload["prompt_ids"])))
    weights = iter([("a", None), ("b", None)])
    client.update_named_params([], weights)
    client.init_communicator()
    client.reset_prefix_cache()
    assert len(calls) == 2 and list(weights) == []
    with pytest.raises(GenerationServerError, match=r"It does not answer \(ConnectionError\)\."):
        client.raise_failure()
    client.raise_failure()
    client.reset_prefix_cache()
    assert calls[2:] == ["reset_prefix_cache"]


def test_a_server_that_is_looked_at_has_no_more_time_to_answer_than_lies_between_two_looks(monkeypatch):
    looks, twice = [], Event()

    def look(url, timeout=None):
        looks.append((url, timeout))
        if len(looks) == 2:
            twice.set()
        return BytesIO()

    monkeypatch.setattr(vllm_client, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(vllm_client, "urlopen", look)
    client = WatchedVLLMClient.__new__(WatchedVLLMClient)
    client.base_url, client.silence_limit = "http://somewhere", 60.0
    with client._watched():
        assert twice.wait(60.0)
    assert set(looks) == {("http://somewhere/health", 0.01)}


def test_an_adapter_is_handed_over_by_a_path_that_holds_elsewhere(monkeypatch, tmp_path):
    """The server has a working directory of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(VLLMGeneration, "__init__", lambda self, **options: None)
    assert AdapterVLLMGeneration(folder=Path("run"), model=None).folder == tmp_path / "run"


def test_what_is_asked_for_next_waits_for_what_was_asked_before(monkeypatch):
    order, first = [], Event()

    def generate(self, name):
        if name == "first":
            first.wait(60.0)
        order.append(name)
        return name

    monkeypatch.setattr(WatchedVLLMClient, "generate", generate)
    client = WatchedVLLMClient.__new__(WatchedVLLMClient)
    client.ask("first")
    Timer(0.2, first.set).start()
    client.ask("second")
    assert client.answer() == "second" and order == ["first", "second"]
