"""A file server on 127.0.0.1 that misbehaves on demand, and tiny models to fetch from it."""

from __future__ import annotations

import asyncio
import hashlib
import io
import random
import threading
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from aiohttp import web

from corea.catalogue import CatalogueModel, Wheel
from corea.models.sources import HubSource, WheelFile, WheelSource

REPO = "someone/tiny"
SEGMENT_BYTES = 64 << 10
MEASURING = "bytes=0-0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """How one answer goes wrong: its status, the byte after which it stops, or what it ignores."""

    status: int | None = None
    #: The connection is closed after so many bytes of the body.
    cut_after: int | None = None
    #: The body is shorter than asked for, and looks complete.
    short_by: int = 0
    ignores_range: bool = False
    #: Pause after each 4 KiB.
    pause_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as it came in."""

    path: str
    range: str | None
    token: str | None


@dataclass(slots=True)
class Mirror:
    """Serves ``files`` while entered. ``faults`` go wrong one request each; requests that only measure are spared."""

    files: dict[str, bytes] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    always: Fault = field(default_factory=Fault)
    redirects: dict[str, str] = field(default_factory=dict)
    serves_parts: bool = True
    tells_size: bool = True
    asked: list[Asked] = field(default_factory=list)
    body_bytes: int = 0
    asked_before: int = 0
    url: str = ""
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _thread: threading.Thread | None = None
    _runner: web.AppRunner | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._runner is not None
        assert self._thread is not None
        asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_get("/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path, asked = request.match_info["path"], request.headers.get("Range")
        self.asked.append(Asked(path=path, range=asked, token=request.headers.get("Authorization")))
        if path in self.redirects:
            raise web.HTTPFound(self.redirects[path])
        queue = self.faults.get(path, [])
        fault = queue.pop(0) if queue and asked != MEASURING else self.always
        if fault.status is not None:
            return web.Response(status=fault.status)
        if path not in self.files:
            return web.Response(status=404)
        return await self._send(request, self.files[path], asked, fault)

    async def _send(self, request: web.Request, body: bytes, asked: str | None, fault: Fault) -> web.StreamResponse:
        part, headers = body, {}
        if asked is not None and self.serves_parts and not fault.ignores_range:
            first_text, _, last_text = asked.removeprefix("bytes=").partition("-")
            first, last = int(first_text), int(last_text or len(body) - 1)
            part = body[first : last + 1]
            headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{len(body)}"
        part = part[: len(part) - fault.short_by]
        response = web.StreamResponse(status=206 if headers else 200, headers=headers)
        if self.tells_size:
            response.content_length = len(part)
        else:
            response.enable_chunked_encoding()
        await response.prepare(request)
        end = len(part) if fault.cut_after is None else fault.cut_after
        # A client that was killed may be sent another piece before that is noticed: it is of the time before.
        asked_now = self.asked_before
        for start in range(0, end, 4096):
            chunk = part[start : min(start + 4096, end)]
            await response.write(chunk)
            if asked_now == self.asked_before:
                self.body_bytes += len(chunk)
            await asyncio.sleep(fault.pause_s)
        if fault.cut_after is not None and request.transport is not None:
            request.transport.close()
        return response

    def ranges(self, path: str) -> list[str | None]:
        """The Range of every request for a path that wanted its bytes."""
        return [asked.range for asked in self.asked if asked.path == path and asked.range != MEASURING]

    def forget(self) -> None:
        """Start counting anew."""
        self.asked_before += len(self.asked) + 1
        self.asked.clear()
        self.body_bytes = 0


def content(size_bytes: int = 200_000, seed: int = 0) -> bytes:
    """A file that begins like a GGUF file and does not compress."""
    return b"GGUF" + random.Random(seed).randbytes(size_bytes - 4)


def model_of(body: bytes, *, parts: int = 3) -> CatalogueModel:
    """The catalogue's entry for a body that is on the Hub, and in wheels of so many parts."""
    return CatalogueModel(
        name="tiny",
        file="tiny.gguf",
        size_bytes=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
        parameters=1,
        context_tokens=1,
        licence="none",
        hub_repo=REPO,
        wheels=tuple(
            Wheel(requirement=f"tiny-part{n}==1.0", member=f"*/data/part{n:02}.bin") for n in part_numbers(parts)
        ),
    )


def part_numbers(parts: int) -> range:
    return range(1, parts + 1)


def hub_path(model: CatalogueModel) -> str:
    return f"{REPO}/resolve/main/{model.file}"


def hub_of(mirror: Mirror) -> HubSource:
    return HubSource(endpoint=mirror.url, segment_bytes=SEGMENT_BYTES)


def wheel_bytes(number: int, data: bytes) -> bytes:
    """A wheel as published: the data as one compressed member among others."""
    package, packed = f"tiny_part{number}", io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"{package}/__init__.py", "raise SystemExit('imported')\n")
        archive.writestr(f"{package}/data/part{number:02}.bin", data)
        archive.writestr(f"{package}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        archive.writestr(f"{package}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{package}-1.0.dist-info/RECORD", "")
    return packed.getvalue()


def wheels_of(body: bytes, *, parts: int = 3) -> dict[str, bytes]:
    """File name → bytes of the wheels of a body."""
    step = -(-len(body) // parts)
    return {
        f"tiny_part{number}-1.0-py3-none-any.whl": wheel_bytes(number, body[(number - 1) * step : number * step])
        for number in part_numbers(parts)
    }


def wheel_source(mirror: Mirror, wheels: Mapping[str, bytes], *, hashed: bool = True) -> WheelSource:
    """Wheels on the mirror, found without pip. The hashes are those of ``wheels``, whatever the mirror serves."""

    async def resolve(requirements: Sequence[str]) -> Mapping[str, WheelFile]:
        return {
            requirement: WheelFile(
                url=f"{mirror.url}/{name}", sha256=hashlib.sha256(data).hexdigest() if hashed else None
            )
            for requirement, (name, data) in zip(requirements, wheels.items(), strict=True)
        }

    return WheelSource(resolve=resolve)


async def until(condition: Callable[[], object]) -> None:
    """Wait for what happens in another thread or process; the test's own timeout ends it."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.005)


@dataclass(slots=True)
class Watched:
    """A Progress that remembers, and objects to what a progress bar could not show."""

    total_bytes: int = 0
    done_bytes: int = 0
    steps: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    ended: bool = False

    def started(self, total_bytes: int) -> None:
        self.total_bytes, self.done_bytes = total_bytes, 0

    def advanced(self, n_bytes: int) -> None:
        self.steps.append(n_bytes)
        self.done_bytes += n_bytes
        assert 0 <= self.done_bytes <= self.total_bytes

    def note(self, text: str) -> None:
        self.notes.append(text)

    def finished(self) -> None:
        assert self.done_bytes == self.total_bytes
        self.ended = True
