"""Questions in the order they were asked, though audits end later and out of order.

A question that was not drawn is over at once; one that was takes seconds. Taken as they end, the answers that are
looked at would always be missing from the newest questions, and the harmed ones longest if hard questions take longest.
So a question waits until all before it have ended. Knows no clock: whoever runs the audits ends those that take too
long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

Item = TypeVar("Item")


@dataclass(slots=True, kw_only=True, eq=False)
class Place(Generic[Item]):
    """A question's place; ``item`` is None until it has ended."""

    item: Item | None = None


class InOrder(Generic[Item]):
    """Hands out what has ended, oldest first, and nothing past one that has not."""

    def __init__(self) -> None:
        self._places: deque[Place[Item]] = deque()

    def __len__(self) -> int:
        return len(self._places)

    def add(self, item: Item | None = None) -> Place[Item]:
        """The next question asked; with its ``item`` where it is over already."""
        place = Place(item=item)
        self._places.append(place)
        return place

    def end(self, place: Place[Item], item: Item) -> None:
        """An audit has ended, well or not. The first end counts."""
        if place.item is None:
            place.item = item

    def ready(self) -> Iterator[Item]:
        """Takes out what may be seen now."""
        while self._places and (item := self._places[0].item) is not None:
            self._places.popleft()
            yield item
