# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""TRL's client of a vLLM server, with errors that every process is told of."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

from trl.generation.vllm_client import VLLMClient


# What the network raises. A full disk is an `OSError` too, and so is all that the client's `requests` raises.
NETWORK_ERRORS: tuple[type[Exception], ...] = (ConnectionError, TimeoutError, HTTPException, URLError)
try:
    from requests import RequestException
except ImportError:
    # Then TRL has no client.
    pass
else:
    NETWORK_ERRORS += (RequestException,)
# Seconds between two looks at a server that is working, and seconds after which the client has given up by itself.
LOOK_EVERY, GIVES_UP_AFTER = 5.0, 120.0


class GenerationError(RuntimeError):
    """There is no rollout, for a reason that lies outside of the run, and every process is told of it."""


class GenerationServerError(GenerationError):
    """The vLLM server is not there, has failed, or is not one that the run can use. The run is saved."""


def is_of_server(error: Exception) -> bool:
    """Whether an error that TRL's client has raised is that of a server or of the way to it."""
    # For an answer that it did not expect the client raises a bare `Exception`.
    return isinstance(error, NETWORK_ERRORS) or type(error) is Exception


def failing(error: Exception) -> str:
    """What is to be told of a server after an error, as a predicate to it."""
    if isinstance(error, NETWORK_ERRORS):
        return f"does not answer ({type(error).__name__})"
    return f"fails ({error})" if type(error) is Exception else f"fails ({type(error).__name__}: {error})"


class WatchedVLLMClient(VLLMClient):
    """
    TRL's client of a vLLM server, which keeps an error until all processes can be told of it.

    Only the main process has a client, and TRL calls it between collective operations. An error that left it there
    would leave the other processes in them. `complaint` makes a sentence of what is to be told of the server, which
    may be silent for `silence_limit` seconds while it is at work; `opens_channel` says whether weights will travel.
    """

    # What is asked in the background, and the last answer to that.
    _request: threading.Thread | None = None
    _answer: Any = None

    def __init__(
        self,
        *args: Any,
        complaint: Callable[[str], str],
        silence_limit: float,
        opens_channel: bool,
        **kwargs: Any,
    ):
        self.complaint, self.silence_limit, self.opens_channel = complaint, silence_limit, opens_channel
        self.failure: Exception | None = None
        self._attempt(super().__init__, *args, **kwargs)

    def init_communicator(self, *args: Any, **kwargs: Any) -> None:
        if self.opens_channel:
            self._attempt(super().init_communicator, *args, **kwargs)

    def image_features(self, images: list[Any], *args: Any, **kwargs: Any) -> Any:
        """As in TRL; no features after an error."""
        return self._attempt(super().image_features, images, *args, **kwargs) or [None] * len(images)

    def generate(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """As in TRL; after an error, something that fails in each process to which TRL sends it."""
        completions = self._attempt(super().generate, *args, **kwargs)
        if self.failure is not None:
            names = ("completion_ids", "logprobs", "logprob_token_ids")
            return {"prompt_ids": _Failure(self.complaint(failing(self.failure))), **dict.fromkeys(names)}
        return completions

    def ask(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Begin in the background to `generate` what [`answer`] will give; no completions for now."""
        self._finish_request()

        def request() -> None:
            self._answer = WatchedVLLMClient.generate(self, *args, **kwargs)

        self._request = threading.Thread(target=request, daemon=True)
        self._request.start()
        return {"prompt_ids": [], "completion_ids": [], "logprobs": None}

    def answer(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What has been asked for last, for the same arguments, as soon as it is there."""
        self._finish_request()
        return self._answer

    def update_named_params(self, metadata: Any, named_params: Any) -> None:
        """As in TRL; after an error, the rest of the weights is gathered and not sent."""
        self._attempt(super().update_named_params, metadata, named_params)
        for _ in named_params:
            pass

    def update_named_param(self, name: str, weights: Any) -> None:
        """As in TRL before 1.14, which sends one tensor at a time."""
        self._attempt(super().update_named_param, name, weights)

    def reset_prefix_cache(self) -> None:
        self._attempt(super().reset_prefix_cache)

    def raise_failure(self) -> None:
        """Raise the error that was kept, if there is one, and keep it no longer; not before the server is idle."""
        self._finish_request()
        failure, self.failure = self.failure, None
        if failure is not None:
            raise GenerationServerError(self.complaint(failing(failure))) from failure

    def _finish_request(self) -> None:
        """Wait for what is asked in the background, but for that itself: the server does one thing at a time."""
        if self._request is not None and self._request is not threading.current_thread():
            self._request.join()
            self._request = None

    def _attempt(self, action: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        self._finish_request()
        if self.failure is not None:
            return None
        try:
            with self._watched():
                return action(*args, **kwargs)
        except Exception as error:
            self.failure = error
            return None

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """End this process if the server falls silent: neither a transfer nor a request ends by itself then."""
        done = threading.Event()

        def watch() -> None:
            heard = time.monotonic()
            while not done.wait(LOOK_EVERY):
                try:
                    urlopen(f"{self.base_url}/health", timeout=LOOK_EVERY).close()
                    heard = time.monotonic()
                except (OSError, HTTPException):
                    if time.monotonic() - heard > self.silence_limit and not done.is_set():
                        sentence = self.complaint(f"has been silent for {self.silence_limit:g} seconds")
                        print(f"GenerationServerError: {sentence}", file=sys.stderr, flush=True)  # noqa: T201
                        os._exit(1)

        threading.Thread(target=watch, daemon=True).start()
        try:
            yield
        finally:
            done.set()


class _Failure:
    """Stands in for prompts that a server did not answer, and fails wherever they are looked at."""

    def __init__(self, sentence: str):
        self.sentence = sentence

    def __iter__(self) -> Iterator[list[int]]:
        raise GenerationServerError(self.sentence)
