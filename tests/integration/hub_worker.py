# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Runs that push to the Hub, in a process of their own: the client reads its address when it is imported."""

import contextlib
import gc
import io
import json
import re
import sys
import warnings
from pathlib import Path

import torch
from huggingface_hub import ModelCard, snapshot_download
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOTrainer

from ..tiny import make_trainer


# Checkpoints fall inside a rollout, so each holds one.
SCHEDULE = {"steps_per_generation": 4, "max_steps": 2, "num_iterations": 1, "save_strategy": "steps", "save_steps": 1}
# What people and programs leave in an output folder.
LITTER = (
    "rollout_state_0.pt",
    "completions/completions_00001.parquet",
    "runs/events.out.tfevents.1",
    "ref/adapter_model.safetensors",
    "additional_chat_templates/mine.jinja",
    "models/model.safetensors",
    "train.jsonl",
    "dataset.json",
    "notes.txt",
    "script.py",
    ".env",
)
PUSHED = {"push_to_hub": True, "hub_always_push": True}


def lora(**settings):
    return LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM", **settings)


def logps(model):
    with torch.no_grad():
        return model.eval()(input_ids=torch.tensor([[2, 3, 4, 5, 6, 7]])).logits.log_softmax(-1)


def litter(folder, token):
    for name in LITTER:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"HF_TOKEN={token} prompt and completion")


def run_snippet(card, base_model):
    """The card's first snippet, as a reader would run it."""
    code = re.search(r"```python\n(.*?)```", card, flags=re.DOTALL)[1]
    code = code.replace("path/to/the/base-model", base_model).replace("Your prompt", "ab")
    names: dict = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(code, names)
    return names["model"]


def adapter(policy_path, output, token):
    trainer = make_trainer(
        policy_path,
        output,
        **SCHEDULE | {"save_strategy": "no"},
        variant="tic_grpo",
        mirror_beta=0.1,
        mirror_sync_steps=8,
        hub_token=token,
        hub_model_id="someone/adapter",
        peft_config=lora(),
    )
    trainer.train()
    litter(output, token)
    (output / "success.png").write_bytes(b"\x89PNG")
    trainer.push_to_hub(dataset_name="someone/prompts", tags=["license:apache-2.0"])
    assert trainer.args.hub_token == token
    assert token.encode() not in (output / "training_args.bin").read_bytes()

    base = AutoModelForCausalLM.from_pretrained(policy_path, dtype=torch.float32)
    loaded = PeftModel.from_pretrained(base, "someone/adapter")
    torch.testing.assert_close(logps(loaded), logps(trainer.model), rtol=0, atol=1e-6)
    with loaded.disable_adapter():
        assert not torch.allclose(logps(loaded), logps(trainer.model), atol=1e-3)
    card = ModelCard.load("someone/adapter")
    card.validate()
    torch.testing.assert_close(logps(run_snippet(card.content, policy_path)), logps(trainer.model), rtol=0, atol=1e-6)


def full_model(policy_path, output, token):
    trainer = make_trainer(
        policy_path,
        output,
        **SCHEDULE,
        **PUSHED,
        variant="mirror",
        mirror_sync_steps=8,
        hub_token=token,
        hub_model_id="someone/full",
        hub_strategy="every_save",
    )
    trainer.train()
    litter(output, token)
    # By the user: with `push_to_hub` set, saving pushes.
    trainer.save_model()
    model = run_snippet(ModelCard.load("someone/full").content, policy_path)
    torch.testing.assert_close(logps(model), logps(trainer.model), rtol=0, atol=1e-6)
    AutoTokenizer.from_pretrained("someone/full")


def checkpoint(policy_path, output, token):
    def make(folder, **settings):
        settings = SCHEDULE | {"variant": "no_is_frozen", "peft_config": lora()} | settings
        return make_trainer(policy_path, folder, **settings)

    trainer = make(output, **PUSHED, hub_token=token, hub_model_id="someone/checkpoint", hub_strategy="checkpoint")
    trainer.train()
    assert (output / "checkpoint-1" / "rollout_state_0.pt").exists()
    trainer._finish_current_push()

    folder = snapshot_download("someone/checkpoint", allow_patterns="last-checkpoint/*")
    resumed = make(output / "resumed", max_steps=3)
    resumed.train(resume_from_checkpoint=f"{folder}/last-checkpoint")
    assert resumed.state.global_step == 3


def all_checkpoints(policy_path, output, token):
    trainer = make_trainer(
        policy_path,
        output,
        **SCHEDULE,
        **PUSHED,
        variant="dual",
        hub_token=token,
        hub_model_id="someone/all",
        hub_strategy="all_checkpoints",
    )
    trainer.train()
    trainer._finish_current_push()


def retrained_adapter(policy_path, output, token):
    model = get_peft_model(AutoModelForCausalLM.from_pretrained(policy_path, dtype=torch.float32), lora())
    settings = SCHEDULE | PUSHED | {"variant": "reference", "hub_strategy": "checkpoint"}
    trainer = make_trainer(
        policy_path, output, model=model, hub_token=token, hub_model_id="someone/retrained", **settings
    )
    assert "ref" in trainer.model.peft_config
    trainer.train()
    trainer.push_to_hub()
    assert (output / "ref" / "adapter_model.safetensors").exists()


def later_token(policy_path, output, token):
    """Nothing is configured: the name is that of the folder, and the token comes with the call."""
    trainer = make_trainer(policy_path, output, **SCHEDULE | {"save_strategy": "no"}, beta=0.1, mirror_beta=0.1)
    trainer.train()
    trainer.push_to_hub(token=token, blocking=False).result()
    assert trainer.args.hub_token is None


def stock(policy_path, output, token):
    for trainer_class, name in ((None, "stock"), (GRPOTrainer, "trl")):
        choice = {} if trainer_class is None else {"trainer_class": trainer_class}
        settings = SCHEDULE | PUSHED | {"hub_token": token, "hub_model_id": f"someone/{name}"}
        trainer = make_trainer(policy_path, output / name, hub_strategy="checkpoint", **settings, **choice)
        trainer.train()
        trainer.push_to_hub()


CASES = (adapter, full_model, checkpoint, all_checkpoints, retrained_adapter, later_token, stock)


def main(policy_path, output, token):
    warnings.simplefilter("ignore")
    results = {}
    for case in CASES:
        try:
            case(policy_path, Path(output) / case.__name__, token)
            results[case.__name__] = "passed"
        except BaseException as error:
            import traceback

            results[case.__name__] = "".join(traceback.format_exception(error))
        gc.collect()
    (Path(output) / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(*sys.argv[1:])
