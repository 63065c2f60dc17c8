# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""vLLM generation in which a server's failure is one error on all processes."""

import functools
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.request import urlopen

from accelerate.utils import gather_object
from trl.generation import vllm_generation
from trl.generation.vllm_generation import VLLMGeneration

from ..replaced import replaced
from .client import GIVES_UP_AFTER, GenerationError, GenerationServerError, WatchedVLLMClient, failing, is_of_server
from .eligibility import is_four_bit


# The client tries a request that often.
_ATTEMPTS = 6


class WatchedVLLMGeneration(VLLMGeneration):
    """
    TRL's vLLM generation, in which a server that fails is a [`GenerationServerError`] on every process.

    Only the main process talks to the server, and the others would wait for it for ever. With a `four_bit_refusal` a
    base in 4 bits is refused with a `ValueError` of these words.
    """

    sends_weights = True

    def __init__(self, *, four_bit_refusal: str | None = None, **kwargs: Any):
        if four_bit_refusal is not None and is_four_bit(kwargs["model"]):
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
        with replaced(vllm_generation, VLLMClient=client):
            super()._init_vllm()
        self._on_all_processes(self._raise_failure)

    def sync_weights(self) -> None:
        """Send the policy to the engine; a `GenerationServerError` if the server fails."""
        if self.mode != "server":
            super().sync_weights()
            return
        # Before the processes gather a sharded model together.
        self._on_all_processes(self._ping)
        super().sync_weights()
        self._on_all_processes(self._raise_failure)

    def generate(self, *args: Any, **kwargs: Any) -> Any:
        """As in TRL; a `GenerationServerError` if the server fails."""
        try:
            return super().generate(*args, **kwargs)
        except GenerationServerError:
            # TRL has told the other processes. This one knows the cause.
            self._raise_failure()
            raise

    def ask(self, prompts: list[list[int]], num_generations: int) -> None:
        """Let the server begin on completions of the policy that it has now. To be called in all processes."""
        with self._client_does("ask"):
            super().generate(prompts, None, num_generations)

    def answering(self) -> AbstractContextManager[None]:
        """Context in which `generate`, for the prompts of the last [`ask`], gives what the server answers to that."""
        return self._client_does("answer")

    def _client_does(self, action: str) -> AbstractContextManager[None]:
        """Context in which the client does something else where it is told to generate."""
        if not self.accelerator.is_main_process:
            return nullcontext()
        return replaced(self.vllm_client, generate=getattr(self.vllm_client, action))

    def _on_all_processes(self, action: Callable[[], None]) -> None:
        """Do something in which processes do not meet, and fail on all of them where it fails on one."""
        failure: Exception | None = None
        told: RuntimeError | None = None
        try:
            action()
        except GenerationError as error:
            failure = told = error
        except Exception as error:
            failure, told = error, RuntimeError(f"Process {self.accelerator.process_index} failed: {error!r}")
            if self.mode == "server" and is_of_server(error):
                told = GenerationServerError(self._complaint(failing(error)))
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
            self.vllm_client.raise_failure()
            # Not longer than the time limit with all attempts of the client.
            timeout = self.server_timeout / _ATTEMPTS
            self.vllm_client.session.get(f"{self.vllm_client.base_url}/health", timeout=timeout).raise_for_status()
