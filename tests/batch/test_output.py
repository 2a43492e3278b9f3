"""Parquet and URLs, in and out: as JSON lines on the disk, whatever happens in between."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.test_batch import asked, cascade, questions, rows
from corea import Cascade
from corea.batch.parquet import read_rows
from corea.batch.places import Place, exists, place_of, read_text, suffix, workplace, write_text
from corea.batch.rows import BadLine, Position, Question, read_from, read_questions
from corea.batch.run import Summary, run_batch
from corea.errors import ExtraMissing, InputError, UpstreamRefused
from corea.models.scripted import ScriptedModel
from corea.prices import FixedPrice
from corea.tier import Tier

QUESTIONS = [{"id": f"q{n}", "question": f"{'easy' if n % 2 else 'hard'} {n}", "answer": "42"} for n in range(10)]


def run(source: Place, sink: Place, *, using: Cascade | None = None) -> Summary:
    return asyncio.run(run_batch(using or cascade(), source, sink, concurrency=4))


def broken() -> Cascade:
    price = FixedPrice.per_million(1, 1)
    model = ScriptedModel("l", replies=[UpstreamRefused("no connection")])
    return Cascade([Tier(name="large", model=model, price=price)], fingerprint="one")


def left_in(sink: Place) -> list[str]:
    """What lies beside a sink, or waits in COREA_HOME to be put behind its URL."""
    folder = sink.parent if isinstance(sink, Path) else workplace(sink)
    return sorted(entry.name for entry in folder.glob("*.rows*"))


def table(sink: Place) -> dict[str, dict[str, Any]]:
    with fsspec.open(str(sink), "rb") as file:
        found = list(read_rows(file)) if suffix(sink) == ".parquet" else [json.loads(line) for line in file]
    assert len({row["id"] for row in found}) == len(found), "one row a question"
    return {row["id"]: dict(row) for row in found}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return questions(tmp_path / "in.jsonl", *QUESTIONS)


@pytest.fixture(params=["out.parquet", "memory://out.jsonl", "memory://deep/out.parquet"])
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    fsspec.filesystem("memory").store.clear()
    yield tmp_path / "made" / request.param if "://" not in request.param else request.param
    fsspec.filesystem("memory").store.clear()


def test_every_sink_holds_what_json_lines_would(source: Path, sink: Place, tmp_path: Path) -> None:
    summary = run(source, sink)
    assert run(source, tmp_path / "out.jsonl") == summary
    found, expected = table(sink), rows(tmp_path / "out.jsonl")
    assert found.keys() == expected.keys()
    for id, row in found.items():
        assert {**row, "trace_id": None} == {**expected[id], "trace_id": None}
    assert not left_in(sink)


def test_a_rerun_asks_nothing_again(source: Path, sink: Place) -> None:
    run(source, sink)
    second = cascade()
    summary = run(source, sink, using=second)
    assert (asked(second), summary.rows, summary.resumed, summary.correct) == (0, 10, 10, 10)
    assert len(table(sink)) == 10


def test_failed_rows_are_tried_again_and_replaced(source: Path, sink: Place) -> None:
    assert run(source, sink, using=broken()).failed == 10
    assert all(row["error"] for row in table(sink).values())
    assert run(source, sink).failed == 0
    assert not any(row["error"] for row in table(sink).values())


def test_a_run_that_was_stopped_shows_nothing_yet_and_is_gone_on_with(source: Path, sink: Place) -> None:
    class Stopped(BaseException):
        pass

    seen = 0

    def stop(row: object) -> None:
        nonlocal seen
        seen += 1
        if seen == 6:
            raise Stopped

    with pytest.raises(Stopped):
        asyncio.run(run_batch(cascade(), source, sink, concurrency=1, on_row=stop))
    assert not exists(sink)
    assert left_in(sink)
    second = cascade()
    assert run(source, sink, using=second).resumed == 6
    assert asked(second) == 4
    assert len(table(sink)) == 10
    assert not left_in(sink)


def test_what_another_configuration_or_input_made_is_refused_and_left_alone(
    source: Path, sink: Place, tmp_path: Path
) -> None:
    run(source, sink)
    before = table(sink)
    with pytest.raises(InputError, match="another run"):
        run(source, sink, using=cascade(fingerprint="two"))
    other = questions(tmp_path / "other.jsonl", {"id": "z", "question": "easy"})
    with pytest.raises(InputError, match="belongs to another input"):
        run(other, sink)
    assert table(sink) == before
    # Told to delete the output, its user is not to meet its rows again.
    assert not left_in(sink)


def test_a_file_that_is_no_batch_output_is_never_overwritten(source: Path, sink: Place) -> None:
    write_text(sink, "years of work")
    with pytest.raises(InputError, match="another run"):
        run(source, sink)
    assert read_text(sink) == "years of work"


def test_parquet_is_read_as_json_lines_are(source: Path, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(QUESTIONS), tmp_path / "in.parquet", row_group_size=3)
    assert list(read_questions(tmp_path / "in.parquet")) == list(read_questions(source))
    for line in range(1, 11):
        start = Position(line=line, byte=None)
        found = [(at.line, item.id) for at, item in read_from(tmp_path / "in.parquet", start)]
        assert found == [(n + 1, f"q{n}") for n in range(line - 1, 10)]


def test_rows_of_parquet_that_are_no_questions_are_told_with_their_numbers(tmp_path: Path) -> None:
    columns = {"id": [1, None, 3, 1], "question": ["easy", "easy", None, "again"]}
    pq.write_table(pa.table(columns), tmp_path / "in.parquet")
    items = list(read_questions(tmp_path / "in.parquet"))
    assert [type(item) for item in items] == [Question, BadLine, BadLine, BadLine]
    assert [str(item) for item in items[1:]] == [
        'line 2: "id" must be a string or a whole number',
        'line 3: "question" must be a string',
        'line 4: id "1" was used before; ids must differ',
    ]
    summary = run(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert (summary.rows, summary.bad_lines) == (1, 3)
    assert table(tmp_path / "out.parquet").keys() == {"1", "line 2", "3", "line 4"}


def test_a_damaged_parquet_file_is_told(source: Path, tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(QUESTIONS), tmp_path / "in.parquet")
    whole = (tmp_path / "in.parquet").read_bytes()
    (tmp_path / "in.parquet").write_bytes(whole[:-20])
    with pytest.raises(InputError, match=r"cannot read .*in\.parquet: not a whole Parquet file"):
        run(tmp_path / "in.parquet", tmp_path / "out.jsonl")


def test_an_input_may_be_behind_a_url(source: Path, tmp_path: Path) -> None:
    place = f"memory://{tmp_path.name}/in.jsonl"
    write_text(place, source.read_text())
    assert list(read_questions(place)) == list(read_questions(source))
    with pytest.raises(InputError, match="cannot read memory://none"):
        run("memory://none", tmp_path / "out.jsonl")
    with pytest.raises(InputError, match=r"cannot read nosuch://in\.jsonl: .*check the address"):
        run("nosuch://in.jsonl", tmp_path / "out.jsonl")


def test_without_fsspec_a_url_is_told_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    with pytest.raises(ExtraMissing, match="fsspec is not installed"):
        run("memory://in.jsonl", tmp_path / "out.jsonl")


@pytest.mark.parametrize(
    "text,place",
    [
        ("in.jsonl", Path("in.jsonl")),
        ("C:\\in.jsonl", Path("C:\\in.jsonl")),
        ("file:///data/a%20b.jsonl", Path("/data/a b.jsonl")),
        ("s3://bucket/in.jsonl", "s3://bucket/in.jsonl"),
        ("simplecache::s3://bucket/in.jsonl", "simplecache::s3://bucket/in.jsonl"),
    ],
)
def test_what_is_no_url_is_a_path(text: str, place: Place) -> None:
    assert place_of(text) == place
