"""A batch in parts: the input is cut into shards, and each becomes one file of the output folder, all or nothing.

Any process may answer any shard, and any number of them the same one: each writes a file of its own, and the last to
finish replaces the part by a whole one. So a worker that was given up and is not dead costs money, never a row.
Knows no Ray: :mod:`corea.batch.ray` hands out the shards.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from corea.batch import parquet, places
from corea.batch.journal import Lines, cannot_write, whole_row
from corea.batch.output import put_rows
from corea.batch.places import Place
from corea.batch.rows import BadLine, Position, Question, Row, read_again
from corea.batch.run import Answer, Summary, check
from corea.errors import InputError
from corea.streams import bounded_map

Format = Literal["jsonl", "parquet"]

#: Files that begin so are not data to Spark, Arrow and Ray.
MANIFEST = "_manifest.json"
#: Attempts at one shard in one run that end without a word before its questions are asked one by one.
MAX_CRASHES = 2

#: The most rows of a shard, unless told otherwise.
MAX_SHARD_ROWS = 1024

_VERSION = 1
#: Where nobody says how large a shard is, it is a multiple of this, and each worker gets so many.
_GRAIN, _SHARDS_OF_WORKER = 64, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A stretch of the input. ``lines``: how many that are not blank; ``repeats``: those whose id came before."""

    number: int
    start: Position
    lines: int
    repeats: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def of(cls, text: str) -> Self:
        values = json.loads(text)
        return cls(**{**values, "start": Position(**values["start"]), "repeats": tuple(values["repeats"])})

    def read(self, source: Place) -> Iterator[Question | BadLine]:
        """Its lines. Raises :class:`InputError` where the input has become shorter."""
        left = self.lines
        for item in read_again(source, repeats=frozenset(self.repeats), start=self.start):
            yield item
            left -= 1
            if not left:
                return
        raise InputError(f"{source} was changed during the run; start it again")


