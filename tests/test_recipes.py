# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The recipes: what their headers claim, how they are launched, and a small twin of each that trains."""

import importlib.util
import json
import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
import yaml
from accelerate.commands import launch as accelerate_launch
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType
from datasets import Dataset, load_dataset
from peft import LoraConfig, get_peft_model
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoProcessor,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Config,
    Qwen3Config,
)
from trl.rewards import accuracy_reward
from trl.scripts import grpo as trl_script

from trl_grpo_variants import GRPOVariantConfig, launch, register, unregister
from trl_grpo_variants.compat import check_backend, sharding_backend
from trl_grpo_variants.doctor.rehearsal import STEPS, make_policy, small_recipe

from .tiny_modalities import NOT_TO_WRITE, call, image_processor, make_image_policy, make_tool_policy


REPOSITORY = Path(__file__).parents[1]
FOLDER = REPOSITORY / "examples" / "recipes"
RECIPES = sorted(FOLDER.glob("*.yaml"))
ACCELERATE_CONFIGS = sorted((REPOSITORY / "examples" / "accelerate_configs").glob("*.yaml"))
# What a machine without a GPU needs of any recipe.
ON_CPU = ["--use_cpu", "true", "--bf16", "false"]

every_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)


def load(name, folder=FOLDER):
    """A script of a folder as a module; the folder is no package."""
    spec = importlib.util.spec_from_file_location(f"recipes_{name}", folder / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


memory = load("memory")
data = load("data")
calculator = load("calculator")
own_script = load("grpo_variants", REPOSITORY / "examples" / "scripts")


@pytest.fixture
def registered():
    register()
    yield
    unregister()


def header(recipe):
    """Lines of the comment that a recipe begins with."""
    lines = []
    for line in recipe.read_text().splitlines():
        if not line.startswith("#"):
            return lines
        lines.append(line.removeprefix("#").removeprefix(" "))
    return lines


def launch_line(recipe):
    """First command of the header: its environment, and its words."""
    line, lines = "", iter(header(recipe))
    while not line or line.endswith("\\"):
        line = line.removesuffix("\\") + next(lines)
    words = shlex.split(line.replace("$MACHINE_RANK", "1").replace("$MAIN_PROCESS_IP", "10.0.0.1"))
    start = next(i for i, word in enumerate(words) if "=" not in word)
    return dict(word.split("=", 1) for word in words[:start]), words[start:]


def script_of(recipe):
    """The script that a recipe is for."""
    words = launch_line(recipe)[1]
    assert words[:2] in (["trl-variants", "grpo"], ["accelerate", "launch"])
    return trl_script if words[0] == "trl-variants" else own_script


def parse(recipe, *arguments, script=trl_script):
    """What a script gets of a recipe; an unknown key or argument is an error."""
    return script.make_parser().parse_args_and_config(["--config", str(recipe), *ON_CPU, *arguments])


def parse_for(monkeypatch, recipe, world_size):
    """As one of several processes would parse it."""
    monkeypatch.setattr(transformers.TrainingArguments, "world_size", property(lambda _: world_size))
    return parse(recipe, script=script_of(recipe))


def test_every_family_has_a_recipe():
    text = {recipe.stem: recipe.read_text() for recipe in RECIPES}
    for family in ("use_vllm: true\nvllm_mode: server", "use_vllm: true\nvllm_mode: colocate", "load_in_4bit: true"):
        assert any(family in recipe for recipe in text.values()), family
    for backend in ("ddp", "fsdp2_multinode", "zero3_multinode"):
        assert any(f"{backend}.yaml" in recipe for recipe in text.values()), backend


def test_the_table_lists_every_recipe():
    rows = {}
    for line in (FOLDER / "README.md").read_text().splitlines():
        if line.startswith("| ["):
            name, *cells = (cell.strip() for cell in line.strip("| ").split(" | "))
            rows[name] = cells
    assert set(rows) == {f"[{recipe.stem}]({recipe.name})" for recipe in RECIPES}
    for recipe in RECIPES:
        values, machine = yaml.safe_load(recipe.read_text()), memory.read_machine(recipe.read_text())
        model, variant, gpus, _, generation, gib = rows[f"[{recipe.stem}]({recipe.name})"]
        assert f"Qwen/{model}" == values["model_name_or_path"]
        assert variant == f"`{values['variant']}`"
        assert gpus == f"{machine.gpus} x {machine.gigabytes} GB"
        mode = values.get("vllm_mode") if values.get("use_vllm") else "transformers"
        assert generation == {"server": "vLLM server", "colocate": "vLLM colocated"}.get(mode, mode)
        assert gib == f"{memory.peak(memory.terms(values, machine)) / memory.GIB:.1f}"


@every_recipe
def test_the_config_is_what_the_header_claims(monkeypatch, registered, recipe):
    machine = memory.read_machine(recipe.read_text())
    script, args, model, *mixture = parse_for(monkeypatch, recipe, machine.gpus)
    assert isinstance(args, GRPOVariantConfig)
    assert script.dataset_name and not any(part.datasets for part in mixture)

    text = "\n".join(header(recipe))
    name, beta, mirror_beta, level = re.search(
        r"^Variant: (\w+) \(beta ([\d.]+), mirror_beta ([\d.]+), importance_sampling_level (\w+)\)$", text, re.M
    ).groups()
    assert (args.variant, args.beta, args.mirror_beta) == (name, float(beta), float(mirror_beta))
    assert args.importance_sampling_level == level

    prompts, completions, steps, prompts_per_step = map(
        int,
        re.search(
            r"^Rollout: (\d+) prompts x (\d+) completions, then (\d+) optimizer steps of (\d+) prompts$", text, re.M
        ).groups(),
    )
    assert args.num_generations == completions
    assert args.generation_batch_size == prompts * completions
    assert args.steps_per_generation * args.num_iterations == steps * args.gradient_accumulation_steps
    per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * machine.gpus
    assert per_step == prompts_per_step * completions
    assert not args.is_on_policy

    values = memory.resolve(yaml.safe_load(recipe.read_text()))
    for field in ("beta", "steps_per_generation", "per_device_train_batch_size", "max_completion_length"):
        assert values[field] == getattr(args, field), field
    for field in ("dtype", "lora_r"):
        assert values[field] == getattr(model, field), field


@pytest.mark.parametrize("name", ["gsm8k_reference", "gsm8k_mirror", "gsm8k_dual"])
def test_the_settings_of_2503_06639(monkeypatch, registered, name):
    recipe = FOLDER / f"{name}.yaml"
    gpus = memory.read_machine(recipe.read_text()).gpus
    script, args, model, _ = parse_for(monkeypatch, recipe, gpus)
    assert model.model_name_or_path == "Qwen/Qwen2.5-0.5B-Instruct"
    assert (args.learning_rate, args.num_iterations, args.num_generations) == (5e-6, 10, 16)
    assert (args.max_completion_length, args.temperature, args.num_train_epochs) == (200, 0.1, 1)
    assert (args.epsilon, args.epsilon_high, args.reward_variance_epsilon) == (0.2, 0.2, 1e-5)
    assert args.beta + args.mirror_beta == 0.1
    assert args.generation_batch_size == 28 * 16


@pytest.mark.parametrize(
    "name, model_name",
    [("dapo_math_tic_grpo", "Qwen/Qwen3-1.7B"), ("dapo_math_tic_grpo_zero3", "Qwen/Qwen3-8B")],
)
def test_the_settings_of_2508_02833(monkeypatch, registered, name, model_name):
    recipe = FOLDER / f"{name}.yaml"
    gpus = memory.read_machine(recipe.read_text()).gpus
    script, args, model, _ = parse_for(monkeypatch, recipe, gpus)
    assert model.model_name_or_path == model_name
    assert (args.beta, args.mirror_beta, args.num_iterations, args.num_train_epochs) == (0, 0, 1, 1)
    assert args.generation_batch_size == 128 * args.num_generations
    assert args.steps_per_generation == 4 * args.gradient_accumulation_steps
    assert args.group_preserving_split
    # Each value that the paper does not state says so.
    for field in ("num_generations", "max_completion_length", "temperature", "enable_thinking", "learning_rate"):
        assert re.search(rf"{field}: .*# our choice", recipe.read_text()), field


@pytest.mark.parametrize("trainers", range(1, 9))
@pytest.mark.parametrize("name", ["vllm_server", "vllm_colocate"])
def test_any_number_of_trainers_will_do(monkeypatch, registered, name, trainers):
    _, args, _, _ = parse_for(monkeypatch, FOLDER / f"{name}.yaml", trainers)
    assert args.generation_batch_size % (args.num_generations * trainers) == 0


@every_recipe
def test_the_backend_supports_what_the_recipe_asks_of_it(monkeypatch, registered, recipe):
    _, args, *_ = parse(recipe, script=script_of(recipe))
    sharding = memory.read_machine(recipe.read_text()).sharding
    if sharding == "fsdp2":
        monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
        monkeypatch.setenv("FSDP_VERSION", "2")
    if sharding == "zero3":
        args.deepspeed_plugin = SimpleNamespace(zero_stage=3)
    check_backend(args, moves_adapter=args.sync_ref_model)
    assert sharding_backend(args) == {"fsdp2": "FSDP", "zero3": "DeepSpeed"}.get(sharding)


@every_recipe
def test_the_launch_line_is_understood(monkeypatch, registered, recipe):
    """By `trl-variants grpo`, which checks the config, and by accelerate, which reads its own."""
    environment, (command, subcommand, *arguments) = launch_line(recipe)
    config = ["--config", f"examples/recipes/{recipe.name}"]
    monkeypatch.chdir(REPOSITORY)
    if command == "accelerate":
        args = accelerate_launch.launch_command_parser().parse_args(arguments)
        assert args.training_script == "examples/scripts/grpo_variants.py"
        assert args.training_script_args == config
    else:
        assert arguments[:2] == config
        launched = []
        monkeypatch.setattr(accelerate_launch, "launch_command", launched.append)
        launch.launch_grpo([*arguments, *ON_CPU])
        (args,) = launched
        assert args.training_script == "trl_grpo_variants.launch"
        assert args.training_script_args == [trl_script.__file__, *config, *ON_CPU]

    machine = memory.read_machine(recipe.read_text())
    args, accelerate_config, _ = accelerate_launch._validate_launch_command(args)
    assert args.num_processes == machine.gpus
    if "CUDA_VISIBLE_DEVICES" in environment:
        assert len(environment["CUDA_VISIBLE_DEVICES"].split(",")) == machine.gpus
    if machine.accelerate_config is None:
        assert machine.gpus == 1
    else:
        sharding = {"ddp": args.multi_gpu, "fsdp2": args.use_fsdp, "zero3": args.use_deepspeed}
        assert sharding[machine.sharding]
        assert sum(bool(value) for value in sharding.values()) == 1
    if "multinode" in (machine.accelerate_config or ""):
        assert (args.num_machines, int(args.machine_rank), args.main_process_ip) == (2, 1, "10.0.0.1")


@every_recipe
def test_the_header_states_the_computed_memory(recipe):
    lines = memory.report(recipe)
    start = header(recipe).index(lines[0])
    assert header(recipe)[start:] == lines


@every_recipe
def test_a_server_is_started_with_the_model_that_is_trained(recipe):
    values, text = yaml.safe_load(recipe.read_text()), " ".join(header(recipe))
    if values.get("vllm_mode") == "server":
        assert f"vllm serve {values['model_name_or_path']} " in text
        assert "VLLM_SERVER_DEV_MODE=1" in text
        assert """--weight-transfer-config '{"backend": "nccl"}'""" in text
        limit = int(re.search(r"--max-model-len (\d+)", text)[1])
        assert limit >= memory.PROMPT_TOKENS + values["max_completion_length"]


@pytest.mark.parametrize("path", ACCELERATE_CONFIGS, ids=lambda path: path.stem)
def test_accelerate_configs_load(path):
    config = load_config_from_file(str(path))
    kind = path.stem.split("_")[0]
    expected = {"ddp": DistributedType.MULTI_GPU, "fsdp2": DistributedType.FSDP, "zero3": DistributedType.DEEPSPEED}
    assert config.distributed_type == expected[kind]
    assert (config.num_machines, config.num_processes) == ((2, 16) if "multinode" in path.stem else (1, 8))
    # The keys of the backend are arguments of the launcher; it passes over others in silence.
    options = accelerate_launch.launch_command_parser()._option_string_actions
    assert all(f"--{key}" in options for key in {**config.fsdp_config, **config.deepspeed_config})
    if config.fsdp_config:
        assert config.fsdp_config["fsdp_version"] == 2
    if config.deepspeed_config:
        assert config.deepspeed_config["zero_stage"] == 3


# Sums of the tensors of the published checkpoints.
PARAMETERS = {
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen2.5-VL-3B-Instruct": 3_754_622_976,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-8B": 8_190_735_360,
}


def model_config(shape):
    return (Qwen3Config if shape.qk_norm else Qwen2Config)(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        tie_word_embeddings=shape.tied,
    )


# As published; what is not here is the default of transformers.
VISION = {"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048}


def build(shape):
    """A model of a shape, without memory for it."""
    config = model_config(shape)
    with torch.device("meta"):
        if not shape.vision:
            model = AutoModelForCausalLM.from_config(config)
            language = model.model
        else:
            # Its language model is Qwen2.5's, with positions in three dimensions that sum to half of a head's.
            text = config.to_dict() | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}
            text["rope_parameters"]["mrope_section"] = [16, 24, 24]
            text.pop("model_type")
            model = Qwen2_5_VLForConditionalGeneration(
                Qwen2_5_VLConfig(text_config=text, vision_config=VISION, tie_word_embeddings=shape.tied)
            )
            language = model.model.language_model
        if shape.tied:
            model.lm_head.weight = language.embed_tokens.weight
    return model


@pytest.mark.parametrize("name", PARAMETERS)
def test_shapes_give_the_parameters_of_the_models(name):
    shape = memory.SHAPES[name]
    assert shape.parameters == PARAMETERS[name]
    assert sum(p.numel() for p in build(shape).parameters()) == shape.parameters
    # The layers that see images have linear maps too, of other names than these.
    for targets in (["q_proj", "v_proj"], ["all-linear"] if not shape.vision else list(memory.LINEARS[:4])):
        config = LoraConfig(r=16, target_modules=targets[0] if targets == ["all-linear"] else targets)
        with torch.device("meta"):
            peft_model = get_peft_model(build(shape), config)
        trained = sum(p.numel() for p in peft_model.parameters() if p.requires_grad)
        assert trained == shape.adapter_parameters(16, targets)


@pytest.mark.parametrize("stream", [4, 2])
@pytest.mark.parametrize("name", PARAMETERS)
def test_a_layer_keeps_what_is_computed(name, stream):
    """Against the tensors that autograd saves in a layer of an eighth of the width, under autocast as in training."""
    shape = memory.SHAPES[name]
    small = replace(
        shape, hidden=shape.hidden // 8, intermediate=shape.intermediate // 8, head_dim=shape.head_dim // 8, layers=1
    )
    batch, length, dtype = 2, 256, torch.float32 if stream == 4 else torch.bfloat16
    model = AutoModelForCausalLM.from_config(model_config(replace(small, vocabulary=8)), dtype=dtype)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    saved = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage
        return tensor

    hidden = torch.randn(batch, length, small.hidden, dtype=dtype, requires_grad=True)
    positions = torch.arange(length)[None]
    rotations = model.model.rotary_emb(hidden, positions)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        model.model.layers[0](hidden, attention_mask=None, position_embeddings=rotations, position_ids=positions)
    copies = 2 * small.linear_parameters if dtype == torch.float32 else 0
    measured = (sum(storage.nbytes() for storage in saved.values()) - copies) / (batch * length)
    assert 0.85 < measured / small.layer_bytes(stream) < 1.05


def test_nf4_bytes_are_those_of_bitsandbytes():
    functional = pytest.importorskip("bitsandbytes.functional")
    packed, state = functional.quantize_4bit(torch.randn(1024, 512), quant_type="nf4", compress_statistics=True)
    tensors = (packed, state.absmax, state.state2.absmax)
    assert memory.nf4_bytes(1024 * 512) == sum(t.numel() * t.element_size() for t in tensors)


def test_terms_by_hand():
    """A recipe whose sums fit on one line each."""
    recipe = {
        "model_name_or_path": "Qwen/Qwen3-8B",
        "variant": "dual",
        "per_device_train_batch_size": 2,
        "max_completion_length": 512,
        "mirror_sync_steps": 8,
    }
    held, training, generation = memory.terms(recipe, memory.Machine(1, 999, None)).values()
    p = PARAMETERS["Qwen/Qwen3-8B"]
    assert held["weights, float32"] == training["gradients"] == held["reference model"] == held["snapshot"] == 4 * p
    assert held["Adam, two moments"] == 8 * p
    assert generation["KV cache of 2 completions"] == 2 * 1024 * (2 * 36 * 8 * 128 * 4)
    assert training["inputs of the layers"] == 36 * 2 * 1024 * 4096 * 4
    assert memory.peak({"a": {"x": 1, "y": 2}, "b": {"x": 4}, "c": {"x": 5}}) == 8

    # Sixteen bytes per parameter over sixteen GPUs.
    for backend, weights in (("zero3_multinode", "weights, bf16 and fp32 master"), ("fsdp2", "weights, float32")):
        held, training, _ = memory.terms(recipe, memory.Machine(16, 999, f"configs/{backend}.yaml")).values()
        assert held[weights] + held["Adam, two moments"] + training["gradients"] == p


def test_a_recipe_that_does_not_fit_is_refused(tmp_path):
    text = (FOLDER / "qlora_qwen3_8b.yaml").read_text().replace("1 x 48 GB", "1 x 16 GB")
    (tmp_path / "small.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"small\.yaml needs 21 GB, too much for a GPU of 16 GB"):
        memory.report(tmp_path / "small.yaml")


ROWS = {
    "gsm8k": {"question": "How many clips?\n", "answer": "She sold 1,200 + 34 = <<1200+34=1234>>1,234.\n#### 1,234"},
    "dapo_math": {"prompt": "What is $1200+34$?", "solution": "1234"},
    "multimodal_open_r1": {
        "problem": "What does the picture show?",
        "solution": "<think>It shows 1234.</think>\n<answer> 1234 </answer>",
        "image": Image.new("L", (8, 8)),
    },
}


@pytest.mark.parametrize("name", ROWS)
def test_data_is_what_the_reward_reads(tmp_path, monkeypatch, name):
    asked = []

    def from_the_hub(path, config, split):
        asked.append((path, config, split))
        large = [{"image": Image.new("RGB", (8, data.LARGEST_IMAGE))}] if "image" in ROWS[name] else []
        return Dataset.from_list([ROWS[name] | {"extra": 1} | other for other in ({}, {}, *large)])

    monkeypatch.setattr(data, "load_dataset", from_the_hub)
    data.prepare(name, tmp_path / name)
    assert asked == [
        (data.SOURCES[name].path, data.SOURCES[name].config, split) for split in data.SOURCES[name].splits
    ]

    rows = load_dataset(str(tmp_path / name), cache_dir=str(tmp_path / "cache"))
    assert set(rows) == set(data.SOURCES[name].splits)
    assert set(rows["train"].column_names) == {"prompt", "solution"} | (ROWS[name].keys() & {"image"})
    assert len(rows["train"]) == 2
    assert rows["train"][0]["solution"] in ("1234", "\\boxed{1234}")
    assert rows["train"][0].get("image", Image.new("RGB", (8, 8))).mode == "RGB"
    (message,) = rows["train"][0]["prompt"]
    assert message["role"] == "user"
    assert message["content"].endswith("\\boxed{}.")

    pytest.importorskip("math_verify")
    answers = ["so \\boxed{1234}", "so \\boxed{1,234}", "so \\boxed{1235}", "so 1234"]
    completions = [[{"role": "assistant", "content": answer}] for answer in answers]
    assert accuracy_reward(completions, rows["train"]["solution"][:1] * 4) == [1, 1, 0, 0]


def test_problems_for_a_policy_with_tools_are_told_how_to_answer_by_the_environment():
    row = data.gsm8k_tools(ROWS["gsm8k"])
    assert row == {"prompt": [{"role": "user", "content": "How many clips?"}], "solution": "1234"}
    assert data.multimodal_open_r1({"problem": "?", "solution": "B"})["solution"] == "\\boxed{B}"


@pytest.mark.parametrize(
    ("expression", "value"),
    [("(3 + 4) * 2.5", "17.5"), ("-2 - -3", "1"), (" 1200+34 ", "1234"), ("1/3", "0.333333333333")],
)
def test_the_calculator_calculates(expression, value):
    assert calculator.Calculator().calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    ["2 ** 9", "__import__('os')", "a", "1 if 1 else 2", "True", "'a' * 9", "1" + "+1" * 200, "", "1 // 2"],
)
def test_the_calculator_runs_nothing_else(expression):
    with pytest.raises((ValueError, SyntaxError)):
        calculator.Calculator().calculate(expression)


@pytest.mark.parametrize(
    ("submitted", "reward"),
    [
        (["1,234"], 1.0),
        (["1234.0"], 1.0),
        (["1235"], 0.0),
        (["1235", "1234"], 0.0),
        (["1234", "7"], 1.0),
        (["x"], 0.0),
        ([], 0.0),
    ],
)
def test_the_first_submitted_answer_is_rewarded(submitted, reward):
    environment = calculator.Calculator()
    for _ in range(2):
        # Instances are used again.
        assert "submit" in environment.reset(solution="1234", prompt=[])
        assert environment.get_reward() == 0.0
        for answer in submitted:
            environment.submit(answer)
        assert environment.get_reward() == reward


# The policies of the twins speak in answers, so that rewards find right and wrong ones.
ANSWERS = [f"\\boxed{{{number}}}" for number in (1, 2)]
VOCABULARY = ["<pad>", "<eos>", "?", *ANSWERS]
TEMPLATE = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
CALLS = [call("submit", answer="1"), call("submit", answer="2"), call("calculate", expression="1 + 1")]


def write_task(kind, folder):
    """A small policy, and data as `data.py` writes it."""
    (folder / "data").mkdir()
    questions = [("?" * number, 1 + number % 2) for number in range(40)]
    if kind == "tools":
        make_tool_policy(folder / "policy", CALLS)
        rows = [data.gsm8k_tools({"question": "?", "answer": f"#### {solution}"}) for _, solution in questions]
    else:
        rows = [data._row(question, str(solution)) for question, solution in questions]
    if kind == "images":
        make_image_policy(folder / "policy", ANSWERS)
        rows = [row | {"image": Image.new("RGB", (8 + 8 * (i % 2), 8))} for i, row in enumerate(rows)]
        Dataset.from_list(rows).to_parquet(folder / "data" / "train.parquet")
        return
    if kind == "text":
        make_policy(folder / "policy", VOCABULARY, TEMPLATE, spaced=True)
    Dataset.from_list(rows).to_json(folder / "data" / "train.jsonl")


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """Folders of the tasks by their kind."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in ("text", "tools", "images")}
    for kind, folder in folders.items():
        write_task(kind, folder)
    return folders


@every_recipe
def test_a_small_twin_trains(tasks, tmp_path, monkeypatch, registered, recipe):
    """The recipe itself through its script; only the model, the data, sizes and what needs a GPU are replaced."""
    pytest.importorskip("math_verify")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    values = yaml.safe_load(recipe.read_text())
    quantized = values.get("load_in_4bit", False)
    if quantized:
        pytest.importorskip("bitsandbytes")
    small, without = small_recipe(values, tmp_path)
    assert without == (["vLLM"] if values.get("use_vllm") else [])
    kind = (
        "tools" if "environment_factory" in values else "images" if "-VL-" in values["model_name_or_path"] else "text"
    )
    changed = {"model_name_or_path": tasks[kind] / "policy", "dataset_name": tasks[kind] / "data"}
    changed["max_completion_length"] = {"text": 3, "tools": 48, "images": 3}[kind]
    if kind == "images":
        changed["generation_kwargs"] = json.dumps(NOT_TO_WRITE)
        # The processor of the model's own class needs torchvision for videos.
        monkeypatch.setattr(AutoProcessor, "from_pretrained", lambda *_, **__: image_processor(ANSWERS))
    script = script_of(recipe)
    arguments = parse(small, *(str(x) for k, value in changed.items() for x in (f"--{k}", value)), script=script)
    _, args, *_ = arguments
    assert args.variant == values["variant"]
    losses = []
    from trl import GRPOTrainer  # ours, once registered

    original = GRPOTrainer.log
    monkeypatch.setattr(
        GRPOTrainer, "log", lambda self, logs, *rest: (losses.append(logs), original(self, logs, *rest))
    )
    script.main(*arguments)

    steps = [logs for logs in losses if "grad_norm" in logs]
    assert len(steps) == STEPS
    assert all(torch.isfinite(torch.tensor([logs["loss"], logs["grad_norm"]])).all() for logs in steps)
    assert any(logs["grad_norm"] > 0 for logs in steps)
    if args.mirror_beta:
        assert "mirror_kl" in steps[-1]
    if kind == "tools":
        assert any(0 < logs["rewards/Calculator/mean"] < 1 and logs["tools/call_frequency"] > 0 for logs in steps)
    if values.get("use_peft"):
        adapter = load_file("out/adapter_model.safetensors")
        assert any(tensor.any() for name, tensor in adapter.items() if "lora_B" in name)
        # What memory.py counts: an adapter in bf16 over a 4-bit base, else in fp32.
        assert {tensor.dtype for tensor in adapter.values()} == {torch.bfloat16 if quantized else torch.float32}
    else:
        before = load_file(tasks[kind] / "policy" / "model.safetensors")
        after = load_file("out/model.safetensors")
        assert any(not torch.equal(before[name], after[name]) for name in before)
