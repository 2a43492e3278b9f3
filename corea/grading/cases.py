"""Tests in replies, taken apart: what to call, and what it should give. Found by pure functions; runs nothing.

A model's test is a line ``assert f(…) == value``. Its two sides part here: the call goes to the program, in the
sandbox; the value never does. So a program that looks for what is wanted, or replaces what compares, finds nothing.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from corea.grading.programs import Subject, lacking, quietly

#: Longest reply worth searching, and lines that one assertion may take.
_MAX_CHARS, _MAX_LINES = 20_000, 12
_ASSERT = re.compile(r"^[\s>*\d.)`-]{0,12}(?=assert\b)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An expression that calls what is tested, and the plain value that it should have, to within ``tolerance``."""

    call: str
    expected: Any
    tolerance: float | None = None

    def agrees(self, said: str | None) -> bool:
        """Whether the value that the program gave, as Python writes it, is the expected one. Never raises."""
        if said is None:
            return False
        try:
            with quietly():
                value = ast.literal_eval(said)
            if self.tolerance is not None:
                return bool(abs(value - self.expected) <= self.tolerance)
            return bool(value == self.expected)
        except (ValueError, TypeError, SyntaxError, OverflowError, RecursionError, MemoryError):
            return False


def cases_of(reply: str, subject: Subject, *, most: int) -> list[Case]:
    """The first tests of the reply that can be taken apart, each call once. Never raises.

    They are such as name their subject and a value that is written out: ``==``, ``is``, ``not f(…)``, ``f(…)``,
    ``abs(f(…) - value) < tolerance``, ``isclose``. Names that the program lacks make no test.
    """
    found: dict[str, Case] = {}
    for test in _assertions(reply[:_MAX_CHARS]):
        case = _case(test, subject)
        if case is not None:
            found.setdefault(case.call, case)
    return list(found.values())[:most]


def _assertions(reply: str) -> Iterator[ast.expr]:
    """What each line asserts that begins with "assert", whatever stands around it; it may go on in the lines below."""
    lines = reply.splitlines()
    for at, line in enumerate(lines):
        if (match := _ASSERT.match(line)) is None:
            continue
        for end in range(at + 1, min(at + 1 + _MAX_LINES, len(lines) + 1)):
            code = "\n".join([line[match.end() :].rstrip("`"), *lines[at + 1 : end]])
            if (test := _asserted(code)) is not None:
                yield test
                break


def _asserted(code: str) -> ast.expr | None:
    try:
        with quietly():
            body = ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    return body[0].test if len(body) == 1 and isinstance(body[0], ast.Assert) else None


def _case(test: ast.expr, subject: Subject) -> Case | None:
    tolerance: float | None = None
    match test:
        case ast.Compare(left=left, ops=[ast.Eq() | ast.Is()], comparators=[right]):
            sides = (left, right)
        case ast.Compare(
            left=ast.Call(func=ast.Name(id="abs"), args=[ast.BinOp(left=left, op=ast.Sub(), right=right)]),
            ops=[ast.Lt() | ast.LtE()],
            comparators=[ast.Constant(value=float() | int() as tolerance)],
        ):
            sides = (left, right)
        case ast.Call(func=ast.Name(id="isclose") | ast.Attribute(attr="isclose"), args=[left, right], keywords=[]):
            sides, tolerance = (left, right), 1e-6
        case ast.UnaryOp(op=ast.Not(), operand=call):
            return _truth(call, subject, expected=False)
        case _:
            return _truth(test, subject, expected=True)
    for call, value in (sides, sides[::-1]):
        known = _literal(value)
        if known and _calls(call, subject):
            return Case(call=ast.unparse(call), expected=known[0], tolerance=tolerance)
    return None


def _truth(call: ast.expr, subject: Subject, *, expected: bool) -> Case | None:
    """That an answer counts as true, or as false. A comparison with what is not written out is no case, nor a type."""
    if not isinstance(call, ast.Call) or not _calls(call, subject):
        return None
    if isinstance(call.func, ast.Name) and call.func.id != subject.name:
        return None
    return Case(call=f"bool({ast.unparse(call)})", expected=expected)


def _literal(node: ast.expr) -> tuple[Any] | None:
    """The value that is written out, in a tuple, as it may be None."""
    try:
        return (ast.literal_eval(node),)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None


def _calls(node: ast.expr, subject: Subject) -> bool:
    called = any(
        isinstance(part, ast.Call) and isinstance(part.func, ast.Name) and part.func.id == subject.name
        for part in ast.walk(node)
    )
    return called and not lacking(ast.unparse(node), subject.names)
