"""The list of benches, and what becomes of one that is met, misses a limit, fails or hangs: with tiny ones."""

from __future__ import annotations

import fcntl
import json
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import bench.__main__ as command
from bench import one, running
from bench.measure import Figure
from bench.parts.benches import listed
from bench.registry import BENCH, BENCHES, BY_NAME, NEEDS, Bench, Given
from bench.running import Run, keep, lasting, run, runs

#: On two cores, without a folder or an environment of anybody's.
MOST_S = 45 * 60
WRITE = "from pathlib import Path; Path('bench/results/tiny.json').write_text({!r}); raise SystemExit({})"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "bench" / "results").mkdir(parents=True)
    return tmp_path / "bench"


def tiny(root: Path, code: str, **changes: object) -> Bench:
    """A bench that is this code."""
    (root.parent / "tiny_bench.py").write_text(code)
    settings: dict[str, object] = {
        "name": "tiny", "about": "tiny", "takes_s": 1, "results": ("results/tiny.json",), "module": "tiny_bench",
        "args": (),
    }  # fmt: skip
    return Bench(**{**settings, **changes})  # type: ignore[arg-type]


def clock() -> Iterator[datetime]:
    """It takes two seconds and a half from one look to the next."""
    now = datetime(2026, 11, 25, 23, 59, 58, tzinfo=UTC)
    while True:
        yield now
        now += timedelta(seconds=2.5)


def ended(bench: Bench, root: Path) -> Run:
    times = clock()
    return run(bench, Given(), clock=lambda: next(times), root=root)


@pytest.mark.parametrize("bench", BENCHES, ids=lambda bench: bench.name)
def test_every_bench_is_there_and_can_be_imported(bench: Bench) -> None:
    assert find_spec(bench.module) is not None
    packages = [need for need in ("torch", "mathruler") if need in bench.needs]
    if all(NEEDS[need].met(Given()) for need in packages):
        module = import_module(bench.module)
        assert callable(module.measure) if bench.args is None else (module.__doc__ or "")


def test_every_bench_has_its_files_or_the_page_says_that_it_was_never_run() -> None:
    page = listed(BENCH)
    for bench in BENCHES:
        (row,) = (line for line in page.splitlines() if line.endswith(f"`{bench.command}` |"))
        here = all((BENCH / file).exists() for file in bench.results)
        assert here != (" | never | " in row)


def test_no_two_benches_share_a_name_or_a_file() -> None:
    files = [file for bench in BENCHES for file in bench.results if "outcomes/" not in file]
    assert len(files) == len(set(files))
    assert len({bench.name for bench in BENCHES}) == len(BENCHES)
    assert {need for bench in BENCHES for need in bench.needs} <= NEEDS.keys()


def test_what_runs_without_a_folder_or_a_name_takes_less_than_45_minutes() -> None:
    known, foreign = runs(), {"data", "envs", *BY_NAME}
    took = [known[b.name].seconds if b.name in known else b.takes_s for b in BENCHES if not foreign & set(b.needs)]
    assert sum(seconds or 0.0 for seconds in took) < MOST_S


def test_what_is_needed_is_said_and_a_name_stands_for_patience_only() -> None:
    bench = next(bench for bench in BENCHES if bench.name == "batch_real")
    assert len(bench.missing(Given(), named=False)) == 2
    (missing,) = bench.missing(Given(), named=True)
    assert "--data DIR" in missing
    assert bench.missing(Given(data=Path("d")), named=True) == []
    assert bench.words(Given(data=Path("d")))[1] == "d/gsm8k-test.jsonl.gz"


@pytest.mark.parametrize(
    "code,outcome,why",
    [
        (WRITE.format("{}", 0), "met", ""),
        (WRITE.format("{}", 1), "missed", ""),
        (WRITE.format("{}", 3), "failed", "exit code 3"),
        ("raise OSError('no disk')", "failed", "exit code 1, and nothing was written"),
        ("print('skipped: nothing is here')", "failed", "exit code 0, and nothing was written"),
        ("import os; os.abort()", "failed", "exit code -6, and nothing was written"),
    ],
)
def test_the_end_of_a_bench_is_known_by_its_exit_code_and_its_file(
    root: Path, code: str, outcome: str, why: str
) -> None:
    made = ended(tiny(root, code), root)
    assert (made.outcome, made.why) == (outcome, why)
    assert (made.seconds, made.date) == (2.5, "2026-11-26")


