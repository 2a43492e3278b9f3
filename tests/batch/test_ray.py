"""The batch on a real Ray of two workers: one is killed, and nobody can tell by the output."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from batch.test_batch import cascade, questions
from batch.test_shards import parts
from corea import Cascade
from corea.batch.pools import Pool
from corea.batch.ray import Plan, run_ray
from corea.batch.run import Summary, run_batch
from corea.errors import InputError
from corea.models.scripted import ScriptedModel, Step, scripted_answer
from corea.types import Prompt

# Whatever its name says: with it, Ray listens on loopback only. It is read when Ray is imported.
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
ray = pytest.importorskip("ray")

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::FutureWarning:ray"),
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]

NODE = {"num_cpus": 1, "object_store_memory": 100_000_000}
TESTS = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU each, on loopback; it has to be started only once."""
    from ray.cluster_utils import Cluster

    # Sockets lie in it, and their paths may not be long.
    folder = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), *([before] if before else [])])
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        made = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False, "temp_dir": folder})
        made.add_node(**NODE)
        ray.init(address=made.address, log_to_driver=False, logging_level="error")
        yield made
        ray.shutdown()
        made.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        del os.environ["PYTHONPATH"]
        if before is not None:
            os.environ["PYTHONPATH"] = before


class Seen(ScriptedModel):
    """Writes down in a folder which process is asked, and what. From call ``pause_at`` on, it awaits a file there."""

    def __init__(
        self, name: str, folder: Path, replies: Callable[[Prompt, int], Step], *, pause_at: int | None = None
    ) -> None:
        super().__init__(name, replies=replies)
        self._folder = folder
        self._pause_at = pause_at

    async def complete(self, prompt: Prompt, *, timeout_s: float | None = None) -> Any:
        with (self._folder / f"{self.name}-{os.getpid()}").open("a") as file:
            file.write(prompt.messages[-1].content + "\n")
        go_on = self._folder / "go-on"
        # Another process makes it.
        while self._pause_at is not None and self.calls >= self._pause_at and not go_on.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        return await super().complete(prompt, timeout_s=timeout_s)


def build(folder: Path, *, deadly: str = "", pause_at: int | None = None) -> Cascade:
    """The cascade of the other tests, watched. A question with ``deadly`` in it ends the process that asks it."""

    def small(prompt: Prompt, index: int) -> Step:
        text = prompt.messages[-1].content
        if deadly and deadly in text:
            os.kill(os.getpid(), signal.SIGKILL)
        return scripted_answer("42", digit=9 if "easy" in text else 1)

    made = cascade()
    first, last = made.tiers
    large = Seen("large", folder, lambda prompt, index: scripted_answer("42"))
    made.tiers = (replace(first, model=Seen("small", folder, small, pause_at=pause_at)), replace(last, model=large))
    return made


def processes(folder: Path, tier: str) -> dict[int, int]:
    """How many questions each process was asked."""
    return {int(file.name.partition("-")[2]): file.read_text().count("\n") for file in folder.glob(f"{tier}-*")}


@pytest.fixture
def seen(tmp_path: Path) -> Path:
    folder = tmp_path / "seen"
    folder.mkdir()
    return folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return questions(
        tmp_path / "in.jsonl",
        *({"id": n, "question": f"{'easy' if n % 3 else 'hard'} <{n}>", "answer": 42} for n in range(600)),
        "no JSON",
        {"id": "poison", "question": {"not": "text"}},
        {"id": 5, "question": "again"},
    )


def run(source: Path, sink: Path, made: Callable[[], Cascade], **settings: Any) -> Summary:
    plan = Plan(**{"shard_rows": 50, "worker_cpus": 0.5, **settings})
    return run_ray(made, source, sink, fingerprint="one", plan=plan)


#: Each of two workers has so many answers when disaster strikes: it is at two shards of 50, four questions at a time.
PAUSE_AT = 60


def struck(source: Path, sink: Path, seen: Path, disaster: Callable[[], object]) -> tuple[Summary, int]:
    """A run in the middle of which something happens; and the progress that was told."""

    def strike() -> None:
        while not ended.wait(0.02):
            busy = processes(seen, "small")
            if len(busy) == 2 and all(count >= PAUSE_AT for count in busy.values()):
                disaster()
                (seen / "go-on").touch()
                return

    progress: list[int] = []
    ended = threading.Event()
    striker = threading.Thread(target=strike)
    striker.start()
    try:
        made = partial(build, seen, pause_at=PAUSE_AT)
        plan = Plan(shard_rows=50, worker_cpus=0.5, concurrency=4)
        summary = run_ray(made, source, sink, fingerprint="one", plan=plan, on_rows=progress.append)
    finally:
        ended.set()
        striker.join()
    return summary, sum(progress)


