# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""
Plant single errors in the package and see whether a test fails:

    make mutation                                                   # 300 errors, about four hours on one core
    make mutation ARGS="--sample 40 --seed 1 --module objective"    # some errors in modules whose name has this in it
    make mutation ARGS="--quick"                                    # without tests that train
    make mutation ARGS="--again mutation.json"                      # those that survived an earlier run

A sample is drawn from all errors of the operators below; the same seed draws the same ones from the same code. Each
error runs, until one fails, those tests in the files of its module that call the function it is in; and those that
train or start a process. A child of one process that has imported what takes long (PyTorch, TRL), but
neither the package nor the tests, runs them on a copy of the repository, so that a working tree can be edited
meanwhile. An error that makes the tests take five times as long as they take without one, plus a minute (15 minutes for a file of
tests that train), counts as killed ("timeout").

Survivors that change nothing a user gets are listed, with the reason, in `.ci/equivalent.toml`; they are known by
their module and the text of their lines, before and after. Prints one row per module and the survivors; writes all
that was tried to a file, after each error.

Libraries that do this (cosmic-ray, mutmut) start Python for each error, which takes 15 seconds here, or bring
their own runner, and know nothing of tensors.
"""

import argparse
import ast
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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest


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
# Test files of the modules whose name starts like this, the first that fits; "" is what all others get.
TESTS = {
    "theory/": "theory test_plan.py",
    "objective/advantage": "objective/test_advantage.py integration/test_formula.py",
    "objective/": "objective integration/test_formula.py",
    "variants": "test_config.py test_cli.py test_card.py test_recipes.py",
    "snapshot": "test_snapshot.py integration/test_trainer.py integration/test_resume.py",
    "card/": "test_card.py test_hub.py",
    "hub": "test_hub.py integration/test_hub.py",
    "monitor/": "test_monitor.py integration/test_monitor.py",
    "plan/": "test_plan.py test_cli.py",
    "report/": "test_report.py",
    "runs/success": "test_card.py test_monitor.py",
    "runs/": "test_report.py test_monitor.py test_plan.py integration/test_monitor.py",
    "config": "test_mistakes.py test_config.py test_recipes.py test_card.py",
    "checks": "test_mistakes.py test_config.py theory",
    "suggest": "test_mistakes.py test_config.py",
    "warn": "test_mistakes.py test_config.py integration/test_trainer.py",
    "compat": "test_compat.py",
    "cli": "test_mistakes.py test_cli.py integration/test_launch.py",
    "launch": "test_mistakes.py test_cli.py integration/test_launch.py",
    "recipe": "test_mistakes.py test_recipes.py test_cli.py integration/test_launch.py",
    "version": "test_cli.py test_card.py",
    "parser": "test_mistakes.py test_plan.py test_report.py",
    "replaced": "test_vllm.py test_hub.py test_mistakes.py",
    "__": "test_cli.py test_compat.py",
    "forward/lines": "test_lines.py test_forward.py integration/test_savings.py",
    "forward/eligibility": "test_lines.py test_forward.py integration/test_savings.py",
    "forward/": "test_forward.py test_lines.py integration/test_savings.py integration/test_modalities.py",
    "rollout": "test_rollout.py integration/test_savings.py",
    "vllm/": "test_vllm.py integration/test_server.py",
    "idle": "test_mistakes.py integration/test_trainer.py",
    "checkpoint": "integration/test_resume.py integration/test_killed_save.py integration/test_interrupted.py",
    "resume": "integration/test_resume.py integration/test_killed_save.py integration/test_interrupted.py",
    "metrics": "test_metrics.py integration/test_formula.py integration/test_trainer.py integration/test_savings.py",
    "": "integration/test_formula.py integration/test_trainer.py integration/test_savings.py "
    "integration/test_parity.py integration/test_monitor.py integration/test_resume.py "
    "integration/test_interrupted.py",
}  # fmt: skip

COMPARISONS = {
    ast.Lt: ("<=", ">="), ast.LtE: ("<", ">"), ast.Gt: (">=", "<="), ast.GtE: (">", "<"), ast.Eq: ("!=",),
    ast.NotEq: ("==",), ast.Is: ("is not",), ast.IsNot: ("is",), ast.In: ("not in",), ast.NotIn: ("in",),
}  # fmt: skip
ARITHMETIC = {
    ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*", ast.FloorDiv: "%", ast.Mod: "//", ast.Pow: "*",
    ast.BitAnd: "|", ast.BitOr: "&",
}  # fmt: skip
SYMBOLS = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.FloorDiv: "//", ast.Mod: "%", ast.Pow: "**",
    ast.BitAnd: "&", ast.BitOr: "|",
}  # fmt: skip
NAMES = {
    "min": "max", "minimum": "maximum", "amin": "amax", "argmin": "argmax", "nanmin": "nanmax", "any": "all",
    "sum": "mean", "nansum": "nanmean", "zeros_like": "ones_like", "zeros": "ones", "floor": "ceil", "cumsum": "cumprod",
    "exp": "expm1", "log": "log1p", "startswith": "endswith", "isnan": "isinf", "std": "var", "gather": "scatter",
}  # fmt: skip
NAMES |= {after: before for before, after in NAMES.items()}
# Functions that do not mind the order of their arguments.
SYMMETRIC = {"min", "max", "minimum", "maximum", "hypot", "array_equal", "equal"}
# Methods without which their object is still a value of the same kind.
REMOVED = set(
    "detach clamp clamp_min clamp_max clip abs neg float double bool nan_to_num masked_fill clone contiguous flip sort "
    "strip lower unsqueeze squeeze sqrt square log exp copy get_text_config resolve sum mean".split()
)
# What these are given is text, or the size of a figure.
SPEAKING = {"_figure", "warn", "warning", "warning_once", "info", "debug", "error", "print", "print_exception"}

# What these keywords are given is text or looks.
APPEARANCE = set(
    "metadata help description epilog metavar label title color linewidth linestyle alpha marker markersize fontsize loc "
    "bbox_to_anchor ncols dpi frameon pad rotation zorder s ha va labelsize which stacklevel encoding justify no_wrap "
    "style highlight soft_wrap elinewidth capsize fmt markerscale marker_scale layout figsize nbins xlabel ylabel "
    "labelbottom width_ratios box_aspect opacity".split()
)


@dataclass(frozen=True)
class Mutant:
    """An error: the text between two offsets of a module, replaced."""

    module: str
    operator: str
    start: int
    end: int
    text: str
    row: int
    # The lines it stands on, before and after.
    line: str
    mutant: str

    @property
    def key(self) -> tuple[str, str, str]:
        return self.module, self.line, self.mutant


class Mutator:
    """All errors of a module, in the order of its text."""

    def __init__(self, module: str, source: str) -> None:
        self.module, self.source = module, source.encode()
        starts = [0]
        for line in self.source.splitlines(keepends=True):
            starts.append(starts[-1] + len(line))
        self.starts = starts

    def mutants(self) -> list[Mutant]:
        found = {}
        for operator, start, end, text in self._walk(ast.parse(self.source)):
            first = self.source.rfind(b"\n", 0, start) + 1
            last = self.source.find(b"\n", end)
            before, after = (
                self.source[first:last].decode(),
                (self.source[first:start] + text.encode() + self.source[end:last]).decode(),
            )
            row = self.source.count(b"\n", 0, start) + 1
            lines = ["\n".join(line.strip() for line in part.splitlines()) for part in (before, after)]
            try:
                ast.parse(self.source[:start] + text.encode() + self.source[end:])
            except SyntaxError:
                continue
            if lines[0] != lines[1]:
                found.setdefault((start, end, text), Mutant(self.module, operator, start, end, text, row, *lines))
        return sorted(found.values(), key=lambda mutant: (mutant.start, mutant.end, mutant.text))

    def _span(self, node: Any) -> tuple[int, int]:
        return (
            self.starts[node.lineno - 1] + node.col_offset,
            self.starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def _text(self, node: ast.AST) -> str:
        start, end = self._span(node)
        return self.source[start:end].decode()

    def _between(self, left: ast.AST, right: ast.AST, symbol: str) -> tuple[int, int]:
        """Where the operator between two operands stands."""
        start, end = self._span(left)[1], self._span(right)[0]
        at = self.source.find(symbol.encode(), start, end)
        return at, at + len(symbol)

    def _walk(self, node: ast.AST) -> Iterator[tuple[str, int, int, str]]:
        yield from self._of(node)
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "type_comment", "decorator_list"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not self._is_text(node, child):
                    yield from self._walk(child)

    @staticmethod
    def _is_text(parent: ast.AST, node: ast.AST) -> bool:
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            return True  # docstring
        if isinstance(node, (ast.JoinedStr, ast.Import, ast.ImportFrom)):
            return True  # positions inside an f-string are wrong before Python 3.12
        if isinstance(parent, ast.Raise):
            return True
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return True
        if isinstance(node, ast.keyword) and node.arg in APPEARANCE:
            return True
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in ("__all__", "__version__", "logger", *APPEARANCE):
                return True
        return isinstance(parent, ast.Call) and _name(parent.func) in SPEAKING

    def _of(self, node: ast.AST) -> Iterator[tuple[str, int, int, str]]:
        if isinstance(node, ast.Compare):
            for left, operator, right in zip([node.left, *node.comparators], node.ops, node.comparators, strict=False):
                start, end = self._span(left)[1], self._span(right)[0]
                between = self.source[start:end].decode()
                # Brackets around an operand stand between the operands too.
                start += len(between) - len(between.lstrip(" )\n"))
                end -= len(between) - len(between.rstrip(" (\n"))
                for text in COMPARISONS[type(operator)]:
                    yield "comparison", start, end, text
        elif isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
            if not (self._is_string(node.left) or self._is_string(node.right)):
                yield (
                    "arithmetic",
                    *self._between(node.left, node.right, SYMBOLS[type(node.op)]),
                    ARITHMETIC[type(node.op)],
                )
        elif isinstance(node, ast.AugAssign) and type(node.op) in ARITHMETIC:
            symbol = SYMBOLS[type(node.op)] + "="
            place = self._between(node.target, node.value, symbol)
            yield "arithmetic", *place, ARITHMETIC[type(node.op)] + "="
            yield "assignment", *place, "="
        elif isinstance(node, ast.BoolOp):
            before, after = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
            for left, right in zip(node.values, node.values[1:], strict=False):
                yield "boolean", *self._between(left, right, before), after
        elif isinstance(node, ast.UnaryOp):
            yield "sign", *self._span(node), f"({self._text(node.operand)})"
        elif isinstance(node, (ast.If, ast.While)) and not self._is_negated(node.test):
            yield "condition", *self._span(node.test), f"not ({self._text(node.test)})"
        elif isinstance(node, ast.IfExp) and not self._is_negated(node.test):
            yield "condition", *self._span(node.test), f"(not ({self._text(node.test)}))"
        elif isinstance(node, ast.comprehension):
            for test in node.ifs:
                yield "condition", *self._span(test), "True"
        elif isinstance(node, ast.Constant):
            for text in _constants(node.value):
                yield "constant", *self._span(node), text
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Load):
            name = _name(node)
            if name in NAMES and not (isinstance(node, ast.Attribute) and _name(node.value) in ("stack", "os")):
                _, end = self._span(node)
                yield "name", end - len(name), end, NAMES[name]
        elif isinstance(node, ast.Return):
            if node.value is not None and not (isinstance(node.value, ast.Constant) and node.value.value is None):
                yield "return", *self._span(node.value), "None"
        elif isinstance(node, ast.Raise):
            yield "guard", *self._span(node), "pass"
        elif isinstance(node, (ast.Continue, ast.Break)):
            yield "loop", *self._span(node), "pass"
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], (ast.Attribute, ast.Subscript)):
            yield "statement", *self._span(node), "pass"
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            if _name(node.value.func) not in SPEAKING - {"warn", "warning"}:
                yield "statement", *self._span(node), "pass"
        elif isinstance(node, ast.Slice):
            for bound in (node.lower, node.upper):
                if bound is not None:
                    yield "slice", *self._span(bound), ""
                    if not isinstance(bound, ast.Constant):
                        yield "slice", *self._span(bound), f"{self._text(bound)} + 1"
        if isinstance(node, ast.Call) and _name(node.func) not in SPEAKING:
            yield from self._of_call(node)

    def _of_call(self, node: ast.Call) -> Iterator[tuple[str, int, int, str]]:
        if isinstance(node.func, ast.Attribute):
            name, owner = node.func.attr, node.func.value
            if name in REMOVED:
                library = isinstance(owner, ast.Name) and owner.id in ("torch", "np", "math", "F")
                kept = node.args[0] if library and node.args else owner
                if not (library and not node.args):
                    yield "call", *self._span(node), f"({self._text(kept)})"
        if _name(node.func) == "where" and len(node.args) == 3:
            _, left, right = node.args
            yield "where", self._span(left)[0], self._span(right)[1], f"{self._text(right)}, {self._text(left)}"
        elif (
            len(node.args) == 2
            and _name(node.func) not in SYMMETRIC
            and not any(isinstance(argument, ast.Starred) for argument in node.args)
        ):
            left, right = node.args
            if not (self._is_string(left) and self._is_string(right)):
                yield (
                    "arguments",
                    self._span(left)[0],
                    self._span(right)[1],
                    f"{self._text(right)}, {self._text(left)}",
                )
        for index, keyword in enumerate(node.keywords):
            if keyword.arg is None or self._is_text(node, keyword):
                continue
            start, end = self._span(keyword)
            previous = [*node.args, *(node.keywords[:index])]
            if previous:
                yield "keyword", max(self._span(item)[1] for item in previous), end, ""
            else:
                yield "keyword", start, end, ""
        for left, right in zip(node.keywords, node.keywords[1:], strict=False):
            if None in (left.arg, right.arg) or self._is_text(node, left) or self._is_text(node, right):
                continue
            text = f"{left.arg}={self._text(right.value)}, {right.arg}={self._text(left.value)}"
            yield "keywords", self._span(left)[0], self._span(right)[1], text

    @staticmethod
    def _is_negated(test: ast.expr) -> bool:
        """Whether another operator negates a condition already."""
        return isinstance(test, ast.UnaryOp) or (isinstance(test, ast.Compare) and len(test.ops) == 1)

    @staticmethod
    def _is_string(node: ast.AST) -> bool:
        return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def _name(node: ast.AST) -> str:
    return getattr(node, "id", None) or getattr(node, "attr", None) or ""


def _constants(value: Any) -> list[str]:
    if isinstance(value, bool):
        return [str(not value)]
    if isinstance(value, int):
        return [str(value + 1), str(value - 1)] if value > 1 else [str(1 - value), "2"]
    if isinstance(value, float):
        return ["1.0"] if value == 0 else [repr(2 * value), repr(value / 2)]
    # A choice, a key or a name; what has a space in it is text.
    if isinstance(value, str) and value.replace("_", "").replace(".", "").isalnum():
        return [repr(value + "_")]
    return []


def modules() -> list[str]:
    """Modules of the package, without their ending, sorted."""
    folder = ROOT / PACKAGE
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.py"))


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
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            check=True,
        )
        for name in listed.stdout.decode().splitlines():
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
        chosen, files = {}, []
        for file in tests_of(mutant.module, self.quick):
            if file.startswith(TRAINING):
                files.append(file)
                continue
            called = {
                test: seen["seconds"]
                for test, seen in self.watch(file).items()
                if callee is None or "process" in seen["calls"] or f"{mutant.module}:{callee}" in seen["calls"]
            }
            chosen |= called
            files += [file] if called else []
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

    def pytest_collectreport(self, report: Any) -> None:
        if report.failed:
            (self.root / "failed").write_text(report.nodeid)


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
        calls = set().union(self.calls[item.nodeid], *(self.calls[name] for name in used))
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
    try:
        os.killpg(child, signal.SIGKILL)
    except ProcessLookupError:
        pass


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
    found = [
        mutant
        for module in modules()
        if any(part in module for part in args.module)
        for mutant in Mutator(module, (ROOT / PACKAGE / f"{module}.py").read_text()).mutants()
    ]
    if args.again:
        survivors = {
            (entry["module"], entry["line"], entry["mutant"])
            for entry in json.loads(args.again.read_text())
            if entry["outcome"] == "survived"
        }
        return [mutant for mutant in found if mutant.key in survivors]
    return sorted(
        random.Random(args.seed).sample(found, min(args.sample, len(found))),
        key=lambda mutant: (mutant.module, mutant.start),
    )


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
            start, test = time.monotonic(), ""
            outcome = "equivalent" if mutant.key in equivalent else ""
            if not outcome:
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
