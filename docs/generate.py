# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Writes what the documentation tells of the methods, from their descriptions:

    python docs/generate.py

A page of `methods/` per axis, the table of all variants in `variants.md`, and the names in the README, each between
two markers. A test compares.
"""

import re
import textwrap
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from trl_grpo_variants import get_variant, list_variants
from trl_grpo_variants.cli import main as run_command
from trl_grpo_variants.fields import OWN_DEFAULTS, TRL_DEFAULTS
from trl_grpo_variants.objective.choice import AXES
from trl_grpo_variants.objective.divergences import DIVERGENCES
from trl_grpo_variants.objective.terms import Advantage, Divergence, Part, PolicyTerm, Setting


ROOT = Path(__file__).resolve().parents[1]
MARKERS = "<!-- generated: begin, by `python docs/generate.py` -->", "<!-- generated: end -->"

# Field that chooses a part, and the parts, by the name of the page.
PAGES = {
    "advantages": ("advantage", AXES["advantage"][0]),
    "token_advantages": ("token_advantage", AXES["token_advantage"][0]),
    "policy_terms": ("policy_loss", AXES["policy_loss"][0]),
    "kl_terms": ("kl_estimator", DIVERGENCES),
}


def link(variant: str) -> str:
    paper = get_variant(variant).paper.id
    return f"[`{variant}`](https://arxiv.org/abs/{paper})"


def names_of_variants() -> str:
    """All variants by what makes them, each with its paper."""
    axes: dict[str, list[str]] = {}
    for name in list_variants():
        axes.setdefault(get_variant(name).axis, []).append(name)
    rows = [f"| {axis} | {', '.join(map(link, names))} |" for axis, names in axes.items()]
    return "\n".join(["| made by | variants |", "| --- | --- |", *rows])


def table_of_variants() -> str:
    with redirect_stdout(StringIO()) as printed:
        run_command(["list", "--markdown"])
    return printed.getvalue().strip()


def summary(part: Part) -> str:
    """The first paragraph of a function's docstring, without links into the code."""
    text = (part.function.__doc__ or "").strip() if part.function is not None else "Computed by TRL."
    paragraph = " ".join(text.partition("\n\n")[0].split())
    return re.sub(r"\[`~?([\w.]+)`\](?!\()", r"`\1`", paragraph)


def span(setting: Setting) -> str:
    """Values that a setting may have."""
    if setting.choices:
        return "one of " + ", ".join(f"`{choice}`" for choice in setting.choices)
    bounds = (("at least", setting.at_least), ("above", setting.greater_than), ("at most", setting.at_most))
    said = ["a whole number"] if setting.is_whole else []
    said += [f"{word} {bound:g}" for word, bound in bounds if bound is not None]
    said += [f"below `{name}`" for name in setting.below] + [f"at most `{name}`" for name in setting.within]
    return ", ".join(said) or "any number"


def default(part: Part, setting: Setting) -> str:
    """Value of a setting where the part is named and nothing else is given."""
    if part.is_own(setting):
        return f"`{part.keywords()[setting.name]}`"
    fields = TRL_DEFAULTS | OWN_DEFAULTS | dict(part.fields or {})
    value = fields.get(setting.name)
    return "none" if value is None else f"`{value}`"


def wrapped(text: str) -> str:
    """A paragraph or a point in lines that a reader of the file can take in."""
    indent = "  " if text.startswith("- ") else ""
    return textwrap.fill(text, 119, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def settings_table(part: Part) -> Iterator[str]:
    if not part.settings:
        return
    yield from ("| setting | given as | allowed | default |", "| --- | --- | --- | --- |")
    for setting in part.settings:
        where = f"entry of `{part.kwargs_field}`" if part.is_own(setting) else "field"
        yield f"| `{setting.name}` | {where} | {span(setting)} | {default(part, setting)} |"
    yield ""


def properties(part: Part, field: str) -> Iterator[str]:
    """What else a description says, one point each."""
    if part.paper is not None:
        yield f"From [{part.paper.title}](https://arxiv.org/abs/{part.paper.id})."
    for symbol, meaning in part.symbols.items():
        yield f"`{symbol}`: {meaning}."
    if isinstance(part, Advantage):
        rewards = part.domain_of({}).text
        if rewards:
            yield f"Takes rewards {rewards}; any other ends the run."
        if not part.is_zero_without_variance:
            yield "Groups of equal rewards have an advantage too."
        if part.is_of_rollout:
            yield "Other groups of the rollout have a part in it."
        plan = (
            "has a signal Ω(p), from which `trl-variants plan` predicts"
            if part.omega
            else "has no signal Ω(p) to plan with"
        )
        yield f"In exact iteration it {plan}."
    if isinstance(part, PolicyTerm):
        if part.is_inert_on_policy:
            yield "With one optimizer step per rollout it is the plain policy gradient: nothing of it acts."
        if part.is_per_trajectory:
            yield "One loss per completion, not per token."
        for name, meaning in part.metrics.items():
            yield f"Logs `{name}`: {meaning}."
    if getattr(part, "relates_rows", False):
        yield "Looks at a micro-batch as a whole, so that its size has a say."
    if isinstance(part, Divergence) and part.has_ratio:
        yield "Multiplied by the ratio to the policy that made the rollout."
    if part.fields:
        chosen = ", ".join(f"`{name}: {value}`" for name, value in part.fields.items() if value is not None)
        yield f"Also chosen by {chosen}."
    used = [name for name in list_variants() if uses(name, part, field)]
    if used:
        yield f"Presets: {', '.join(f'`{name}`' for name in used)}."


def uses(variant: str, part: Part, field: str) -> bool:
    """Whether a preset is made with a part; of an estimator, whether it has a KL in the loss as well."""
    parts, settings = get_variant(variant).parts, get_variant(variant).settings
    if isinstance(part, Divergence):
        return parts.divergence is part and bool(settings.get("beta") or settings.get("mirror_beta"))
    return parts.on(field) is part


def section(part: Part, field: str) -> Iterator[str]:
    """One part of a method."""
    yield from (f"## `{part.name}`", "", wrapped(summary(part)), "")
    yield from ("```text", part.text({}), "```", "")
    yield from (wrapped(f"- {point}") for point in properties(part, field))
    yield ""
    yield from settings_table(part)


def between(text: str, content: str) -> str:
    """A text with other content between its markers."""
    before, _, rest = text.partition(MARKERS[0])
    _, _, after = rest.partition(MARKERS[1])
    if not after:
        raise ValueError(f"The lines {MARKERS[0]} and {MARKERS[1]} are needed, between which the text goes.")
    return f"{before}{MARKERS[0]}\n{content}\n{MARKERS[1]}{after}"


def pages() -> dict[Path, str]:
    """What each file with generated text should hold."""
    contents = {
        ROOT / "README.md": names_of_variants(),
        ROOT / "docs" / "variants.md": table_of_variants(),
        **{
            ROOT / "docs" / "methods" / f"{page}.md": "\n".join(
                line for part in parts.values() for line in section(part, field)
            )
            for page, (field, parts) in PAGES.items()
        },
    }
    return {path: between(path.read_text(), content) for path, content in contents.items()}


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text)
