# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What this package and those that it builds on declare to support, read from where they declare it."""

import tomllib
from importlib.metadata import PackageNotFoundError, metadata, requires
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet


_NAME = "trl_grpo_variants"


def requirements(package: str = _NAME, extra: str = "") -> dict[str, Requirement]:
    """
    Requirements of a package, of one of its extras too, by name.

    Raises an `ImportError` if the package is not installed and, for this one, its `pyproject.toml` does not lie beside
    it.
    """
    project = _source_project() if package == _NAME else None
    if project is not None:
        lines = project["dependencies"] + (project["optional-dependencies"][extra] if extra else [])
        return {requirement.name: requirement for requirement in map(Requirement, lines)}
    try:
        declared = map(Requirement, requires(package) or [])
    except PackageNotFoundError:
        raise ImportError(_not_installed(package)) from None
    return {r.name: r for r in declared if r.marker is None or r.marker.evaluate({"extra": extra})}


def supported_python() -> SpecifierSet:
    """Versions of Python that this package declares to support; an `ImportError` as of [`requirements`]."""
    project = _source_project()
    try:
        return SpecifierSet(project["requires-python"] if project else metadata(_NAME)["Requires-Python"])
    except PackageNotFoundError:
        raise ImportError(_not_installed(_NAME)) from None


def tested_versions() -> dict[str, str]:
    """Versions that the tests ran with, by package; empty outside of a source tree, which alone holds them."""
    path = Path(__file__).parents[1] / "constraints.txt"
    if _source_project() is None or not path.is_file():
        return {}
    return dict(line.split("==") for line in path.read_text(encoding="utf-8").splitlines() if "==" in line)


def _source_project() -> dict[str, Any] | None:
    """The declaration of a source tree, which need not be installed; what is installed may be of another one."""
    source = Path(__file__).parents[1] / "pyproject.toml"
    if source.is_file():
        project = tomllib.loads(source.read_text(encoding="utf-8")).get("project", {})
        if project.get("name") == _NAME:
            return project
    return None


def _not_installed(package: str) -> str:
    if package != _NAME:
        return f"{package} is not installed: run `pip install {package}`."
    return (
        "trl_grpo_variants cannot tell which TRL it supports: it is not installed, and its `pyproject.toml` does "
        "not lie beside it. Install it, or put the whole source tree on the path."
    )
