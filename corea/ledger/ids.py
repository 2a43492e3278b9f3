"""Trace ids that sort by time. Standard library only, so a cascade can make them without loading a database."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable
from random import Random, SystemRandom

_SYSTEM_RNG = SystemRandom()


def new_trace_id(clock: Callable[[], float] = time.time, rng: Random = _SYSTEM_RNG) -> str:
    """24 characters of ``0-9a-v``: 48 bits of unix milliseconds, then 72 random bits.

    Ids made in different milliseconds sort by time, because base32hex keeps the order of the bytes. A seeded ``rng``
    is for tests: two processes with one seed make the same ids.
    """
    milliseconds = int(clock() * 1000)
    return base64.b32hexencode(((milliseconds << 72) | rng.getrandbits(72)).to_bytes(15, "big")).decode().lower()
