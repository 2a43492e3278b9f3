"""Questions in, rows out: the two line formats of a batch. Knows no models.

In, one JSON object a line (plain or .gz): ``id``, ``question``, optionally ``answer`` (gold), ``kind``, ``task``.
Out, one a question: the fields of :class:`Row`.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from hashlib import blake2b
from pathlib import Path
from typing import Any, BinaryIO, get_args

from corea.errors import InputError
from corea.grading.answers import boolean_of, number_of
from corea.types import Kind, Request, Trace

_KINDS = get_args(Kind)
#: LaTeX, powers, roots, equations, and what stands in brackets.
_FORMULA = re.compile(r"\\[A-Za-z]|[\^=√π∞]|^[(\[].*[)\]]$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One line of the input."""

    id: str
    question: str
    gold: str | None = None
    kind: Kind | None = None
    task: str | None = None
    domain: str | None = None

    @property
    def request(self) -> Request:
        return Request.of(self.question, id=self.id, task=self.task, kind=self.kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class BadLine:
    """A line that is no question, and why."""

    line: int
    why: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the output. Money in nano-USD; None is unknown. ``correct`` is None without a gold answer."""

    id: str
    answer: str | None = None
    text: str | None = None
    tier: str | None = None
    confidence: float | None = None
    deferred: bool | None = None
    cost_nano_usd: int | None = None
    saved_nano_usd: int | None = None
    correct: bool | None = None
    error: str | None = None
    trace_id: str | None = None

    @classmethod
    def of(cls, question: Question, trace: Trace, *, correct: bool | None) -> Row:
        return cls(
            id=question.id,
            answer=trace.answer,
            text=trace.text,
            tier=trace.tier,
            confidence=trace.confidence,
            deferred=trace.deferred,
            cost_nano_usd=trace.cost_nano_usd,
            saved_nano_usd=trace.saved_nano_usd,
            correct=correct,
            trace_id=trace.id,
        )

    @property
    def line(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Row | None:
        """The row of a line; None for a line that is of something else."""
        return cls(**values) if values.keys() == _FIELDS else None


_FIELDS = frozenset(field.name for field in fields(Row))


def key(id: str) -> bytes:
    """Eight bytes for an id: what is remembered of a million ids, instead of the ids."""
    return blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest()


def read_questions(path: Path, seen: set[bytes] | None = None) -> Iterator[Question | BadLine]:
    """Every line, as a question or as what is wrong with it; blank lines are passed over.

    Memory grows only by ``seen``, the keys of all ids so far: give your own set to have them.
    Raises :class:`InputError` when the file cannot be read at all.
    """
    seen = set() if seen is None else seen
    try:
        with opened(path) as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield _question(number, line, seen)
    except (OSError, EOFError, zlib.error) as exc:
        raise InputError(f"cannot read {path}: {getattr(exc, 'strerror', None) or exc}") from exc


def opened(path: Path) -> BinaryIO | gzip.GzipFile:
    """The file's bytes, unpacked where it is gzip, whatever it is called."""
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if zipped else path.open("rb")


def infer_kind(gold: str) -> Kind:
    """What kind of answer a gold answer is, when nobody said."""
    if len(gold.strip()) == 1 and gold.strip().isalpha():
        return "choice"
    if boolean_of(gold) is not None and len(gold.split()) == 1:
        return "boolean"
    if number_of(gold) is not None:
        return "number"
    return "expression" if _FORMULA.search(gold) else "text"


def _question(number: int, line: bytes, seen: set[bytes]) -> Question | BadLine:
    try:
        row = json.loads(line)
    except UnicodeDecodeError:
        return BadLine(line=number, why="not UTF-8")
    except ValueError as exc:
        # Its own text speaks of columns, which helps.
        return BadLine(line=number, why=f"not JSON ({exc})")
    except RecursionError:
        return BadLine(line=number, why="not JSON (nested too deeply)")
    return question_of(number, row, seen)


def question_of(number: int, row: object, seen: set[bytes]) -> Question | BadLine:
    """The question in a line's object, or what is wrong with it. ``seen``: keys of the ids so far; it grows."""
    try:
        question = _checked(row)
    except ValueError as exc:
        return BadLine(line=number, why=str(exc))
    if key(question.id) in seen:
        return BadLine(line=number, why=f'id "{question.id}" was used before; ids must differ')
    seen.add(key(question.id))
    return question


def _text(row: dict[str, Any], name: str) -> str | None:
    value = row.get(name)
    return value if isinstance(value, str) else None


def _checked(row: Any) -> Question:
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    for name in ("id", "question"):
        if name not in row:
            raise ValueError(f'"{name}" is missing')
    if not isinstance(row["id"], str | int) or isinstance(row["id"], bool) or row["id"] == "":
        raise ValueError('"id" must be a string or a whole number')
    if not isinstance(row["question"], str):
        raise ValueError('"question" must be a string')
    gold, kind = row.get("answer"), row.get("kind")
    if isinstance(gold, bool) or not isinstance(gold, str | int | float | None):
        raise ValueError('"answer" must be a string or a number')
    if kind is not None and kind not in _KINDS:
        raise ValueError(f'"kind" must be one of {", ".join(_KINDS)}, not "{kind}"')
    gold = None if gold is None else str(gold)
    if kind == "code" and gold is not None and isinstance(entry := row.get("entry_point"), str):
        # HumanEval's tests are a function that wants to be called with the program's.
        gold += f"\n\ncheck({entry})\n"
    return Question(
        id=str(row["id"]),
        question=row["question"],
        gold=gold,
        kind=kind or (None if gold is None else infer_kind(gold)),
        # The question sets that researchers exchange call their task the data set.
        task=_text(row, "task") or _text(row, "dataset"),
        domain=_text(row, "domain"),
    )
