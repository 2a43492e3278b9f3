"""A batch on Ray: Ray Data hands shards to a pool of workers, each of them a whole cascade. Knows no files' formats.

What travels is where a shard begins, never a question: a worker reads its own, and writes the part it makes of it. Ray
repeats what a dead worker was at; :mod:`corea.batch.shards` sees to it that this costs no row and makes no second one.
Needs the extra ``ray``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from corea.batch.places import Place, is_same
from corea.batch.pools import Build, Pool, Remote, host
from corea.batch.rows import Question, Row
from corea.batch.run import Asking, Summary, answer
from corea.batch.shards import Folder, Format, Shard, answer_shard, cut
from corea.batch.tiers import check_names, limit
from corea.cascade import Cascade
from corea.errors import CoreaError, ExtraMissing, InputError

#: Shards a worker is at, so that it has enough to do while the last questions of one are answered.
SHARDS_AT_ONCE = 2
#: How often workers tell how far they are, and how often they are heard.
TELL_EVERY_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How the work is spread. ``concurrency``: questions a worker is at; ``at_once``: of one tier, by all workers."""

    workers: int = 2
    concurrency: int = 8
    at_once: Mapping[str, int] = field(default_factory=dict)
    pools: Mapping[str, Pool] = field(default_factory=dict)
    #: Lines of one part; None: as an earlier run had it, or such that all workers have enough to do.
    shard_rows: int | None = None
    worker_cpus: float = 1

    def __post_init__(self) -> None:
        for name, at_once in self.at_once.items():
            if at_once < self.workers:
                raise InputError(
                    f'{self.workers} workers cannot share {at_once} questions at once of tier "{name}"; allow it more, '
                    "or use fewer workers"
                )

    @property
    def cpus(self) -> float:
        return self.workers * self.worker_cpus + sum(pool.size * pool.cpus for pool in self.pools.values())

    @property
    def gpus(self) -> float:
        return sum(pool.size * pool.gpus for pool in self.pools.values())


def run_ray(
    build: Build,
    source: Place,
    sink: Place,
    *,
    fingerprint: str,
    plan: Plan,
    format: Format = "jsonl",
    address: str | None = None,
    allow_code: bool = False,
    on_start: Callable[[int, int], None] = lambda total, done: None,
    on_rows: Callable[[int], None] = lambda rows: None,
) -> Summary:
    """Ask every question of ``source`` that the folder ``sink`` has no row for yet.

    ``build`` is pickled and called in every worker; what it makes has this ``fingerprint``. ``address`` None: the Ray
    that this process is connected to, else ``$RAY_ADDRESS``, else one of this machine that ends with the batch.
    ``on_start`` gets the number of questions; ``on_rows``, in another thread, how many more have their row.

    Raises :class:`InputError` for files that cannot be used and for what a worker cannot go on after; a question that
    fails is a row with its error.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    _ray(here=address is None)
    if is_same(source, sink):
        raise InputError(f"{sink} is the input; choose an output folder")
    # Workers may have another working directory.
    source, sink = (place.absolute() if isinstance(place, Path) else place for place in (source, sink))
    folder = Folder.earlier(sink, fingerprint=fingerprint, format=format, shard_rows=plan.shard_rows)
    summary = Summary()
    shards, shard_rows = cut(
        source,
        shard_rows=plan.shard_rows if folder is None else folder.shard_rows,
        workers=plan.workers,
        summary=summary,
        allow_code=allow_code,
    )
    if folder is None:
        folder = Folder(place=sink, fingerprint=fingerprint, format=format, shard_rows=shard_rows)
    folder.check(len(shards))
    folder.claim()
    on_start(sum(shard.lines for shard in shards) - summary.bad_lines, 0)
    with connected(address, plan) as ray:
        tally = ray.remote(_Tally).options(num_cpus=0, max_restarts=-1).remote()
        job = _Job(
            build=build,
            source=source,
            folder=folder,
            concurrency=plan.concurrency,
            at_once={name: at_once // plan.workers for name, at_once in plan.at_once.items()},
            hosts={name: host(build, name, pool) for name, pool in plan.pools.items()},
            allow_code=allow_code,
            tally=tally,
        )
        with _heard(tally, on_rows, summary):
            for made in _made(job, shards, plan):
                summary.join(made)
    folder.finish(len(shards), summary)
    return summary


@contextmanager
def connected(address: str | None, plan: Plan) -> Iterator[Any]:
    """The module ``ray``, connected. Raises :class:`InputError` for a Ray that is not there, or is too small."""
    ray = _ray(here=address is None)
    begun = not ray.is_initialized()
    if begun:
        _connect(ray, address, plan)
    try:
        there = ray.cluster_resources()
        for resource, wanted in {"CPU": plan.cpus, "GPU": plan.gpus}.items():
            # Ray itself would wait for more of them, for ever.
            if there.get(resource, 0) < wanted:
                raise InputError(
                    f"this takes {wanted:g} {resource}s and Ray has {there.get(resource, 0):g}; use fewer workers or "
                    "smaller pools"
                )
        yield ray
    finally:
        if begun:
            ray.shutdown()


def _connect(ray: Any, address: str | None, plan: Plan) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet = {"log_to_driver": False, "logging_level": "error"}
    try:
        if address is not None:
            ray.init(address=address, **quiet)
            return
        ray.init(
            address="local",
            num_cpus=max(plan.cpus, os.cpu_count() or 1),
            include_dashboard=False,
            # What travels is small.
            object_store_memory=200_000_000,
            _node_ip_address="127.0.0.1",
            **quiet,
        )
    except (ConnectionError, RuntimeError, ValueError) as exc:
        why = " ".join(str(exc).split())[:300]
        raise InputError(f"no Ray at {address or 'this machine'} ({why}); check --ray-address") from exc


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What every worker is told."""

    build: Build
    source: Place
    folder: Folder
    concurrency: int
    #: A worker's share.
    at_once: Mapping[str, int]
    #: Actors that run a tier's model.
    hosts: Mapping[str, list[Any]]
    allow_code: bool
    tally: Any

    def cascade(self) -> Cascade:
        cascade = self.build()
        if cascade.fingerprint != self.folder.fingerprint:
            raise InputError("a worker has other models or settings than this process; install the same on every node")
        check_names(self.hosts, cascade)
        cascade.tiers = tuple(
            replace(tier, model=Remote(tier.name, self.hosts[tier.name])) if tier.name in self.hosts else tier
            for tier in cascade.tiers
        )
        return limit(cascade, self.at_once)


