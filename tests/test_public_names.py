# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
What users build on is still there. Adding to it is fine; with a new version, record it anew:

    python -m tests.test_public_names
"""

import inspect
import json
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest
from trl import GRPOConfig

import trl_grpo_variants
from trl_grpo_variants import GRPOVariantConfig, __version__, cli, list_variants, theory
from trl_grpo_variants.objective.choice import AXES


RECORD = Path(__file__).with_name("public_names.json")


def signatures(module):
    """Arguments of all public names of a module, with their kinds and defaults."""
    found = {}
    for name in module.__all__:
        value = getattr(module, name)
        # What a dataclass of another package takes is that package's to keep; our fields are recorded below.
        callable_here = callable(value) and value is not GRPOVariantConfig
        arguments = inspect.signature(value).parameters.values() if callable_here else ()
        found[name] = {a.name: [a.kind.description, default(a.default)] for a in arguments}
    return found


def default(value):
    """A default as text, the same in every process."""
    return "required" if value is inspect.Parameter.empty else repr(value)


def config_fields():
    """Fields that TRL does not have, with their types and defaults."""
    trls = {field.name for field in fields(GRPOConfig)}
    own = [field for field in fields(GRPOVariantConfig) if field.name not in trls]
    # Parsers of arguments write other types into the fields themselves.
    hints = get_type_hints(GRPOVariantConfig)
    return {field.name: [str(hints[field.name]), repr(field.default)] for field in own}


def public():
    names = lambda values: dict.fromkeys(values, [])  # noqa: E731
    return {
        "names": signatures(trl_grpo_variants),
        "theory": signatures(theory),
        "fields": config_fields(),
        "variants": names(list_variants()),
        "commands": names(cli._FORWARDED),
        **{axis: names(parts) for axis, (parts, _) in AXES.items()},
    }


def losses(recorded, now):
    """What is recorded and no longer there, or other than it was; an argument that is new needs a default."""
    found = []
    for kind, entries in recorded.items():
        for name, entry in entries.items():
            current = now[kind].get(name)
            if current is None:
                found.append(f"{kind}: {name} is gone")
            elif kind not in ("names", "theory"):
                found += [f"{kind}: {name} is {current}, was {entry}"] if current != entry else []
            else:
                found += [
                    f"{name}({a}) is {current.get(a)}, was {was}" for a, was in entry.items() if current.get(a) != was
                ]
                new = current.keys() - entry.keys()
                found += [f"{name}({a}) is new and required" for a in new if current[a][1] == "required"]
                if [a for a in current if a in entry] != [a for a in entry if a in current]:
                    found.append(f"{name} takes its arguments in another order")
    return found


def test_everything_that_is_recorded_is_still_there():
    assert losses(json.loads(RECORD.read_text())["public"], public()) == []


def test_the_record_is_of_this_version():
    assert json.loads(RECORD.read_text())["version"] == __version__


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda now: now["names"].pop("register"), ["names: register is gone"]),
        (lambda now: now["theory"]["omega"].pop("p"), ["omega(p) is None"]),
        (lambda now: now["theory"]["omega"].update(q=["keyword-only", "required"]), ["omega(q) is new and required"]),
        (lambda now: now["theory"]["omega"].update(q=["keyword-only", "1"]), []),
        (lambda now: now["fields"].update(mirror_beta=["float", "0.5"]), ["fields: mirror_beta is ['float', '0.5']"]),
        (lambda now: now["variants"].pop("dual"), ["variants: dual is gone"]),
        (lambda now: now["variants"].update(newer=[]), []),
        (
            lambda now: now["names"].update(Setting=dict(reversed(now["names"]["Setting"].items()))),
            ["Setting takes its arguments in another order"],
        ),
    ],
)
def test_what_is_lost_is_named_and_what_is_added_is_not(change, told):
    recorded, now = public(), public()
    change(now)
    found = losses(recorded, now)
    assert len(found) == len(told)
    assert all(sentence.startswith(start) for sentence, start in zip(found, told, strict=True))


if __name__ == "__main__":
    # A line for each name, which a comparison of two versions shows.
    kinds = [
        f"{json.dumps(kind)}: {{\n"
        + ",\n".join(f"{json.dumps(n)}: {json.dumps(e)}" for n, e in entries.items())
        + "\n}"
        for kind, entries in public().items()
    ]
    RECORD.write_text(f'{{"version": "{__version__}", "public": {{\n{",".join(kinds)}\n}}}}\n')
