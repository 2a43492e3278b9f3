"""What a tier that was not asked would have cost: learned from the requests where it was, with an interval.

A straight line in the tokens of a tier that did answer, fitted for each task. The requests it is learned from are those
that were deferred, which are harder than those it is applied to: the interval does not cover that difference.
Knows no traces: only numbers under keys.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

#: Fewer requests of a task than this, and those of all tasks are learned from.
MIN_REQUESTS = 10
#: Fewer than this, and tokens are not looked at: the mean must do.
MIN_FOR_A_LINE = 30
LEVEL = 0.95
_BLOCKS = 128
_DRAWS = 400

#: Task, the tier whose tokens are known, and the tier whose cost is not. "" stands for all tasks, and for no tier.
Key = tuple[str | None, str, str]
Tokens = tuple[float, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """cost ≈ level + slopes · tokens, give or take ``spread`` for one request."""

    level: float
    slopes: Tokens
    spread: float

    def at(self, n: float, tokens: Tokens) -> float:
        """The sum over ``n`` requests with these tokens in all."""
        return n * self.level + self.slopes[0] * tokens[0] + self.slopes[1] * tokens[1]


class Moments:
    """Sums over requests of (prompt tokens, completion tokens, cost), enough to fit a line by least squares."""

    __slots__ = ("sums",)

    def __init__(self) -> None:
        #: n, Σp, Σc, Σy, Σpp, Σpc, Σcc, Σpy, Σcy, Σyy
        self.sums = [0.0] * 10

    @property
    def n(self) -> float:
        return self.sums[0]

    def add(self, tokens: Tokens, cost: float) -> None:
        p, c = tokens
        new = (1.0, p, c, cost, p * p, p * c, c * c, p * cost, c * cost, cost * cost)
        self.sums = [a + b for a, b in zip(self.sums, new, strict=True)]

    def merge(self, others: Sequence[Moments]) -> Moments:
        merged = Moments()
        merged.sums = [math.fsum(column) for column in zip(self.sums, *(other.sums for other in others), strict=True)]
        return merged

    def line(self) -> Line:
        n, p, c, y, pp, pc, cc, py, cy, yy = self.sums
        mean_p, mean_c, mean_y = p / n, c / n, y / n
        spp, spc, scc = pp - p * mean_p, pc - p * mean_c, cc - c * mean_c
        spy, scy, syy = py - p * mean_y, cy - c * mean_y, max(yy - y * mean_y, 0.0)
        slopes = _slopes(spp, spc, scc, spy, scy) if n >= MIN_FOR_A_LINE else (0.0, 0.0)
        explained = slopes[0] * spy + slopes[1] * scy
        free = max(n - (3 if slopes != (0.0, 0.0) else 1), 1.0)
        spread = math.sqrt(max(syy - explained, 0.0) / free)
        level = mean_y - slopes[0] * mean_p - slopes[1] * mean_c
        return Line(level=level, slopes=slopes, spread=spread)


def _slopes(spp: float, spc: float, scc: float, spy: float, scy: float) -> Tokens:
    """Least squares, with a ridge too small to matter but where the tokens hardly vary or go together."""
    ridge = 1e-6
    spp, scc = spp * (1 + ridge) + ridge, scc * (1 + ridge) + ridge
    determinant = spp * scc - spc * spc
    return (spy * scc - scy * spc) / determinant, (scy * spp - spy * spc) / determinant


class Learned:
    """Costs of tiers that were asked, by key. Takes the same memory however many there are."""

    def __init__(self) -> None:
        self._blocks: dict[Key, list[Moments]] = {}
        self._seen: dict[Key, int] = {}
        self._lines: dict[Key, Line] = {}
        self._redrawn: dict[tuple[Key, int], list[Line]] = {}

    def add(self, task: str | None, tier: str, cost: float, tokens_of: Mapping[str, Tokens]) -> None:
        """``tokens_of``: the tokens of the other tiers that answered the same request."""
        self._put(("", "", tier), (0.0, 0.0), cost)
        for source, tokens in tokens_of.items():
            self._put(("", source, tier), tokens, cost)
            self._put((task, source, tier), tokens, cost)

    def _put(self, key: Key, tokens: Tokens, cost: float) -> None:
        blocks = self._blocks.setdefault(key, [])
        at = self._seen.get(key, 0)
        self._seen[key] = at + 1
        if at < _BLOCKS:
            blocks.append(Moments())
        blocks[at % _BLOCKS].add(tokens, cost)
        self._lines.pop(key, None)
        self._redrawn.clear()

    def key(self, task: str | None, source: str, tier: str) -> Key | None:
        """Where to look: at the task if enough is known of it, else at all tasks; None where nothing is known."""
        wanted = [(task, source, tier), ("", source, tier), ("", "", tier)]
        enough = next((key for key in wanted if self._seen.get(key, 0) >= MIN_REQUESTS), None)
        # The mean of a few is better than no word; its interval says how little that is.
        return enough or next((key for key in reversed(wanted) if self._seen.get(key, 0) >= 2), None)

    def line(self, key: Key) -> Line:
        if key not in self._lines:
            self._lines[key] = Moments().merge(self._blocks[key]).line()
        return self._lines[key]

    def redrawn(self, key: Key, seed: int) -> Sequence[Line]:
        """The line of each bootstrap sample of the requests: of blocks of them, where there are many."""
        if (key, seed) not in self._redrawn:
            rng, blocks = Random(f"{seed} {key}"), self._blocks[key]  # noqa: S311 - no secret
            samples = (rng.choices(blocks, k=len(blocks)) for _ in range(_DRAWS))
            self._redrawn[key, seed] = [Moments().merge(sample).line() for sample in samples]
        return self._redrawn[key, seed]


@dataclass(frozen=True, slots=True, kw_only=True)
class Money:
    """Nano-USD. ``value=None`` where it hangs on what nobody knows; then the interval holds both ends of that.

    ``estimated``: a part of it was learned, so the interval has a say. ``unknown``: how many amounts are in neither,
    because they are not recorded and nothing can be learned about them.
    """

    value: int | None
    low: int
    high: int
    estimated: bool = False
    unknown: int = 0

    @property
    def exact(self) -> bool:
        return self.value == self.low == self.high and not self.estimated and not self.unknown


@dataclass(slots=True)
class _Part:
    """Requests whose unknown cost is looked up under one key: how many, with sign and without, and their tokens."""

    n: int = 0
    squares: int = 0
    prompt: float = 0.0
    completion: float = 0.0


class Total:
    """A sum over requests: an exact part, unknown costs by key, and what may come on top or go off."""

    def __init__(self) -> None:
        self.exact = 0
        self.unknown = 0
        self.open = 0
        self._parts: dict[tuple[str, int, Key], _Part] = {}
        self._more = {"up": 0, "down": 0}

    def add(self, exact: int, *, unknown: int = 0) -> None:
        self.exact += exact
        self.unknown += unknown

    def add_open(self, *, up: int = 0, down: int = 0) -> None:
        """A request of which nobody knows whether this much more, or less, belongs to it."""
        self.open += 1
        self._more["up"] += up
        self._more["down"] += down

    def add_unknown(self, key: Key, book: int, tokens: Tokens, times: int, where: str = "sum") -> None:
        """``where``: ``sum``, or ``up`` or ``down`` for what only may belong to it."""
        part = self._parts.setdefault((where, book, key), _Part())
        part.n += times
        part.squares += times * times
        part.prompt += times * tokens[0]
        part.completion += times * tokens[1]

    def money(self, books: Sequence[Learned], seed: int) -> Money:
        """Its most likely value, and an interval that is to hold it in 95 of 100 cases; the same for the same seed."""
        exact = Money(
            value=self.exact if not self.open else None,
            low=self.exact - self._more["down"],
            high=self.exact + self._more["up"],
            unknown=self.unknown,
        )
        if not self._parts:
            return exact
        sums = {
            at: books[at[1]].line(at[2]).at(part.n, (part.prompt, part.completion)) for at, part in self._parts.items()
        }
        drawn = {at: self._drawn(books[at[1]], at[2], part, seed) for at, part in self._parts.items()}
        lows = [0.0] * _DRAWS
        highs = [0.0] * _DRAWS
        for (where, _, _), values in drawn.items():
            if where != "up":
                lows = [a + (b if where == "sum" else -max(b, 0.0)) for a, b in zip(lows, values, strict=True)]
            if where != "down":
                highs = [a + (b if where == "sum" else max(b, 0.0)) for a, b in zip(highs, values, strict=True)]
        expected = sum(value for (where, _, _), value in sums.items() if where == "sum")
        return Money(
            value=None if self.open else round(self.exact + expected),
            low=exact.low + math.floor(min(_quantile(lows, (1 - LEVEL) / 2), expected)),
            high=exact.high + math.ceil(max(_quantile(highs, (1 + LEVEL) / 2), expected)),
            estimated=True,
            unknown=self.unknown,
        )

    @staticmethod
    def _drawn(learned: Learned, key: Key, part: _Part, seed: int) -> list[float]:
        """What each bootstrap sample says, and then the scatter of the single requests around their line."""
        spread = learned.line(key).spread * math.sqrt(part.squares)
        at = (part.prompt, part.completion)
        rng = Random(f"{seed} scatter of {key}")  # noqa: S311 - no secret
        return [line.at(part.n, at) + rng.gauss(0.0, 1.0) * spread for line in learned.redrawn(key, seed)]


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, round(share * (len(ordered) - 1))))]
