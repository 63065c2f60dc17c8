# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""A stand-in for a vLLM server that holds the weights it was given and samples from them."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from .server_worker import ADDRESS, StandIn


SERVED: dict[str, Any] = {"use_vllm": True, "vllm_mode": "server", "vllm_server_base_url": ADDRESS}
# One request alone decides what is drawn.
SEEDED = SERVED | {"generation_kwargs": {"seed": 3}}


class PolicyServer(StandIn):
    """Keeps, of each request, the prompts and the weights that it was answered with."""

    def __init__(self, policy_path: str, fails_in: str | None = None) -> None:
        super().__init__(Path(policy_path), fails_in)
        self.policy_path = policy_path
        self.model, self.adapter = self.fresh(), None
        self.asked: list[tuple[list[list[int]], dict[str, torch.Tensor]]] = []

    def fresh(self) -> Any:
        return AutoModelForCausalLM.from_pretrained(self.policy_path, dtype=torch.float32)

    def send(self, metadata: Any, named_params: Any) -> None:
        self.model.load_state_dict({name: weights.detach().clone() for name, weights in named_params}, strict=False)

    def post(self, *args: Any, json: dict[str, Any], **kwargs: Any) -> Any:
        if self.adapter is None:
            # Where the trainer waits: a server draws from no numbers of its.
            with torch.random.fork_rng(devices=[]):
                self.model = PeftModel.from_pretrained(self.fresh(), json["lora_path"])
        self.adapter = json["lora_path"]
        return super().post()

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().clone() for name, value in self.model.state_dict().items()}

    @torch.no_grad()
    def generate(
        self, prompts: list[list[int]], n: int, max_tokens: int, generation_kwargs: dict[str, Any], **_: Any
    ) -> dict[str, Any]:
        if self.adapter is not None:
            # As vLLM, which reads it again for each request.
            set_peft_model_state_dict(self.model, load_file(Path(self.adapter) / "adapter_model.safetensors"))
        self.asked.append((prompts, self.weights()))
        if self.fails("generating"):
            raise ConnectionError("reset")
        self.rollouts += 1
        generator = torch.Generator().manual_seed(generation_kwargs.get("seed", len(self.asked)))
        completion_ids, logprobs = [], []
        for prompt in prompts:
            ids = torch.tensor([prompt] * n)
            scores = torch.zeros(n, 0)
            for _ in range(max_tokens):
                logps = self.model(input_ids=ids).logits[:, -1].float().log_softmax(-1)
                drawn = torch.multinomial(logps.exp(), 1, generator=generator)
                ids, scores = torch.cat([ids, drawn], 1), torch.cat([scores, logps.gather(1, drawn)], 1)
            for row, score in zip(ids[:, len(prompt) :].tolist(), scores.tolist(), strict=True):
                length = row.index(1) + 1 if 1 in row else max_tokens
                completion_ids.append(row[:length])
                logprobs.append([[value] for value in score[:length]])
        tokens = [[[token] for token in completion] for completion in completion_ids]
        answer = {"completion_ids": completion_ids, "logprobs": logprobs, "logprob_token_ids": tokens}
        return {"prompt_ids": prompts} | answer
