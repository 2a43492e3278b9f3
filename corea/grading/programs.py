"""Programs in replies: found by pure functions, graded by their tests in the sandbox. HumanEval and MBPP style.

Knows no models. How a program is held while it runs is :mod:`corea.grading.sandbox`'s.
"""

from __future__ import annotations

import ast
import builtins
import re
import textwrap
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from corea.errors import InputError
from corea.grading import sandbox
from corea.grading.sandbox import LIMITS, Limits

#: Longest reply worth searching.
_MAX_CHARS = 200_000
#: Places where code without a fence may begin, and trailing lines of prose that are given up, one by one.
_MAX_STARTS, _MAX_TRAILING_LINES = 3, 200
_FENCE = re.compile(
    r"^[ \t]*(?P<mark>```+|~~~+)[ \t]*(?P<language>[\w+-]*)[^\n]*\n(?P<code>.*?)(?:^[ \t]*(?P=mark)|\Z)",
    re.MULTILINE | re.DOTALL,
)
_PYTHON = frozenset({"", "py", "python", "python3"})
_FIRST_LINE = re.compile(
    r"^(?:import \w[\w.]*(?: as \w+)?(?:,.*)?$|from [\w.]+ import |(?:async )?def \w+\(|class \w+[:(]|@\w)",
    re.MULTILINE,
)
_DEFINITION = re.compile(r"^(?:(?:async )?def|class) (\w+)", re.MULTILINE)
_FUTURE = re.compile(r"^from __future__ import [^\n]*\n?", re.MULTILINE)
_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
_parsing = threading.Lock()


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What can be tested by somebody who does not know the tests: a reply's program, and the name that was asked for.

    ``head`` is how the definition of ``name`` begins, its body left out; ``names`` are all that the program defines.
    """

    program: str
    name: str
    head: str
    names: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Did the program pass its tests? ``why`` says in one line what stopped it; None when it passed."""

    passed: bool
    why: str | None = None


def grade_program(
    reply: str, tests: str, *, entry_point: str | None = None, prompt: str = "", limits: Limits = LIMITS
) -> Verdict:
    """Run the program in ``reply`` and then ``tests``: Python that raises where the program is wrong.

    Tests that define ``check(candidate)`` and never call it (HumanEval) are called with ``entry_point``, by default
    the last function that ``prompt`` begins. Blocks its thread. Raises :class:`InputError` for tests that test nothing,
    and where programs cannot be shut in.
    """
    entry_point = entry_point or entry_point_of(tests, prompt)
    if not tests.strip():
        raise InputError("a program without tests cannot be graded; give them as its answer")
    if _awaits_call(tests):
        if entry_point is None:
            raise InputError('the tests define check() and never call it; end them with "check(NAME)"')
        tests = f"{tests}\n\ncheck({entry_point})\n"
    program = program_of(reply, entry_point=entry_point, tests=tests, prompt=prompt)
    if program is None:
        return Verdict(passed=False, why="no program in the reply")
    why = sandbox.run(program, tests, limits=limits)
    return Verdict(passed=why is None, why=why)


def entry_point_of(tests: str, prompt: str = "") -> str | None:
    """The name that the tests call ``check`` with; where they leave that to us, the last function of the prompt."""
    for node in reversed(_statements(tests)):
        match node:
            case ast.Expr(value=ast.Call(func=ast.Name(id="check"), args=[ast.Name(id=name), *_])):
                return name
    functions = [node.name for node in _statements(_unfinished(prompt)) if isinstance(node, _Function)]
    return functions[-1] if functions and _awaits_call(tests) else None


def program_of(reply: str, *, entry_point: str | None = None, tests: str = "", prompt: str = "") -> str | None:
    """The program to run: the last block of code that defines what is tested, and what it needs before it.

    Blocks are Markdown fences, closed or not; a reply without any is code with prose around it, or goes on where the
    prompt's function stopped. Needs are names that the block lacks and an earlier block or the prompt defines. None
    where there is no code.
    """
    reply = reply[-_MAX_CHARS:].rpartition("</think>")[2]
    wanted = {entry_point} if entry_point else _lacking(tests)
    start = _unfinished(prompt)
    blocks = _blocks(reply)
    sources = [_before_last_function(start), *blocks]
    for at in reversed(range(len(blocks))):
        if _defined(blocks[at]) & wanted:
            return _with_needs(blocks[at], sources[: at + 1])
    for text in reversed(blocks) if _FENCE.search(reply) else [reply]:
        if start and (program := _continued(start, text)) is not None:
            return program
    for at in reversed(range(len(blocks))):
        if _DEFINITION.search(blocks[at]):
            return _with_needs(blocks[at], sources[: at + 1])
    return blocks[-1] if blocks else None


def subject_of(reply: str, prompt: str) -> Subject | None:
    """The program in a reply, and which of its functions or classes the prompt asks for; None without either.

    That is the last function that the prompt begins; else the last that it speaks of (``name(``, or in backticks);
    else the last that the program defines.
    """
    begun = [node.name for node in _statements(_unfinished(prompt)) if isinstance(node, _Function)][-1:]
    program = program_of(reply, entry_point=begun[0] if begun else None, prompt=prompt)
    made = {node.name: node for node in _statements(program or "") if isinstance(node, _Definition)}
    if program is None or not made:
        return None
    spoken_of = [name for name in made if re.search(rf"\b{name}\(|`{name}`", prompt)]
    usual = [name for name in made if name != "main" and not name.startswith("test")]
    name = next(names[-1] for names in ([one for one in begun if one in made], spoken_of, usual, list(made)) if names)
    return Subject(program=program, name=name, head=_head(made[name]), names=frozenset(_defined(program)))


