"""A batch: every usable line gets one row, whatever is wrong around it, and a rerun does only what is missing."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea import Cascade
from corea.batch.rows import BadLine, Question, Row, infer_kind, read_questions
from corea.batch.run import Summary, run_batch
from corea.confidence import Verbalized
from corea.errors import InputError, UpstreamGarbage, UpstreamRefused
from corea.models.breaker import Breaker, BreakerSettings
from corea.models.scripted import ScriptedModel, Step, scripted_answer
from corea.prices import FixedPrice
from corea.tier import Tier
from corea.types import Prompt

PRICE = FixedPrice.per_million(1, 1)


def cascade(small: Callable[[Prompt, int], Step] | None = None, *, fingerprint: str = "one") -> Cascade:
    """Small is sure of questions that say "easy"; large answers 42 to everything."""

    def by_difficulty(prompt: Prompt, index: int) -> Step:
        return scripted_answer("42", digit=9 if "easy" in prompt.messages[-1].content else 1)

    first = Tier(
        name="small",
        model=ScriptedModel("s", replies=small or by_difficulty),
        estimator=Verbalized(),
        threshold=0.5,
        price=PRICE,
    )
    last = Tier(name="large", model=ScriptedModel("l", replies=[scripted_answer("42")]), price=PRICE)
    return Cascade([first, last], fingerprint=fingerprint)


def asked(cascade: Cascade) -> int:
    model = cascade.tiers[0].model
    assert isinstance(model, ScriptedModel)
    return model.calls


def run(source: Path, sink: Path, *, using: Cascade | None = None, concurrency: int = 4) -> Summary:
    return asyncio.run(run_batch(using or cascade(), source, sink, concurrency=concurrency))


def rows(sink: Path) -> dict[str, dict[str, Any]]:
    lines = [json.loads(line) for line in sink.read_text().splitlines()]
    assert len({line["id"] for line in lines}) == len(lines), "one row a question"
    return {line["id"]: line for line in lines}


def questions(path: Path, *lines: Any) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return questions(
        tmp_path / "in.jsonl",
        *(
            {"id": f"q{i}", "question": f"{'easy' if i % 2 else 'hard'} {i}", "answer": 42 + (i == 0)}
            for i in range(10)
        ),
    )


def test_every_question_gets_one_row_with_all_its_fields(source: Path, tmp_path: Path) -> None:
    summary = run(source, tmp_path / "out.jsonl")
    out = rows(tmp_path / "out.jsonl")
    assert len(out) == 10
    assert out["q1"].keys() == {
        "id", "answer", "text", "tier", "confidence", "deferred", "cost_nano_usd", "saved_nano_usd", "correct", "error",
        "trace_id",
    }  # fmt: skip
    assert (out["q1"]["tier"], out["q1"]["deferred"], out["q1"]["confidence"]) == ("small", False, 0.95)
    assert (out["q2"]["tier"], out["q2"]["deferred"], out["q2"]["correct"]) == ("large", True, True)
    assert out["q0"]["correct"] is False
    assert (summary.rows, summary.deferred, summary.correct, summary.ok) == (10, 5, 9, True)
    assert summary.accuracy == 0.9
    assert summary.deferral_rate == 0.5


def test_without_gold_answers_nothing_is_called_right_or_wrong(tmp_path: Path) -> None:
    summary = run(questions(tmp_path / "in.jsonl", {"id": 1, "question": "easy"}), tmp_path / "out.jsonl")
    assert rows(tmp_path / "out.jsonl")["1"]["correct"] is None
    assert summary.accuracy is None


def test_bad_lines_are_told_with_their_numbers_and_the_rest_goes_on(tmp_path: Path) -> None:
    source = questions(
        tmp_path / "in.jsonl",
        {"id": "a", "question": "easy"},
        "this is not JSON",
        {"question": "easy"},
        {"id": "b"},
        "",
        {"id": "a", "question": "again"},
        {"id": "c", "question": 3},
        {"id": "d", "question": "easy", "kind": "poem"},
        "[1, 2]",
        {"id": True, "question": "easy"},
        {"id": "e", "question": "easy"},
    )
    summary = run(source, tmp_path / "out.jsonl")
    out = rows(tmp_path / "out.jsonl")
    assert {id for id, row in out.items() if row["error"] is None} == {"a", "e"}
    # One row for each line: under its own id where it has one, else under its number.
    assert out.keys() == {"a", "line 2", "line 3", "b", "line 6", "c", "d", "line 9", "line 10", "e"}
    assert out["c"]["error"] == '"question" must be a string'
    assert (summary.rows, summary.bad_lines, summary.failed) == (2, 8, 0)
    told = [str(bad) for bad in summary.bad_line_samples]
    assert [line.split(":")[0] for line in told] == [f"line {n}" for n in (2, 3, 4, 6, 7, 8, 9, 10)]
    assert "not JSON" in told[0]
    assert '"id" is missing' in told[1]
    assert '"question" is missing' in told[2]
    assert 'id "a" was used before' in told[3]
    assert not summary.ok


def test_an_empty_question_is_a_row_with_its_error(tmp_path: Path) -> None:
    source = questions(
        tmp_path / "in.jsonl", {"id": "a", "question": "  ", "answer": 1}, {"id": "b", "question": "easy"}
    )
    summary = run(source, tmp_path / "out.jsonl")
    row = rows(tmp_path / "out.jsonl")["a"]
    assert "empty" in row["error"]
    assert row["correct"] is False
    assert (summary.failed, summary.answered, summary.ok) == (1, 1, False)


def test_a_rerun_asks_nothing_again(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out.jsonl")
    before = (tmp_path / "out.jsonl").read_bytes()
    second = cascade()
    summary = run(source, tmp_path / "out.jsonl", using=second)
    assert asked(second) == 0
    assert (tmp_path / "out.jsonl").read_bytes() == before
    assert (summary.rows, summary.resumed, summary.correct) == (10, 10, 9)


@pytest.mark.parametrize("cut", [0, 1, 17, 60, 400])
def test_a_run_cut_off_anywhere_goes_on_from_there(source: Path, tmp_path: Path, cut: int) -> None:
    run(source, tmp_path / "out.jsonl")
    whole = (tmp_path / "out.jsonl").read_bytes()
    (tmp_path / "out.jsonl").write_bytes(whole[: len(whole) // 2 + cut])
    complete = (tmp_path / "out.jsonl").read_bytes().count(b"\n")
    second = cascade()
    run(source, tmp_path / "out.jsonl", using=second)
    assert len(rows(tmp_path / "out.jsonl")) == 10
    assert asked(second) == 10 - complete


def test_failed_rows_are_tried_again_and_replaced(source: Path, tmp_path: Path) -> None:
    broken = Cascade(
        [Tier(name="large", model=ScriptedModel("l", replies=[UpstreamRefused("no connection")]), price=PRICE)],
        fingerprint="one",
    )
    assert run(source, tmp_path / "out.jsonl", using=broken).failed == 10
    summary = run(source, tmp_path / "out.jsonl")
    assert (summary.failed, summary.rows, summary.resumed) == (0, 10, 0)
    assert all(row["error"] is None for row in rows(tmp_path / "out.jsonl").values())


@dataclass
class Hours:
    """Time that passes while somebody sleeps, and a little when they look. At ``well_at_s`` the outage is over."""

    well_at_s: float
    now_s: float = 0.0
    sleeps: int = 0

    def __call__(self) -> float:
        self.now_s += 1e-3
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.sleeps += 1
        until_s = self.now_s + seconds
        # Others go on meanwhile, as they do when somebody really sleeps.
        await asyncio.sleep(0)
        self.now_s = max(self.now_s, until_s)

    def tier(self, name: str, *, last: bool = False, breaks: bool = True) -> Tier:
        def reply(prompt: Prompt, index: int) -> Step:
            if self.now_s < self.well_at_s:
                return UpstreamRefused(f"{name}: no connection")
            return scripted_answer("42", digit=9)

        breaker = Breaker(BreakerSettings(min_calls=2), clock=self, rng=random.Random(1))
        return Tier(
            name=name,
            model=ScriptedModel(name, replies=reply),
            estimator=Verbalized(),
            threshold=None if last else 0.5,
            price=PRICE,
            breaker=breaker if breaks else None,
        )

    def run(self, source: Path, sink: Path, cascade: Cascade) -> Summary:
        return asyncio.run(run_batch(cascade, source, sink, concurrency=4, clock=self, sleep=self.sleep))


def many(path: Path, count: int) -> Path:
    return questions(path, *({"id": n, "question": f"easy {n}"} for n in range(count)))


def test_a_batch_waits_while_every_tier_is_left_alone(tmp_path: Path) -> None:
    hours = Hours(well_at_s=100.0)
    down = Cascade([hours.tier("small"), hours.tier("large", last=True)], deadline_s=300.0)
    summary = hours.run(many(tmp_path / "in.jsonl", 200), tmp_path / "out.jsonl", down)
    assert summary.rows == 200
    assert hours.now_s >= hours.well_at_s
    # What failed was really asked: the calls that opened the breakers, and a probe every few seconds.
    assert 4 <= summary.failed <= 4 + 100 / 4
    assert not any("was not asked" in (row["error"] or "") for row in rows(tmp_path / "out.jsonl").values())


def test_a_row_waits_no_longer_than_its_deadline(tmp_path: Path) -> None:
    hours = Hours(well_at_s=float("inf"))
    down = Cascade([hours.tier("small"), hours.tier("large", last=True)], deadline_s=2.0)
    summary = hours.run(many(tmp_path / "in.jsonl", 40), tmp_path / "out.jsonl", down)
    assert (summary.rows, summary.failed) == (40, 40)
    errors = [row["error"] for row in rows(tmp_path / "out.jsonl").values()]
    # A breaker lets one through after 4 s at the earliest.
    assert sum("large was not asked" in error for error in errors) >= 20
    assert 10 <= hours.now_s <= 40 / 4 * 2.5 + 2.5


def test_a_tier_that_answers_is_not_waited_for(tmp_path: Path) -> None:
    hours = Hours(well_at_s=float("inf"))
    well = Tier(name="large", model=ScriptedModel("l", replies=[scripted_answer("42")]), price=PRICE)
    summary = hours.run(many(tmp_path / "in.jsonl", 40), tmp_path / "out.jsonl", Cascade([hours.tier("small"), well]))
    assert (summary.failed, hours.sleeps) == (0, 0)


@pytest.mark.parametrize("did", [scripted_answer("42", digit=1), UpstreamGarbage("<html>")], ids=["answered", "billed"])
def test_what_was_worked_on_is_not_asked_again(tmp_path: Path, did: Step) -> None:
    """Small did its work, large is left alone: the row fails, and the next run tries it again."""
    hours = Hours(well_at_s=float("inf"))
    small = replace(cascade().tiers[0], model=ScriptedModel("s", replies=[did]), price=FixedPrice.per_million(0, 0))
    half = Cascade([small, hours.tier("large", last=True)])
    summary = hours.run(many(tmp_path / "in.jsonl", 40), tmp_path / "out.jsonl", half)
    assert (summary.failed, hours.sleeps, asked(half)) == (40, 0, 40)


def test_a_tier_that_refuses_at_once_is_not_asked_in_a_loop(tmp_path: Path) -> None:
    """One without a breaker fails each time; the other is left alone, and waited for."""
    hours = Hours(well_at_s=60.0)
    down = Cascade([hours.tier("small", breaks=False), hours.tier("large", last=True)], deadline_s=30.0)
    summary = hours.run(many(tmp_path / "in.jsonl", 20), tmp_path / "out.jsonl", down)
    assert summary.rows == 20
    assert asked(down) <= 20 + hours.sleeps
    assert summary.answered > 0


def test_an_output_of_another_configuration_is_refused_and_left_alone(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out.jsonl")
    before = (tmp_path / "out.jsonl").read_bytes()
    with pytest.raises(InputError, match="another run"):
        run(source, tmp_path / "out.jsonl", using=cascade(fingerprint="two"))
    assert (tmp_path / "out.jsonl").read_bytes() == before


def test_an_output_of_another_input_is_refused(source: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out.jsonl")
    other = questions(tmp_path / "other.jsonl", {"id": "z", "question": "easy"})
    with pytest.raises(InputError, match="belongs to another input"):
        run(other, tmp_path / "out.jsonl")


def test_a_file_that_is_no_batch_output_is_never_overwritten(source: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work\n")
    with pytest.raises(InputError, match="another run"):
        run(source, tmp_path / "thesis.txt")
    assert (tmp_path / "thesis.txt").read_text() == "years of work\n"


def test_the_input_cannot_be_the_output(source: Path) -> None:
    with pytest.raises(InputError, match="is the input"):
        run(source, source)


@pytest.mark.parametrize("content", ["", "\n\n", "not JSON\n"])
def test_an_input_without_questions_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "in.jsonl").write_text(content)
    with pytest.raises(InputError, match="no questions"):
        run(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_a_missing_input_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read"):
        run(tmp_path / "none.jsonl", tmp_path / "out.jsonl")


def test_gzip_is_read_and_a_cut_one_is_told(source: Path, tmp_path: Path) -> None:
    zipped = tmp_path / "in.jsonl.gz"
    zipped.write_bytes(gzip.compress(source.read_bytes()))
    assert run(zipped, tmp_path / "out.jsonl").rows == 10
    zipped.write_bytes(zipped.read_bytes()[:-9])
    with pytest.raises(InputError, match="cannot read"):
        run(zipped, tmp_path / "out2.jsonl")


def test_lines_that_are_not_utf8_or_nested_too_deeply_are_bad_lines(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"id": 1, "question": "\xff"}\n' + b"[" * 100_000 + b"\n" + b'{"id": 2, "question": "easy"}\n')
    items = list(read_questions(path))
    assert [type(item) for item in items] == [BadLine, BadLine, Question]


def test_a_full_disk_is_told_and_loses_no_row(source: Path, tmp_path: Path) -> None:
    script = textwrap.dedent(
        """
        import resource, signal, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[3])
        from batch.test_batch import run
        from corea.errors import InputError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (900, 900))
        try:
            run(Path(sys.argv[1]), Path(sys.argv[2]), concurrency=1)
        except InputError as exc:
            print(exc)
        """
    )
    sink = tmp_path / "out.jsonl"
    tests = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", script, str(source), str(sink), str(tests)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "cannot write" in done.stdout
    assert "the rows written so far are safe" in done.stdout
    second = cascade()
    assert run(source, sink, using=second).rows == 10
    assert len(rows(sink)) == 10
    assert 0 < asked(second) < 10


def test_kill_9_loses_at_most_the_rows_in_flight(tmp_path: Path) -> None:
    source = questions(tmp_path / "in.jsonl", *({"id": i, "question": "easy"} for i in range(2000)))
    sink = tmp_path / "out.jsonl"
    script = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[3])
        from batch.test_batch import run
        run(Path(sys.argv[1]), Path(sys.argv[2]))
        """
    )
    tests = Path(__file__).parent.parent
    process = subprocess.Popen([sys.executable, "-c", script, str(source), str(sink), str(tests)])
    try:
        while not sink.exists() or sink.stat().st_size < 20_000:
            assert process.poll() is None or process.returncode == 0
            if process.poll() is not None:
                break
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        process.wait()
    written = sink.read_bytes().count(b"\n")
    second = cascade()
    run(source, sink, using=second)
    assert len(rows(sink)) == 2000
    assert asked(second) == 2000 - written


