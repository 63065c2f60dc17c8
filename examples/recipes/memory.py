# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Memory that a recipe needs on each GPU, from the shapes of its model:

    python examples/recipes/memory.py examples/recipes/*.yaml

Prints the block that stands in the header of the recipe. An estimate of the tensors that exist at the peak, worked out
below term by term and rounded to 0.1 GiB. The CUDA context, fragmentation and communication buffers come on top; a
recipe names GPUs of which the sum takes at most nine tenths.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from trl_grpo_variants import get_variant


GIB = 2**30
# Length of a prompt where nothing bounds it; TRL does not cut prompts. An image of 512 x 512 pixels takes 324 of them.
PROMPT_TOKENS = 512
# The head turns hidden states into log-probabilities in tiles of this many tokens and words (TRL 1.16), in bf16.
LM_HEAD_TILE = 4096 * 32768 * 2
# DeepSpeed's default `stage3_max_live_parameters`.
ZERO3_LIVE_PARAMETERS = 10**9

# The linear maps of a layer, in the order of `Shape.linears`.
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Shape:
    """Public constants of a decoder of the Qwen family, as in its `config.json`, and the weights before it for images."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool
    qkv_bias: bool
    qk_norm: bool
    vision: int = 0

    @property
    def q(self) -> int:
        return self.heads * self.head_dim

    @property
    def kv(self) -> int:
        return self.kv_heads * self.head_dim

    @property
    def linears(self) -> list[tuple[int, int]]:
        """Input and output sizes of the linear maps of one layer."""
        h, i = self.hidden, self.intermediate
        return [(h, self.q), (h, self.kv), (h, self.kv), (self.q, h), (h, i), (h, i), (i, h)]

    @property
    def linear_parameters(self) -> int:
        """Weights of the linear maps of all layers, which 4-bit loading quantises."""
        return self.layers * sum(n * m for n, m in self.linears)

    @property
    def parameters(self) -> int:
        embeddings = (1 if self.tied else 2) * self.vocabulary * self.hidden
        norms = self.layers * (2 * self.hidden + 2 * self.head_dim * self.qk_norm) + self.hidden
        biases = self.layers * (self.q + 2 * self.kv) * self.qkv_bias
        return embeddings + self.linear_parameters + norms + biases + self.vision

    def adapter_parameters(self, rank: int, targets: Sequence[str] = ("all-linear",)) -> int:
        """LoRA on linear maps of the layers, by default on all of them."""
        chosen = LINEARS if "all-linear" in targets else targets
        return self.layers * sum(rank * sum(self.linears[LINEARS.index(name)]) for name in chosen)

    def kv_bytes(self, element: int) -> int:
        """Keys and values of one token."""
        return 2 * self.layers * self.kv * element

    def layer_bytes(self, stream: int) -> int:
        """
        What one layer keeps of one token for its backward pass, with the residual stream in elements of `stream` bytes
        and the rest in bf16: the stream about 8 times (norms and their inputs), q and k before and after rotation, v,
        the attention's output, four tensors of the MLP; with norms on q and k, a copy of both in fp32.
        """
        norms = 4 * (self.q + self.kv) * self.qk_norm
        return 8 * self.hidden * stream + 2 * (3 * self.q + 3 * self.kv + 4 * self.intermediate) + norms


SHAPES = {
    "Qwen/Qwen2.5-0.5B-Instruct": Shape(896, 4864, 24, 14, 2, 64, 151936, True, True, False),
    "Qwen/Qwen2.5-7B-Instruct": Shape(3584, 18944, 28, 28, 4, 128, 152064, False, True, False),
    "Qwen/Qwen2.5-VL-3B-Instruct": Shape(2048, 11008, 36, 16, 2, 128, 151936, True, True, False, 668_684_288),
    "Qwen/Qwen3-1.7B": Shape(2048, 6144, 28, 16, 8, 128, 151936, True, False, True),
    "Qwen/Qwen3-8B": Shape(4096, 12288, 36, 32, 8, 128, 151936, False, False, True),
}


@dataclass(frozen=True)
class Machine:
    """What the header of a recipe says about where it runs."""

    gpus: int
    gigabytes: int
    accelerate_config: str | None

    @property
    def sharding(self) -> str:
        """`"none"`, `"ddp"`, `"fsdp2"` or `"zero3"`."""
        if self.accelerate_config is None:
            return "none"
        return Path(self.accelerate_config).stem.split("_")[0]


def read_machine(text: str) -> Machine:
    """
    Read the launch line and the line of GPUs in a header.

    Args:
        text (`str`):
            Recipe.

    Returns:
        [`Machine`]:
            GPUs that train, what one of them holds, and the accelerate config.

    Raises:
        `ValueError`: If the GPUs are not named.
    """
    gpus = re.search(r"^# Training GPUs: (\d+) x (\d+) GB$", text, re.MULTILINE)
    if gpus is None:
        raise ValueError("The header of a recipe needs a line like `# Training GPUs: 1 x 80 GB`; there is none.")
    config = re.search(r"--accelerate_config (\S+)", text)
    return Machine(int(gpus[1]), int(gpus[2]), config and config[1])


def resolve(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a recipe with those of its variant, and TRL's where both leave one out."""
    variant = get_variant(recipe["variant"]).settings
    defaults = {"beta": 0.0, "dtype": "float32", "lora_r": 16, "per_device_train_batch_size": 8}
    defaults |= {
        "lora_target_modules": ["all-linear"],
        "gradient_accumulation_steps": 1,
        "max_completion_length": 256,
        "vllm_mode": "colocate",
    }
    values = {**defaults, **variant, **recipe}
    if "steps_per_generation" not in values:
        values["steps_per_generation"] = values.get("inner_steps", 1) * values["gradient_accumulation_steps"]
    return values


def nf4_bytes(parameters: int) -> float:
    """Half a byte per weight, a byte for the scale of each block of 64, four for the scale of each 256 scales."""
    return parameters * (1 / 2 + 1 / 64 + 4 / (64 * 256))


def terms(recipe: Mapping[str, Any], machine: Machine) -> dict[str, dict[str, float]]:
    """
    Bytes on one GPU.

    Args:
        recipe (`Mapping[str, Any]`):
            Content of the YAML file.
        machine ([`Machine`]):
            Where it runs.

    Returns:
        `dict[str, dict[str, float]]`:
            What is held all the time, what an optimizer step adds, and what a rollout adds.
    """
    values = resolve(recipe)
    shape = SHAPES[values["model_name_or_path"]]
    peft = values.get("use_peft", False)
    sharded = machine.sharding in ("fsdp2", "zero3")
    shards = machine.gpus if sharded else 1
    element = {"float32": 4, "bfloat16": 2}[values["dtype"]]

    trained = shape.adapter_parameters(values["lora_r"], values["lora_target_modules"]) if peft else shape.parameters
    # TRL casts the adapter over a 4-bit base to bf16; PEFT keeps other adapters in fp32. ZeRO-3 trains a bf16 copy of
    # fp32 master weights (2 + 4 bytes), with gradients in bf16; FSDP2 shards the fp32 weights and their gradients.
    trained_element = (2 if values.get("load_in_4bit") else 4) if peft else element
    gradient_element = 2 if machine.sharding == "zero3" else trained_element

    held: dict[str, float] = {}
    if values.get("load_in_4bit"):
        rest = shape.parameters - shape.linear_parameters
        held["4-bit weights, the rest in bf16"] = nf4_bytes(shape.linear_parameters) + rest * element
    elif machine.sharding == "zero3":
        held["weights, bf16 and fp32 master"] = shape.parameters * (2 + 4) / shards
    else:
        held[f"weights, {values['dtype']}"] = shape.parameters * element / shards
    if peft:
        held["adapter"] = trained * trained_element
    elif element == 4 and not sharded:
        # Autocast keeps a bf16 copy of each linear weight for the length of a forward pass.
        held["bf16 copies under autocast"] = shape.linear_parameters * 2
    held["Adam, two moments"] = 2 * trained * (4 if machine.sharding == "zero3" else trained_element) / shards
    if values["beta"] > 0 and not peft:
        held["reference model"] = shape.parameters * element / shards
    if values.get("mirror_sync_steps"):
        held["snapshot"] = trained * trained_element
    if values.get("use_vllm") and values["vllm_mode"] == "colocate":
        held["vLLM, its share of the GPU"] = values["vllm_gpu_memory_utilization"] * machine.gigabytes * 1e9
    if machine.sharding == "zero3":
        held["gathered weights, bf16"] = min(ZERO3_LIVE_PARAMETERS, shape.parameters) * 2
    if machine.sharding == "fsdp2":
        # Two layers (one is fetched ahead), embedding and head in bf16, and the head in fp32, which TRL gathers whole.
        layer = shape.linear_parameters / shape.layers
        held["gathered weights, bf16"] = 2 * layer * 2 + 2 * shape.vocabulary * shape.hidden * 2
        held["gathered head, fp32"] = shape.vocabulary * shape.hidden * 4

    batch = values["per_device_train_batch_size"]
    length = values.get("vllm_max_model_length") or PROMPT_TOKENS + values["max_completion_length"]
    tokens = batch * length
    # Without sharding, fp32 weights leave the residual stream in fp32; sharded backends run the model in bf16.
    stream = 2 if sharded else element
    training = {"gradients": trained * gradient_element / shards}
    if machine.sharding == "ddp":
        training["DDP buckets"] = trained * trained_element
    # With gradient checkpointing, the input of every layer is kept, and one layer at a time is computed again.
    training["inputs of the layers"] = shape.layers * tokens * shape.hidden * stream
    # Its gradients take at most as much again.
    training["one layer and its gradients"] = 2 * tokens * shape.layer_bytes(stream)
    training["head, tile and fp32 gradients"] = LM_HEAD_TILE + 4 * (
        tokens * shape.hidden + (0 if peft else shape.vocabulary * shape.hidden)
    )
    generation: dict[str, float] = {}
    if not values.get("use_vllm"):
        # transformers generates the whole rollout of a process at once.
        rows = batch * values["steps_per_generation"]
        generation[f"KV cache of {rows} completions"] = rows * length * shape.kv_bytes(element)
        generation["logits of one step"] = 2 * rows * shape.vocabulary * 4
    return {"all the time": held, "while training": training, "while generating": generation}


def peak(parts: Mapping[str, Mapping[str, float]]) -> float:
    """Bytes at the peak: training and generation take turns."""
    held, training, generation = (sum(part.values()) for part in parts.values())
    return held + max(training, generation)


def report(path: Path) -> list[str]:
    """
    Lines for the header of a recipe.

    Args:
        path (`Path`):
            Recipe.

    Returns:
        `list[str]`:
            Lines without the leading `#`.

    Raises:
        `ValueError`: If the recipe does not fit the GPUs that it names.
    """
    text = path.read_text()
    recipe, machine = yaml.safe_load(text), read_machine(text)
    values, shape = resolve(recipe), SHAPES[recipe["model_name_or_path"]]
    parts = terms(recipe, machine)
    lines = [f"Memory per training GPU in GiB, of {shape.parameters:,} parameters (examples/recipes/memory.py):"]
    for phase, part in parts.items():
        if part:
            lines.append(f"  {phase:<36}{sum(part.values()) / GIB:6.1f}")
            lines += [f"    {name:<34}{size / GIB:6.1f}" for name, size in part.items()]
    lines.append(f"  {'peak':<36}{peak(parts) / GIB:6.1f}")
    if values.get("use_vllm") and values["vllm_mode"] == "colocate":
        cache = parts["all the time"]["vLLM, its share of the GPU"] - shape.parameters * 2
        room = cache / (values["vllm_max_model_length"] * shape.kv_bytes(2))
        lines.append(f"  vLLM has room for {int(room)} sequences of full length at a time, beside its weights")
    if peak(parts) > 0.9 * machine.gigabytes * 1e9:
        raise ValueError(
            f"{path.name} needs {peak(parts) / 1e9:.0f} GB, too much for a GPU of {machine.gigabytes} GB."
        )
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="+", type=Path)
    for recipe_path in parser.parse_args().recipes:
        print(f"{recipe_path}\n" + "\n".join(f"# {line}" for line in report(recipe_path)) + "\n")
