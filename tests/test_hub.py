# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Which files are let through, and what is replaced for the time of a push."""

from types import SimpleNamespace

import pytest
import transformers.trainer
from transformers import AutoTokenizer

from trl_grpo_variants import GRPOVariantConfig
from trl_grpo_variants.hub import public_files, publishing, without_token


TOKEN = "hf_" + "NotARealToken"


@pytest.fixture
def trainer(tmp_path, policy_path):
    args = GRPOVariantConfig(str(tmp_path), variant="mirror", hub_token=TOKEN, use_cpu=True, bf16=False)
    return SimpleNamespace(args=args, model=None, processing_class=AutoTokenizer.from_pretrained(policy_path))


class Api:
    """What transformers has for a client, remembering what it was asked."""

    def __init__(self):
        self.uploads = []

    def upload_folder(self, **options):
        self.uploads.append(options)

    def create_repo(self, name, **options):
        return name, options

    def whoami(self):
        return "someone"


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_only_files_of_the_model_are_public(tmp_path, policy_path):
    public = ["README.md", "adapter_config.json", "adapter_model.safetensors", "success.png", "tokenizer.json"]
    sharded = ["model-00001-of-00002.safetensors", "model.safetensors.index.json"]
    private = [
        "training_args.bin",
        "trainer_state.json",
        "rollout_state_0.pt",
        "optimizer.pt",
        "result.json",
        "modeling.py",
        "checkpoint-1/adapter_model.safetensors",
        "models/model.safetensors",
        "ref/adapter_model.safetensors",
    ]
    touch(tmp_path, *public, *sharded, *private)
    tokenizer = AutoTokenizer.from_pretrained(policy_path)
    assert public_files(tmp_path, tokenizer) == sorted(public + sharded)
    assert public_files(tmp_path) == sorted(set(public + sharded) - {"tokenizer.json"})
    assert public_files(tmp_path, has_own_code=True) == sorted({*public, *sharded, "modeling.py"} - {"tokenizer.json"})


def test_chat_templates_in_a_folder_of_their_own_belong_to_the_tokenizer(tmp_path, policy_path):
    tokenizer = AutoTokenizer.from_pretrained(policy_path)
    tokenizer.chat_template = {"default": "{{ messages }}", "tool_use": "{{ tools }}"}
    tokenizer.save_pretrained(tmp_path)
    touch(tmp_path, "additional_chat_templates/mine.jinja")
    assert public_files(tmp_path, tokenizer) == [
        "additional_chat_templates/tool_use.jinja",
        "chat_template.jinja",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_the_token_comes_back(trainer):
    with pytest.raises(KeyError), without_token(trainer.args) as token:
        assert token == TOKEN
        assert trainer.args.hub_token is None
        raise KeyError
    assert trainer.args.hub_token == TOKEN


def test_uploads_are_selected_and_authorised(trainer, tmp_path, monkeypatch):
    api = Api()
    monkeypatch.setattr(transformers.trainer, "hf_api", lambda: api, raising=False)
    touch(tmp_path, "README.md", "notes.txt")
    with publishing(trainer):
        client = transformers.trainer.hf_api()
        client.upload_folder(folder_path=tmp_path, token=None, ignore_patterns=["_*"])
        own = {"token": "of the call", "ignore_patterns": ["_*"]}
        client.upload_folder(folder_path=tmp_path, path_in_repo="last-checkpoint", **own)
        assert client.create_repo("name") == ("name", {"token": TOKEN})
        assert client.whoami() == "someone"
    assert vars(api).keys() == {"uploads"}
    top, checkpoint = api.uploads
    assert top == {
        "folder_path": tmp_path,
        "token": TOKEN,
        "ignore_patterns": ["_*"],
        "allow_patterns": ["README.md"],
    }
    assert checkpoint["token"] == "of the call"
    assert {"_*", "rollout_state_*", "training_args.bin", "ref/*", "README.md"} <= set(checkpoint["ignore_patterns"])


def test_older_transformers_upload_through_functions(trainer, tmp_path, monkeypatch):
    api = Api()
    monkeypatch.delattr(transformers.trainer, "hf_api", raising=False)
    monkeypatch.setattr(transformers.trainer, "upload_folder", api.upload_folder, raising=False)
    monkeypatch.setattr(transformers.trainer, "create_repo", api.create_repo, raising=False)
    touch(tmp_path, "README.md", "notes.txt")
    with publishing(trainer):
        transformers.trainer.upload_folder(folder_path=tmp_path, token=None)
        assert transformers.trainer.create_repo("name", token=None) == ("name", {"token": TOKEN})
    assert api.uploads == [{"folder_path": tmp_path, "token": TOKEN, "allow_patterns": ["README.md"]}]
    assert transformers.trainer.upload_folder == api.upload_folder


def test_an_unknown_way_to_upload_is_refused(trainer, monkeypatch):
    for name in ("hf_api", "upload_folder"):
        monkeypatch.delattr(transformers.trainer, name, raising=False)
    with pytest.raises(RuntimeError, match="cannot keep private files from the Hub"), publishing(trainer):
        pass
    assert trainer.args.hub_token == TOKEN


def test_a_model_of_its_own_code_is_uploaded_with_it(trainer, tmp_path, monkeypatch):
    api = Api()
    monkeypatch.setattr(transformers.trainer, "hf_api", lambda: api, raising=False)
    touch(tmp_path, "README.md", "modeling.py")
    for auto_map in (None, {"AutoModelForCausalLM": "modeling.Model"}):
        trainer.model = SimpleNamespace(config=SimpleNamespace(auto_map=auto_map))
        with publishing(trainer):
            transformers.trainer.hf_api().upload_folder(folder_path=tmp_path, token=None)
    assert [upload["allow_patterns"] for upload in api.uploads] == [["README.md"], ["README.md", "modeling.py"]]
