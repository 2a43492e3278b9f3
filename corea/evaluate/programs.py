"""Programming tasks as researchers exchange them, read as questions of kind "code": HumanEval's rows and MBPP's.

HumanEval (arXiv 2107.03374): ``task_id``, ``prompt``, ``entry_point``, ``test``. MBPP (arXiv 2108.07732): ``task_id``,
``text`` or ``prompt``, ``test_list``, and ``test_setup_code`` or ``test_imports``. Runs nothing.
"""

from __future__ import annotations

import ast
import json
import sys
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from corea.batch.parquet import MAGIC, read_rows
from corea.batch.rows import BadLine, Question, opened, question_of
from corea.errors import CoreaError, InputError

Rows = Iterator[tuple[int, Any]]


def is_programs(path: Path) -> bool:
    """Whether a file's first row is a task of either kind."""
    try:
        first = next((row for _, row in _rows(path)), None)
    except (OSError, EOFError, zlib.error, ValueError, RecursionError, CoreaError):
        # Whoever reads it in earnest says what is wrong.
        return False
    return isinstance(first, dict) and _is_task(first)


def read_programs(path: Path) -> Iterator[Question | BadLine]:
    """Every row, as a question or as what is wrong with it: one JSON object a line, a JSON array of them, Parquet.

    Raises :class:`InputError` when the file cannot be read to its end.
    """
    seen: set[bytes] = set()
    rows = _rows(path)
    number = 0
    while True:
        try:
            number, row = next(rows)
        except StopIteration:
            return
        except (ValueError, RecursionError) as exc:
            yield BadLine(line=number + 1, why=f"not JSON ({exc})")
            return
        except (OSError, EOFError, zlib.error) as exc:
            raise InputError(f"cannot read {path}: {getattr(exc, 'strerror', None) or exc}; fetch it anew") from exc
        yield _question(number, row, seen)


def task_of(row: Mapping[str, Any]) -> dict[str, Any] | None:
    """A row of either kind in our own format; None for any other row. Raises :class:`ValueError` for half of one."""
    if not _is_task(row):
        return None
    return _mbpp(row) if "test_list" in row else _human_eval(row)


def _question(number: int, row: Any, seen: set[bytes]) -> Question | BadLine:
    if not isinstance(row, dict):
        return BadLine(line=number, why="not a JSON object")
    try:
        task = task_of(row)
    except ValueError as exc:
        return BadLine(line=number, why=str(exc))
    if task is None:
        why = "neither HumanEval's fields (task_id, prompt, entry_point, test) nor MBPP's (task_id, text, test_list)"
        return BadLine(line=number, why=f"{why}, as the lines before have; put it in a file of its own")
    return question_of(number, task, seen)


def _rows(path: Path) -> Rows:
    """Rows with their number, from 1. Raises :class:`ValueError` for what is not JSON."""
    with path.open("rb") as raw:
        if raw.read(4) == MAGIC:
            raw.seek(0)
            yield from enumerate(read_rows(raw, skip=0), start=1)
            return
    with opened(path) as file:
        for number, line in enumerate(file, start=1):
            if number == 1 and line.lstrip().startswith(b"["):
                # The hand-verified part of MBPP is one array.
                yield from enumerate(json.loads(line + file.read()), start=1)
                return
            if line.strip():
                yield number, json.loads(line)


def _is_task(row: Mapping[str, Any]) -> bool:
    ours = "id" in row and "question" in row
    return (
        not ours and "task_id" in row and not row.keys().isdisjoint(("entry_point", "canonical_solution", "test_list"))
    )


def _human_eval(row: Mapping[str, Any]) -> dict[str, Any]:
    given = {name: _text(row, name, "HumanEval") for name in ("prompt", "entry_point", "test")}
    id = _id(row)
    tests = f"{given['test']}\n\ncheck({given['entry_point']})\n"
    _check_imports(tests)
    task = id.partition("/")[0].lower() if "/" in id else None
    return {"id": id, "question": given["prompt"], "answer": tests, "kind": "code", "task": task}


def _mbpp(row: Mapping[str, Any]) -> dict[str, Any]:
    name = "text" if "text" in row else "prompt"
    text, tests = _text(row, name, "MBPP"), row["test_list"]
    if not isinstance(tests, list) or not tests or not all(isinstance(test, str) for test in tests):
        raise ValueError('"test_list" of an MBPP task must be a list of assert statements')
    setup = [row.get("test_setup_code") or "", *(row.get("test_imports") or ())]
    if any("math." in test for test in tests):
        # Some tests use it without a word.
        setup.append("import math")
    whole = "\n".join([part for part in map(str, setup) if part] + tests) + "\n"
    _check_imports(whole)
    # One test shows what the function is called and takes. The others stay hidden: shown, they could be written again.
    question = f"{text.strip()}\n\nIt should pass tests like this one:\n\n{tests[0]}\n"
    return {"id": f"mbpp/{_id(row)}", "question": question, "answer": whole, "kind": "code", "task": "mbpp"}


def _id(row: Mapping[str, Any]) -> str:
    id = row["task_id"]
    if not isinstance(id, str | int) or isinstance(id, bool) or id == "":
        raise ValueError('"task_id" must be a string or a whole number')
    return str(id)


def _text(row: Mapping[str, Any], name: str, of: str) -> str:
    value = row.get(name)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f'a task of {of} needs "{name}", a string; add it, or leave the task out')
    return value


def _check_imports(tests: str) -> None:
    """Raises :class:`ValueError` for tests that no program could pass in the sandbox."""
    try:
        tree = ast.parse(tests)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as exc:
        raise ValueError(f"its tests are not Python ({exc}); mend them, or leave the task out") from exc
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if foreign := [name for name in names if name.partition(".")[0] not in sys.stdlib_module_names]:
            raise ValueError(
                f"its tests import {foreign[0]}, and programs are run with the standard library alone; "
                "leave the task out, or take the data set's version without it"
            )