def test_a_killed_worker_costs_no_row_and_no_duplicate(cluster: Any, source: Path, seen: Path, tmp_path: Path) -> None:
    def kill() -> None:
        os.kill(min(processes(seen, "small")), signal.SIGKILL)

    summary, told = struck(source, tmp_path / "out", seen, kill)
    found = parts(tmp_path / "out")
    assert len(found) == 603
    local = asyncio.run(run_batch(cascade(), source, tmp_path / "out.jsonl", concurrency=8))
    expected = {row["id"]: row for row in map(json.loads, (tmp_path / "out.jsonl").open())}
    assert {id: {**row, "trace_id": None} for id, row in found.items()} == {
        id: {**row, "trace_id": None} for id, row in expected.items()
    }
    assert (summary.rows, summary.deferred, summary.correct, summary.bad_lines) == (600, 200, 600, 3)
    assert summary.cost_nano_usd == local.cost_nano_usd
    assert told == 600
    asked = processes(seen, "small")
    assert len(asked) == 3, "another worker took the place of the dead one"
    # What it was at is asked again, and nothing else.
    assert 600 <= sum(asked.values()) <= 600 + 4


def test_a_rerun_does_only_what_is_missing(cluster: Any, source: Path, seen: Path, tmp_path: Path) -> None:
    run(source, tmp_path / "out", partial(build, seen))
    before = sum(processes(seen, "small").values())
    (tmp_path / "out" / "part-000003.jsonl").unlink()
    summary = run(source, tmp_path / "out", partial(build, seen))
    assert sum(processes(seen, "small").values()) - before == 50
    assert (summary.rows, summary.resumed) == (600, 550)
    assert len(parts(tmp_path / "out")) == 603


def test_a_question_that_kills_workers_is_told_and_the_job_ends(
    cluster: Any, source: Path, seen: Path, tmp_path: Path
) -> None:
    made = partial(build, seen, deadly="<123>")
    summary = run(source, tmp_path / "out", made, workers=1, shard_rows=200)
    found = parts(tmp_path / "out")
    assert len(found) == 603
    assert summary.failed == 1
    assert "the worker died each time" in found["123"]["error"]


def test_a_tier_may_have_processes_of_its_own(cluster: Any, source: Path, seen: Path, tmp_path: Path) -> None:
    plan = {"pools": {"large": Pool(size=1, cpus=0.5)}, "at_once": {"large": 4}, "workers": 2}
    summary = run(source, tmp_path / "out", partial(build, seen), **plan)
    assert (summary.rows, summary.failed, summary.deferred) == (600, 0, 200)
    assert [*processes(seen, "large").values()] == [200]
    assert not processes(seen, "large").keys() & processes(seen, "small").keys()


def test_a_lost_node_costs_no_row_and_no_duplicate(cluster: Any, source: Path, seen: Path, tmp_path: Path) -> None:
    def lose() -> None:
        cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)

    summary, told = struck(source, tmp_path / "out", seen, lose)
    cluster.add_node(**NODE)
    assert (summary.rows, summary.failed, told) == (600, 0, 600)
    assert len(parts(tmp_path / "out")) == 603
    # The node may have had one of the workers, both, or none.
    assert 600 <= sum(processes(seen, "small").values()) <= 600 + 8


def test_what_a_worker_cannot_go_on_after_ends_the_job_with_its_words(
    cluster: Any, source: Path, seen: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="other models or settings than this process"):
        run_ray(partial(build, seen), source, tmp_path / "out", fingerprint="two", plan=Plan(worker_cpus=0.5))
    with pytest.raises(InputError, match="takes 9 CPUs and Ray has 2"):
        run(source, tmp_path / "out2", partial(build, seen), workers=9, worker_cpus=1)
    with pytest.raises(InputError, match='pool of tier "tiny" cannot start: no tier is called "tiny"'):
        run(source, tmp_path / "out3", partial(build, seen), pools={"tiny": Pool(size=1, cpus=0.1)})
    with pytest.raises(InputError, match="2 workers cannot share 1 questions"):
        Plan(at_once={"large": 1})
