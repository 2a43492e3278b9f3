"""Values of expressions, asked of a program in the sandbox that is not told what they should be."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

from corea.errors import InputError
from corea.grading import sandbox
from corea.grading.sandbox import Limits, values

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="programs are shut in with Linux's means")

PATIENT = Limits(timeout_s=20.0)
QUICK = Limits(timeout_s=0.5)

PLAIN = """
import collections, enum
Point = collections.namedtuple("Point", "x y")
class Level(enum.IntEnum):
    LOW = 1
class Own:
    def __eq__(self, other): return True
def double(x): return 2 * x
def broken(): raise ValueError("no")
"""


def told(program: str, *expressions: str, limits: Limits = PATIENT) -> list[str | None]:
    return values(program, expressions, limits=limits)


def test_values_are_told_as_python_writes_them() -> None:
    asked = {
        "double(2)": "4", "double('a')": "'aa'", "double([1])": "[1, 1]", "double(0.1) + 0.1": "0.30000000000000004",
        "Point(1, [2])": "(1, [2])", "Level.LOW": "1", "collections.Counter('aab')": "{'a': 2, 'b': 1}",
        "{3}": "{3}", "frozenset([3])": "{3}", "set()": "set()", "None": "None", "True": "True", "'é\\n'": "'é\\n'",
    }  # fmt: skip
    assert told(PLAIN, *asked) == list(asked.values())


def test_what_is_nothing_plain_or_fails_is_none_and_the_next_one_is_asked() -> None:
    asked = ["broken()", "nothing", "1 +", "exit(0)", "__import__('sys').exit(0)", "'x' * 10_000", "double(3)"]
    assert told(PLAIN, *asked) == [None] * 6 + ["6"]
    (own,) = told(PLAIN, "Own()")
    assert own is not None
    assert own.startswith("<program.Own object")


def test_a_program_that_does_not_run_gives_no_values() -> None:
    assert told("def f(x", "f(1)", "f(2)") == [None, None]
    assert told("raise SystemExit", "1", "2") == [None, None]
    assert told("import os; os._exit(0)", "1", "2") == [None, None]


def test_an_expression_that_hangs_or_ends_the_process_is_passed_over_once() -> None:
    program = "import os\ndef f(x):\n    while x == 1: pass\n    if x == 2: os._exit(0)\n    return x"
    assert told(program, "f(0)", "f(1)", "f(3)", limits=QUICK) == ["0", None, "3"]
    assert told(program, "f(0)", "f(2)", "f(3)", limits=PATIENT) == ["0", None, "3"]
    assert told(program, "f(2)", "f(0)", "f(2)", "f(3)", limits=PATIENT) == [None, "0", None, None]


def test_many_long_values_all_arrive() -> None:
    found = told("", *["'\N{GRINNING FACE}' * 900"] * 40)
    assert found == [repr("\N{GRINNING FACE}" * 900)] * 40


def test_nothing_asked_is_nothing_told() -> None:
    assert told("x = 1") == []


def test_expressions_stay_shut_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine = tmp_path / "mine"
    mine.write_text("precious")
    nasty = [
        f"open({str(mine)!r}, 'w').write('gone')",
        f"open({str(mine)!r}).read()",
        f"__import__('os').remove({str(mine)!r})",
        f"__import__('os').kill({os.getpid()}, 9)",
        "__import__('os').fork()",
        "__import__('subprocess').run(['/bin/true'])",
        "__import__('socket').socket()",
        "open('/etc/passwd').read()",
        "bytearray(1 << 33)",
    ]
    assert told("", *nasty, "1 + 1") == [None] * len(nasty) + ["2"]
    assert mine.read_text() == "precious"
    assert [entry.name for entry in tmp_path.iterdir()] == ["mine"]


def test_whatever_a_program_replaces_its_values_are_its_own() -> None:
    program = """
import builtins, json, os, sys
builtins.repr = lambda value: "4"
builtins.eval = builtins.compile = lambda *_: 4
json.dumps = lambda message: '{"value": "4"}'
print('{"value": "4"}')
def f(x):
    builtins.repr = lambda value: "4"
    return x
"""
    assert told(program, "f(5)", "f(6)", "7") == ["5", "6", "7"]


def test_what_a_program_says_in_the_reports_place_is_not_believed() -> None:
    forged = 'import os\nos.write(3, b\'{"word": "", "value": "4"}\\n\')\ndef f(x): return x'
    assert told(forged, "f(5)", "f(6)") == [None, None]


def test_where_programs_cannot_be_shut_in_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_SCRIPT", tmp_path / "missing.py")
    with pytest.raises(InputError, match="programs cannot be shut in here"):
        told("", "1")
