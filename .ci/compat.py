# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Try the supported versions of TRL and of what it builds on, and write the table of `docs/limits.md`:

    make compat                    # all sets of versions, about ten minutes each
    make compat ARGS="1.15 1.16"   # these lines of TRL only; prints the rows and writes nothing

Sets are the newest release of each line of TRL with the newest of everything else, and the oldest release of
everything else with the oldest and with the newest TRL. Lines are those that the package index has between the bounds
of `pyproject.toml`. Each set gets an environment of its own on top of one that holds PyTorch and pytest.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

from packaging.requirements import Requirement
from packaging.version import Version


ROOT = Path(__file__).resolve().parents[1]
ENVIRONMENTS = ROOT / ".venv-compat"
BASE = ENVIRONMENTS / "base"
TORCH = "torch==2.13.0"  # fixed, so that no set of versions fetches another one
PACKAGES = {
    "trl": "TRL",
    "transformers": "transformers",
    "peft": "PEFT",
    "accelerate": "accelerate",
    "datasets": "datasets",
}
TESTS = (
    "tests/integration/test_parity.py",
    "tests/integration/test_formula.py",
    "tests/integration/test_trainer.py",
    "tests/test_config.py",
    "tests/test_mistakes.py",
)
# TRL before 1.14 imports it and declares it nowhere.
UNDECLARED = "requests"
MARKERS = ("<!-- compatibility: begin, written by `make compat` -->", "<!-- compatibility: end -->")


