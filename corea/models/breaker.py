"""A circuit breaker: what keeps failing is left alone for a while, and then asked once. Knows no model and no tier.

It opens where, among at least ``min_calls`` calls of the last ``window_s``, the share ``failure_rate`` failed. Open, it
lets one call through every ``open_s``; the first that is answered closes it.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from corea.errors import CircuitOpen, ContextOverflow, ModelError, RateLimited, UpstreamStatus

#: Said of one request, and nothing of the endpoint's health.
_CALLERS_FAULT = frozenset({400, 409, 413, 415, 422})
#: The window moves on in so many steps.
_SLICES = 10
#: Replicas that opened together are not to come back together.
_JITTER = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerSettings:
    """When it opens, and for how long."""

    failure_rate: float = 0.5
    min_calls: int = 10
    window_s: float = 30.0
    open_s: float = 5.0


@dataclass(slots=True)
class _Slice:
    """Calls that ended in one step of the window."""

    number: int
    calls: int = 0
    failures: int = 0


class Breaker:
    """One for each tier. ``clock`` is monotonic, in seconds."""

    def __init__(self, settings: BreakerSettings, *, clock: Callable[[], float], rng: random.Random) -> None:
        self._settings = settings
        self._clock = clock
        self._rng = rng
        self._slices: deque[_Slice] = deque()
        self._why = ""
        #: Calls of an earlier era say nothing of this one: each opening and each closing begins a new one.
        self._era = 0
        self._next_probe_s = 0.0
        self.is_open = False

    @property
    def wait_s(self) -> float:
        """Seconds until it lets a call through; 0 where it does."""
        return max(0.0, self._next_probe_s - self._clock()) if self.is_open else 0.0

    @contextmanager
    def watch(self, tier: str) -> Iterator[None]:
        """One call; its failure, if it is one of ``tier``, is what it raises. Raises :class:`CircuitOpen` instead."""
        era = self._admit(tier)
        try:
            yield
        except ModelError as error:
            self._ended(era, failure=error if tells_of_its_health(error) else None, answered=False)
            raise
        except BaseException:
            # The caller went away, or could not be served for a reason of its own: nothing was learned.
            if self.is_open and era == self._era:
                self._next_probe_s = self._clock()
            raise
        self._ended(era, failure=None, answered=True)

    def _admit(self, tier: str) -> int:
        if (left_s := self.wait_s) > 0:
            message = f"{tier} was not asked: {self._why}; it is asked again in {left_s:.1f} s"
            raise CircuitOpen(message, retry_after_s=left_s)
        if self.is_open:
            self._wait(self._clock())
        return self._era

    def _ended(self, era: int, *, failure: ModelError | None, answered: bool) -> None:
        if era != self._era:
            return
        now_s = self._clock()
        if self.is_open:
            if failure is None:
                # A refusal for the caller's sake came from an endpoint that is up, too.
                self._turn(is_open=False)
            else:
                self._wait(now_s)
        elif failure is not None or answered:
            self._count(now_s, failure)

    def _count(self, now_s: float, failure: ModelError | None) -> None:
        calls, failures = self._counted(now_s, failed=failure is not None)
        settings = self._settings
        if failure is None or calls < settings.min_calls or failures < settings.failure_rate * calls:
            return
        self._why = f"{failures} of its last {calls} calls failed, the last with: {failure}"
        self._turn(is_open=True)
        self._wait(now_s)

    def _counted(self, now_s: float, *, failed: bool) -> tuple[int, int]:
        """Calls in the window and failures among them, this one included."""
        number = int(now_s * _SLICES / self._settings.window_s)
        while self._slices and self._slices[0].number <= number - _SLICES:
            self._slices.popleft()
        if not self._slices or self._slices[-1].number != number:
            self._slices.append(_Slice(number))
        self._slices[-1].calls += 1
        self._slices[-1].failures += failed
        return sum(one.calls for one in self._slices), sum(one.failures for one in self._slices)

    def _turn(self, *, is_open: bool) -> None:
        self.is_open = is_open
        self._era += 1
        self._slices.clear()

    def _wait(self, now_s: float) -> None:
        """The next probe; this also bounds one that hangs: another begins after the same time."""
        self._next_probe_s = now_s + self._settings.open_s * self._rng.uniform(1 - _JITTER, 1 + _JITTER)


def tells_of_its_health(error: ModelError) -> bool:
    """Whether a failure speaks against the endpoint, and not against the request or its caller's pace."""
    if isinstance(error, ContextOverflow):
        return False
    if isinstance(error, RateLimited):
        # One that says when to come back is well. One that does not may be out of money.
        return error.retry_after_s is None
    return not (isinstance(error, UpstreamStatus) and error.status in _CALLERS_FAULT)
