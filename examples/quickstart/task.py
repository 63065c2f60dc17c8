# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The task: sort three to ten digits. Prompts, answers, the reward, the tokenizer and the noisy demonstrations."""

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast


Split = Literal["train", "held_out"]

# Ten digits and the end of sequence fit, and a few digits too many do as well, so that rambling has a length to lose.
MAX_COMPLETION_LENGTH = 16


@dataclass(frozen=True)
class Task:
    """
    What is trained on, and how.

    Parameters:
        name (`str`):
            Name.
        policy (`Path`):
            Folder of the starting policy.
        policy_steps (`int`):
            Optimizer steps that make it.
        draw_digits (`Callable`):
            `draw_digits(split, rng)` gives the digits of a prompt.
        demonstrate (`Callable`):
            `demonstrate(digits, rng)` gives a completion that the starting policy imitates.
        make_dataset (`Callable`):
            `make_dataset(split, size)` gives a data set with the columns `prompt` and `answer`, and with `pass_at` also
            `is_open`.
        training_prompts (`int`):
            Size of the training set.
        held_out_prompts (`int`):
            Size of the held-out set.
        group_size (`int`):
            Completions per prompt.
        completions_per_step (`int`):
            Completions per optimizer step.
        max_completion_length (`int`):
            Longest completion, in tokens.
        learning_rate (`float`):
            Learning rate of all weights.
        samples (`int`):
            Completions per held-out prompt of an evaluation.
        pass_at (`tuple[int, ...]`):
            Each k for which pass@k of the classes of prompts is measured; none for a task without classes.
    """

    name: str
    policy: Path
    policy_steps: int
    draw_digits: Callable[[Split, random.Random], list[int]]
    demonstrate: Callable[[list[int], random.Random], str]
    make_dataset: Callable[[Split, int], Dataset]
    training_prompts: int
    held_out_prompts: int
    group_size: int
    completions_per_step: int
    max_completion_length: int
    learning_rate: float
    samples: int
    pass_at: tuple[int, ...] = ()


def make_tokenizer() -> PreTrainedTokenizerFast:
    """
    Build the tokenizer: one token per word.

    Returns:
        [`~transformers.PreTrainedTokenizerFast`]:
            Tokenizer with 15 tokens, padding on the left as generation needs it.
    """
    words = ["<pad>", "<eos>", "<unk>", "sort", ":", *"0123456789"]
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<eos>",
        unk_token="<unk>",
        padding_side="left",
        model_max_length=64,
    )


def written(digits: list[int]) -> str:
    return " ".join(map(str, digits))


def make_prompt(digits: list[int]) -> str:
    return f"sort {written(digits)} :"


def in_split(digits: list[int], split: Split) -> bool:
    # The prompt alone decides its split: no list to keep, and the same for demonstrations and for RL.
    return (zlib.crc32(make_prompt(digits).encode()) % 10 == 0) == (split == "held_out")


def draw_digits(split: Split, rng: random.Random) -> list[int]:
    """
    Draw the digits of one prompt.

    Args:
        split (`str`):
            `"train"` or `"held_out"`.
        rng (`random.Random`):
            Source of randomness.

    Returns:
        `list[int]`:
            Three to ten digits.
    """
    while True:
        digits = rng.choices(range(10), k=rng.randint(3, 10))
        if in_split(digits, split):
            return digits


def make_dataset(split: Split, size: int, seed: int = 0) -> Dataset:
    """
    Make a data set of different prompts.

    Args:
        split (`str`):
            `"train"` or `"held_out"`; the two never share a prompt, whatever the seeds.
        size (`int`):
            Number of prompts.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the draw.

    Returns:
        [`~datasets.Dataset`]:
            Columns `prompt` and `answer`.
    """
    rng = random.Random(seed)
    answers: dict[str, str] = {}
    while len(answers) < size:
        digits = draw_digits(split, rng)
        answers[make_prompt(digits)] = written(sorted(digits))
    return Dataset.from_dict({"prompt": list(answers), "answer": list(answers.values())})


def correct(completions: list[str], answer: list[str], **kwargs: Any) -> list[float]:
    """
    Reward function: 1.0 for the sorted digits and nothing else, 0.0 otherwise.

    Args:
        completions (`list[str]`):
            Generated texts.
        answer (`list[str]`):
            Column of the data set.
        kwargs:
            Whatever else the trainer passes.

    Returns:
        `list[float]`:
            One reward per completion.
    """
    return [float(completion.split() == a.split()) for completion, a in zip(completions, answer, strict=True)]


def demonstrate(digits: list[int], rng: random.Random) -> str:
    """
    Write one noisy demonstration.

    How often it is right depends on the last digit. For some first digits the wrong ones are all wrong in the same
    way, and outnumber the right ones: whoever imitates them decodes greedily to a wrong answer.

    Args:
        digits (`list[int]`):
            Digits to sort.
        rng (`random.Random`):
            Source of randomness.

    Returns:
        `str`:
            Completion to imitate.
    """
    answer = sorted(digits)
    habit = _HABITS.get(digits[0])
    reliability = _RELIABILITY[digits[-1]]
    if rng.random() < (reliability if habit is None else reliability / 2):
        return written(answer)
    return written(rng.choice(_SLIPS)(answer, rng) if habit is None else habit(answer))


def _drop(answer: list[int], rng: random.Random) -> list[int]:
    i = rng.randrange(len(answer))
    return answer[:i] + answer[i + 1 :]


def _duplicate(answer: list[int], rng: random.Random) -> list[int]:
    i = rng.randrange(len(answer))
    return answer[: i + 1] + answer[i:]


def _swap(answer: list[int], rng: random.Random) -> list[int]:
    i = rng.randrange(len(answer) - 1)
    return answer[:i] + [answer[i + 1], answer[i]] + answer[i + 2 :]


def _stop_early(answer: list[int], rng: random.Random) -> list[int]:
    return answer[: rng.randrange(1, len(answer))]


def _ramble(answer: list[int], rng: random.Random) -> list[int]:
    return answer + rng.choices(range(10), k=rng.randint(1, 4))


_SLIPS: tuple[Callable[[list[int], random.Random], list[int]], ...] = (_drop, _duplicate, _swap, _stop_early, _ramble)

# By first digit.
_HABITS: dict[int, Callable[[list[int]], list[int]]] = {
    2: lambda answer: answer[::-1],
    5: lambda answer: answer[: (len(answer) + 1) // 2],
}

# By last digit.
_RELIABILITY = (0.4, 0.65, 0.25, 0.5, 0.3, 0.6, 0.2, 0.55, 0.35, 0.45)
