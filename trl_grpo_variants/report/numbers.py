# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Numbers and texts of a run, as the page writes them. A number and its unit never break apart."""

import math
from itertools import accumulate

from markupsafe import escape


SPACE = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_ORDINALS = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()


def success(share: float) -> str:
    """A share of successes."""
    return f"{share:.2f}"


def difference(value: float, digits: int = 2) -> str:
    """With its sign; what is rounded to 0 has none."""
    text = f"{abs(value):.{digits}f}"
    return text if float(text) == 0.0 else f"{'+' if value > 0 else MINUS}{text}"


def interval(low: float, high: float) -> str:
    """The ends of an interval of a difference."""
    return f"[{difference(low)}, {difference(high)}]"


def percent(share: float) -> str:
    """Whole percent, with a decimal below 10 of them."""
    return f"{bare_percent(share)}{SPACE}%"


def bare_percent(share: float) -> str:
    """The same without its unit."""
    hundredths = 100.0 * share
    if 0.0 < hundredths < 0.05:
        return "<0.1"
    return f"{hundredths:.1f}" if 0.0 < hundredths < 9.95 else f"{hundredths:.0f}"


def count(number: float) -> str:
    """A whole number, with commas."""
    return f"{number:,.0f}".replace("-", MINUS)


def quantity(value: float) -> str:
    """A number of any size."""
    size = abs(value)
    if not math.isfinite(value):
        return "not finite"
    if size >= 100.0 or value == 0.0:
        return count(value) if size < 1e7 else _power(value)
    if size < 1e-3:
        return _power(value)
    digits = 1 if size >= 10.0 else 2 if size >= 0.0995 else 1 - math.floor(math.log10(size))
    return f"{value:.{digits}f}".replace("-", MINUS)


def _power(value: float) -> str:
    digits, exponent = f"{value:.1e}".split("e")
    return f"{float(digits):g}{SPACE}×{SPACE}10{str(int(exponent)).translate(_SUPERSCRIPTS)}".replace("-", MINUS)


def ordinal(number: int) -> str:
    """The word for a place in a row."""
    return _ORDINALS[number - 1] if number <= len(_ORDINALS) else nth(number)


def nth(number: int) -> str:
    """The same in figures."""
    ending = "th" if number // 10 % 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def plural(number: int, noun: str) -> str:
    """A count of things."""
    return f"{count(number)}{SPACE}{noun}{'' if number == 1 else 's'}"


def beginning(text: str, most: int) -> str:
    """As much of a text as takes at most so many bytes of a page, so that no text makes a page large."""
    sizes = accumulate(len(escape(letter).encode()) for letter in text[:most])
    return text[: sum(size <= most for size in sizes)]
