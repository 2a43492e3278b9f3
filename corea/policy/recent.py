"""The last so many numbers, also in order: shares and quantiles of what was seen lately. Knows not what they are."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterator


class Recent:
    """Looking up takes the logarithm of ``size``; adding moves ``size`` numbers at most."""

    def __init__(self, size: int) -> None:
        self._order: deque[float] = deque()
        self._sorted: list[float] = []
        self._sum = 0.0
        self._size = size

    def __len__(self) -> int:
        return len(self._sorted)

    def __iter__(self) -> Iterator[float]:
        """From the least to the greatest."""
        return iter(self._sorted)

    def add(self, value: float) -> None:
        self._order.append(value)
        insort(self._sorted, value)
        self._sum += value
        if len(self._order) > self._size:
            oldest = self._order.popleft()
            del self._sorted[bisect_left(self._sorted, oldest)]
            self._sum -= oldest

    @property
    def mean(self) -> float:
        """0 of nothing."""
        return self._sum / len(self._sorted) if self._sorted else 0.0

    def share_below(self, value: float) -> float:
        """Share of those less than ``value``; 0 of nothing."""
        return bisect_left(self._sorted, value) / len(self._sorted) if self._sorted else 0.0

    def share_above(self, value: float) -> float:
        """Share of those greater than ``value``; 0 of nothing."""
        return 1 - bisect_right(self._sorted, value) / len(self._sorted) if self._sorted else 0.0

    def share_at(self, value: float) -> float:
        """Share of those that are just ``value``."""
        return max(0.0, 1 - self.share_below(value) - self.share_above(value)) if self._sorted else 0.0

    def at_least(self, value: float) -> float | None:
        """The least of them that is not less than ``value``; None where there is none."""
        at = bisect_left(self._sorted, value)
        return self._sorted[at] if at < len(self._sorted) else None

    def quantile(self, share: float) -> float | None:
        """The greatest that leaves at most ``share`` of them below it; None of nothing."""
        if not self._sorted:
            return None
        return self._sorted[min(int(share * len(self._sorted)), len(self._sorted) - 1)]
