# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

import re
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
import yaml
from transformers import AutoConfig, AutoTokenizer

from trl_grpo_variants import register, unregister
from trl_grpo_variants import requirements as declared
from trl_grpo_variants.cli import main
from trl_grpo_variants.doctor import command, machine, rehearsal
from trl_grpo_variants.doctor.machine import Finding, base_findings, findings, installed_version


RECIPE = {
    "model_name_or_path": "somewhere/a-model",
    "dataset_name": "somewhere/data",
    "output_dir": "runs/mine",
    "use_cpu": True,
    "bf16": False,
}


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    yield
    unregister()


def write(tmp_path, **fields):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE | fields))
    return path


def doctor(capsys, *arguments):
    """Exit code, and the rows of the table by their names: mark, finding, remedy."""
    code = main(["doctor", *map(str, arguments)])
    printed = capsys.readouterr()
    rows = re.findall(r"^│ (\S+) +│ (.+?) +│ (.*?) *│ (.*?) *│$", printed.out, re.MULTILINE)
    return code, {name: (mark, told, remedy) for mark, name, told, remedy in rows}


def installed(monkeypatch, **versions):
    """As if these versions, or `None` for none, were installed; the others are what they are."""
    monkeypatch.setattr(machine, "installed_version", lambda name: versions.get(name, installed_version(name)))


def found(name, recipe=None, uses_deepspeed=False):
    return next(finding for finding in findings(recipe or {}, uses_deepspeed) if finding.name == name)


# ---- the command ---------------------------------------------------------------------------------------------------


def test_a_machine_that_has_all_trains_three_steps(capsys):
    code, rows = doctor(capsys)
    assert code == 0
    assert rows.keys() >= {"Python", "GPU", "bitsandbytes", "vllm", "deepspeed", "Hub token", *declared.requirements()}
    mark, told, _ = rows["3 steps of a tiny model"]
    assert mark == "ok"
    norms = re.match(r"tic_grpo: gradient norms ([\d.]+), ([\d.]+), ([\d.]+); [\d.]+ s each$", told).groups()
    assert all(float(norm) > 0 for norm in norms)


def test_what_a_recipe_needs_and_the_machine_has_not_is_an_error(capsys, monkeypatch, tmp_path):
    installed(monkeypatch, vllm=None)
    code, rows = doctor(capsys, "--config", write(tmp_path, variant="dual", use_vllm=True))
    assert code == 1
    assert rows["vllm"] == ("missing", "not installed", "Run `pip install 'vllm<=0.31.0,>=0.22.0'`.")
    mark, told, _ = rows["3 steps of a tiny model"]
    assert mark == "ok"
    assert told.startswith("dual: gradient norms")
    assert told.endswith(", without vLLM")
    assert [mark for mark, *_ in rows.values()].count("missing") == 1


@pytest.mark.parametrize(
    ("name", "version", "told"),
    [
        ("trl", "1.8.2", f"1.8.2, not {declared.requirements()['trl'].specifier}"),
        ("trl", None, "not installed"),
        ("torch", None, "not installed"),
        ("peft", "0.17.1", "0.17.1, not <1,>=0.18"),
    ],
)
def test_without_a_package_that_all_needs_nothing_else_is_tried(capsys, monkeypatch, name, version, told):
    installed(monkeypatch, **{name: version})
    monkeypatch.setattr(command, "_trained", lambda _: pytest.fail("was tried"))
    code, rows = doctor(capsys)
    assert code == 1
    mark, shown, remedy = rows[name]
    assert (mark, shown) == ("missing", told)
    assert remedy.startswith(f"Run `pip install '{name}")
    assert "3 steps of a tiny model" not in rows


