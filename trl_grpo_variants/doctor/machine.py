# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What is installed and what the machine has, against what the package declares and what a recipe asks for."""

import inspect
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

from ..requirements import requirements, supported_python, tested_versions


GIB = 2**30
# A checkpoint of the smallest models that are trained; larger ones need more, which their size alone tells.
LEAST_FREE = 2 * GIB


@dataclass(frozen=True)
class Finding:
    """A line of the table; where something is missing it has a remedy, and it is an error where that is needed."""

    name: str
    found: str
    remedy: str = ""
    is_needed: bool = True

    @property
    def is_error(self) -> bool:
        return bool(self.remedy) and self.is_needed


def installed_version(name: str) -> str | None:
    """Version of a package, also where its distribution has another name, as builds for the CPU have."""
    try:
        return version(name)
    except PackageNotFoundError:
        distributions = _distributions().get(name.replace("-", "_"))
        return version(distributions[0]) if distributions else None


# Reads what every installed package has brought along.
_distributions = cache(packages_distributions)


def base_findings() -> list[Finding]:
    """Python and the packages without which nothing trains."""
    python, supported = platform.python_version(), supported_python()
    remedy = "" if python in supported else f"Use a Python {supported}."
    needed = [*requirements().values(), requirements("accelerate").get("torch", Requirement("torch"))]
    return [Finding("Python", python, remedy), *(_package(requirement) for requirement in needed)]


def _package(requirement: Requirement, is_needed: bool = True) -> Finding:
    name, found = requirement.name, installed_version(requirement.name)
    install = f"Run `pip install '{name}{requirement.specifier}'`."
    if found is None:
        return Finding(name, "not installed", install, is_needed)
    # Builds for one device have a local part, which counts as newer than what it is a build of.
    release = found.partition("+")[0]
    if not requirement.specifier.contains(release, prereleases=True):
        return Finding(name, f"{found}, not {requirement.specifier}", install, is_needed)
    tested = tested_versions().get(name, release)
    return Finding(name, found if release == tested else f"{found} (tested: {tested})")


def findings(recipe: Mapping[str, Any], uses_deepspeed: bool) -> Iterator[Finding]:
    """What a recipe may need besides; for an empty one nothing of it is needed."""
    quantizes = bool(recipe.get("load_in_4bit") or recipe.get("load_in_8bit"))
    rewards = recipe.get("reward_funcs") or []
    attention = str(recipe.get("attn_implementation", ""))
    yield from _gpus(recipe)
    yield _bitsandbytes(quantizes)
    yield _vllm(bool(recipe.get("use_vllm")), quantizes)
    yield _flash_attention(attention)
    yield _package(requirements("trl", "deepspeed")["deepspeed"], uses_deepspeed)
    yield _package(requirements("trl", "math-verify")["math-verify"], any("accuracy_reward" in f for f in rewards))
    yield from _disks(recipe.get("output_dir"))
    yield _hub(bool(recipe.get("push_to_hub")))


def _gpus(recipe: Mapping[str, Any]) -> Iterator[Finding]:
    import torch
    from transformers.utils import is_torch_bf16_gpu_available

    if not torch.cuda.is_available():
        built = "this PyTorch is built for the CPU" if torch.version.cuda is None else "none is seen by PyTorch"
        remedy = "Install a PyTorch for your GPU and its driver, or set `use_cpu: true` and `bf16: false`."
        yield Finding("GPU", built, remedy, is_needed=bool(recipe) and not recipe.get("use_cpu"))
        return
    for device in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(device)
        yield Finding("GPU", f"{properties.name}, {properties.total_memory / GIB:.0f} GiB")
    asked = recipe.get("bf16", not recipe.get("fp16"))
    has_bf16 = is_torch_bf16_gpu_available()
    remedy = "" if has_bf16 else "Set `bf16: false`, and `fp16: true` for half precision."
    yield Finding("bf16", "yes" if has_bf16 else "not on this GPU", remedy, bool(asked))


