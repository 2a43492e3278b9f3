"""An async front with one thread behind it, that works in batches. Knows neither traces nor SQL.

Whatever queued while one batch was worked on goes into the next one: the dearer a commit is, the more items share it.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Generic, Protocol, TypeVar

from corea.errors import LedgerError

MAX_BATCH = 500
MAX_PENDING = 10_000

Item = TypeVar("Item")
Answer = TypeVar("Answer")
_Taken_contra = TypeVar("_Taken_contra", contravariant=True)
_Given_co = TypeVar("_Given_co", covariant=True)


class Worker(Protocol[_Taken_contra, _Given_co]):
    """The thread's side. ``work`` answers each item, in order, with its answer or its error, and never raises."""

    def work(self, batch: Sequence[_Taken_contra], /) -> Sequence[_Given_co | LedgerError]: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Entry(Generic[Item, Answer]):
    item: Item
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Answer]


class Batches(Generic[Item, Answer]):
    """Hands items to a worker in a thread of its own, and its answers back. Any event loop in any thread may submit."""

    def __init__(
        self,
        worker: Callable[[], Worker[Item, Answer]],
        *,
        name: str,
        max_batch: int = MAX_BATCH,
        max_pending: int = MAX_PENDING,
    ) -> None:
        """``worker`` is made in the thread, with the first item."""
        self._make_worker = worker
        self._name = name
        self._max_batch = max_batch
        self._max_pending = max_pending
        self._queue: SimpleQueue[_Entry[Item, Answer] | None] = SimpleQueue()
        # Guards the fields below.
        self._lock = threading.Lock()
        self._pending = 0
        self._waiting_for_room: list[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._thread: threading.Thread | None = None
        self._closed = False

    async def submit(self, item: Item) -> Answer:
        """The worker's answer. Once queued, the item is worked on even if the caller goes away.

        With ``max_pending`` items queued, waits for room first. Raises the worker's error, or LedgerError when closed.
        """
        loop = asyncio.get_running_loop()
        entry: _Entry[Item, Answer] = _Entry(item, loop, loop.create_future())
        while (room := self._enqueue(entry)) is not None:
            await room
        return await entry.answer

    def close(self) -> None:
        """Works on what is queued, then ends the thread. Closing twice is fine."""
        with self._lock:
            thread, self._thread, self._closed = self._thread, None, True
        if thread is not None:
            self._queue.put(None)
            thread.join()

    def _enqueue(self, entry: _Entry[Item, Answer]) -> asyncio.Future[None] | None:
        """Queues the entry, or returns a future that ends when it is worth trying again."""
        with self._lock:
            if self._closed:
                raise LedgerError("the ledger is closed; open it again to write")
            if self._pending >= self._max_pending:
                room = entry.loop.create_future()
                self._waiting_for_room.append((entry.loop, room))
                return room
            self._pending += 1
            self._queue.put(entry)
            if self._thread is None:
                # A daemon, or a ledger that nobody closes would keep the process alive.
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()
        return None

    def _run(self) -> None:
        worker = self._make_worker()
        while batch := self._next_batch():
            self._announce(batch, worker.work([entry.item for entry in batch]))
        worker.close()

    def _next_batch(self) -> list[_Entry[Item, Answer]]:
        """Waits for an entry and takes what else is there; empty at the end."""
        batch: list[_Entry[Item, Answer]] = []
        entry = self._queue.get()
        while entry is not None:
            batch.append(entry)
            if len(batch) == self._max_batch:
                return batch
            try:
                entry = self._queue.get_nowait()
            except Empty:
                return batch
        if batch:
            self._queue.put(None)
        return batch

    def _announce(self, batch: Sequence[_Entry[Item, Answer]], answers: Sequence[Answer | LedgerError]) -> None:
        with self._lock:
            self._pending -= len(batch)
            waiting, self._waiting_for_room = self._waiting_for_room, []
        endings: dict[asyncio.AbstractEventLoop, list[Callable[[], None]]] = defaultdict(list)
        for entry, answer in zip(batch, answers, strict=True):
            endings[entry.loop].append(_Ending(entry.answer, answer))
        # Everyone who waits for room is woken: one who was cancelled meanwhile can't take another's turn with it.
        for loop, room in waiting:
            endings[loop].append(_Ending(room, None))
        for loop, ends in endings.items():
            # RuntimeError: the loop is closed, and with it everyone who waited.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(_end, ends)


@dataclass(frozen=True, slots=True)
class _Ending(Generic[Answer]):
    future: asyncio.Future[Answer]
    answer: Answer | LedgerError

    def __call__(self) -> None:
        if self.future.done():
            return
        if isinstance(self.answer, LedgerError):
            self.future.set_exception(self.answer)
        else:
            self.future.set_result(self.answer)


def _end(ends: Sequence[Callable[[], None]]) -> None:
    for end in ends:
        end()
