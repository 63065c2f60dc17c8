# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Fields of a configuration with what `--help` says of them: those of TRL that a variant may set, and the new ones."""

import re
from dataclasses import field
from types import MappingProxyType
from typing import Any

from .checks import UNSET
from .combinations import CHOICES
from .objective.choice import AXES
from .resolution import TRL_DEFAULTS


def opened(field_of_trl: Any) -> Any:
    """A field of TRL's with a default that stands for the variant's value, or TRL's."""
    sentences = field_of_trl.metadata["help"].replace("%%", "%"), "If not set, the variant's value, or TRL's default,"
    help_text = f"{' '.join(sentences)} `{field_of_trl.default!r}`.".replace("%", "%%").replace("`", "'")
    return field_of_trl.name, field_of_trl.type, field(default=UNSET, metadata={"help": help_text})


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