def test_a_wrong_recipe_is_one_sentence_and_exit_code_two(capsys, tmp_path):
    for fields, complaint in (
        ({"variant": "tic"}, "Unknown variant 'tic'"),
        ({"learning_rat": 1}, "Unknown field `learning_rat`"),
        ({"mirror_beta": -1.0}, "`mirror_beta` must be"),
    ):
        assert main(["doctor", "--config", str(write(tmp_path, **fields))]) == 2
        error = capsys.readouterr().err
        assert complaint in error
        assert error.count("\n") == 1
    assert main(["doctor", "--config", str(tmp_path / "none.yaml")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_a_run_that_fails_is_an_error_with_what_it_says(capsys, monkeypatch, tmp_path):
    def fail(*_):
        raise NotImplementedError("This cannot be trained.\nAt all.")

    monkeypatch.setattr(rehearsal, "rehearse", fail)
    code, rows = doctor(capsys, "--config", write(tmp_path))
    assert code == 1
    assert rows["3 steps of a tiny model"][:2] == ("missing", "NotImplementedError: This cannot be trained.")


@pytest.mark.parametrize("is_needed", [True, False])
def test_what_lacks_only_what_the_recipe_does_not_need_takes_part(monkeypatch, is_needed):
    tried = []
    monkeypatch.setattr(
        rehearsal, "rehearse", lambda recipe, *can: tried.append(can) or rehearsal.Rehearsal([], [], 0, [])
    )
    found = {name: Finding(name, "in part", "Install the rest.", is_needed) for name in ("bitsandbytes", "vllm")}
    command._rehearsed(RECIPE, found)
    assert tried == [(not is_needed, not is_needed)]


def test_fields_without_a_variant_are_not_taken_for_stock(monkeypatch):
    run = rehearsal.Rehearsal([0.1] * 3, [1.0] * 3, 0.5, ["vLLM"])
    monkeypatch.setattr(rehearsal, "rehearse", lambda *_: run)
    found = {name: Finding(name, "there") for name in ("bitsandbytes", "vllm")}
    for recipe, method in (({"mirror_beta": 0.1}, "no variant"), ({"variant": "dual"}, "dual")):
        told = command._rehearsed(recipe, found).found
        assert told == f"{method}: gradient norms 1, 1, 1; 0.5 s each, without vLLM"


def test_a_run_without_a_gradient_is_an_error(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(rehearsal, "_graded", rehearsal._no_reward)
    code, rows = doctor(capsys, "--config", write(tmp_path))
    assert code == 1
    assert rows["3 steps of a tiny model"][:2] == ("missing", "no step had a gradient")


def test_a_token_is_never_printed(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_thisisasecret")
    monkeypatch.setattr(command, "_rehearsed", lambda *_: Finding("steps", "fine"))
    main(["doctor", "--config", str(write(tmp_path))])
    printed = capsys.readouterr()
    assert "there is one" in printed.out
    assert "secret" not in printed.out + printed.err


def test_deepspeed_is_needed_where_the_launch_asks_for_it(capsys, monkeypatch, tmp_path):
    installed(monkeypatch, deepspeed=None)
    monkeypatch.setattr(command, "_rehearsed", lambda *_: Finding("steps", "fine"))
    for fields, mark in (
        ({}, "-"),
        ({"accelerate_config": "zero3"}, "missing"),
        ({"accelerate_config": "fsdp2"}, "-"),
        ({"use_deepspeed": True}, "missing"),
        ({"deepspeed": "zero3.json"}, "missing"),
    ):
        code, rows = doctor(capsys, "--config", write(tmp_path, **fields))
        assert (code, rows["deepspeed"][0]) == (int(mark == "missing"), mark), fields


# ---- what is found -------------------------------------------------------------------------------------------------


def test_python_is_held_against_what_is_declared(monkeypatch):
    monkeypatch.setattr(machine.platform, "python_version", lambda: "3.10.4")
    finding = base_findings()[0]
    assert finding == Finding("Python", "3.10.4", "Use a Python >=3.11.")
    assert finding.is_error


def test_another_version_than_the_tested_one_is_told(monkeypatch):
    installed(monkeypatch, transformers="5.9.0")
    by_name = {finding.name: finding for finding in base_findings()}
    assert by_name["transformers"] == Finding(
        "transformers", f"5.9.0 (tested: {declared.tested_versions()['transformers']})"
    )


@pytest.mark.parametrize(
    ("name", "package", "recipe"),
    [
        ("bitsandbytes", "bitsandbytes", {"load_in_4bit": True}),
        ("bitsandbytes", "bitsandbytes", {"load_in_8bit": True}),
        ("vllm", "vllm", {"use_vllm": True}),
        ("math-verify", "math-verify", {"reward_funcs": ["accuracy_reward"]}),
        ("math-verify", "math-verify", {"reward_funcs": ["reasoning_accuracy_reward"]}),
    ],
)
def test_a_package_is_an_error_where_the_recipe_needs_it(monkeypatch, name, package, recipe):
    for version in (None, "0.0.1"):
        installed(monkeypatch, **{package: version})
        assert found(name, RECIPE | recipe).is_error
        assert not found(name, RECIPE).is_error
        assert found(name, RECIPE).remedy.startswith(f"Run `pip install '{package}")


def test_a_quantisation_that_does_not_run_is_told(monkeypatch):
    pytest.importorskip("bitsandbytes")
    assert found("bitsandbytes").found.endswith("a 4-bit layer runs")

    def fail(*_, **__):
        raise OSError("libcudart.so cannot be opened\nsee the manual")

    monkeypatch.setattr("bitsandbytes.nn.Linear4bit", fail)
    finding = found("bitsandbytes", RECIPE | {"load_in_4bit": True})
    assert "a 4-bit layer fails: OSError: libcudart.so cannot be opened" in finding.found
    assert finding.is_error
    monkeypatch.setattr("bitsandbytes.nn.Linear4bit", lambda *_, **__: torch.nn.Linear(64, 64))
    assert "not in 4 bits" in found("bitsandbytes").found


def engine(monkeypatch, quantizations, takes_inplace=True):
    """A stand-in for vLLM: what the check looks at."""

    class Request:
        def __init__(self, name, number, path, load_inplace=False): ...

    class OldRequest:
        def __init__(self, name, number, path): ...

    installed(monkeypatch, vllm="0.30.0")
    modules = {
        "vllm.lora.request": {"LoRARequest": Request if takes_inplace else OldRequest},
        "vllm.model_executor.layers.quantization": {"QUANTIZATION_METHODS": quantizations},
        "vllm.plugins": {"load_general_plugins": lambda: None},
    }
    for name in ("vllm", "vllm.lora", "vllm.model_executor", "vllm.model_executor.layers", *modules):
        module = ModuleType(name)
        vars(module).update(modules.get(name, {}))
        monkeypatch.setitem(sys.modules, name, module)


def test_vllm_is_looked_into(monkeypatch):
    recipe = RECIPE | {"use_vllm": True}
    engine(monkeypatch, ["bitsandbytes"])
    assert found("vllm", recipe) == Finding("vllm", "0.30.0, LoRA, 4-bit bases")
    engine(monkeypatch, ["awq"])
    assert found("vllm", recipe).found == "0.30.0, LoRA, no 4-bit bases"
    assert not found("vllm", recipe).is_error
    assert found("vllm", recipe | {"load_in_4bit": True}).is_error
    assert "vllm-bnb-plugin" in found("vllm", recipe).remedy
    engine(monkeypatch, ["bitsandbytes"], takes_inplace=False)
    assert found("vllm", recipe).is_error
    monkeypatch.setitem(sys.modules, "vllm.lora.request", None)
    assert "cannot be imported" in found("vllm", recipe).found
    assert found("vllm", recipe).is_error
    assert not found("vllm", RECIPE).is_error


def test_flash_attention_is_needed_where_it_is_asked_for(monkeypatch):
    asked = RECIPE | {"attn_implementation": "flash_attention_2"}
    for n in (2, 3, 4):
        monkeypatch.setattr(f"transformers.utils.is_flash_attn_{n}_available", lambda: False)
    assert not found("flash attention", RECIPE | {"attn_implementation": "sdpa"}).remedy
    assert found("flash attention", asked).is_error
    monkeypatch.setattr("transformers.utils.is_flash_attn_3_available", lambda: True)
    assert found("flash attention", asked).is_error
    monkeypatch.setattr("transformers.utils.is_flash_attn_2_available", lambda: True)
    assert found("flash attention", asked) == Finding("flash attention", "2, 3")


def gpu(monkeypatch, has_bf16):
    properties = SimpleNamespace(name="A card", total_memory=24 * machine.GIB)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: properties)
    monkeypatch.setattr("transformers.utils.is_torch_bf16_gpu_available", lambda: has_bf16)


def test_a_gpu_is_named_with_its_memory_and_precision(monkeypatch):
    gpu(monkeypatch, has_bf16=True)
    assert list(machine._gpus({})) == [Finding("GPU", "A card, 24 GiB"), Finding("bf16", "yes")]
    gpu(monkeypatch, has_bf16=False)
    for recipe, is_error in (({}, True), ({"bf16": False}, False), ({"fp16": True}, False), ({"bf16": True}, True)):
        (_, bf16) = machine._gpus(recipe)
        assert bf16.is_error == is_error, recipe


def test_a_recipe_needs_a_gpu_unless_it_says_otherwise(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert found("GPU", {"variant": "dual"}).is_error
    assert not found("GPU", {"use_cpu": True}).is_error
    assert not found("GPU", {}).is_error


def test_disks_are_asked_for_room_and_for_permission(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    assert not found("output folder", {"output_dir": str(tmp_path / "a" / "b")}).remedy
    assert found("output folder", {"output_dir": str(tmp_path / "file" / "out")}).is_error
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda _: SimpleNamespace(free=machine.GIB))
    for name in ("output folder", "models and data"):
        assert found(name, {"output_dir": str(tmp_path)}).is_error
        assert "1 GiB free" in found(name, {"output_dir": str(tmp_path)}).found


def test_a_token_is_needed_to_upload(monkeypatch):
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    assert found("Hub token", {"push_to_hub": True}).is_error
    assert not found("Hub token").is_error


# ---- the steps -----------------------------------------------------------------------------------------------------


@pytest.fixture
def registered():
    register()


def small(tmp_path, **fields):
    path, without = rehearsal.small_recipe(RECIPE | fields, tmp_path)
    return rehearsal._parse(path), without


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"variant": "tic_grpo"}, {"steps": 4, "num_generations": 8, "group_preserving_split": True}),
        (
            {"variant": "mirror", "num_generations": 5, "per_device_train_batch_size": 10},
            {"steps": 1, "num_generations": 5, "num_iterations": 4},
        ),
        ({"variant": "two_grpo"}, {"steps": 1, "num_generations": 2}),
        ({"gradient_accumulation_steps": 4, "steps_per_generation": 12}, {"steps": 3}),
        ({"generation_batch_size": 256, "gradient_accumulation_steps": 4}, {"steps": 8}),
        ({"beta": 0.07, "loss_type": "bnpo", "epsilon": 0.3}, {"beta": 0.07, "loss_type": "bnpo", "epsilon": 0.3}),
        ({"advantage": "pass_at_k", "advantage_kwargs": {"k": 6}}, {"advantage_kwargs": {"k": 6}}),
    ],
)
def test_a_small_recipe_keeps_objective_and_schedule(registered, tmp_path, fields, kept):
    (_, args, _), without = small(tmp_path, **fields)
    steps = kept.pop("steps", None)
    assert steps is None or args.steps_per_generation == steps * args.gradient_accumulation_steps
    assert {name: getattr(args, name) for name in kept} == kept
    assert without == []