def call(*command: str | Path) -> str:
    """Output of a command, which must succeed."""
    done = subprocess.run(list(map(str, command)), cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError((done.stderr or done.stdout).strip().splitlines()[-1])
    return done.stdout


def requirements() -> dict[str, Requirement]:
    """What the project declares, by name."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return {requirement.name: requirement for requirement in map(Requirement, declared)}


def bound(requirement: Requirement, operator: str) -> Version:
    """The version that a requirement bounds with an operator."""
    return next(Version(part.version) for part in requirement.specifier if part.operator == operator)


def trl_lines(requirement: Requirement) -> list[str]:
    """Lines of TRL between the bounds, oldest first; one that is excluded in between is tried as well."""
    releases = re.findall(r"\d+\.\d+\.\d+\b(?!\w)", call(sys.executable, "-m", "pip", "index", "versions", "trl"))
    supported = (v for v in map(Version, releases) if bound(requirement, ">=") <= v < bound(requirement, "<"))
    return [f"{major}.{minor}" for major, minor in sorted({v.release[:2] for v in supported})]


def sets_of_versions() -> list[list[str]]:
    """Requirements of every set, by the line of TRL."""
    declared = requirements()
    lines = trl_lines(declared["trl"])
    oldest = [f"{name}=={bound(declared[name], '>=')}" for name in PACKAGES if name != "trl"]
    newest = [str(declared[name]) for name in PACKAGES if name != "trl"]
    oldest_trl = f"trl=={bound(declared['trl'], '>=')}"
    return [
        [oldest_trl, *oldest],
        *([f"trl=={line}.*", *newest] for line in lines),
        [f"trl=={lines[-1]}.*", *oldest],
    ]


def make_base() -> None:
    """The environment that all others stand on."""
    if not (BASE / "bin/python").exists():
        call(sys.executable, "-m", "venv", BASE)
    call(BASE / "bin/python", "-m", "pip", "install", TORCH, "pytest", "pytest-timeout", "hypothesis")


def make_environment(path: Path, packages: list[str]) -> str:
    """
    Make an environment that sees the base one.

    Args:
        path (`Path`):
            Where. What is there is replaced.
        packages (`list[str]`):
            Requirements to install.

    Returns:
        `str`:
            What had to be installed besides, empty if nothing.
    """
    shutil.rmtree(path, ignore_errors=True)
    call(sys.executable, "-m", "venv", "--without-pip", path)
    python = path / "bin/python"
    libraries = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = Path(call(python, "-c", libraries).strip())
    (own / "base.pth").write_text(call(BASE / "bin/python", "-c", libraries))
    others = [str(requirement) for name, requirement in requirements().items() if name not in PACKAGES]
    call(python, "-m", "pip", "install", TORCH, *packages, *others)
    # Without its dependencies: a set outside the bounds is tried too, and says whether they are right.
    call(python, "-m", "pip", "install", "--no-deps", "--editable", ".")
    try:
        call(python, "-c", "from trl import GRPOTrainer")
    except RuntimeError as error:
        if UNDECLARED not in str(error):
            raise
        call(python, "-m", "pip", "install", UNDECLARED)
        return f", with `{UNDECLARED}` installed besides"
    return ""


def run_tests(python: Path) -> str:
    """What the tests gave, in one phrase."""
    report = python.parents[1] / "report.xml"
    options = ["--quiet", "--timeout=300", "-p", "no:cacheprovider", f"--junitxml={report}"]
    done = subprocess.run([python, "-m", "pytest", *options, *TESTS], cwd=ROOT, capture_output=True, text=True)
    if not report.exists():
        return f"failed: {(done.stderr or done.stdout).strip().splitlines()[-1]}"
    cases = ElementTree.parse(report).getroot().iter("testcase")
    outcomes = Counter()
    messages = Counter()
    for case in cases:
        problem = next((case.find(kind) for kind in ("failure", "error") if case.find(kind) is not None), None)
        outcomes["failed" if problem is not None else "skipped" if case.find("skipped") is not None else "passed"] += 1
        if problem is not None:
            # What pytest gives of an error in collecting a file is its whole traceback, and ends with the error.
            lines = (problem.get("message", "") + "\n" + (problem.text or "")).strip().splitlines()
            errors = [line.removeprefix("E").strip() for line in lines if re.match(r"E\s+\S*(Error|Exception)", line)]
            messages[errors[-1] if errors else lines[0]] += 1
    phrase = f"{outcomes['passed']} passed, {outcomes['skipped']} skipped"
    if outcomes["failed"]:
        message = messages.most_common(1)[0][0].replace("|", "\\|")
        phrase = f"{outcomes['failed']} failed ({message:.120}), {phrase}"
    return phrase


def try_versions(packages: list[str]) -> list[str]:
    """Cells of one row."""
    path = ENVIRONMENTS / "row"
    try:
        besides = make_environment(path, packages)
    except RuntimeError as error:
        versions = dict(package.split("==") for package in packages if "==" in package)
        return [*(versions.get(name, "newest") for name in PACKAGES), f"failed to install or import: {error}"]
    python = path / "bin/python"
    versions = f"from importlib.metadata import version; print(*map(version, {list(PACKAGES)}))"
    found = call(python, "-c", versions).split()
    return [*found, run_tests(python) + besides]


def markdown(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def main(lines: list[str]) -> None:
    make_base()
    rows = [markdown([*PACKAGES.values(), "tests"]), "|" + "---|" * (len(PACKAGES) + 1)]
    for packages in sets_of_versions():
        line = ".".join(packages[0].removeprefix("trl==").split(".")[:2])
        if lines and line not in lines:
            continue
        rows.append(markdown(try_versions(packages)))
        print(rows[-1], flush=True)
    shutil.rmtree(ENVIRONMENTS / "row", ignore_errors=True)
    if lines:
        return
    page = ROOT / "docs" / "limits.md"
    before, _, rest = page.read_text().partition(MARKERS[0])
    _, _, after = rest.partition(MARKERS[1])
    if not after:
        raise RuntimeError(f"{page} needs the lines {MARKERS[0]} and {MARKERS[1]}, between which the table goes.")
    machine = (
        f"Python {sys.version_info.major}.{sys.version_info.minor} and PyTorch {TORCH.partition('==')[2]} on the CPU."
    )
    page.write_text("\n".join([before + MARKERS[0], *rows, "", machine, MARKERS[1] + after]))


if __name__ == "__main__":
    main(sys.argv[1:])
