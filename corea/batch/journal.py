"""A file of JSON lines: appended to row by row, safe to kill at any moment, and taken up again where it stopped.

Beside ``FILE`` lies ``FILE.run.json``, which says what configuration wrote it: rows of two configurations never mix.
Knows nothing of what a row means.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from corea.errors import InputError


class Journal:
    """Open with ``with``. ``fingerprint`` is of all that shapes a row."""

    def __init__(self, path: Path, *, fingerprint: str, take_up: Callable[[Mapping[str, Any]], bool]) -> None:
        """``take_up`` gets each whole row that an earlier run left, and says whether it stays."""
        self.path = path
        self._fingerprint = fingerprint
        self._take_up = take_up
        self._lines: Lines | None = None

    def __enter__(self) -> Self:
        """Raises :class:`InputError` for a file that another run wrote, or that cannot be written."""
        try:
            self._claim()
            self._take_up_all()
        except OSError as exc:
            raise cannot_write(self.path, exc) from exc
        self._lines = Lines(self.path)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lines is not None:
            self._lines.close()

    def write(self, line: str) -> None:
        """Append a row; once this returns, killing the process does not lose it. ``line`` is JSON with its newline."""
        assert self._lines is not None, "use: with Journal(…) as journal"  # noqa: S101
        self._lines.write(line)

    def _claim(self) -> None:
        marker = self.path.with_name(self.path.name + ".run.json")
        if not self.path.exists() or self.path.stat().st_size == 0:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            marker.write_text(json.dumps({"fingerprint": self._fingerprint}) + "\n", encoding="utf-8")
            return
        if self._claimed_by(marker) != self._fingerprint:
            raise InputError(
                f"{self.path} was written by another run (other models, prompts or settings); "
                "choose another output file, or delete this one"
            )

    def _claimed_by(self, marker: Path) -> str | None:
        try:
            claim = json.loads(marker.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return claim.get("fingerprint") if isinstance(claim, dict) else None

    def _take_up_all(self) -> None:
        """Keep what is whole and wanted; drop a half-written last line, and rows that are to be made again."""
        if not self.path.exists():
            return
        kept = self.path.with_name(self.path.name + ".kept")
        dropped = False
        with self.path.open("rb") as old, kept.open("wb") as new:
            for line in old:
                row = whole_row(line)
                if row is None or not self._take_up(row):
                    dropped = True
                    continue
                new.write(line)
            new.flush()
            os.fsync(new.fileno())
        if dropped:
            kept.replace(self.path)
        else:
            kept.unlink()


class Lines:
    """A file that is only appended to, line by line."""

    def __init__(self, path: Path) -> None:
        """Raises :class:`InputError` for a file that cannot be written."""
        self.path = path
        self._file: FileIO = self._open()

    def write(self, line: str) -> None:
        try:
            rest = line.encode("utf-8", "replace")
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as exc:
            raise cannot_write(self.path, exc) from exc

    def close(self) -> None:
        self._file.close()

    def _open(self) -> FileIO:
        try:
            # Unbuffered: nothing is left in Python for a failing close() to lose, or a kill.
            return self.path.open("ab", buffering=0)
        except OSError as exc:
            raise cannot_write(self.path, exc) from exc


def cannot_write(place: Path | str, exc: OSError) -> InputError:
    return InputError(
        f"cannot write {place}: {exc.strerror or exc}; the rows written so far are safe, "
        "and the same command goes on from there"
    )


def whole_row(line: bytes) -> Mapping[str, Any] | None:
    """A row of an earlier run; None for a line that is not one, such as the half of one that a kill leaves."""
    if not line.endswith(b"\n"):
        return None
    try:
        values: Any = json.loads(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None
