# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Success of a policy on a set of prompts, its distance from another policy, and the length of its completions."""

from dataclasses import dataclass

import torch
from datasets import Dataset
from results import Estimate as Estimate
from task import MAX_COMPLETION_LENGTH, correct
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from trl_grpo_variants.objective.rewards import success_at


@dataclass(frozen=True)
class Evaluation:
    """
    What sampling from a policy shows.

    Parameters:
        success (`list[float]`):
            Share of right completions, for each prompt.
        kl (`float`):
            Mean KL of the policy to the starting policy, in nats per completion.
        length (`float`):
            Mean number of tokens of a completion.
    """

    success: list[float]
    kl: float
    length: float


@torch.no_grad()
def evaluate(
    model: PreTrainedModel,
    start: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast,
    dataset: Dataset,
    samples: int,
    seed: int = 0,
    max_new_tokens: int = MAX_COMPLETION_LENGTH,
) -> Evaluation:
    """
    Sample completions at temperature 1, check them, and measure how far the policy has moved.

    Args:
        model ([`~transformers.PreTrainedModel`]):
            Policy.
        start ([`~transformers.PreTrainedModel`]):
            Policy that the KL is measured to.
        tokenizer ([`~transformers.PreTrainedTokenizerFast`]):
            Tokenizer of both.
        dataset ([`~datasets.Dataset`]):
            Columns `prompt` and `answer`.
        samples (`int`):
            Completions per prompt; `0` stands for the greedy one.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the sampling. The global random state is left as it was, so that watching a run does not change it.
        max_new_tokens (`int`, *optional*, defaults to that of sorting):
            Longest completion.

    Returns:
        [`Evaluation`]:
            Success per prompt, KL and length.
    """
    prompts = tokenizer(list(dataset["prompt"]), padding=True, padding_side="left", return_tensors="pt").to(
        model.device
    )
    per_prompt = max(samples, 1)
    choice = {"do_sample": True, "temperature": 1.0, "top_k": 0} if samples else {"do_sample": False}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sequences = model.generate(
            input_ids=prompts["input_ids"],
            attention_mask=prompts["attention_mask"],
            num_return_sequences=per_prompt,
            max_new_tokens=max_new_tokens,
            **choice,
        )

    prompt_length = prompts["input_ids"].shape[1]
    completions = sequences[:, prompt_length:]
    is_eos = completions == tokenizer.eos_token_id
    mask = is_eos.cumsum(dim=1) - is_eos.int() == 0

    answers = [answer for answer in dataset["answer"] for _ in range(per_prompt)]
    rewards = correct(tokenizer.batch_decode(completions, skip_special_tokens=True), answers)
    success = torch.tensor(rewards).view(-1, per_prompt).mean(dim=1)

    # The exact KL of each next-token distribution along sampled completions: far less noisy than the log-ratio itself.
    attention_mask = torch.cat([prompts["attention_mask"].repeat_interleave(per_prompt, dim=0), mask.long()], dim=1)
    logps, start_logps = (
        m(input_ids=sequences, attention_mask=attention_mask).logits[:, prompt_length - 1 : -1].log_softmax(dim=-1)
        for m in (model, start)
    )
    kl = ((logps.exp() * (logps - start_logps)).sum(dim=-1) * mask).sum(dim=1).mean()
    return Evaluation(success=success.tolist(), kl=kl.item(), length=mask.sum(dim=1).float().mean().item())


def pass_at(k: int, success: list[float], samples: int) -> float:
    """
    Mean over prompts of the probability that at least one of k samples is right, without bias.

    Args:
        k (`int`):
            Number of samples that one may try.
        success (`list[float]`):
            Share of right samples, for each prompt.
        samples (`int`):
            Samples that were drawn per prompt, at least k.

    Returns:
        `float`:
            pass@k.
    """
    right = (torch.tensor(success, dtype=torch.float64) * samples).round()
    return success_at(right, torch.full_like(right, samples), k).mean().item()