class _Worker:
    """What an actor of Ray Data's pool is: one cascade, and all shards that it gets."""

    def __init__(self, job: _Job) -> None:
        self._job = job
        self._asking: Asking | None = None
        self._free = asyncio.Semaphore(job.concurrency)
        self._alone = asyncio.Lock()
        self._rows: dict[int, int] = {}
        self._told_at_s = 0.0

    async def __call__(self, row: Mapping[str, Any]) -> list[dict[str, str]]:
        """A shard in, the sums of its part out. An error that is no bug travels as its text."""
        shard = Shard.of(str(row["shard"]))
        try:
            if self._asking is None:
                self._asking = Asking(cascade=self._job.cascade())
            made = await answer_shard(
                shard,
                self._job.folder,
                self._job.source,
                answer=self._answer,
                concurrency=self._job.concurrency,
                alone=self._alone,
                on_rows=partial(self._on_rows, shard.number),
            )
        except CoreaError as exc:
            return [{"made": "", "error": str(exc)}]
        self._tell()
        return [{"made": json.dumps(asdict(made)), "error": ""}]

    async def _answer(self, question: Question) -> Row:
        assert self._asking is not None, "made with the first shard"  # noqa: S101
        async with self._free:
            return await answer(self._asking, question, allow_code=self._job.allow_code)

    def _on_rows(self, shard: int, rows: int) -> None:
        self._rows[shard] = rows
        if time.monotonic() - self._told_at_s >= TELL_EVERY_S:
            self._tell()

    def _tell(self) -> None:
        self._told_at_s = time.monotonic()
        self._job.tally.note.remote(self._rows)
        self._rows = {}


class _Tally:
    """An actor that knows how many rows each part has. A part that is made anew is not counted twice."""

    def __init__(self) -> None:
        self._rows: dict[int, int] = {}

    def note(self, rows: Mapping[int, int]) -> None:
        for shard, count in rows.items():
            self._rows[shard] = max(count, self._rows.get(shard, 0))

    def total(self) -> int:
        return sum(self._rows.values())


def _made(job: _Job, shards: Iterable[Shard], plan: Plan) -> Iterator[Summary]:
    """The sums of each part, as they come. Raises :class:`InputError` with what a worker could not go on after."""
    from ray import data

    context = data.DataContext.get_current().copy()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    pool = data.ActorPoolStrategy(
        size=plan.workers,
        max_tasks_in_flight_per_actor=SHARDS_AT_ONCE,
        max_concurrent_calls_per_actor=SHARDS_AT_ONCE,
    )
    rows = [{"shard": shard.text} for shard in shards]
    with data.DataContext.current(context), _quiet("ray.data"):
        # A block for each, or one worker would get them all.
        todo = data.from_items(rows, override_num_blocks=len(rows))
        # Ray Data starts actors again, and repeats their tasks, without end.
        done = todo.flat_map(_Worker, fn_constructor_args=(job,), compute=pool, num_cpus=plan.worker_cpus)
        with closing(iter(done.iter_rows())) as reports:
            for report in reports:
                if report["error"]:
                    raise InputError(report["error"])
                yield Summary(**json.loads(report["made"]))


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Meanwhile, the logger says only what went wrong."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def _heard(tally: Any, on_rows: Callable[[int], None], whole: Summary) -> Iterator[None]:
    """Meanwhile, ``on_rows`` is told what the tally counts; at the least, the rows of parts that are ``whole``."""
    ended = threading.Event()

    def listen() -> None:
        ray, known, is_last = _ray(), 0, False
        while not is_last:
            is_last = ended.wait(TELL_EVERY_S)
            total = whole.rows
            # It may be on its way to another node, and have forgotten what it knew.
            with suppress(ray.exceptions.RayError):
                total = max(total, ray.get(tally.total.remote(), timeout=5))
            if total > known:
                on_rows(total - known)
                known = total

    listener = threading.Thread(target=listen, name="corea-batch-progress", daemon=True)
    listener.start()
    try:
        yield
    finally:
        ended.set()
        listener.join()


def _ray(*, here: bool = False) -> Any:
    if here:
        # Whatever its name says: with it, Ray listens on loopback only. It is read when Ray is imported.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as exc:
        raise ExtraMissing(package="ray", extra="ray") from exc
    return ray
