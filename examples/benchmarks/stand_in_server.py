# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
A stand-in for a vLLM server, in a process of its own: it answers TRL's client over HTTP as one would.

It takes adapters, samples from the policy with transformers or makes up completions, and may take as long as it is told
to, without a use of the processor.
"""

import json
import multiprocessing
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


# Takes prompts, completions per prompt and their longest length; gives completions and their log-probs.
Sampler = Callable[[list[list[int]], int, int], tuple[list[list[int]], list[list[float]]]]


def made_up(prompts: list[list[int]], n: int, longest: int) -> tuple[list[list[int]], list[list[float]]]:
    """Random tokens whose number has a long tail."""
    rng = random.Random(str(prompts))
    lengths = [min(longest, 1 + int(rng.expovariate(2.3 / longest))) for _ in range(len(prompts) * n)]
    completions = [[rng.randrange(2, 1000) for _ in range(length)] for length in lengths]
    return completions, [[-1.0] * length for length in lengths]


class Policy:
    """Samples from a policy, with the adapter that it has been given last."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        # What the trainer leaves of the processor.
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def load(self, adapter: str) -> None:
        from peft import PeftModel

        base = self.model.unload() if isinstance(self.model, PeftModel) else self.model
        self.model = PeftModel.from_pretrained(base, adapter).eval()

    def __call__(self, prompts: list[list[int]], n: int, longest: int) -> tuple[list[list[int]], list[list[float]]]:
        import torch

        end, padding = self.tokenizer.eos_token_id, self.tokenizer.pad_token_id
        width = max(map(len, prompts))
        ids = torch.tensor([[padding] * (width - len(ids)) + ids for ids in prompts for _ in range(n)])
        output = self.model.generate(
            input_ids=ids,
            attention_mask=(
                torch.arange(width) >= width - torch.tensor([[len(p)] for p in prompts for _ in range(n)])
            ),
            do_sample=True,
            top_k=0,
            max_new_tokens=longest,
            eos_token_id=end,
            pad_token_id=padding,
            output_logits=True,
            return_dict_in_generate=True,
        )
        drawn = output.sequences[:, width:]
        logps = torch.stack(output.logits, dim=1).float().log_softmax(-1).gather(2, drawn.unsqueeze(2)).squeeze(2)
        lengths = [row.index(end) + 1 if end in row else len(row) for row in drawn.tolist()]
        return (
            [row[:length] for row, length in zip(drawn.tolist(), lengths, strict=True)],
            [row[:length] for row, length in zip(logps.tolist(), lengths, strict=True)],
        )


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    name = ""
    sampler: Sampler = staticmethod(made_up)
    pace = 0.0

    def do_GET(self) -> None:
        served = {"model": self.name, "quantization": None, "logprobs_mode": "processed_logprobs"}
        self._answer({"data": [{"id": self.name}], "vllm_config": {"model_config": served}})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"] or 0)) or "{}")
        if self.path == "/v1/load_lora_adapter" and isinstance(self.sampler, Policy):
            self.sampler.load(asked["lora_path"])
        self._answer({"choices": self._choices(asked)} if self.path == "/v1/completions" else {})

    def _choices(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        begun = time.monotonic()
        prompts, n = asked["prompt"], asked["n"]
        completions, logps = self.sampler(prompts, n, asked["max_tokens"])
        time.sleep(max(0.0, begun + type(self).pace - time.monotonic()))
        return [
            {
                "prompt_token_ids": prompts[index // n],
                "token_ids": ids,
                "logprobs": {
                    "tokens": [f"token_id:{token}" for token in ids],
                    "token_logprobs": logps[index],
                    "top_logprobs": [None] * len(ids),
                },
            }
            for index, ids in enumerate(completions)
        ]

    def _answer(self, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


def _serve(name: str, policy: Path | None, pace: float, port: Any) -> None:
    _Handler.name, _Handler.pace = name, pace
    if policy is not None:
        _Handler.sampler = Policy(policy)
    # A client keeps its connection.
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    port.send(server.server_port)
    server.serve_forever()


@contextmanager
def standing_in(name: str, *, policy: Path | None = None, pace: float = 0.0) -> Iterator[str]:
    """
    A server that is up, and its address.

    Args:
        name (`str`):
            Name of the model that it says it has.
        policy (`Path`, *optional*):
            Folder of the policy to sample from; without one completions are made up.
        pace (`float`, *optional*, defaults to `0.0`):
            Seconds that a rollout takes at least.
    """
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(name, policy, pace, sender), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{receiver.recv()}"
    finally:
        process.terminate()
        process.join()
