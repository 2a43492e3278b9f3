"""A batch in parts: whoever dies, stalls or comes back from the dead, each line has exactly one row."""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import sys
import textwrap
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch.test_batch import asked, cascade, questions, rows
from corea import Cascade
from corea.batch.places import Place, exists, names, opened, under
from corea.batch.rows import Question, Row, read_questions
from corea.batch.run import Asking, Summary, answer, run_batch
from corea.batch.shards import MANIFEST, MAX_CRASHES, Folder, Format, Shard, answer_shard, cut
from corea.batch.tiers import limit
from corea.errors import InputError, UpstreamRefused
from corea.models.scripted import Hang, ScriptedModel, scripted_answer
from corea.prices import FixedPrice
from corea.tier import Tier

PRICE = FixedPrice.per_million(1, 1)


class Died(BaseException):
    """The process of a worker is gone, in the middle of whatever it did."""


def begun(
    source: Place, place: Place, *, shard_rows: int | None = 3, format: Format = "jsonl", fingerprint: str = "one"
) -> tuple[list[Shard], Folder, Summary]:
    """What the engine does before its workers begin."""
    earlier = Folder.earlier(place, fingerprint=fingerprint, format=format, shard_rows=shard_rows)
    summary = Summary()
    known = shard_rows if earlier is None else earlier.shard_rows
    shards, rows_each = cut(source, shard_rows=known, workers=2, summary=summary, allow_code=False)
    folder = earlier or Folder(place=place, fingerprint=fingerprint, format=format, shard_rows=rows_each)
    folder.check(len(shards))
    folder.claim()
    return shards, folder, summary


async def answered(
    shard: Shard,
    folder: Folder,
    source: Place,
    *,
    using: Cascade | None = None,
    before: Callable[[Question], Awaitable[object]] | None = None,
) -> Summary:
    asking = Asking(cascade=using or cascade())

    async def row_of(question: Question) -> Row:
        if before is not None:
            await before(question)
        return await answer(asking, question, allow_code=False)

    return await answer_shard(shard, folder, source, answer=row_of, concurrency=2, alone=asyncio.Lock())


def run(source: Place, place: Place, *, using: Cascade | None = None, **settings: Any) -> Summary:
    """All shards, one after the other."""
    shards, folder, summary = begun(source, place, **settings)
    using = using or cascade()
    for shard in shards:
        summary.join(asyncio.run(answered(shard, folder, source, using=using)))
    folder.finish(len(shards), summary)
    return summary


def parts(place: Path) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for file in sorted(place.glob("part-*.jsonl")) for line in file.open()]
    assert len({line["id"] for line in lines}) == len(lines), "one row a line"
    return {line["id"]: line for line in lines}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return questions(tmp_path / "in.jsonl", *({"id": f"q{n}", "question": f"easy {n}", "answer": 42} for n in range(8)))


_lines = st.lists(
    st.one_of(
        st.builds(lambda id: json.dumps({"id": id, "question": "easy"}), st.integers(0, 9)),
        st.sampled_from(["", "  ", "no JSON", "[]", '{"id": "x"}']),
    ),
    max_size=25,
)


@given(_lines, st.integers(1, 7), st.booleans())
def test_every_line_is_in_one_shard_and_reads_there_as_in_the_whole(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], shard_rows: int, zipped: bool
) -> None:
    path = tmp_path_factory.mktemp("any") / "in"
    content = "\n".join(['{"id": "first", "question": "easy"}', *lines]).encode()
    path.write_bytes(gzip.compress(content) if zipped else content)
    summary = Summary()
    shards, _ = cut(path, shard_rows=shard_rows, workers=1, summary=summary, allow_code=False)
    assert [item for shard in shards for item in shard.read(path)] == list(read_questions(path))
    assert all(shard.lines == shard_rows for shard in shards[:-1])
    assert [Shard.of(shard.text) for shard in shards] == shards


@pytest.mark.parametrize("lines,workers,shard_rows", [(5, 2, 64), (10_000, 2, 256), (40_000, 2, 1024)])
def test_without_a_size_shards_are_such_that_all_workers_have_enough_to_do(
    tmp_path: Path, lines: int, workers: int, shard_rows: int
) -> None:
    path = tmp_path / "in.jsonl"
    path.write_text("".join(f'{{"id": {n}, "question": "?"}}\n' for n in range(lines)))
    shards, rows_each = cut(path, shard_rows=None, workers=workers, summary=Summary(), allow_code=False)
    assert rows_each == shard_rows
    assert sum(shard.lines for shard in shards) == lines
    assert next(iter(shards[-1].read(path))).id == str((len(shards) - 1) * shard_rows)


