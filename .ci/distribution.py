# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Build the distributions and use them as whoever installs them does:

    make dist

Writes the sdist, and the wheel that is built from it, to `dist/`; checks their metadata, that nothing is missing in them
and nothing besides; installs the wheel, without its dependencies, into a fresh environment that finds those of this one;
and from there, outside of the checkout, imports the public names and runs the command.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import venv
import zipfile
from pathlib import Path


ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
PACKAGE = "trl_grpo_variants"
# What hatchling adds of its own, and what only a checkout has a use for.
ADDED, LEFT_OUT = {"PKG-INFO", ".gitignore"}, {".gitignore"}

USE = f"""
import pathlib, sys
import {PACKAGE} as package
assert pathlib.Path(package.__file__).is_relative_to(sys.prefix), package.__file__
for name in package.__all__:
    assert getattr(package, name) is not None, name
print(len(package.__all__), "public names of", package.__version__)
"""


def call(*command: str | Path, **options: object) -> None:
    subprocess.run(list(map(str, command)), check=True, **options)


def tracked() -> set[str]:
    """Files of the checkout that git knows."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}


def compare(what: str, held: set[str], expected: set[str]) -> None:
    for problem, names in (("holds, besides what it should,", held - expected), ("lacks", expected - held)):
        if names:
            raise SystemExit(f"The {what} {problem} {', '.join(sorted(names)[:10])} ({len(names)} files).")


def check_contents(sdist: Path, wheel: Path) -> None:
    """Refuse what holds other files than the checkout."""
    files = tracked()
    with tarfile.open(sdist) as archive:
        held = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    compare("sdist", held - ADDED, files - LEFT_OUT)
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    compare("wheel", held, {name for name in files if name.startswith(f"{PACKAGE}/")})


def use(wheel: Path) -> None:
    """Install the wheel into an environment that holds nothing else, and use it from there."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "environment", with_pip=True)
        binaries = folder / "environment" / "bin"
        call(binaries / "python", "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel)
        # Dependencies are read where they lie. What a `.pth` file names is searched after what is installed here, and
        # an editable install that lies there too is not followed from it.
        site = sysconfig.get_path("purelib", vars={"base": str(folder / "environment")})
        here = [path for path in sys.path if Path(path).name == "site-packages"]
        Path(site, "dependencies.pth").write_text("\n".join(here))
        options = {"cwd": folder, "env": {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}}
        call(binaries / "python", "-c", USE, **options)
        for command in (["--version"], ["list"], ["show", "tic_grpo"], ["doctor"]):
            call(binaries / "trl-variants", *command, **options)


def main() -> None:
    shutil.rmtree(DIST, ignore_errors=True)
    call(sys.executable, "-m", "build", "--outdir", DIST, ROOT)
    (sdist,), (wheel,) = DIST.glob("*.tar.gz"), DIST.glob("*.whl")
    call(sys.executable, "-m", "twine", "check", "--strict", sdist, wheel)
    check_contents(sdist, wheel)
    use(wheel)


if __name__ == "__main__":
    main()
