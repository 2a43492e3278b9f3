"""Writing large files with care: threads that can be stopped, and disk errors that say what to do.

Knows nothing of models or of the network.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from corea.errors import CatalogueError, DiskFull

T = TypeVar("T")

#: EFBIG comes from a file-size limit, or from a file system that has no large files.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


async def in_thread(work: Callable[[threading.Event], T]) -> T:
    """Run blocking work in a thread. When cancelled, set its event and wait until it no longer touches any file."""
    stop = threading.Event()
    task = asyncio.ensure_future(asyncio.to_thread(work, stop))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.gather(task, return_exceptions=True)
        raise


@contextlib.contextmanager
def disk_errors(folder: Path, needed_bytes: int) -> Iterator[None]:
    """Turn an OSError into DiskFull (which tells ``needed_bytes``) or CatalogueError. For disk work only."""
    try:
        yield
    except OSError as exc:
        if exc.errno in _NO_ROOM:
            raise _disk_full(folder, needed_bytes, str(exc.strerror)) from exc
        problem = exc.strerror or str(exc)
        raise CatalogueError(f"cannot write in {folder} ({problem}); set COREA_HOME to a folder you can use") from exc


def require_space(folder: Path, needed_bytes: int) -> None:
    """Raise DiskFull now rather than after an hour of fetching."""
    with disk_errors(folder, needed_bytes):
        free_bytes = shutil.disk_usage(folder).free
    if free_bytes < needed_bytes:
        raise _disk_full(folder, needed_bytes, f"only {free_bytes} bytes are free")


def append(path: Path, data: bytes, needed_bytes: int) -> None:
    """Add bytes to the end of a file; nothing is left in a buffer that a killed process would lose."""
    with disk_errors(path.parent, needed_bytes), path.open("ab") as file:
        file.write(data)


def size_of(path: Path) -> int:
    """Bytes of a file; 0 if there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` outlive a power cut, where the system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _disk_full(folder: Path, needed_bytes: int, problem: str) -> DiskFull:
    return DiskFull(
        f"{problem}: {needed_bytes} bytes are needed in {folder}; free some, or set COREA_HOME to a folder on a larger "
        "disk, and run again (what was fetched is kept)"
    )
