"""The output file of a batch: appended to row by row, safe to kill at any moment, and taken up again where it stopped.

Beside ``OUT`` lies ``OUT.run.json``, which says what configuration wrote it: rows of two configurations never mix.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import fields
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from corea.batch.rows import Row, key
from corea.errors import InputError

_FIELDS = frozenset(field.name for field in fields(Row))


class Output:
    """Open with ``with``. ``done`` holds the keys of ids whose rows are there already."""

    def __init__(self, path: Path, *, fingerprint: str, on_old_row: Callable[[Row], None] = lambda row: None) -> None:
        """``on_old_row`` is called for each row that an earlier run left."""
        self.path = path
        self.done: set[bytes] = set()
        self._fingerprint = fingerprint
        self._on_old_row = on_old_row
        self._file: FileIO | None = None

    def __enter__(self) -> Self:
        """Raises :class:`InputError` for a file that another run wrote, or that cannot be written."""
        try:
            self._claim()
            self._take_up()
            # Unbuffered: nothing is left in Python for a failing close() to lose, or a kill.
            self._file = self.path.open("ab", buffering=0)
        except OSError as exc:
            raise self._cannot_write(exc) from exc
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()

    def write(self, row: Row) -> None:
        """Append a row; once this returns, killing the process does not lose it."""
        assert self._file is not None, "use: with Output(…) as output"  # noqa: S101
        try:
            rest = row.line.encode("utf-8", "replace")
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as exc:
            raise self._cannot_write(exc) from exc

    def _claim(self) -> None:
        marker = self.path.with_name(self.path.name + ".run.json")
        if not self.path.exists() or self.path.stat().st_size == 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            marker.write_text(json.dumps({"fingerprint": self._fingerprint}) + "\n", encoding="utf-8")
            return
        if self._claimed_by(marker) != self._fingerprint:
            raise InputError(
                f"{self.path} was written by another run (other models, prompts or thresholds); "
                "choose another output file, or delete this one"
            )

    def _claimed_by(self, marker: Path) -> str | None:
        try:
            claim = json.loads(marker.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return claim.get("fingerprint") if isinstance(claim, dict) else None

    def _take_up(self) -> None:
        """Keep what is whole and right; drop a half-written last line, and failed rows, which are tried again."""
        if not self.path.exists():
            return
        kept = self.path.with_name(self.path.name + ".kept")
        dropped = False
        with self.path.open("rb") as old, kept.open("wb") as new:
            for line in old:
                row = _row(line)
                if row is None or row.error is not None:
                    dropped = True
                    continue
                self.done.add(key(row.id))
                self._on_old_row(row)
                new.write(line)
            new.flush()
            os.fsync(new.fileno())
        if dropped:
            kept.replace(self.path)
        else:
            kept.unlink()

    def _cannot_write(self, exc: OSError) -> InputError:
        return InputError(
            f"cannot write {self.path}: {exc.strerror or exc}; the rows written so far are safe, "
            "and the same command goes on from there"
        )


def _row(line: bytes) -> Row | None:
    """A row of an earlier run; None for a line that is not one, such as the half of one that a kill leaves."""
    if not line.endswith(b"\n"):
        return None
    try:
        values: Any = json.loads(line)
    except ValueError:
        return None
    return Row(**values) if isinstance(values, dict) and values.keys() == _FIELDS else None