def lacking(code: str, names: frozenset[str]) -> set[str]:
    """Names that the code reads and that are neither its own, nor built in, nor among ``names``."""
    return _lacking(code) - names


def _head(definition: _Definition) -> str:
    """A definition without its body; a class with the heads of its methods."""
    (node,) = ast.parse(ast.unparse(definition)).body
    assert isinstance(node, _Definition)  # noqa: S101 - what is written out reads back as it was
    methods = [part for part in node.body if isinstance(part, _Function)] if isinstance(node, ast.ClassDef) else []
    for part in (node, *methods):
        part.body = [ast.Expr(ast.Constant(...))]
    if methods:
        node.body = [*methods]
    return ast.unparse(node)


def _blocks(reply: str) -> list[str]:
    """Blocks of code in their order. Without fences, code that stands bare is one."""
    if fences := list(_FENCE.finditer(reply)):
        return [textwrap.dedent(match["code"]) for match in fences if match["language"].lower() in _PYTHON]
    for first in list(_FIRST_LINE.finditer(reply))[:_MAX_STARTS]:
        lines = reply[first.start() :].splitlines()
        for end in range(len(lines), max(0, len(lines) - _MAX_TRAILING_LINES), -1):
            if _statements(code := "\n".join(lines[:end])):
                return [code]
    return []


def _unfinished(prompt: str) -> str:
    """The prompt's own code, made to parse: its last function may lack a body. Empty where the prompt is prose."""
    fences = [textwrap.dedent(match["code"]) for match in _FENCE.finditer(prompt)]
    starts = list(_FIRST_LINE.finditer(prompt))[:_MAX_STARTS]
    for code in fences[::-1] or [prompt[first.start() :] for first in starts]:
        for whole in (code.rstrip() + "\n", code.rstrip() + "\n    pass\n"):
            if any(isinstance(node, _Function) for node in _statements(whole)):
                return whole
    return ""


def _continued(start: str, text: str) -> str | None:
    """``start`` with the text as the rest of its last function; None if that is not Python."""
    margin = " " * _last_function(start).body[0].col_offset
    lines = text.strip("\n").splitlines()
    if lines and lines[0][:1].isspace():
        # What follows at the left edge, prose or another function, is not part of it.
        edge = next((at for at, line in enumerate(lines) if line[:1].strip()), len(lines))
        lines = textwrap.dedent("\n".join(lines[:edge])).splitlines()
    body = "\n".join(lines)
    # The second form: a model that goes on after the prompt's last blank leaves the first line's margin out.
    for written in (textwrap.indent(body, margin), margin + body):
        if body.strip() and _compiles(program := f"{start}{written}\n"):
            return program
    return None


def _before_last_function(start: str) -> str:
    """Imports and helpers of the prompt."""
    if not start:
        return ""
    last = _last_function(start)
    first_line = min(node.lineno for node in (last, *last.decorator_list))
    return "".join(start.splitlines(keepends=True)[: first_line - 1])


def _last_function(code: str) -> _Function:
    return [node for node in _statements(code) if isinstance(node, _Function)][-1]


def _with_needs(block: str, earlier: list[str]) -> str:
    """The block after those earlier ones that define names which it lacks."""
    for other in reversed(earlier):
        defined = _defined(other)
        if (lacking := _lacking(block)) and (defined & lacking or "*" in defined):
            futures = "".join(_FUTURE.findall(block))
            block = f"{futures}{other}\n\n{_FUTURE.sub('', block)}"
    return block


def _awaits_call(tests: str) -> bool:
    """Do the tests define ``check`` and leave calling it to us?"""
    defined = called = False
    for node in _statements(tests):
        defined |= isinstance(node, ast.FunctionDef) and node.name == "check"
        called |= not isinstance(node, _Function) and any(
            isinstance(part, ast.Name) and part.id == "check" for part in ast.walk(node)
        )
    return defined and not called


def _statements(code: str) -> list[ast.stmt]:
    """Of its top level; none if it is not Python."""
    try:
        with quietly():
            return ast.parse(code).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _compiles(code: str) -> bool:
    """Stricter than parsing: "return" outside a function does not compile."""
    try:
        with quietly():
            compile(code, "<program>", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


@contextmanager
def quietly() -> Iterator[None]:
    """What Python has to say about a model's style is nobody's business. Filters are the process's: hence the lock."""
    with _parsing, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _defined(code: str) -> set[str]:
    """Names that its top level binds. Code that is not Python defines what it seems to."""
    statements = _statements(code)
    names = set() if statements else set(_DEFINITION.findall(code))
    for node in statements:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                names.add(name)
            case ast.Assign() | ast.AnnAssign():
                names |= {part.id for part in ast.walk(node) if isinstance(part, ast.Name) and _is_stored(part)}
            case ast.Import(names=aliases) | ast.ImportFrom(names=aliases):
                names |= {_bound_by(alias) for alias in aliases}
    return names


def _lacking(code: str) -> set[str]:
    """Names that it reads and nowhere binds."""
    read: set[str] = set()
    bound = set(vars(builtins))
    for node in (node for statement in _statements(code) for node in ast.walk(statement)):
        match node:
            case ast.Name(id=name):
                (bound if _is_stored(node) else read).add(name)
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                bound.add(name)
            case ast.arg(arg=name) | ast.ExceptHandler(name=str(name)):
                bound.add(name)
            case ast.alias():
                bound.add(_bound_by(node))
    return read - bound


def _is_stored(name: ast.Name) -> bool:
    return isinstance(name.ctx, ast.Store)


def _bound_by(alias: ast.alias) -> str:
    return alias.asname or alias.name.partition(".")[0]
