"""A model's file, put together from its pieces in order, hashed on the way.

A journal beside it tells which pieces are in it for good, so a piece can be deleted as soon as it is in, and a process
killed at any moment loses at most the piece at hand. Knows nothing of the network.
"""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import json
import os
import threading
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from corea.catalogue import CatalogueModel
from corea.errors import ChecksumMismatch
from corea.models.disk import sync_folder
from corea.models.verified import CHUNK_BYTES, Stopped, vouch

#: What reading a damaged or an encrypted zip file raises.
_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)


class WrongFile(ChecksumMismatch):
    """The pieces do not make up the model, and nobody can tell which of them is wrong."""


@dataclass(slots=True, kw_only=True)
class Assembly:
    """The beginning of a model's file. Its methods block, raise OSError as it comes, and Stopped once told to stop."""

    model: CatalogueModel
    folder: Path
    pieces: int = 0
    size_bytes: int = 0
    _digest: Any = field(default_factory=hashlib.sha256)

    @classmethod
    def resume(cls, model: CatalogueModel, folder: Path, stop: threading.Event) -> Assembly:
        """What an earlier run left in ``folder``, hashed anew; the empty beginning if it left nothing usable."""
        assembly = cls(model=model, folder=folder)
        try:
            journal = json.loads(assembly._journal.read_bytes())
            pieces, size_bytes = int(journal["pieces"]), int(journal["size_bytes"])
            digest = _digest_of(assembly.path, size_bytes, stop)
        except (OSError, ValueError, KeyError, TypeError):
            return assembly
        assembly.pieces, assembly.size_bytes, assembly._digest = pieces, size_bytes, digest
        return assembly

    @property
    def path(self) -> Path:
        return self.folder / f"{self.model.file}.partial"

    @property
    def _journal(self) -> Path:
        return self.folder / "assembled.json"

    def add(self, piece: Path, member: str | None, stop: threading.Event) -> None:
        """Append the piece, or its zip member. Raises WrongFile when it can't be part of the model."""
        digest = self._digest.copy()
        size_bytes = self.size_bytes
        with self.path.open("r+b" if self.size_bytes else "wb") as file:
            # A killed run may have left half a piece.
            file.truncate(size_bytes)
            file.seek(size_bytes)
            for chunk in _content(piece, member, stop):
                size_bytes += len(chunk)
                if size_bytes > self.model.size_bytes:
                    raise self._mismatch("it is larger than the catalogue says")
                file.write(chunk)
                digest.update(chunk)
            file.flush()
            os.fsync(file.fileno())
        self.pieces, self.size_bytes, self._digest = self.pieces + 1, size_bytes, digest
        self._write_journal()

    def finish(self, into: Path) -> Path:
        """Check the whole and put it in its place at once. Raises WrongFile; then ``into`` is as it was."""
        if self.size_bytes != self.model.size_bytes:
            raise self._mismatch(f"it has {self.size_bytes} bytes instead of {self.model.size_bytes}")
        if self._digest.hexdigest() != self.model.sha256:
            raise self._mismatch("its sha256 is not the catalogue's")
        self.path.replace(into)
        sync_folder(into.parent)
        vouch(self.model, into)
        return into

    def _write_journal(self) -> None:
        draft = self._journal.with_suffix(".draft")
        with draft.open("w") as file:
            json.dump({"pieces": self.pieces, "size_bytes": self.size_bytes}, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self._journal)

    def _mismatch(self, problem: str) -> WrongFile:
        return WrongFile(f"{self.model.file} came out wrong: {problem}")


def _digest_of(path: Path, size_bytes: int, stop: threading.Event) -> Any:
    """sha256 of a file's beginning. Raises ValueError when the file is shorter."""
    digest = hashlib.sha256()
    missing = size_bytes
    with path.open("rb") as file:
        while missing and (chunk := file.read(min(CHUNK_BYTES, missing))):
            _heed(stop)
            digest.update(chunk)
            missing -= len(chunk)
    if missing:
        raise ValueError(f"{path} is {missing} bytes short")
    return digest


def _content(piece: Path, member: str | None, stop: threading.Event) -> Iterator[bytes]:
    with _open(piece, member) as file:
        try:
            while chunk := file.read(CHUNK_BYTES):
                _heed(stop)
                yield chunk
        except _ZIP_ERRORS as exc:
            raise WrongFile(f"{piece.name} is a damaged zip file ({exc})") from exc


@contextlib.contextmanager
def _open(piece: Path, member: str | None) -> Iterator[IO[bytes]]:
    if member is None:
        with piece.open("rb") as file:
            yield file
        return
    with _open_zip(piece) as archive:
        names = [name for name in archive.namelist() if fnmatch.fnmatchcase(name, member)]
        if len(names) != 1:
            raise WrongFile(f"{piece.name} has {len(names)} members like {member!r} instead of one")
        with archive.open(names[0]) as content:
            yield content


def _open_zip(piece: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(piece)
    except _ZIP_ERRORS as exc:
        raise WrongFile(f"{piece.name} is not a zip file") from exc


def _heed(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped
