# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What `--help` says of the fields of a configuration: the docstring, and the values that are known."""

import re
from types import MappingProxyType
from typing import Any

from .combinations import CHOICES
from .fields import TRL_DEFAULTS
from .objective.choice import AXES


def documented(cls: Any) -> Any:
    """Give each field of a configuration, as its help, what the docstring says of it."""
    text = re.sub(r"\[([^]]*)\]\(http[^)]*\)|\[`?~?([\w.]+)`?\]", r"\1\2", cls.__doc__ or "").replace("`", "'")
    for name, meaning in re.findall(r"^        (\w+) \('.*\):\n((?: {12}.*\n)+)", text, re.MULTILINE):
        sentences = [" ".join(meaning.split())]
        if name in TRL_DEFAULTS:
            sentences.append("If not set, the variant's value.")
        if name in (choices := CHOICES | {axis: tuple(parts) for axis, (parts, _) in AXES.items()}):
            sentences.append(f"Known values: {', '.join(map(repr, choices[name]))}.")
        field = cls.__dataclass_fields__[name]
        field.metadata = MappingProxyType({"help": " ".join(sentences).replace("%", "%%")})
    return cls
