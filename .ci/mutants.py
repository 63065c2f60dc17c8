# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""Single errors that can be planted in a module: operators over its syntax tree, applied to its text."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any


# An operator, the text between two offsets, and what is to stand there instead.
Edit = tuple[str, int, int, str]

COMPARISONS = {
    ast.Lt: ("<=", ">="), ast.LtE: ("<", ">"), ast.Gt: (">=", "<="), ast.GtE: (">", "<"), ast.Eq: ("!=",),
    ast.NotEq: ("==",), ast.Is: ("is not",), ast.IsNot: ("is",), ast.In: ("not in",), ast.NotIn: ("in",),
}  # fmt: skip
# Symbol, and the one to take its place.
ARITHMETIC = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "%"),
    ast.Mod: ("%", "//"), ast.Pow: ("**", "*"), ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"),
}  # fmt: skip
NAMES = {
    "min": "max", "minimum": "maximum", "amin": "amax", "argmin": "argmax", "nanmin": "nanmax", "any": "all",
    "sum": "mean", "nansum": "nanmean", "zeros_like": "ones_like", "zeros": "ones", "floor": "ceil", "cumsum": "cumprod",
    "exp": "expm1", "log": "log1p", "startswith": "endswith", "isnan": "isinf", "std": "var", "gather": "scatter",
}  # fmt: skip
NAMES |= {after: before for before, after in NAMES.items()}
# Functions that do not mind the order of their arguments.
SYMMETRIC = {"min", "max", "minimum", "maximum", "hypot", "array_equal", "equal", "suppress", "broadcast_shapes"}
# Methods without which their object is still a value of the same kind.
REMOVED = set(
    "detach clamp clamp_min clamp_max clip abs neg float double bool nan_to_num masked_fill clone contiguous flip sort "
    "strip lower unsqueeze squeeze sqrt square log exp copy get_text_config resolve sum mean".split()
)
# What these are given is text, or the looks of a figure.
SPEAKING = set(
    "Sheet add_panel add_heading add_legend warn warning warning_once info debug error print print_exception".split()
)
# Without these, something is missing.
MISSED = {"add_legend", "warn", "warning"}
# What these keywords are given is text or looks.
APPEARANCE = set(
    "metadata help description epilog metavar label title color linewidth linestyle alpha marker markersize fontsize "
    "loc bbox_to_anchor ncols dpi frameon pad zorder s ha va labelsize which stacklevel encoding justify no_wrap "
    "style highlight soft_wrap elinewidth capsize fmt figsize nbins show_header show_lines labelcolor borderaxespad".split()
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
        self.starts = [0, *accumulate(len(line) for line in self.source.splitlines(keepends=True))]

    def mutants(self) -> list[Mutant]:
        mutants: dict[tuple[int, int, str], Mutant] = {}
        for operator, start, end, text in self._walk(ast.parse(self.source)):
            try:
                ast.parse(self.source[:start] + text.encode() + self.source[end:])
            except SyntaxError:
                continue
            first, last = self.source.rfind(b"\n", 0, start) + 1, self.source.find(b"\n", end)
            before = self.source[first:last].decode()
            after = (self.source[first:start] + text.encode() + self.source[end:last]).decode()
            lines = ["\n".join(line.strip() for line in part.splitlines()) for part in (before, after)]
            if lines[0] != lines[1]:
                row = self.source.count(b"\n", 0, start) + 1
                mutant = Mutant(self.module, operator, start, end, text, row, *lines)
                mutants.setdefault((start, end, text), mutant)
        return [mutants[key] for key in sorted(mutants)]

    def _span(self, node: Any) -> tuple[int, int]:
        return self.starts[node.lineno - 1] + node.col_offset, self.starts[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node: ast.AST) -> str:
        start, end = self._span(node)
        return self.source[start:end].decode()

    def _between(self, left: ast.AST, right: ast.AST, symbol: str) -> tuple[int, int]:
        """Where the operator between two operands stands."""
        at = self.source.find(symbol.encode(), self._span(left)[1], self._span(right)[0])
        return at, at + len(symbol)

    def _swapped(self, left: ast.AST, right: ast.AST) -> tuple[int, int, str]:
        return self._span(left)[0], self._span(right)[1], f"{self._text(right)}, {self._text(left)}"

    def _walk(self, node: ast.AST) -> Iterator[Edit]:
        yield from self._edits(node)
        if isinstance(node, ast.Call) and _name(node.func) not in SPEAKING:
            yield from self._edits_of_call(node)
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "type_comment", "decorator_list"):
                continue
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST) and not _is_text(node, child):
                    yield from self._walk(child)

    def _edits(self, node: ast.AST) -> Iterator[Edit]:
        match node:
            case ast.Compare():
                for left, operator, right in zip(
                    [node.left, *node.comparators], node.ops, node.comparators, strict=False
                ):
                    start, end = self._span(left)[1], self._span(right)[0]
                    between = self.source[start:end].decode()
                    # Brackets around an operand stand between the operands too.
                    start += len(between) - len(between.lstrip(" )\n"))
                    end -= len(between) - len(between.rstrip(" (\n"))
                    for text in COMPARISONS[type(operator)]:
                        yield "comparison", start, end, text
            case ast.BinOp() if type(node.op) in ARITHMETIC and not (_is_string(node.left) or _is_string(node.right)):
                symbol, text = ARITHMETIC[type(node.op)]
                yield "arithmetic", *self._between(node.left, node.right, symbol), text
            case ast.AugAssign() if type(node.op) in ARITHMETIC:
                symbol, text = ARITHMETIC[type(node.op)]
                place = self._between(node.target, node.value, f"{symbol}=")
                yield "arithmetic", *place, f"{text}="
                yield "assignment", *place, "="
            case ast.BoolOp():
                before, after = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
                for left, right in pairwise(node.values):
                    yield "boolean", *self._between(left, right, before), after
            case ast.UnaryOp():
                yield "sign", *self._span(node), f"({self._text(node.operand)})"
            case ast.If() | ast.While() if not _is_negated(node.test):
                yield "condition", *self._span(node.test), f"not ({self._text(node.test)})"
            case ast.IfExp() if not _is_negated(node.test):
                yield "condition", *self._span(node.test), f"(not ({self._text(node.test)}))"
            case ast.comprehension():
                for test in node.ifs:
                    yield "condition", *self._span(test), "True"
            case ast.Constant():
                for text in _constants(node.value):
                    yield "constant", *self._span(node), text
            case ast.Name() | ast.Attribute() if isinstance(node.ctx, ast.Load) and _name(node) in NAMES:
                if not (isinstance(node, ast.Attribute) and _name(node.value) in ("stack", "os")):
                    end = self._span(node)[1]
                    yield "name", end - len(_name(node)), end, NAMES[_name(node)]
            case ast.Return() if node.value is not None and getattr(node.value, "value", ...) is not None:
                yield "return", *self._span(node.value), "None"
            case ast.Raise():
                yield "guard", *self._span(node), "pass"
            case ast.Continue() | ast.Break():
                yield "loop", *self._span(node), "pass"
            case ast.Assign() if isinstance(node.targets[0], ast.Attribute | ast.Subscript):
                yield "statement", *self._span(node), "pass"
            case ast.Expr() if isinstance(node.value, ast.Call):
                if _name(node.value.func) not in SPEAKING - MISSED:
                    yield "statement", *self._span(node), "pass"
            case ast.Slice():
                for bound in filter(None, (node.lower, node.upper)):
                    yield "slice", *self._span(bound), ""
                    if not isinstance(bound, ast.Constant):
                        yield "slice", *self._span(bound), f"{self._text(bound)} + 1"

    def _edits_of_call(self, node: ast.Call) -> Iterator[Edit]:
        if isinstance(node.func, ast.Attribute) and node.func.attr in REMOVED:
            owner = node.func.value
            library = isinstance(owner, ast.Name) and owner.id in ("torch", "np", "math", "F")
            if node.args or not library:
                yield "call", *self._span(node), f"({self._text(node.args[0] if library else owner)})"
        if _name(node.func) == "where" and len(node.args) == 3:
            yield "where", *self._swapped(*node.args[1:])
        elif len(node.args) == 2 and _name(node.func) not in SYMMETRIC:
            starred = any(isinstance(argument, ast.Starred) for argument in node.args)
            if not starred and not all(map(_is_string, node.args)):
                yield "arguments", *self._swapped(*node.args)
        for index, keyword in enumerate(node.keywords):
            if keyword.arg is not None and not _is_text(node, keyword):
                start, end = self._span(keyword)
                previous = [*node.args, *node.keywords[:index]]
                yield "keyword", max((self._span(item)[1] for item in previous), default=start), end, ""
        for left, right in pairwise(node.keywords):
            if None not in (left.arg, right.arg) and not _is_text(node, left) and not _is_text(node, right):
                text = f"{left.arg}={self._text(right.value)}, {right.arg}={self._text(left.value)}"
                yield "keywords", self._span(left)[0], self._span(right)[1], text


def _is_text(parent: ast.AST, node: ast.AST) -> bool:
    """Whether a node is there for people to read, or cannot be changed."""
    match node:
        case ast.Expr(value=ast.Constant()) | ast.JoinedStr() | ast.Import() | ast.ImportFrom():
            # A docstring; positions inside an f-string are wrong before Python 3.12.
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.keyword() if node.arg in APPEARANCE:
            return True
        case ast.Assign(targets=[ast.Name(id=name), *_]) if name in ("__all__", "__version__", "logger", *APPEARANCE):
            return True
    return isinstance(parent, ast.Raise) or (isinstance(parent, ast.Call) and _name(parent.func) in SPEAKING)


def _is_negated(test: ast.expr) -> bool:
    """Whether another operator negates a condition already."""
    return isinstance(test, ast.UnaryOp) or (isinstance(test, ast.Compare) and len(test.ops) == 1)


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