def test_a_small_recipe_leaves_out_what_is_of_the_place_and_says_what_the_machine_has_not(registered, tmp_path):
    (_, args, model), without = small(
        tmp_path,
        prompt_sampling="signal",
        prompt_success_rates="nowhere.parquet",
        push_to_hub=True,
        log_completions=True,
        model_revision="v2",
        datasets=[{"path": "somewhere/other"}],
        report_to="wandb",
        eval_strategy="steps",
        deepspeed="zero3.json",
        load_in_4bit=True,
        use_peft=True,
        optim="paged_adamw_8bit",
        attn_implementation="flash_attention_2",
        use_vllm=True,
        vllm_mode="server",
        prefetch_rollout=True,
        reward_num_workers=2,
        reward_timeout=1.0,
        torch_compile=True,
        torch_compile_mode="default",
    )
    assert (args.prompt_sampling, args.prompt_success_rates, args.push_to_hub) == ("signal", None, False)
    assert (args.report_to, args.eval_strategy, args.deepspeed, args.log_completions) == ([], "no", None, False)
    assert (args.prefetch_rollout, args.reward_num_workers, args.reward_timeout) == (False, 0, None)
    assert not args.torch_compile
    assert model.model_revision == "main"
    assert "datasets" not in yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    assert model.load_in_4bit and model.use_peft and not args.use_vllm
    assert without == ["paged_adamw_8bit", "flash attention", "vLLM"]
    assert model.model_name_or_path == str(tmp_path / "policy")