def cut(
    source: Place, *, shard_rows: int | None, workers: int, summary: Summary, allow_code: bool
) -> tuple[list[Shard], int]:
    """The whole input, cut after every ``shard_rows`` lines, and that number; None: such that all have enough to do.

    Also the first pass: what is wrong is told in ``summary``. Raises :class:`InputError` for an input that cannot be
    used.
    """
    grain = shard_rows or _GRAIN
    starts: list[Position] = []
    repeats: list[list[int]] = []
    lines = 0

    def note(position: Position, item: Question | BadLine) -> None:
        nonlocal lines
        if lines % grain == 0:
            starts.append(position)
            repeats.append([])
        if isinstance(item, BadLine) and item.repeats:
            repeats[-1].append(position.line)
        lines += 1

    check(source, summary, allow_code=allow_code, note=note)
    together = 1 if shard_rows else min(max(lines // (_SHARDS_OF_WORKER * workers * grain), 1), MAX_SHARD_ROWS // grain)
    rows = grain * together
    shards = [
        Shard(
            number=number,
            start=starts[at],
            lines=min(rows, lines - number * rows),
            repeats=tuple(line for some in repeats[at : at + together] for line in some),
        )
        for number, at in enumerate(range(0, len(starts), together))
    ]
    return shards, rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """The output: parts, and ``_manifest.json``, which says what configuration wrote them and when all are there."""

    place: Place
    fingerprint: str
    format: Format
    shard_rows: int
    #: Told apart from earlier runs, whose attempts did not die but were stopped.
    run: str = field(default_factory=lambda: secrets.token_hex(4))

    @classmethod
    def earlier(cls, place: Place, *, fingerprint: str, format: Format, shard_rows: int | None) -> Self | None:
        """The folder of an earlier run; None where there is none.

        Raises :class:`InputError` for one that something else wrote, or that was begun otherwise.
        """
        found = _manifest(place)
        if found is None:
            if places.names(place) or (isinstance(place, Path) and place.exists() and not place.is_dir()):
                raise InputError(f"{place} is there and was not written by corea batch --engine ray; choose another")
            return None
        if found.get("fingerprint") != fingerprint or not isinstance(found.get("shard_rows"), int):
            raise InputError(
                f"{place} was written by another run (other models, prompts or settings); "
                "choose another output folder, or delete this one"
            )
        for name, wanted in {"format": format, "shard_rows": shard_rows or found["shard_rows"]}.items():
            if found.get(name) != wanted:
                raise InputError(
                    f"{place} was begun with {name} {found.get(name)}, not {wanted}; say the same, or choose another"
                )
        return cls(place=place, fingerprint=fingerprint, format=format, shard_rows=found["shard_rows"])

    def claim(self) -> None:
        """Write the manifest, so that the folder is known for what it is."""
        self._write({})

    def check(self, parts: int) -> None:
        """Raises :class:`InputError` where there are more parts than the input has shards."""
        expected = {self.name(number) for number in range(parts)}
        found = [name for name in places.names(self.place) if name.startswith("part-") and name not in expected]
        if found:
            raise InputError(
                f"{self.place} has {found[0]}, and the input has only {parts} shards: it belongs to another input; "
                "choose another output folder, or delete this one"
            )

    def finish(self, parts: int, summary: Summary) -> None:
        """Say in the manifest that every part is there. Raises :class:`InputError` where one is not."""
        expected = [self.name(number) for number in range(parts)]
        if missing := sorted(set(expected) - set(places.names(self.place))):
            raise InputError(
                f"{len(missing)} parts are not in {self.place}, {missing[0]} first; it must be on a disk that all "
                "workers share, or a URL"
            )
        rows, failed = summary.rows + summary.bad_lines, summary.failed + summary.bad_lines
        self._write({"complete": True, "rows": rows, "failed": failed, "parts": expected})

    def _write(self, more: Mapping[str, Any]) -> None:
        told = {"version": _VERSION, "fingerprint": self.fingerprint, "format": self.format}
        with _writing(self.place):
            manifest = json.dumps({**told, "shard_rows": self.shard_rows, **more}, indent=1)
            places.write_text(places.under(self.place, MANIFEST), manifest + "\n")

    def name(self, number: int) -> str:
        return f"part-{number:06d}.{self.format}"

    def part(self, number: int) -> Place:
        return places.under(self.place, self.name(number))

    @property
    def workplace(self) -> Path:
        """Where unfinished parts are: in the folder itself, or, where that is behind a URL, on the worker's disk."""
        return self.place if isinstance(self.place, Path) else places.workplace(self.place)


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What earlier attempts at a shard left: whole rows without an error, and ids that took their worker along."""

    rows: Mapping[str, Row]
    deadly: frozenset[str]
    #: Attempts of this very run that did not get to the end.
    crashes: int
    files: tuple[Path, ...]
    #: The part is there, and no attempt after it was broken off.
    is_whole: bool


async def answer_shard(
    shard: Shard,
    folder: Folder,
    source: Place,
    *,
    answer: Answer,
    concurrency: int,
    alone: asyncio.Lock,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Summary:
    """Make the part whole: its questions that have no row yet are asked, and each line has one row at the end.

    Where its workers died over it, its questions are asked one by one, one at a time for all that share ``alone``; one
    that takes the worker along once more is a row with that error. ``on_rows`` gets how many questions have a row.
    Raises :class:`InputError` for files that cannot be used; a question that fails is a row with its error.
    """
    items, left = await asyncio.to_thread(_taken_up, shard, folder, source)
    questions = [item for item in items if isinstance(item, Question)]
    bad = [item for item in items if isinstance(item, BadLine) and item.id not in left.rows]
    summary = Summary(resumed=len(left.rows))
    for row in left.rows.values():
        summary.add(row)
    on_rows(summary.rows)
    if left.is_whole and len(left.rows) == len(questions) and not bad:
        return summary
    with _Attempt(folder, shard) as own:
        for row in (*left.rows.values(), *map(Row.bad, bad)):
            own.write(row.line)
        is_careful = left.crashes >= MAX_CRASHES

        async def asked(question: Question) -> Row:
            if question.id in left.deadly:
                row = Row(id=question.id, error=_DEADLY, correct=None if question.gold is None else False)
            else:
                row = await answer(question)
            own.write(row.line)
            return row

        async def asked_alone(question: Question) -> Row:
            async with alone:
                own.write(json.dumps({_ASKING: question.id}) + "\n")
                return await asked(question)

        todo = (question for question in questions if question.id not in left.rows)
        work = asked_alone if is_careful else asked
        async for row in bounded_map(work, todo, concurrency=1 if is_careful else concurrency):
            summary.add(row)
            on_rows(summary.rows)
    await asyncio.to_thread(own.publish, left.files)
    return summary


_ASKING = "asking"
_DEADLY = "the worker died each time it was at this question; look at it, and run the same command again"


class _Attempt:
    """The rows of a part while they are made. Each attempt has a file of its own."""

    def __init__(self, folder: Folder, shard: Shard) -> None:
        self._folder, self._shard = folder, shard
        self.path = folder.workplace / f"_{folder.name(shard.number)}.{folder.run}.{secrets.token_hex(4)}.rows"
        with _writing(folder.place):
            self.path.parent.mkdir(parents=True, exist_ok=True)
        self._lines = Lines(self.path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()

    def write(self, line: str) -> None:
        self._lines.write(line)

    def publish(self, earlier: Sequence[Path]) -> None:
        """Replace the part by these rows. What ``earlier`` attempts left is not needed any more then."""
        whole = self.path.with_suffix(".whole")
        with _writing(self._folder.place):
            try:
                rows = self.path.open("rb")
            except FileNotFoundError:
                # This attempt was given up for dead, and another one finished the part.
                return
            with rows, whole.open("wb") as target:
                target.writelines(line for line in rows if (values := whole_row(line)) and Row.read(values))
                target.flush()
                os.fsync(target.fileno())
            put_rows(whole, self._folder.part(self._shard.number))
            for file in (whole, self.path, *earlier):
                file.unlink(missing_ok=True)


def _taken_up(shard: Shard, folder: Folder, source: Place) -> tuple[list[Question | BadLine], Left]:
    items = list(shard.read(source))
    ids = {item.id for item in items if item.id is not None}
    left = _left(folder, shard)
    if strangers := len(left.rows.keys() - ids):
        raise InputError(
            f"{folder.part(shard.number)} has {strangers} rows whose ids are not at that place in {source}: it belongs "
            "to another input; choose another output folder, or delete this one"
        )
    return items, left


def _left(folder: Folder, shard: Shard) -> Left:
    part = folder.part(shard.number)
    is_there = places.exists(part)
    rows = {row.id: row for row in _rows_of(part) if row.error is None} if is_there else {}
    asked: set[str | None] = set()
    crashes = 0
    files = tuple(sorted(folder.workplace.glob(f"_{folder.name(shard.number)}.*.rows")))
    for file in files:
        # Another attempt may finish just now and take its file away.
        with suppress(FileNotFoundError):
            found, asking = _attempted(file)
            rows = found | rows
            if f".{folder.run}." in file.name:
                crashes += 1
                asked.add(asking)
    deadly = frozenset(id for id in asked if id is not None and id not in rows)
    return Left(rows=rows, deadly=deadly, crashes=crashes, files=files, is_whole=is_there and not files)


def _rows_of(part: Place) -> Iterator[Row]:
    with places.opened(part) as file:
        lines = parquet.read_rows(file) if places.suffix(part) == ".parquet" else map(whole_row, file)
        yield from (row for values in lines if values is not None and (row := Row.read(values)) is not None)


def _attempted(file: Path) -> tuple[dict[str, Row], str | None]:
    """Whole rows without an error, and the question that was asked last, where there is no answer to it."""
    rows: dict[str, Row] = {}
    asking: str | None = None
    with file.open("rb") as lines:
        for values in filter(None, map(whole_row, lines)):
            row = Row.read(values)
            asking = values.get(_ASKING) if row is None else None
            if row is not None and row.error is None:
                rows[row.id] = row
    return rows, asking


def _manifest(folder: Place) -> dict[str, Any] | None:
    try:
        found = json.loads(places.read_text(places.under(folder, MANIFEST)) or "null")
    except ValueError:
        found = {}
    except OSError as exc:
        raise InputError(f"cannot read {folder}: {exc.strerror or exc}; choose another output folder") from exc
    return found if isinstance(found, dict) else None


@contextmanager
def _writing(place: Place) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise cannot_write(place, exc) from exc
