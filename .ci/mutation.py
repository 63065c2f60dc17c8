# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Plant single errors in the package and see whether a test fails:

    make mutation                                                   # 300 errors, about four hours on one core
    make mutation ARGS="--sample 40 --seed 1 --module objective"    # some errors in modules whose name has this in it
    make mutation ARGS="--quick"                                    # without tests that train
    make mutation ARGS="--again mutation.json"                      # those that survived an earlier run

The same seed draws the same errors from the same code. Each runs, until one fails, those tests of its module that call
the function it is in, and those that train or start a process: in a child of a process that has imported what takes long
(PyTorch, TRL), on a copy of the repository. One that makes the tests take five times as long, plus a minute (15 minutes
for a file of tests that train), counts as killed ("timeout"). Survivors that change nothing a user gets are listed in
`.ci/equivalent.toml`, by their module and lines. Prints one row per module and the survivors; writes all that was tried
to a file, after each error. Libraries that do this start Python for each error, which takes 15 seconds here.
"""

import argparse
import ast
import contextlib
import hashlib
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from mutants import Mutant, Mutator


ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "trl_grpo_variants"
EQUIVALENT = Path(__file__).with_name("equivalent.toml")
# What tests call, kept between runs.
SEEN = ROOT / ".mutation-seen.json"
# Tests that train. They call all there is, and take long: they run as they are, and should pass before.
TRAINING = "tests/integration"
IMPORTED_ONCE = (
    "torch", "numpy", "datasets", "transformers", "peft", "accelerate", "trl", "trl.trainer.grpo_trainer",
    "transformers.models.llama.modeling_llama", "matplotlib.figure", "hypothesis", "pytest", "_pytest.assertion.rewrite",
)  # fmt: skip
TESTS: dict[str, str] = tomllib.loads(Path(__file__).with_name("mutation_tests.toml").read_text())


def modules() -> list[str]:
    """All but what runs in axolotl's environment only."""
    folder = ROOT / PACKAGE
    names = (str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.py"))
    return sorted(name for name in names if not name.startswith("axolotl/"))


def tests_of(module: str, quick: bool) -> list[str]:
    """Test files of a module, in the order in which they run; those that train only where there are no others."""
    names = next(value for prefix, value in TESTS.items() if module.startswith(prefix))
    files = [f"tests/{name}" for name in names.split()]
    fast = [file for file in files if not file.startswith(TRAINING)]
    return fast if quick and fast else files


class Workshop:
    """A copy of the repository in which errors are planted, and the process that has imported what takes long."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.root = Path(tempfile.mkdtemp(prefix="mutation-"))
        listing = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.check_output(listing, cwd=ROOT, text=True).splitlines():
            if (ROOT / name).is_file():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.root / name)
        # By test file: seconds and callees of each test.
        self.seen: dict[str, dict[str, dict[str, Any]]] = {}

    def prepare(self) -> None:
        os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TRL_EXPERIMENTAL_SILENCE": "1"}
        os.environ |= {"PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1"}
        sys.path[:] = [str(self.root), *(path for path in sys.path if Path(path or ".").resolve() != ROOT)]
        for name in IMPORTED_ONCE:
            importlib.import_module(name)
        assert not any(name.split(".")[0] in (PACKAGE, "tests") for name in sys.modules)

    def watch(self, file: str) -> dict[str, dict[str, Any]]:
        """See that the tests of a file pass without an error, how long they take, and what they call."""
        if file not in self.seen:
            stored = json.loads(SEEN.read_text()) if SEEN.exists() else {}
            key = self._digest(file)
            if key not in stored:
                outcome, failed = self.run([file], None, limit=3600)
                if outcome != "survived":
                    raise SystemExit(f"Without an error, {failed or outcome} fails.")
                stored[key] = json.loads((self.root / "seen.json").read_text())
                SEEN.write_text(json.dumps(stored))
            self.seen[file] = stored[key]
        return self.seen[file]

    def _digest(self, file: str) -> str:
        """Of all that a test file runs: the package, what tests share, and itself."""
        paths = [*(self.root / PACKAGE).rglob("*.py"), *(self.root / "tests").rglob("*.py")]
        texts = [path.read_bytes() for path in sorted(paths) if not path.name.startswith("test_")]
        path = self.root / file
        texts += [path.read_bytes()] if path.is_file() else [part.read_bytes() for part in sorted(path.glob("*.py"))]
        return f"{file} {hashlib.sha256(b''.join(texts)).hexdigest()}"

    def plant(self, mutant: Mutant) -> tuple[str, str]:
        path = self.root / PACKAGE / f"{mutant.module}.py"
        source = path.read_bytes()
        callee = _function_at(source.decode(), mutant.row)
        reasons = {"process", f"{mutant.module}:{callee}"}
        chosen: dict[str, float] = {}
        files = []
        for file in tests_of(mutant.module, self.quick):
            seen = {} if file.startswith(TRAINING) else self.watch(file)
            called = {test: s["seconds"] for test, s in seen.items() if callee is None or reasons & {*s["calls"]}}
            chosen |= called
            files += [file] if called or file.startswith(TRAINING) else []
        if not files:
            return "survived", "not called"
        path.write_bytes(source[: mutant.start] + mutant.text.encode() + source[mutant.end :])
        try:
            limit = 60 + 5 * sum(chosen.values()) + 900 * sum(file.startswith(TRAINING) for file in files)
            return self.run(files, chosen, limit)
        finally:
            path.write_bytes(source)

    def run(self, files: list[str], chosen: dict[str, float] | None, limit: float) -> tuple[str, str]:
        """Outcome of tests in a child process, and the test that failed; watches the calls if none are chosen."""
        failed = self.root / "failed"
        failed.unlink(missing_ok=True)
        child = os.fork()
        if not child:
            os.setsid()
            _child(self.root, files, Watch(self.root) if chosen is None else Choice(self.root, chosen))
        end = time.monotonic() + limit
        while time.monotonic() < end:
            finished, status = os.waitpid(child, os.WNOHANG)
            if finished:
                _end_group(child)
                return ("killed" if status else "survived"), failed.read_text() if failed.exists() else ""
            time.sleep(0.05)
        _end_group(child)
        os.waitpid(child, 0)
        return "timeout", ""

    def close(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)


def _function_at(source: str, row: int) -> str | None:
    """Innermost function around a line, as "name:first line"; None outside of functions."""
    around = [
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef) and node.body[0].lineno <= row <= (node.end_lineno or 0)
    ]
    if not around:
        return None
    node = max(around, key=lambda node: node.lineno)
    return f"{node.name}:{min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])}"


class Choice:
    """Plugin that runs some tests and tells which one failed."""

    def __init__(self, root: Path, chosen: dict[str, float]) -> None:
        self.root, self.chosen = root, chosen

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """The fast ones of each file first."""
        files = list(dict.fromkeys(item.path for item in items))
        items[:] = sorted(
            (item for item in items if item.nodeid in self.chosen or item.nodeid.startswith(TRAINING)),
            key=lambda item: (files.index(item.path), self.chosen.get(item.nodeid, 0.0)),
        )

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed:
            (self.root / "failed").write_text(report.nodeid)

    pytest_collectreport = pytest_runtest_logreport


class Watch(Choice):
    """Plugin that notes what each test calls; what a fixture of a wider scope calls, each test that uses it does."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, {})
        self.package = f"{root / PACKAGE}/"
        self.calls: dict[str, set[str]] = defaultdict(set)
        self.now = [""]
        self.tests: dict[str, dict[str, Any]] = {}
        sys.addaudithook(
            lambda event, _: self.calls[self.now[-1]].add("process") if event == "subprocess.Popen" else None
        )
        sys.settrace(self.trace)
        threading.settrace(self.trace)

    def trace(self, frame: Any, *_: Any) -> None:
        code = frame.f_code
        if code.co_filename.startswith(self.package):
            module = code.co_filename.removeprefix(self.package).removesuffix(".py")
            self.calls[self.now[-1]].add(f"{module}:{code.co_name}:{code.co_firstlineno}")

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        pass

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: Any) -> Iterator[None]:
        start = time.monotonic()
        self.now = [item.nodeid]
        result = yield
        used = {name for name in self.calls if name.startswith("fixture ") and name.split()[1] in item.fixturenames}
        # What runs while modules are imported, each test stands on.
        calls = set().union(*(self.calls[name] for name in ("", item.nodeid, *used)))
        self.tests[item.nodeid] = {"seconds": time.monotonic() - start, "calls": sorted(calls)}
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any) -> Iterator[Any]:
        self.now.append(self.now[-1] if fixturedef.scope == "function" else f"fixture {fixturedef.argname}")
        result = yield
        self.now.pop()
        return result

    def pytest_sessionfinish(self) -> None:
        sys.settrace(None)
        (self.root / "seen.json").write_text(json.dumps(self.tests))