def test_an_engine_takes_part_where_it_can(registered, tmp_path):
    for fields, takes_part in (
        ({"use_peft": True}, True),
        ({}, False),
        ({"use_peft": True, "vllm_mode": "server"}, False),
    ):
        path, without = rehearsal.small_recipe(
            RECIPE | fields | {"use_vllm": True}, tmp_path, can_quantize=False, can_run_vllm=True
        )
        assert yaml.safe_load(path.read_text())["use_vllm"] == takes_part
        assert without == ([] if takes_part else ["vLLM"])


def test_without_bitsandbytes_the_base_is_whole(registered, tmp_path):
    path, without = rehearsal.small_recipe(RECIPE | {"load_in_4bit": True}, tmp_path, can_quantize=False)
    assert "load_in_4bit" not in yaml.safe_load(path.read_text())
    assert without == ["quantisation"]


def test_the_model_is_loaded_as_the_recipe_has_it(registered, monkeypatch):
    class Loaded(Exception):
        pass

    def load(args, quantization_config, **_):
        raise Loaded(args.model_init_kwargs, quantization_config.load_in_4bit)

    monkeypatch.setattr(rehearsal, "GRPOVariantTrainer", load)
    recipe = RECIPE | {"load_in_4bit": True, "dtype": "bfloat16", "attn_implementation": "eager"}
    with pytest.raises(Loaded) as loaded:
        rehearsal.rehearse(recipe, can_quantize=True, can_run_vllm=False)
    assert loaded.value.args == ({"dtype": "bfloat16", "attn_implementation": "eager"}, True)


def test_several_weighted_rewards_are_as_many(registered, tmp_path):
    run = rehearsal.rehearse(
        RECIPE | {"variant": "gdpo", "reward_funcs": ["accuracy_reward", "my.own"], "reward_weights": [1.0, 0.5]},
        can_quantize=False,
        can_run_vllm=False,
    )
    assert not run.obstacle


@pytest.mark.parametrize("variant", ["psr", "best_of_group"])
def test_the_reward_is_one_that_the_advantage_takes_and_learns_from(registered, variant):
    assert not rehearsal.rehearse(RECIPE | {"variant": variant}, can_quantize=False, can_run_vllm=False).obstacle


def test_the_tiny_model_ends_where_its_tokenizer_does(tmp_path):
    rehearsal.make_policy(tmp_path, ["<pad>", "<end>", "?", "a"])
    config, tokenizer = AutoConfig.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    assert (config.pad_token_id, config.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
