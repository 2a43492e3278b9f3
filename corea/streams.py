"""A bounded, unordered, asynchronous map: the one loop behind ``Cascade.map`` and ``corea batch``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def bounded_map(
    work: Callable[[Item], Awaitable[Result]],
    items: Iterable[Item] | AsyncIterable[Item],
    *,
    concurrency: int,
) -> AsyncIterator[Result]:
    """Results in the order in which they finish, at most ``concurrency`` at once.

    Items are drawn one by one, only when there is room: memory does not grow with their number. When the caller stops
    early, or ``work`` raises, everything still running is cancelled and awaited.
    """
    if concurrency < 1:
        raise ValueError(f"concurrency is at least 1, not {concurrency}")
    source = _iterate(items)
    running: set[asyncio.Task[Result]] = set()
    exhausted = False
    try:
        while running or not exhausted:
            while not exhausted and len(running) < concurrency:
                try:
                    item = await anext(source)
                except StopAsyncIteration:
                    exhausted = True
                else:
                    running.add(asyncio.ensure_future(_call(work, item)))
            if not running:
                break
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _call(work: Callable[[Item], Awaitable[Result]], item: Item) -> Result:
    return await work(item)


async def _iterate(items: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[Item]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
