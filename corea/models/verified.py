"""Model files on this disk that are proven to be the catalogue's, byte for byte.

A file is hashed once; a sidecar (``<file>.verified``) then vouches for it until its size or time of change differs.
Does not know where files come from, and imports only the standard library.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import threading
from collections.abc import Mapping
from pathlib import Path

from corea import paths
from corea.catalogue import CATALOGUE, CatalogueModel, find
from corea.errors import ChecksumMismatch, ModelFileError

CHUNK_BYTES = 1 << 20


class Stopped(Exception):
    """Work in a thread was told to stop, and did. Not an error: nobody waits for the result any more."""


def path_of(
    name_or_path: str, models_dir: Path | None = None, *, catalogue: Mapping[str, CatalogueModel] = CATALOGUE
) -> Path | None:
    """The file of a model, or None if it is not here yet. Never a file whose bytes are wrong.

    A catalogue file is hashed the first time (about a second per GB) and only looked at afterwards. Raises
    ChecksumMismatch for wrong bytes, which are deleted, and what :func:`corea.catalogue.find` raises.
    """
    found = find(name_or_path, catalogue=catalogue)
    return found if isinstance(found, Path) else local_file(found, models_dir or paths.models_dir())


def verify(
    name_or_path: str, models_dir: Path | None = None, *, catalogue: Mapping[str, CatalogueModel] = CATALOGUE
) -> Path:
    """The file of a model, hashed anew. Errors as for :func:`path_of`, and ModelFileError if it is not here."""
    found = find(name_or_path, catalogue=catalogue)
    if isinstance(found, Path):
        return found
    folder = models_dir or paths.models_dir()
    path = local_file(found, folder, rehash=True)
    if path is None:
        raise ModelFileError(f"{found.file} is not in {folder}; run: corea models pull {found.name}")
    return path


def local_file(
    model: CatalogueModel, folder: Path, *, rehash: bool = False, stop: threading.Event | None = None
) -> Path | None:
    """The model's proven file in ``folder``, or None if there is none. Errors as for :func:`path_of`."""
    path = folder / model.file
    try:
        seen = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as exc:
        raise ModelFileError(f"{path} cannot be read ({exc.strerror}); check its rights") from exc
    if not stat.S_ISREG(seen.st_mode):
        raise ModelFileError(f"{path} is not a file; move it away and run: corea models pull {model.name}")
    if seen.st_size != model.size_bytes:
        raise _rejected(model, path, seen, f"has {seen.st_size} bytes instead of {model.size_bytes}")
    if not rehash and _read_sidecar(path) == _vouching(model, seen):
        return path
    try:
        digest = sha256_of(path, stop)
    except OSError as exc:
        raise ModelFileError(f"{path} cannot be read ({exc.strerror}); check its rights and the disk") from exc
    if digest != model.sha256:
        raise _rejected(model, path, seen, "is damaged: its sha256 is not the catalogue's")
    _write_sidecar(model, path, seen)
    return path


def vouch(model: CatalogueModel, path: Path) -> None:
    """Write the sidecar of a file whose bytes were hashed while they were written."""
    _write_sidecar(model, path, path.stat())


def sha256_of(path: Path, stop: threading.Event | None = None) -> str:
    """Hex digest of a file, in constant memory. Raises Stopped soon after ``stop`` is set."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            if stop is not None and stop.is_set():
                raise Stopped
            digest.update(chunk)
    return digest.hexdigest()


def _rejected(model: CatalogueModel, path: Path, seen: os.stat_result, problem: str) -> ChecksumMismatch:
    """Delete the file, and the error that tells so."""
    fate = "delete it"
    with contextlib.suppress(OSError):
        # Another process may have put a good file in its place while we were hashing.
        if os.path.samestat(seen, path.stat()):
            path.unlink()
            fate = "it was deleted"
            _sidecar(path).unlink(missing_ok=True)
    return ChecksumMismatch(f"{path} {problem}; {fate}; run: corea models pull {model.name}")


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".verified")


def _vouching(model: CatalogueModel, seen: os.stat_result) -> dict[str, object]:
    return {"size": seen.st_size, "mtime_ns": seen.st_mtime_ns, "sha256": model.sha256}


def _read_sidecar(path: Path) -> object:
    try:
        return json.loads(_sidecar(path).read_bytes())
    except (OSError, ValueError):
        return None


def _write_sidecar(model: CatalogueModel, path: Path, seen: os.stat_result) -> None:
    sidecar = _sidecar(path)
    draft = sidecar.with_name(f"{sidecar.name}.{os.getpid()}.{threading.get_ident()}")
    # A folder we may not write to costs a rehash the next time, nothing more.
    with contextlib.suppress(OSError):
        draft.write_text(json.dumps(_vouching(model, seen)))
        draft.replace(sidecar)
