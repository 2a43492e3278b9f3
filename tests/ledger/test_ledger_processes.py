"""The ledger under several processes, and under kill -9."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from corea.ledger import Ledger, get_trace, reading, summary
from ledger.samples import sql, url_of
from ledger.stores import Place

TESTS = Path(__file__).parents[1]


def start(place: Place, *, concurrency: int, count: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "ledger.child", place.url, str(concurrency), str(count)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=TESTS)


def kill(child: subprocess.Popen[str]) -> str:
    """Kills the child and returns what it had said until then."""
    child.send_signal(signal.SIGKILL)
    said, _ = child.communicate()
    return said


def assert_whole(place: Place, promised: list[str]) -> None:
    """Every promised trace is there and in the sums exactly once, and no trace lacks an attempt."""
    if place.kind == "sqlite":
        assert place.sql("PRAGMA integrity_check") == [("ok",)]
        assert place.sql("PRAGMA foreign_key_check") == []
    stored = Counter(id for (id,) in place.sql("SELECT id FROM traces"))
    assert set(promised) <= set(stored)
    assert set(stored.values()) == {1}
    with reading(place.url) as engine:
        assert summary(engine)[0].traces == len(stored)
        for id in stored:
            one = get_trace(engine, id)
            assert len(one.attempts) == one.metadata["attempts"]


def test_processes_that_open_the_same_new_ledger_at_once_all_write_to_it(bare_place: Place) -> None:
    children = [start(bare_place, concurrency=4, count=10) for _ in range(3)]
    promised = [id for child in children for id in child.communicate(timeout=60)[0].split()]
    assert [child.returncode for child in children] == [0] * 3
    assert len(promised) == 120
    assert_whole(bare_place, promised)
    assert bare_place.sql("SELECT count(*) FROM traces") == [(120,)]


def test_kill_9_loses_no_trace_whose_write_returned(place: Place) -> None:
    rng = random.Random(20260301)
    promised: list[str] = []
    for _ in range(6 if place.kind == "sqlite" else 3):
        child = start(place, concurrency=16, count=1_000_000)
        assert child.stdout is not None
        promised.append(child.stdout.readline().strip())
        time.sleep(rng.uniform(0, 0.1))
        *whole, _cut_off = kill(child).split("\n")
        promised += whole
    assert len(promised) > 50
    assert len(set(promised)) == len(promised)
    assert_whole(place, promised)


@pytest.mark.parametrize("delay_s", [0.0, 0.05, 0.15])
def test_a_ledger_whose_maker_was_killed_can_be_opened(tmp_path: Path, delay_s: float) -> None:
    path = tmp_path / "ledger.db"
    child = start(Place(url_of(path), "sqlite"), concurrency=1, count=1)
    while not path.exists() and child.poll() is None:
        time.sleep(0.001)
    time.sleep(delay_s)
    kill(child)
    Ledger.open(url_of(path)).close()
    assert sql(path, "PRAGMA integrity_check") == [("ok",)]