def _end_group(child: int) -> None:
    """End what a test may have left behind."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)


def _child(root: Path, files: list[str], plugin: Choice) -> None:
    code = 1
    try:
        os.chdir(root)
        sink = os.open(os.environ.get("MUTATION_OUTPUT", os.devnull), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        sys.dont_write_bytecode = True
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-seed=0"]
        code = int(pytest.main([*options, f"--basetemp={root}/.tests", *files], plugins=[plugin]))
    finally:
        os._exit(code)


def known() -> dict[tuple[str, str, str], str]:
    """Errors that change nothing, and why."""
    listed = tomllib.loads(EQUIVALENT.read_text())["equivalent"] if EQUIVALENT.exists() else []
    return {(entry["module"], entry["line"], entry["mutant"]): entry["why"] for entry in listed}


def draw(args: argparse.Namespace) -> list[Mutant]:
    mutants = [
        mutant
        for module in modules()
        if any(part in module for part in args.module)
        for mutant in Mutator(module, (ROOT / PACKAGE / f"{module}.py").read_text()).mutants()
    ]
    if args.again:
        earlier = json.loads(args.again.read_text())
        survivors = {(row["module"], row["line"], row["mutant"]) for row in earlier if row["outcome"] == "survived"}
        return [mutant for mutant in mutants if mutant.key in survivors]
    sample = random.Random(args.seed).sample(mutants, min(args.sample, len(mutants)))
    # Those that take long come last.
    trains = {module: all(file.startswith(TRAINING) for file in tests_of(module, quick=True)) for module in modules()}
    return sorted(sample, key=lambda mutant: (trains[mutant.module], mutant.module, mutant.start))


def show(results: list[dict[str, Any]]) -> None:
    rows: dict[str, Counter] = defaultdict(Counter)
    for result in results:
        rows[result["module"]][result["outcome"]] += 1
        rows["all"][result["outcome"]] += 1
    columns = ("killed", "timeout", "equivalent", "survived")
    print(f"{'module':28}{'errors':>10}" + "".join(f"{name:>12}" for name in columns))
    for module, counts in rows.items():
        print(f"{module:28}{counts.total():>10}" + "".join(f"{counts[name]:>12}" for name in columns))
    for result in results:
        if result["outcome"] == "survived":
            print(f"\n{PACKAGE}/{result['module']}.py:{result['row']} ({result['operator']})")
            print("".join(f"- {line}\n" for line in result["line"].splitlines()), end="")
            print("".join(f"+ {line}\n" for line in result["mutant"].splitlines()), end="")


def main() -> None:
    parser = argparse.ArgumentParser(description="Plant single errors in the package and see whether a test fails.")
    parser.add_argument("--sample", type=int, default=300, help="errors to plant")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample")
    parser.add_argument("--module", nargs="*", default=[""], help="parts of module names, default all")
    parser.add_argument("--quick", action="store_true", help="leave out tests that train where there are others")
    parser.add_argument("--again", type=Path, help="only the survivors of the run that wrote this file")
    parser.add_argument("--output", type=Path, default=ROOT / "mutation.json", help="file for all that was tried")
    parser.add_argument("--list", action="store_true", help="show the errors and plant none")
    args = parser.parse_args()
    mutants, equivalent = draw(args), known()
    if args.list:
        for mutant in mutants:
            print(f"{mutant.module}:{mutant.row} {mutant.operator}\n- {mutant.line}\n+ {mutant.mutant}")
        print(f"{len(mutants)} errors")
        return
    results: list[dict[str, Any]] = []
    workshop = Workshop(args.quick)
    try:
        workshop.prepare()
        for index, mutant in enumerate(mutants):
            start, (outcome, test) = time.monotonic(), ("equivalent", "")
            if mutant.key not in equivalent:
                for file in tests_of(mutant.module, args.quick):
                    if not file.startswith(TRAINING):
                        workshop.watch(file)
                start = time.monotonic()
                outcome, test = workshop.plant(mutant)
            seconds = round(time.monotonic() - start, 1)
            results.append(asdict(mutant) | {"outcome": outcome, "test": test, "seconds": seconds})
            args.output.write_text(json.dumps(results, indent=1))
            print(f"{index + 1}/{len(mutants)} {mutant.module}:{mutant.row} {outcome} {seconds} s {test}", flush=True)
    finally:
        workshop.close()
    show(results)


if __name__ == "__main__":
    main()
