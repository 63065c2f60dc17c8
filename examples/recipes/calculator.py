# Copyright 2026 The trl_grpo_variants authors.
# SPDX-License-Identifier: Apache-2.0

"""An environment for problems whose answer is a number: a calculator to call, and an answer to submit."""

import ast
import operator
from collections.abc import Callable
from typing import Any


OPERATORS: dict[type, Callable[..., float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}
INSTRUCTION = (
    "\n\nReason step by step. Call `calculate` for every piece of arithmetic, and call `submit` once with the final "
    "number; an answer that is not submitted does not count."
)


class Calculator:
    """One rollout; TRL calls `reset` with the row before it, and `get_reward` after it."""

    def reset(self, solution: str, **_: Any) -> str:
        self._solution, self._submitted = solution, None
        # Is appended to the prompt.
        return INSTRUCTION

    def calculate(self, expression: str) -> str:
        """
        Work out an arithmetic expression.

        Args:
            expression: Numbers, +, -, *, / and brackets, such as "(3 + 4) * 2.5".
        """
        # What is raised, a division by zero for instance, is told to the policy as the answer of the tool.
        return f"{evaluate(expression):.12g}"

    def submit(self, answer: str) -> str:
        """
        Submit the final answer. Only the first one counts.

        Args:
            answer: The number, without a unit.
        """
        if self._submitted is None:
            self._submitted = answer
        return "submitted"

    def get_reward(self) -> float:
        """1 for the right number, else 0."""
        try:
            submitted = float(str(self._submitted).replace(",", ""))
        except ValueError:
            return 0.0
        return float(abs(submitted - float(self._solution)) < 1e-6)


def evaluate(expression: str) -> float:
    """Value of an arithmetic expression; a `ValueError` for anything else."""
    if len(expression) > 200:
        raise ValueError("the expression has more than 200 characters")
    return _value(ast.parse(expression.strip(), mode="eval").body)


def _value(node: ast.expr) -> float:
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.BinOp(left, op, right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](_value(left), _value(right))
        case ast.UnaryOp(op, operand) if type(op) in OPERATORS:
            return OPERATORS[type(op)](_value(operand))
    raise ValueError(f"only numbers, +, -, *, / and brackets are allowed, not {ast.unparse(node)}")
