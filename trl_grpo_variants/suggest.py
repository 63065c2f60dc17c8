# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""The known name that a mistyped one may stand for. No torch, no TRL."""

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(name: str, known: Iterable[str], quote: str = "'") -> str:
    """
    End of a message about an unknown name: `"; did you mean 'NAME'?"` with the nearest known one, or `"."`.

    Case, surrounding spaces, and hyphens in the place of underscores count for nothing in the comparison.
    """
    by_key = {_key(candidate): candidate for candidate in known}
    # A name that it begins means more than one that is as long.
    nearest = [key for key in by_key if f"{key}_".startswith(f"{_key(name)}_")]
    nearest = nearest or get_close_matches(_key(name), by_key, n=1, cutoff=0.5)
    return f"; did you mean {quote}{by_key[nearest[0]]}{quote}?" if nearest else "."


def _key(name: str) -> str:
    return name.strip().lower().replace("-", "_")
