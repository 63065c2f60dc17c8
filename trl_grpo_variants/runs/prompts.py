# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Which prompt it is that is visited again."""

import hashlib
import json
from typing import Any


Prompt = tuple[str, str]

_SHOWN_CHARACTERS = 160
_MEDIA = ("image", "video", "audio", "input_image", "input_audio")


def identify(row: dict[str, Any]) -> Prompt:
    """
    Identify the prompt of a row of the data set by its text: images and other media in it do not count.

    A prompt is a text or a conversation; where there is none, an environment makes it from the other columns, which then
    stand for it.

    Returns:
        `tuple[str, str]`:
            Hash that is the same in every process and run, and the beginning of the text (of the last message).
    """
    prompt = row["prompt"] if "prompt" in row else dict(row)
    content = json.dumps(_without_media(prompt), sort_keys=True)
    last = prompt[-1].get("content") if isinstance(prompt, list) and prompt else prompt
    text = last if isinstance(last, str) else " ".join(_texts(_without_media(last)))
    return hashlib.sha256(content.encode()).hexdigest()[:16], " ".join(text.split())[:_SHOWN_CHARACTERS]


def _without_media(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, list | tuple):
        return [_without_media(item) for item in value]
    if isinstance(value, dict):
        kind = value.get("type")
        if isinstance(kind, str) and kind.startswith(_MEDIA):
            return {"type": kind}
        return {str(name): _without_media(item) for name, item in value.items()}
    return type(value).__name__


def _texts(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for name, item in value.items() if name != "type" for text in _texts(item)]
    if isinstance(value, list):
        return [text for item in value for text in _texts(item)]
    return [value] if isinstance(value, str) else []