_values = st.one_of(st.none(), st.integers(), st.text(max_size=5), st.lists(st.none()))
_objects = st.dictionaries(st.sampled_from(["id", "question", "answer", "kind", "x"]), _values).map(json.dumps)


@given(st.lists(st.one_of(st.text(max_size=30), _objects), max_size=12))
def test_no_line_is_lost_and_none_raises(tmp_path_factory: pytest.TempPathFactory, lines: list[str]) -> None:
    path = tmp_path_factory.mktemp("any") / "in.jsonl"
    content = "\n".join(lines).encode("utf-8", "surrogatepass")
    path.write_bytes(content)
    expected = sum(bool(line.strip()) for line in content.split(b"\n"))
    items = list(read_questions(path))
    assert len(items) == expected
    ids = [item.id for item in items if isinstance(item, Question)]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("gold,kind", [("B", "choice"), ("yes", "boolean"), ("1,450", "number"), ("Paris", "text")])
def test_the_kind_of_a_gold_answer_is_inferred(gold: str, kind: str) -> None:
    assert infer_kind(gold) == kind


def test_unknown_costs_are_counted_not_summed_as_zero() -> None:
    summary = Summary()
    summary.add(Row(id="a", cost_nano_usd=5, saved_nano_usd=5, deferred=False))
    summary.add(Row(id="b", cost_nano_usd=None, saved_nano_usd=None, deferred=False))
    assert summary.unknown_costs == 1
    assert summary.saving is None