def test_a_bench_that_hangs_is_ended_with_all_that_it_started(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "LEAST_S", 0.0)
    code = (
        "import fcntl, subprocess, sys\n"
        f"held = open({str(root / 'lock')!r}, 'w')\n"
        "fcntl.flock(held, fcntl.LOCK_EX)\n"
        "pause = [sys.executable, '-c', 'import signal; signal.pause()']\n"
        "subprocess.run(pause, pass_fds=[held.fileno()])\n"
    )
    made = ended(tiny(root, code, takes_s=0.5), root)
    assert (made.outcome, made.why) == ("failed", "it took much too long and was ended")
    with (root / "lock").open("w") as free:
        # Granted once the last of both is gone.
        fcntl.flock(free, fcntl.LOCK_EX)


def test_one_that_fails_is_named_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = tiny(root, WRITE.format("{}", 0))
    benches = [
        tiny(root, WRITE.format("{}", 0), name="gone", module="no_such_module"),
        good,
        tiny(root, WRITE.format("{}", 0), name="long", needs=("hours",)),
    ]
    monkeypatch.setattr(command, "BENCHES", tuple(benches))
    monkeypatch.setattr(command, "run", lambda bench, given: run(bench, given, root=root))
    monkeypatch.setattr(command, "keep", lambda name, made: keep(name, made, root))
    monkeypatch.setattr(command, "rendered", lambda: True)
    assert command.main([]) == 1
    told = capsys.readouterr().out
    assert "gone: FAILED: exit code 1, and nothing was written" in told
    assert "tiny: done" in told
    assert "long: left out; it needs an hour or more" in told
    assert {name: kept.outcome for name, kept in runs(root).items()} == {"gone": "failed", "tiny": "met"}
    assert command.main(["tiny"]) == 0
    assert command.main(["tiny", "long"]) == 0
    monkeypatch.setattr(command, "rendered", lambda: False)
    assert command.main(["tiny"]) == 1


def test_one_that_was_named_and_cannot_run_is_no_success(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "rendered", lambda: True)
    assert command.main(["days"]) == 1
    assert "days: left out; it needs a folder of question sets" in capsys.readouterr().out


def test_the_list_names_every_bench_with_its_needs_and_runs_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [bench.name for bench in BENCHES]
    assert all(bench.command in line for bench, line in zip(BENCHES, lines, strict=True))


def test_a_name_that_is_none_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        command.main(["stratup"])
    assert "python -m bench --list shows all" in capsys.readouterr().err


def test_figures_of_a_measure_are_kept_and_a_missed_limit_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Tiny:
        @staticmethod
        def measure() -> list[Figure]:
            return [Figure(name="a", value=1.0, limit=2.0), Figure(name="b", value=1.0, limit=2.0, at_least=True)]

    monkeypatch.setattr(one, "RESULTS", tmp_path)
    monkeypatch.setitem(sys.modules, "bench.tiny", Tiny)
    assert one.main("tiny") == 1
    record = json.loads((tmp_path / "tiny.json").read_text(encoding="utf-8"))
    assert [figure["met"] for figure in record["figures"]] == [True, False]
    assert record["machine"]["cores"] >= 1


def test_the_page_tells_when_a_bench_ran_how_long_and_how_it_ended(root: Path) -> None:
    assert f"`{BENCHES[0].command}`" in listed(root)
    keep(BENCHES[0].name, Run(date="2026-11-25", seconds=7.2, outcome="missed"), root)
    keep(BENCHES[1].name, Run(date="2026-11-26", seconds=400.0, outcome="met"), root)
    page = listed(root)
    assert f"| {BENCHES[0].about} | 7 s | 2026-11-25; missed a limit | `{BENCHES[0].command}` |" in page
    assert f"| {BENCHES[1].about} | 7 min | 2026-11-26 | `{BENCHES[1].command}` |" in page
    assert list(runs(root)) == sorted(bench.name for bench in BENCHES[:2])


def test_times_are_told_as_one_would_tell_them() -> None:
    assert [lasting(seconds) for seconds in (7.2, 99, 150, 4_000, 10_800)] == [
        "7 s",
        "99 s",
        "2 min",
        "67 min",
        "3.0 h",
    ]