def _bitsandbytes(is_needed: bool) -> Finding:
    package = _package(requirements(extra="quantization")["bitsandbytes"], is_needed)
    if package.remedy:
        return package
    try:
        _quantize()
    except Exception as error:
        # A library that does not fit the machine fails in its own ways, and some only when it is called.
        remedy = "Install a bitsandbytes for this GPU and PyTorch: `python -m bitsandbytes` tells what it lacks."
        return Finding(package.name, f"{package.found}, a 4-bit layer fails: {summary(error)}", remedy, is_needed)
    return Finding(package.name, f"{package.found}, a 4-bit layer runs")


def _quantize() -> None:
    """A forward pass of a layer in 4 bits."""
    import bitsandbytes
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    layer = bitsandbytes.nn.Linear4bit(64, 64, bias=False, quant_type="nf4", compute_dtype=torch.float32)
    output = layer.to(device)(torch.ones(1, 64, device=device))
    if layer.weight.dtype != torch.uint8 or not output.isfinite().all():
        raise RuntimeError("the weights are not in 4 bits or the output is not finite")


def _vllm(is_needed: bool, quantizes: bool) -> Finding:
    package = _package(requirements("trl", "vllm")["vllm"], is_needed)
    if package.remedy:
        return package
    try:
        from vllm.lora.request import LoRARequest

        from ..vllm.eligibility import check_engine_quantizes
    except Exception as error:
        remedy = "Install vLLM with the PyTorch that it asks for, in an environment of its own."
        return Finding(package.name, f"{package.found}, cannot be imported: {summary(error)}", remedy, is_needed)
    if "load_inplace" not in inspect.signature(LoRARequest).parameters:
        remedy = f"Run `pip install --upgrade '{package.name}'`: this one cannot replace an adapter."
        return Finding(package.name, f"{package.found}, without LoRA that moves", remedy, is_needed)
    try:
        check_engine_quantizes()
    except ImportError:
        remedy = "For 4-bit bases run `pip install --no-deps vllm-bnb-plugin`."
        return Finding(package.name, f"{package.found}, LoRA, no 4-bit bases", remedy, is_needed and quantizes)
    return Finding(package.name, f"{package.found}, LoRA, 4-bit bases")


def _flash_attention(asked: str) -> Finding:
    from transformers import utils

    generations = [str(n) for n in (2, 3, 4) if getattr(utils, f"is_flash_attn_{n}_available", lambda: False)()]
    wanted = asked.removeprefix("flash_attention_")
    is_missing = wanted != asked and wanted not in generations
    remedy = f"Install flash attention {wanted} for this GPU, or set `attn_implementation: sdpa`."
    none = "none" if is_missing else "none, PyTorch's own serves"
    return Finding("flash attention", ", ".join(generations) or none, remedy if is_missing else "")


def _disks(output_dir: Any) -> Iterator[Finding]:
    from huggingface_hub.constants import HF_HUB_CACHE

    for name, setting, path in (
        ("output folder", "`output_dir`", Path(output_dir or ".")),
        ("models and data", "`HF_HOME`", Path(HF_HUB_CACHE)),
    ):
        folder = next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())
        free = shutil.disk_usage(folder).free
        found = f"{path}, {free / GIB:.0f} GiB free"
        if not (folder.is_dir() and os.access(folder, os.W_OK)):
            yield Finding(name, f"{path} cannot be written to", f"Let {setting} name a folder that you may write to.")
        elif free < LEAST_FREE:
            yield Finding(name, found, f"Make room, or let {setting} name a folder on another disk.")
        else:
            yield Finding(name, found)


def _hub(is_needed: bool) -> Finding:
    from huggingface_hub import get_token

    if get_token() is None:
        return Finding("Hub token", "none", "Run `hf auth login`, or set `HF_TOKEN`.", is_needed)
    return Finding("Hub token", "there is one")


def summary(error: Exception) -> str:
    """The first sentence of what an error says, with its kind."""
    line = next(iter(str(error).splitlines()), "")
    return f"{type(error).__name__}: {line[:200]}" if line else type(error).__name__
