"""Questions in, rows out: the two formats of a batch. Knows no models.

In, one JSON object a line (plain or .gz) or one row of Parquet: ``id``, ``question``, optionally ``answer`` (gold),
``kind``, ``task``. Out, one for each line that is not blank: the fields of :class:`Row`.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Container, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, cast, get_args

from corea.batch.keys import Keys, Seen, key
from corea.batch.parquet import MAGIC, read_rows
from corea.batch.places import Place
from corea.batch.places import opened as opened_raw
from corea.errors import InputError
from corea.grading.answers import boolean_of, number_of
from corea.types import Kind, Request, Trace

_KINDS = get_args(Kind)
_GZIP = b"\x1f\x8b"
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
    """A line that is no question, and why. ``id`` is its own, where it has one that no line before it had."""

    line: int
    why: str
    id: str | None = None
    #: Its id is one that a line before it had.
    repeats: bool = False

    def __str__(self) -> str:
        return f"line {self.line}: {self.why}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where a line begins: its number, from 1, and its first byte, where the file can be read from there."""

    line: int = 1
    byte: int | None = 0


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

    @classmethod
    def bad(cls, line: BadLine) -> Row:
        """A line without an id of its own goes by its number."""
        return cls(id=f"line {line.line}" if line.id is None else line.id, error=line.why)

    @property
    def line(self) -> str:
        return json.dumps(asdict(self), ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, values: Mapping[str, Any]) -> Row | None:
        """The row of a line; None for a line that is of something else."""
        return cls(**values) if values.keys() == _FIELDS else None


_FIELDS = frozenset(field.name for field in fields(Row))


def read_questions(source: Place, seen: Seen | None = None) -> Iterator[Question | BadLine]:
    """Every line, as a question or as what is wrong with it; blank lines are passed over.

    Memory grows only by ``seen``, the keys of all ids so far: give your own set to have them.
    Raises :class:`InputError` when the file cannot be read at all.
    """
    return (item for _, item in read_from(source, Position(), seen))


def read_from(
    source: Place, start: Position, seen: Seen | None = None
) -> Iterator[tuple[Position, Question | BadLine]]:
    """:func:`read_questions` from a line on, each with its position. Ids before ``start`` are not known here."""
    seen = Keys() if seen is None else seen
    try:
        with opened_raw(source) as raw:
            for position, value in _values(raw, start):
                yield position, _item(position.line, value, seen)
    except (OSError, EOFError, zlib.error) as exc:
        raise InputError(f"cannot read {source}: {getattr(exc, 'strerror', None) or exc}") from exc
    except InputError as exc:
        raise exc if str(source) in str(exc) else InputError(f"cannot read {source}: {exc}") from exc


def read_again(source: Place, *, repeats: Container[int], start: Position = Position()) -> Iterator[Question | BadLine]:
    """:func:`read_questions` once more, from any line on: ``repeats`` are the lines whose id had been used before."""
    for position, item in read_from(source, start, _Forgetful()):
        yield repeated(position.line, item.id) if item.id is not None and position.line in repeats else item


class _Forgetful:
    """Whoever reads again knows which ids repeat, and remembers none."""

    def __contains__(self, key: object, /) -> bool:
        return False

    def add(self, key: bytes, /) -> None: ...


def opened(path: Path) -> BinaryIO | gzip.GzipFile:
    """The file's bytes, unpacked where it is gzip, whatever it is called."""
    with path.open("rb") as file:
        zipped = file.read(2) == _GZIP
    return gzip.open(path, "rb") if zipped else path.open("rb")


def _values(raw: BinaryIO, start: Position) -> Iterator[tuple[Position, bytes | Mapping[str, Any]]]:
    """What each line from ``start`` on holds, blank ones left out."""
    magic = raw.read(4)
    raw.seek(0)
    if magic == MAGIC:
        for number, row in enumerate(read_rows(raw, skip=start.line - 1), start=start.line):
            yield Position(line=number, byte=None), row
        return
    if magic.startswith(_GZIP):
        for number, line in enumerate(gzip.GzipFile(fileobj=raw), start=1):
            if number >= start.line and line.strip():
                yield Position(line=number, byte=None), line
        return
    at = start.byte or 0
    raw.seek(at)
    # A file behind a URL is slow at finding the ends of lines.
    lines = raw if isinstance(raw, BufferedReader) else BufferedReader(cast("Any", raw), 1 << 20)
    for number, line in enumerate(lines, start=start.line):
        if line.strip():
            yield Position(line=number, byte=at), line
        at += len(line)


def infer_kind(gold: str) -> Kind:
    """What kind of answer a gold answer is, when nobody said."""
    if len(gold.strip()) == 1 and gold.strip().isalpha():
        return "choice"
    if boolean_of(gold) is not None and len(gold.split()) == 1:
        return "boolean"
    if number_of(gold) is not None:
        return "number"
    return "expression" if _FORMULA.search(gold) else "text"


def _item(number: int, value: bytes | Mapping[str, Any], seen: Seen) -> Question | BadLine:
    if not isinstance(value, bytes):
        return question_of(number, value, seen)
    try:
        row = json.loads(value)
    except UnicodeDecodeError:
        return BadLine(line=number, why="not UTF-8")
    except ValueError as exc:
        # Its own text speaks of columns, which helps.
        return BadLine(line=number, why=f"not JSON ({exc})")
    except RecursionError:
        return BadLine(line=number, why="not JSON (nested too deeply)")
    return question_of(number, row, seen)


def question_of(number: int, row: object, seen: Seen) -> Question | BadLine:
    """The question in a line's object, or what is wrong with it. ``seen``: keys of the ids so far; it grows."""
    id = _id(row)
    if id is not None and key(id) in seen:
        return repeated(number, id)
    if id is not None:
        seen.add(key(id))
    try:
        return _checked(row)
    except ValueError as exc:
        return BadLine(line=number, why=str(exc), id=id)


def repeated(number: int, id: str) -> BadLine:
    return BadLine(line=number, why=f'id "{id}" was used before; ids must differ', repeats=True)


def _id(row: object) -> str | None:
    """The id of a line's object, where it is one."""
    id = row.get("id") if isinstance(row, dict) else None
    return str(id) if isinstance(id, str | int) and not isinstance(id, bool) and id != "" else None


def _text(row: dict[str, Any], name: str) -> str | None:
    value = row.get(name)
    return value if isinstance(value, str) else None


def _checked(row: Any) -> Question:
    if not isinstance(row, dict):
        raise ValueError("not a JSON object")
    for name in ("id", "question"):
        if name not in row:
            raise ValueError(f'"{name}" is missing')
    if _id(row) is None:
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
