"""Which kept answers are audited, with which probability, and whether there is money for it. Asks no model.

The probability is known before the lot is drawn, and the lot is a hash of the trace's id: every replica, and whoever
replays the ledger, draws the same. Money is looked at *before* the lot, so that what is drawn is paid for and what
cannot be paid for is not drawn: a propensity is never a lie.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from hashlib import blake2b

from corea.errors import InputError

_DAY_S = 86_400
#: Days whose spending is remembered: a clock that jumps between them finds each as it left it.
_DAYS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Lot:
    """Whether this question is audited if it is kept, and how probable that was; 0: auditing is paused."""

    audited: bool
    propensity: float


PAUSED = Lot(audited=False, propensity=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampler:
    """``share`` of the kept answers is audited, and ``unsure_share`` of those below the confidence ``unsure_below``.

    ``seed`` is the same in all replicas, and nobody else's to know: ids can be chosen, lots should not be.
    """

    share: float
    seed: str
    unsure_share: float | None = None
    unsure_below: float = 0.0

    def __post_init__(self) -> None:
        for share in (self.share, self.share if self.unsure_share is None else self.unsure_share):
            if not 0 < share <= 1:
                raise InputError(f"an audited share of {share} bounds nothing; set a share above 0 and up to 1")

    @property
    def min_propensity(self) -> float:
        return self.share if self.unsure_share is None else min(self.share, self.unsure_share)

    def propensity(self, confidence: float | None) -> float:
        """Of an answer that is kept at this confidence; an unknown one is unsure."""
        if self.unsure_share is None:
            return self.share
        return self.unsure_share if confidence is None or confidence < self.unsure_below else self.share

    def draw(self, trace_id: str, confidence: float | None, *, can_pay: bool = True) -> Lot:
        """The lot of a kept answer. ``can_pay`` is :meth:`Purse.can_pay`, asked for kept and deferred ones alike."""
        if not can_pay:
            return PAUSED
        propensity = self.propensity(confidence)
        return Lot(audited=self.uniform(trace_id) < propensity, propensity=propensity)

    def uniform(self, trace_id: str) -> float:
        """Where the lot lies, in [0, 1): below a share that is no larger than any propensity, it is a fair sample."""
        return _uniform(f"{self.seed}:{trace_id}")

    def deferred(self, *, can_pay: bool = True) -> Lot:
        """The lot of a deferred question: nothing to audit, and counted unless auditing is paused."""
        return Lot(audited=False, propensity=1.0) if can_pay else PAUSED


@dataclass(slots=True, kw_only=True)
class Purse:
    """At most ``cap_nano_usd`` a day (UTC) for audits, ``reserve_nano_usd`` set aside for each until its cost is known.

    The day's spending can pass the cap only by what an audit costs above its reserve, so reserve what one may cost at
    most. ``replicas`` share the cap evenly. Not safe to share between threads.
    """

    cap_nano_usd: int
    reserve_nano_usd: int
    replicas: int = 1
    _spent: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.reserve_nano_usd < 0 or self.replicas < 1:
            raise InputError("an audit reserves 0 or more, and there is 1 replica or more; correct the audit's budget")
        if self.cap_nano_usd // self.replicas < max(self.reserve_nano_usd, 1):
            raise InputError(
                f"{self.cap_nano_usd} nano-USD a day for {self.replicas} replica(s) cannot pay one audit of "
                f"{self.reserve_nano_usd}; raise the audit's cap, or turn auditing off"
            )

    def can_pay(self, now_unix_s: float) -> bool:
        """Whether one more audit can be begun. A clock that makes no sense pays nothing."""
        day = _day(now_unix_s)
        return day is not None and self.spent(now_unix_s) + self.reserve_nano_usd <= self.cap_nano_usd // self.replicas

    def reserve(self, now_unix_s: float) -> int:
        """Set aside the price of an audit that begins; the day to :meth:`settle` it for."""
        day = _day(now_unix_s)
        if day is None:
            raise InputError(f"{now_unix_s} is no time; ask can_pay first")
        self._add(day, self.reserve_nano_usd)
        return day

    def settle(self, day: int, cost_nano_usd: int | None) -> None:
        """The audit has ended, well or not. A cost that nobody knows stays at its reserve."""
        if cost_nano_usd is not None and day in self._spent:
            self._spent[day] += cost_nano_usd - self.reserve_nano_usd

    def spent(self, now_unix_s: float) -> int:
        """Of the day's money, that set aside among it."""
        day = _day(now_unix_s)
        return 0 if day is None else self._spent.get(day, 0)

    def found_spent(self, now_unix_s: float, cost_nano_usd: int) -> None:
        """What a ledger says of this day, at the start."""
        if (day := _day(now_unix_s)) is not None:
            self._add(day, cost_nano_usd)

    def set_spent(self, now_unix_s: float, cost_nano_usd: int) -> None:
        """What is known better now of this day: in place of what was counted here."""
        if (day := _day(now_unix_s)) is not None:
            self._spent.pop(day, None)
            self._add(day, cost_nano_usd)

    def _add(self, day: int, cost_nano_usd: int) -> None:
        self._spent[day] = self._spent.pop(day, 0) + cost_nano_usd
        while len(self._spent) > _DAYS:
            del self._spent[next(iter(self._spent))]


def affordable_share(*, cap_nano_usd: int, kept_a_day: float, cost_nano_usd: float) -> float:
    """The share of kept answers that a day's cap pays the audits of; 1 where all are paid."""
    wanted = kept_a_day * cost_nano_usd
    return 1.0 if wanted <= cap_nano_usd else cap_nano_usd / wanted


def _day(unix_s: float) -> int | None:
    return int(unix_s // _DAY_S) if math.isfinite(unix_s) else None


def _uniform(key: str) -> float:
    """In [0, 1): the top 53 bits of a digest. Salted, or the lot would depend on how ties were split."""
    digest = blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8, person=b"corea-audit").digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53
