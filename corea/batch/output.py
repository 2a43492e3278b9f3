"""Where the rows of one batch go: JSON lines on this disk as they come, anything else when all of them are there.

A Parquet file and a URL cannot be appended to. Their rows are kept in a journal (beside a Parquet file; for a URL in
COREA_HOME) and put in place, all or nothing, at the end. Knows nothing of what a row means.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from corea.batch import parquet, places
from corea.batch.journal import Journal, cannot_write
from corea.batch.places import Place
from corea.errors import InputError

TakeUp = Callable[[Mapping[str, Any]], bool]


@contextmanager
def output(sink: Place, *, fingerprint: str, take_up: TakeUp) -> Iterator[Journal]:
    """The journal to write rows to, with what earlier runs left; see :class:`Journal`. At the end, it is the sink.

    Raises :class:`InputError` for a sink that another run wrote, or that cannot be written.
    """
    if isinstance(sink, Path) and places.suffix(sink) != ".parquet":
        with Journal(sink, fingerprint=fingerprint, take_up=take_up) as journal:
            yield journal
        return
    staged = _Staged(sink, fingerprint)
    taken_bytes: int | None = None
    try:
        taken_bytes = staged.take_back()
        with Journal(staged.lines, fingerprint=fingerprint, take_up=take_up) as journal:
            yield journal
        staged.publish()
    except OSError as exc:
        raise cannot_write(sink, exc) from exc
    except InputError:
        staged.forget_if(taken_bytes)
        raise


class _Staged:
    """A journal that becomes the sink."""

    def __init__(self, sink: Place, fingerprint: str) -> None:
        self.sink = sink
        self._fingerprint = fingerprint
        folder = sink.parent if isinstance(sink, Path) else places.workplace(sink)
        self._name = sink.name if isinstance(sink, Path) else sink.rstrip("/").rpartition("/")[2]
        self.lines = folder / f"{self._name}.rows.jsonl"
        self._marker = self.lines.with_name(self.lines.name + ".run.json")

    def take_back(self) -> int | None:
        """Fill the journal from the sink, if only that is there. Its size then; None where there was nothing to do."""
        if self.lines.exists() or not places.exists(self.sink):
            return None
        if self._claimed_by() != self._fingerprint:
            raise InputError(
                f"{self.sink} was written by another run (other models, prompts or settings); "
                "choose another output file, or delete this one"
            )
        self.lines.parent.mkdir(parents=True, exist_ok=True)
        half = self.lines.with_name(self.lines.name + ".half")
        if places.suffix(self.sink) == ".parquet":
            with places.opened(self.sink) as file, half.open("wb") as target:
                for row in parquet.read_rows(file):
                    target.write((json.dumps(row, ensure_ascii=False) + "\n").encode("utf-8", "replace"))
        else:
            places.fetch(self.sink, half)
        self._marker.write_text(self._claim, encoding="utf-8")
        half.replace(self.lines)
        return self.lines.stat().st_size

    def publish(self) -> None:
        """The marker first: rows without one could not be gone on with."""
        places.write_text(self._sinks_marker, self._claim)
        put_rows(self.lines, self.sink)
        self._forget()

    def forget_if(self, taken_bytes: int | None) -> None:
        """Nothing but what is in the sink anyway: its user is told to delete the sink, and must not meet it again."""
        if taken_bytes is not None and self.lines.exists() and self.lines.stat().st_size == taken_bytes:
            self._forget()

    def _forget(self) -> None:
        self.lines.unlink(missing_ok=True)
        self._marker.unlink(missing_ok=True)

    @property
    def _claim(self) -> str:
        return json.dumps({"fingerprint": self._fingerprint}) + "\n"

    @property
    def _sinks_marker(self) -> Place:
        if isinstance(self.sink, Path):
            return self.sink.with_name(self._name + ".run.json")
        return f"{self.sink.rstrip('/')}.run.json"

    def _claimed_by(self) -> str | None:
        try:
            claim = json.loads(places.read_text(self._sinks_marker) or "null")
        except ValueError:
            return None
        return claim.get("fingerprint") if isinstance(claim, dict) else None


def put_rows(lines: Path, sink: Place) -> None:
    """A finished file of JSON lines becomes the sink, in the sink's format. The lines may be gone afterwards."""
    if places.suffix(sink) != ".parquet":
        places.put(lines, sink)
        return
    whole = lines.with_name(lines.name + ".parquet")
    try:
        parquet.write_rows(lines, whole)
        places.put(whole, sink)
    finally:
        whole.unlink(missing_ok=True)
