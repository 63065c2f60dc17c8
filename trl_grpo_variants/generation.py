# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
vLLM generation in which only the adapter follows the policy, and a server's failure is one error on all processes.

TRL merges the adapter into the base, sends the whole model to the engine and takes the merge back. Over a 4-bit base
each merge rounds, so that the base of the policy drifts and the engine samples from another policy than the one that is
trained. Here the engine holds the base once and is given the adapter before each rollout; the base is never touched.
"""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from accelerate.utils import gather_object, is_peft_model
from peft import LoraConfig, PeftModel
from safetensors import SafetensorError
from trl.generation import vllm_generation
from trl.generation.vllm_generation import VLLMGeneration
from trl.trainer import grpo_trainer

from .compat import sharding_backend
from .config import GRPOVariantConfig
from .vllm_client import (
    GIVES_UP_AFTER,
    GenerationError,
    GenerationServerError,
    WatchedVLLMClient,
    failing,
    is_of_server,
)
from .warn import warn_user


ADAPTER_NAME = "policy"
ADAPTER_ID = 1
# The client tries a request that often.
_ATTEMPTS = 6
# The ranks that vLLM can be told to make room for.
_ENGINE_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
# Initialisations that move a part of the base's weights into the adapter: the base on disk is not the policy's.
_BASE_CHANGING_INITS = ("pissa", "olora", "corda", "loftq")


def adapter_generation(args: GRPOVariantConfig, model: Any, peft_config: Any, quantization_config: Any) -> Any:
    """
    Context in which TRL's trainer constructs its vLLM generation: with adapters synchronised as such where possible,
    and a server that is watched.

    Args:
        args ([`GRPOVariantConfig`]):
            Configuration.
        model (`str` or `nn.Module`):
            The trainer's `model` argument.
        peft_config ([`~peft.PeftConfig`], *optional*):
            The trainer's `peft_config` argument.
        quantization_config ([`~transformers.BitsAndBytesConfig`], *optional*):
            The trainer's `quantization_config` argument.

    Returns:
        `AbstractContextManager`:
            Context for the construction of the trainer.

    Raises:
        `ValueError`: If the base is in 4 bits and vLLM cannot run the adapter beside it.
    """
    if peft_config is None and not isinstance(model, str) and is_peft_model(model):
        peft_config = model.peft_config[model.active_adapter]
    if not args.use_vllm:
        return nullcontext()
    if not args.vllm_lora_sync or peft_config is None:
        watched = args.vllm_mode == "server"
        return _replaced(grpo_trainer, "VLLMGeneration", WatchedVLLMGeneration) if watched else nullcontext()
    obstacle = _why_not_syncable(args, peft_config)
    if obstacle is None:
        adapters = functools.partial(AdapterVLLMGeneration, folder=Path(args.output_dir) / "_vllm_adapter")
        return _replaced(grpo_trainer, "VLLMGeneration", adapters)
    refusal = (
        f"vLLM cannot run this adapter beside its base, because {obstacle}, and merging it into a 4-bit base would "
        "change the base and sample from another policy. Change the adapter, or load the base unquantised."
    )
    if getattr(quantization_config, "load_in_4bit", False) or _is_four_bit(model):
        raise ValueError(refusal)
    warn_user(
        f"vLLM cannot run this adapter beside its base, because {obstacle}: it is merged and the whole model is sent "
        "before each rollout, as TRL does. Set `vllm_lora_sync=False` to accept that silently."
    )
    # A checkpoint that is saved in 4 bits is known for one when it has been loaded.
    factory = functools.partial(WatchedVLLMGeneration, four_bit_refusal=refusal)
    return _replaced(grpo_trainer, "VLLMGeneration", factory)


def _why_not_syncable(args: GRPOVariantConfig, config: Any) -> str | None:
    backend = sharding_backend(args)
    if backend is not None:
        return f"{backend} shards it"
    if args.vllm_enable_sleep_mode:
        return "`vllm_enable_sleep_mode=True` discards the engine's base"
    if str(getattr(config, "init_lora_weights", "")).lower().startswith(_BASE_CHANGING_INITS):
        return f"`init_lora_weights={config.init_lora_weights!r}` changes the base"
    return adapter_obstacle(config)


def adapter_obstacle(config: Any) -> str | None:
    """
    Tell why vLLM cannot run an adapter beside its base.

    Args:
        config ([`~peft.PeftConfig`]):
            Configuration of the adapter.

    Returns:
        `str` or `None`:
            The reason, or `None` if it can.
    """
    if not isinstance(config, LoraConfig):
        return f"it is no LoRA adapter but a {type(config).__name__}"
    for name in ("use_dora", "modules_to_save", "trainable_token_indices", "lora_bias", "target_parameters"):
        if getattr(config, name, None):
            return f"it has `{name}={getattr(config, name)!r}`"
    if config.bias != "none":
        return f"it has `bias={config.bias!r}`"
    if _largest_rank(config) > _ENGINE_RANKS[-1]:
        return f"its rank {_largest_rank(config)} exceeds vLLM's {_ENGINE_RANKS[-1]}"
    return None


def engine_rank(config: LoraConfig) -> int:
    """
    Rank that vLLM must make room for.

    Args:
        config ([`~peft.LoraConfig`]):
            Configuration of an adapter that vLLM can run.

    Returns:
        `int`:
            The smallest of the ranks that it can be told which holds the adapter's.
    """
    return next(rank for rank in _ENGINE_RANKS if rank >= _largest_rank(config))


def _largest_rank(config: LoraConfig) -> int:
    return max(config.r, *config.rank_pattern.values(), 1)


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    original = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, original)


class WatchedVLLMGeneration(VLLMGeneration):
    """
    TRL's vLLM generation, in which a server that fails is a [`GenerationServerError`] on every process.

    Only the main process talks to the server, and the others would wait for it for ever.

    Args:
        four_bit_refusal (`str`, *optional*):
            Why a 4-bit base is refused, where it is.
        kwargs:
            Arguments of [`~trl.generation.vllm_generation.VLLMGeneration`].

    Raises:
        `ValueError`: If the base is in 4 bits and that is refused.
        `GenerationServerError`: If there is no server that the run can use.
    """

    sends_weights = True

    def __init__(self, *, four_bit_refusal: str | None = None, **kwargs: Any):
        if four_bit_refusal is not None and _is_four_bit(kwargs["model"]):
            raise ValueError(four_bit_refusal)
        super().__init__(**kwargs)

    def _init_vllm(self) -> None:
        if self.mode != "server":
            super()._init_vllm()
            return
        self._on_all_processes(self._wait_for_server)
        client = functools.partial(
            WatchedVLLMClient,
            complaint=self._complaint,
            silence_limit=max(self.server_timeout, GIVES_UP_AFTER),
            opens_channel=self.sends_weights,
        )
        with _replaced(vllm_generation, "VLLMClient", client):
            super()._init_vllm()
        self._on_all_processes(self._raise_failure)

    def sync_weights(self) -> None:
        """
        Send the policy to the engine.

        Raises:
            `GenerationServerError`: If the server fails.
        """
        if self.mode != "server":
            super().sync_weights()
            return
        # Before the processes gather a sharded model together.
        self._on_all_processes(self._ping)
        super().sync_weights()
        self._on_all_processes(self._raise_failure)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """
        Generate completions.

        Args:
            args:
                Arguments of [`~trl.generation.vllm_generation.VLLMGeneration.generate`].
            kwargs:
                Keyword arguments of the same.

        Returns:
            `tuple`:
                Prompts, completions, log-probs and their tokens.

        Raises:
            `GenerationServerError`: If the server fails.
        """
        try:
            return super().generate(*args, **kwargs)
        except GenerationServerError:
            # TRL has told the other processes. This one knows the cause.
            self._raise_failure()
            raise

    def _on_all_processes(self, action: Callable[[], None]) -> None:
        """Do something in which processes do not meet, and fail on all of them where it fails on one."""
        failure: Exception | None = None
        try:
            action()
        except Exception as error:
            failure = error
        told: RuntimeError | None = None
        if isinstance(failure, GenerationError):
            told = failure
        elif failure is not None and self.mode == "server" and is_of_server(failure):
            told = GenerationServerError(self._complaint(failing(failure)))
        elif failure is not None:
            told = RuntimeError(f"Process {self.accelerator.process_index} failed: {failure!r}")
        first = next((error for error in gather_object([told]) if error is not None), None)
        if failure is not None and not isinstance(told, GenerationError):
            raise failure
        if first is not None:
            raise first from failure

    def _raise_failure(self) -> None:
        if self.mode == "server" and self.accelerator.is_main_process:
            self.vllm_client.raise_failure()

    def _complaint(self, what: str) -> str:
        return f"The vLLM server at {self._url} {what}. Start it with `{self._start_command()}`."

    @property
    def _url(self) -> str:
        return self.server_base_url or f"http://{self.server_host}:{self.server_port}"

    def _start_command(self) -> str:
        return (
            f"VLLM_SERVER_DEV_MODE=1 vllm serve {self.model.name_or_path} --logprobs-mode processed_logprobs "
            """--weight-transfer-config '{"backend": "nccl"}'"""
        )

    def _wait_for_server(self) -> None:
        if not self.accelerator.is_main_process:
            return
        # TRL waits too, but without end for something that answers and is no vLLM server.
        deadline = time.monotonic() + self.server_timeout
        while True:
            try:
                urlopen(f"{self._url}/health", timeout=10).close()
                return
            except (OSError, HTTPException) as error:
                answer = f"answers {error.code}" if isinstance(error, HTTPError) else "does not answer"
                if time.monotonic() >= deadline:
                    after = f"{answer} after `vllm_server_timeout={self.server_timeout:g}` seconds"
                    raise GenerationServerError(self._complaint(after)) from error
            time.sleep(min(2.0, max(0.0, deadline - time.monotonic())))

    def _ping(self) -> None:
        if self.accelerator.is_main_process:
            # Not longer than the time limit with all attempts of the client.
            timeout = self.server_timeout / _ATTEMPTS
            self.vllm_client.session.get(f"{self.vllm_client.base_url}/health", timeout=timeout).raise_for_status()


class AdapterVLLMGeneration(WatchedVLLMGeneration):
    """
    TRL's vLLM generation with the adapter as the only thing that is synchronised.

    The engine reads the base from `model.name_or_path`.

    Args:
        folder (`Path`):
            Folder through which adapters are handed over; in server mode one that the server sees as well.
        kwargs:
            Arguments of [`~trl.generation.vllm_generation.VLLMGeneration`].
    """

    # No weights travel, so no channel for them is opened.
    sends_weights = False

    def __init__(self, *, folder: Path, **kwargs: Any):
        self.folder = folder.resolve()
        super().__init__(**kwargs)

    def _init_vllm(self) -> None:
        model: PeftModel = self.model
        self.engine_rank = engine_rank(model.peft_config[model.active_adapter])
        _check_quantization(model)
        if self.mode == "server":
            super()._init_vllm()
            self._on_all_processes(self._check_base)
            # A server that takes no adapters is told of now, not after the first step.
            self.sync_weights()
            return
        if _is_four_bit(model):
            _check_engine_quantizes()
        self.folder = self.folder / str(self.accelerator.process_index)
        engine = getattr(vllm_generation, "LLM", None)
        options = {"enable_lora": True, "max_lora_rank": self.engine_rank}
        with _replaced(vllm_generation, "LLM", functools.partial(engine, **options)) if engine else nullcontext():
            super()._init_vllm()
        self.llm.generate = functools.partial(self.llm.generate, lora_request=self._request())

    def sync_weights(self) -> None:
        """
        Hand the current adapter over to the engine and drop what it has cached under the previous one.

        Raises:
            `GenerationServerError`: If the server fails or takes no adapters.
            `GenerationError`: If the adapter cannot be written to the folder.
        """
        if self.mode == "server":
            self._on_all_processes(self._hand_over)
            return
        self._on_all_processes(self._save_adapter)
        # Engines that share a model meet in it.
        self.llm.llm_engine.add_lora(self._request(load_inplace=True))
        self.llm.reset_prefix_cache()

    def _hand_over(self) -> None:
        if self.accelerator.is_main_process:
            self._save_adapter()
            client = self.vllm_client
            # Without `load_inplace` the server would keep an adapter that it knows by this name.
            response = client.session.post(
                f"{client.base_url}/v1/load_lora_adapter",
                json={"lora_name": ADAPTER_NAME, "lora_path": str(self.folder), "load_inplace": True},
                timeout=self.server_timeout,
            )
            if response.status_code != 200:
                answer = f"did not take the adapter in {self.folder} ({response.status_code}: {response.text.strip()})"
                raise GenerationServerError(
                    f"{self._complaint(answer)} It must see that folder. With `vllm_lora_sync=False` merged models "
                    "are sent instead."
                )
            client.model = ADAPTER_NAME
            client.reset_prefix_cache()
            client.raise_failure()

    def _check_base(self) -> None:
        if not self.accelerator.is_main_process:
            return
        served = self.vllm_client.get_server_info()["model_config"]
        if _is_four_bit(self.model) and served["quantization"] != "bitsandbytes":
            raise GenerationServerError(
                self._complaint(f"has quantization={served['quantization']}, but the trained base is in 4 bits")
            )
        if Path(served["model"]).name != Path(self.model.name_or_path).name:
            warn_user(
                f"The vLLM server at {self._url} has {served['model']} as its base, but the adapter is trained over "
                f"{self.model.name_or_path}: unless both hold the same weights, it samples from another policy."
            )

    def _start_command(self) -> str:
        quantization = "--quantization bitsandbytes " if _is_four_bit(self.model) else ""
        return (
            f"VLLM_ALLOW_RUNTIME_LORA_UPDATING=True VLLM_SERVER_DEV_MODE=1 vllm serve {self.model.name_or_path} "
            f"{quantization}--enable-lora --max-lora-rank {self.engine_rank} --logprobs-mode processed_logprobs"
        )

    def _save_adapter(self) -> None:
        try:
            self.model.save_pretrained(self.folder, selected_adapters=[self.model.active_adapter])
        except (OSError, SafetensorError) as error:
            # Nor would a checkpoint find room, so none is tried.
            reason = getattr(error, "strerror", None) or str(error)
            raise GenerationError(f"The adapter could not be written to {self.folder}: {reason}.") from error

    def _request(self, load_inplace: bool = False) -> Any:
        from vllm.lora.request import LoRARequest

        return LoRARequest(ADAPTER_NAME, ADAPTER_ID, str(self.folder), load_inplace=load_inplace)


def _is_four_bit(model: Any) -> bool:
    return bool(getattr(model, "is_loaded_in_4bit", False))


def _check_quantization(model: Any) -> None:
    """Refuse a 4-bit base that vLLM, which quantises it anew from the checkpoint, would quantise otherwise."""
    if not _is_four_bit(model) or model.hf_quantizer.pre_quantized:
        return
    config = model.hf_quantizer.quantization_config
    differs = None
    if config.bnb_4bit_quant_type != "nf4":
        differs = f"`bnb_4bit_quant_type={config.bnb_4bit_quant_type!r}`"
    elif set(config.llm_int8_skip_modules or ()) - {"lm_head"}:
        differs = f"`llm_int8_skip_modules={config.llm_int8_skip_modules!r}`"
    if differs is not None:
        raise ValueError(
            f"vLLM quantises a base to NF4 in all its linear layers but `lm_head`, so with {differs} it would sample "
            "from another policy. Set `bnb_4bit_quant_type='nf4'` and skip no other layer, or train over a checkpoint "
            "that is saved in 4 bits."
        )


def _check_engine_quantizes() -> None:
    from vllm.model_executor.layers.quantization import QUANTIZATION_METHODS
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    if "bitsandbytes" not in QUANTIZATION_METHODS:
        raise ImportError(
            "The base is in 4 bits, and this vLLM (as every one from 0.28) runs bitsandbytes only with its plugin: "
            "`pip install vllm-bnb-plugin`."
        )
