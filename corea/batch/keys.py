"""A set of eight-byte keys, in twelve to twenty-four bytes each: what is remembered of a million ids.

A ``set[bytes]`` takes a hundred and more. Knows nothing of ids but their keys: two ids with one key would be taken for
the same, which among a million happens with a chance of one in thirty-seven million.
"""

from __future__ import annotations

from array import array
from hashlib import blake2b
from typing import Protocol

_FIRST_SLOTS = 1 << 10


def key(id: str) -> bytes:
    """Eight bytes for an id."""
    return blake2b(id.encode("utf-8", "surrogatepass"), digest_size=8).digest()


class Seen(Protocol):
    """Keys of the ids so far: a :class:`Keys`, or any set of bytes."""

    def __contains__(self, key: object, /) -> bool: ...

    def add(self, key: bytes, /) -> None: ...


class Keys:
    """Open addressing, a third of the slots free. A key is its own hash."""

    def __init__(self) -> None:
        self._slots = array("Q", bytes(8 * _FIRST_SLOTS))
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: object, /) -> bool:
        return isinstance(key, bytes) and self._slots[self._slot(_number(key))] != 0

    def add(self, key: bytes, /) -> None:
        number = _number(key)
        slot = self._slot(number)
        if self._slots[slot]:
            return
        self._slots[slot] = number
        self._count += 1
        if 3 * self._count > 2 * len(self._slots):
            self._grow()

    def missing_from(self, others: Keys) -> int:
        """How many of these are not among the others."""
        return sum(others._slots[others._slot(number)] == 0 for number in self._slots if number)

    def _grow(self) -> None:
        old, self._slots = self._slots, array("Q", bytes(16 * len(self._slots)))
        for number in old:
            if number:
                self._slots[self._slot(number)] = number

    def _slot(self, number: int) -> int:
        """Where the number is, or the free slot where it would be."""
        slots, mask = self._slots, len(self._slots) - 1
        slot = number & mask
        while slots[slot] != 0 and slots[slot] != number:
            slot = (slot + 1) & mask
        return slot


def _number(key: bytes) -> int:
    # 0 is a free slot.
    return int.from_bytes(key, "big") or 1
