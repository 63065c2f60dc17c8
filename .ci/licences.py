# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Print the licences of everything that an installation brings along, and fail if one may not stand beside Apache-2.0:

    make licences

From the metadata of what is installed: an SPDX expression, else classifiers, else the field `License`.
"""

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement


PACKAGE = "trl_grpo_variants"
# Permissive ones, and the MPL, whose terms end at its own files.
COMPATIBLE = re.compile(
    r"\b(0BSD|Apache|BSD|BSL-1\.0|CC0|CNRI-Python|HPND|ISC|LLVM-exception|MIT|MPL-2\.0|PSF|Python Software Foundation"
    r"|Unlicense|Zlib)\b",
    re.IGNORECASE,
)
# What builds of PyTorch for a GPU ask for comes under the terms that come with the GPU's driver.
OF_THE_DRIVER = re.compile(r"nvidia|cuda")


def licence(installed: Distribution) -> str:
    """What a distribution says of its licence, in one line."""
    metadata = installed.metadata
    classifiers = [
        text.rpartition("::")[2].strip() for text in metadata.get_all("Classifier", []) if "License" in text
    ]
    return metadata["License-Expression"] or " AND ".join(classifiers) or (metadata["License"] or "").split("\n")[0]


def is_compatible(text: str) -> bool:
    """Whether one of the alternatives has compatible parts only."""
    alternatives = (re.split(r"\bAND\b|\bWITH\b", alternative.strip("() ")) for alternative in text.split(" OR "))
    return any(all(COMPATIBLE.search(part) for part in parts) for parts in alternatives)


def closure() -> dict[str, str]:
    """Licences of the runtime dependencies and theirs, by name; those that this platform does not need are not there."""
    found: dict[str, str] = {}
    open_requirements = [PACKAGE]
    while open_requirements:
        name = open_requirements.pop().lower().replace("_", "-")
        if name in found or OF_THE_DRIVER.match(name):
            continue
        installed = distribution(name)
        found[name] = licence(installed)
        for requirement in map(Requirement, installed.requires or []):
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                open_requirements.append(requirement.name)
    return found


def main() -> None:
    try:
        licences = closure()
    except PackageNotFoundError as error:
        raise SystemExit(f"{error.name} is needed and not installed.") from None
    for name, text in sorted(licences.items()):
        print(f"{name:24}{text}")
    refused = [name for name, text in licences.items() if not is_compatible(text)]
    if refused:
        raise SystemExit(f"Not known to be compatible with Apache-2.0: {', '.join(refused)}.")
    print(f"{len(licences)} packages, all compatible with Apache-2.0")


if __name__ == "__main__":
    main()
