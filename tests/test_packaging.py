# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""What is published beside the package says the same as the package, and workflows run what `.ci/run` runs."""

import importlib.util
import itertools
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from trl_grpo_variants import __version__
from trl_grpo_variants.papers import GRPO_DYNAMICS, TIC_GRPO


ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def script(name):
    """A script of `.ci`, which is no package."""
    spec = importlib.util.spec_from_file_location(f"ci_{name}", ROOT / ".ci" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_citation_is_of_this_version_and_cites_the_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["title"], citation["version"]) == (PROJECT["name"], __version__)
    assert citation["license"] == PROJECT["license"]
    papers = {(entry["title"], entry["url"]) for entry in citation["references"]}
    assert papers == {(paper.title, f"https://arxiv.org/abs/{paper.id}") for paper in (GRPO_DYNAMICS, TIC_GRPO)}
    for entry, paper in zip(citation["references"], (GRPO_DYNAMICS, TIC_GRPO), strict=True):
        names = " and ".join(f"{author['given-names']} {author['family-names']}" for author in entry["authors"])
        assert (names, entry["year"]) == (paper.author, 2000 + int(paper.id[:2]))


def test_the_changelog_begins_with_this_version():
    versions = re.findall(r"^## (\S+) - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert versions[0] == (__version__, str(citation["date-released"]))


def test_the_version_stands_in_one_place():
    assert "version" not in PROJECT
    assert PROJECT["dynamic"] == ["version"]


def make_targets(lines):
    return {target for line in lines for target in re.findall(r"\bmake ([\w-]+)", line)}


def jobs():
    return yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())["jobs"]


def test_workflows_run_what_ci_runs():
    run = []
    for job in jobs().values():
        matrix = job.get("strategy", {}).get("matrix", {})
        for values in itertools.product(*matrix.values()):
            for step in job["steps"]:
                line = step.get("run", "")
                for name, value in zip(matrix, values, strict=True):
                    line = line.replace(f"${{{{ matrix.{name} }}}}", value)
                run.append(line)
    assert make_targets(run) == make_targets((ROOT / ".ci" / "run").read_text().splitlines())
    assert not any("${{" in line for line in run)


def test_workflows_may_only_read_and_have_time_limits():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "tests.yml").read_text())
    assert workflow["permissions"] == {"contents": "read"}
    assert all(job["timeout-minutes"] <= 60 for job in workflow["jobs"].values())
    assert "secrets" not in (ROOT / ".github" / "workflows" / "tests.yml").read_text()


def test_forms_of_issues_ask_for_something():
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        if path.stem != "config":
            assert form["name"] and form["description"]
            assert any(part.get("validations", {}).get("required") for part in form["body"])


@pytest.mark.parametrize(
    ("licence", "is_compatible"),
    [
        ("Apache-2.0", True),
        ("Apache Software License", True),
        ("BSD-3-Clause AND 0BSD AND MIT", True),
        ("MPL-2.0 AND MIT", True),
        ("GPL-2.0-only OR MIT", True),
        ("(GPL-2.0-only OR BSD-2-Clause)", True),
        ("GPL-3.0-or-later", False),
        ("GNU Lesser General Public License v3 (LGPLv3)", False),
        ("MIT AND GPL-3.0-only", False),
        ("Apache-2.0 WITH LLVM-exception", True),
        ("Limited permission, see the disclaimer", False),
        ("", False),
    ],
)
def test_licences_are_told_apart(licence, is_compatible):
    assert script("licences").is_compatible(licence) == is_compatible


def test_what_an_installation_brings_along_may_stand_beside_the_package():
    licences = script("licences")
    found = licences.closure()
    assert {"trl", "torch", "tqdm", "typing-extensions"} <= found.keys()
    assert [name for name, text in found.items() if not licences.is_compatible(text)] == []


def test_distributions_that_hold_other_files_are_refused():
    distribution = script("distribution")
    distribution.compare("wheel", {"a"}, {"a"})
    with pytest.raises(SystemExit, match=r"The wheel holds, besides what it should, junk\.log \(1 files\)"):
        distribution.compare("wheel", {"a", "junk.log"}, {"a"})
    with pytest.raises(SystemExit, match="The sdist lacks py.typed"):
        distribution.compare("sdist", {"a"}, {"a", "py.typed"})