def test_parts_hold_what_the_local_engine_writes(tmp_path: Path) -> None:
    source = questions(
        tmp_path / "in.jsonl",
        *({"id": n, "question": f"{'easy' if n % 2 else 'hard'} {n}", "answer": 42} for n in range(7)),
        "no JSON",
        {"id": 3, "question": "again"},
        {"id": "c", "question": ["not text"]},
        {"id": "empty", "question": " ", "answer": 1},
    )
    summary = run(source, tmp_path / "out")
    local = asyncio.run(run_batch(cascade(), source, tmp_path / "out.jsonl", concurrency=2))

    def told(found: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        return {id: {**row, "trace_id": None} for id, row in found.items()}

    assert told(parts(tmp_path / "out")) == told(rows(tmp_path / "out.jsonl"))
    assert summary == local
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    assert (manifest["complete"], manifest["rows"], manifest["failed"]) == (True, 11, 4)
    assert {MANIFEST, *manifest["parts"]} == {entry.name for entry in (tmp_path / "out").iterdir()}


def test_a_rerun_asks_nothing_again_and_leaves_the_parts_alone(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out")
    before = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("part-*")}
    second = cascade()
    summary = run(source, tmp_path / "out", using=second)
    assert (asked(second), summary.rows, summary.resumed, summary.correct) == (0, 8, 8, 8)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").glob("part-*")} == before


def test_only_failed_rows_are_tried_again(source: Path, tmp_path: Path) -> None:
    def picky(prompt: Any, index: int) -> Any:
        sure = scripted_answer("42", digit=9)
        return UpstreamRefused("no connection") if "easy 5" in prompt.messages[-1].content else sure

    first = Cascade([Tier(name="large", model=ScriptedModel("l", replies=picky), price=PRICE)], fingerprint="one")
    assert run(source, tmp_path / "out", using=first).failed == 1
    second = cascade()
    assert run(source, tmp_path / "out", using=second).failed == 0
    assert asked(second) == 1
    assert all(row["error"] is None for row in parts(tmp_path / "out").values())


def test_an_input_that_grew_is_gone_on_with(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out")
    with source.open("a") as file:
        file.write("".join(f'{{"id": "new{n}", "question": "easy"}}\n' for n in range(5)))
    second = cascade()
    assert run(source, tmp_path / "out", using=second, shard_rows=None).rows == 13
    assert asked(second) == 5
    assert len(parts(tmp_path / "out")) == 13


@pytest.mark.parametrize("cut_at", [0, 1, 40, 300])
def test_an_attempt_that_was_broken_off_anywhere_is_gone_on_with(source: Path, tmp_path: Path, cut_at: int) -> None:
    shards, folder, _ = begun(source, tmp_path / "out", shard_rows=8)
    asyncio.run(answered(shards[0], folder, source))
    whole = folder.place / folder.name(0)  # type: ignore[operator]
    half = whole.with_name(f"_{folder.name(0)}.{folder.run}.0.rows")
    half.write_bytes(whole.read_bytes()[: 600 + cut_at])
    whole.unlink()
    complete = half.read_bytes().count(b"\n")
    second = cascade()
    assert asyncio.run(answered(shards[0], folder, source, using=second)).rows == 8
    assert asked(second) == 8 - complete
    assert len(parts(tmp_path / "out")) == 8
    assert not half.exists()


def test_a_worker_that_was_given_up_and_is_not_dead_makes_no_second_row(source: Path, tmp_path: Path) -> None:
    shards, folder, _ = begun(source, tmp_path / "out", shard_rows=8)

    async def both(first_to_finish: int) -> None:
        go_on = [asyncio.Event(), asyncio.Event()]
        at_it = [asyncio.Event(), asyncio.Event()]

        async def stall(worker: int, question: Question) -> None:
            at_it[worker].set()
            if question.id == "q4":
                await go_on[worker].wait()

        work = []
        for worker in (0, 1):
            before = partial(stall, worker)
            work.append(asyncio.create_task(answered(shards[0], folder, source, before=before)))
            await at_it[worker].wait()
        for worker in (first_to_finish, 1 - first_to_finish):
            go_on[worker].set()
            await work[worker]

    for first_to_finish in (0, 1):
        asyncio.run(both(first_to_finish))
        assert len(parts(tmp_path / "out")) == 8
        assert {entry.name for entry in (tmp_path / "out").iterdir()} == {MANIFEST, folder.name(0)}
        (tmp_path / "out" / folder.name(0)).unlink()


def test_a_question_that_kills_its_worker_is_found_and_told_and_the_others_are_answered(
    source: Path, tmp_path: Path
) -> None:
    shards, folder, _ = begun(source, tmp_path / "out", shard_rows=8)

    async def poison(question: Question) -> None:
        await asyncio.sleep(0)
        if question.id in ("q2", "q6"):
            raise Died

    deaths = 0
    while True:
        try:
            summary = asyncio.run(answered(shards[0], folder, source, before=poison))
        except Died:
            deaths += 1
        else:
            break
    assert deaths == MAX_CRASHES + 2
    assert (summary.rows, summary.failed) == (8, 2)
    found = parts(tmp_path / "out")
    assert {id for id, row in found.items() if row["error"]} == {"q2", "q6"}
    assert "the worker died each time" in found["q2"]["error"]
    assert found["q2"]["correct"] is False
    # The next run tries them again.
    assert run(source, tmp_path / "out", shard_rows=8).failed == 0


def test_runs_that_were_stopped_are_not_taken_for_deaths(source: Path, tmp_path: Path) -> None:
    async def stop(question: Question) -> None:
        if question.id == "q0":
            raise Died
        await asyncio.Event().wait()

    for _ in range(MAX_CRASHES + 2):
        shards, folder, _ = begun(source, tmp_path / "out", shard_rows=8)
        with pytest.raises(Died):
            asyncio.run(answered(shards[0], folder, source, before=stop))
    assert run(source, tmp_path / "out", shard_rows=8).failed == 0


def test_an_endpoint_that_crawls_costs_its_rows_and_not_the_job(source: Path, tmp_path: Path) -> None:
    slow = Cascade(
        [Tier(name="large", model=ScriptedModel("l", replies=[Hang()]), price=PRICE, timeout_s=0.01)], fingerprint="one"
    )
    summary = run(source, tmp_path / "out", using=slow)
    assert (summary.rows, summary.failed) == (8, 8)
    assert all("no answer in" in row["error"] for row in parts(tmp_path / "out").values())


def test_a_full_disk_is_told_and_loses_no_row(source: Path, tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import resource, signal, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[3])
        from batch.test_shards import run
        from corea.errors import InputError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))
        try:
            run(Path(sys.argv[1]), Path(sys.argv[2]), shard_rows=8)
        except InputError as exc:
            print(exc)
        """
    )
    command = [sys.executable, "-c", script, str(source), str(tmp_path / "out"), str(Path(__file__).parent.parent)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "cannot write" in done.stdout
    assert not parts(tmp_path / "out")
    second = cascade()
    assert run(source, tmp_path / "out", using=second, shard_rows=8).rows == 8
    assert len(parts(tmp_path / "out")) == 8
    assert 0 < asked(second) < 8


@pytest.mark.parametrize(
    "settings,why",
    [
        ({"fingerprint": "two"}, "another run"),
        ({"format": "parquet"}, "begun with format jsonl"),
        ({"shard_rows": 4}, "begun with shard_rows 3"),
    ],
)
def test_a_folder_that_was_begun_otherwise_is_refused(
    source: Path, tmp_path: Path, settings: dict[str, Any], why: str
) -> None:
    run(source, tmp_path / "out")
    with pytest.raises(InputError, match=why):
        run(source, tmp_path / "out", **settings)


def test_a_folder_of_something_else_is_left_alone(source: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter-1.txt").write_text("years of work\n")
    for place in (tmp_path / "thesis", tmp_path / "thesis" / "chapter-1.txt"):
        with pytest.raises(InputError, match="not written by"):
            run(source, place)


def test_a_folder_of_another_input_is_refused(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out")
    other = questions(tmp_path / "other.jsonl", *({"id": f"z{n}", "question": "easy"} for n in range(8)))
    with pytest.raises(InputError, match="belongs to another input"):
        run(other, tmp_path / "out")
    shorter = questions(tmp_path / "shorter.jsonl", {"id": "q0", "question": "easy"})
    with pytest.raises(InputError, match="only 1 shards"):
        run(shorter, tmp_path / "out")


def test_a_part_that_nobody_here_can_see_is_told(source: Path, tmp_path: Path) -> None:
    shards, folder, summary = begun(source, tmp_path / "out")
    with pytest.raises(InputError, match="3 parts are not in"):
        folder.finish(len(shards), summary)


def test_an_input_that_shrank_meanwhile_is_told(source: Path, tmp_path: Path) -> None:
    shards, folder, _ = begun(source, tmp_path / "out")
    questions(source, {"id": "q0", "question": "easy"})
    with pytest.raises(InputError, match="was changed during the run"):
        asyncio.run(answered(shards[0], folder, source))


def test_parts_may_be_parquet_and_lie_behind_a_url(source: Path, tmp_path: Path) -> None:
    place = f"memory://{tmp_path.name}/out"
    assert run(source, place, format="parquet").rows == 8
    assert names(place) == [MANIFEST, *(f"part-{n:06d}.parquet" for n in range(3))]
    with opened(under(place, "part-000002.parquet")) as file:
        table = pq.read_table(pa.BufferReader(file.read()))
    assert table.column("id").to_pylist() == ["q6", "q7"]
    assert not exists(under(place, "none"))
    second = cascade()
    assert run(source, place, format="parquet", using=second).resumed == 8
    assert asked(second) == 0


def test_a_tier_is_asked_no_more_at_once_than_it_is_allowed(source: Path, tmp_path: Path) -> None:
    class Counting(ScriptedModel):
        at_once = most = 0

        async def complete(self, prompt: Any, *, timeout_s: float | None = None) -> Any:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            await asyncio.sleep(0)
            self.at_once -= 1
            return await super().complete(prompt, timeout_s=timeout_s)

    model = Counting("l", replies=[scripted_answer("42")])
    limited = limit(Cascade([Tier(name="large", model=model, price=PRICE)]), {"large": 2})
    asyncio.run(run_batch(limited, source, tmp_path / "out.jsonl", concurrency=8))
    assert model.most == 2
    with pytest.raises(InputError, match='no tier is called "tiny"; there are: large'):
        limit(limited, {"tiny": 1})
