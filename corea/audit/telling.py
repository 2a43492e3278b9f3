"""Tells people: a line in the log, once until things are well again, and alarms to the webhook. Knows no evidence."""

from __future__ import annotations

import logging
import random
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import asdict
from typing import Any

from corea.audit import webhook
from corea.audit.counts import Counts, count
from corea.ledger.audits import AlarmRow

logger = logging.getLogger("corea.audit")

Post = Callable[[str, Mapping[str, Any]], Awaitable[bool]]

_PAUSED = {
    "money": "the day's money for audits is spent; auditing pauses until the next day (UTC)",
    "busy": "too many audits are waiting; auditing pauses until some have ended",
    "ledger": "the ledger does not take the audit's rows; auditing pauses until it does",
}


class Teller:
    """``url``: where alarms go, beside the log."""

    def __init__(self, url: str | None, counts: Counts, post: Post | None = None) -> None:
        self._url = url
        self._counts = counts
        self._post = post or _post
        self._told: set[str] = set()

    def once(self, what: str, message: str, *args: object) -> None:
        """A warning, until it is :meth:`well` again."""
        if what not in self._told:
            self._told.add(what)
            logger.warning(message, *args)

    def well(self, what: str) -> None:
        self._told.discard(what)

    def paused(self, why: str) -> None:
        count(self._counts.trouble, why)
        self.once(f"paused:{why}", _PAUSED[why])

    def goes_on(self) -> None:
        self._told.difference_update([f"paused:{why}" for why in _PAUSED])

    def alarm(self, row: AlarmRow) -> Coroutine[Any, Any, None] | None:
        """Logs and counts it; what is to be awaited, if anything is to be sent."""
        count(self._counts.alarms, row.task or "all")
        logger.error("%s (alarm %s)", row.text, row.id)
        return None if self._url is None else self._send(self._url, row)

    def share(self, *, wanted: float, affordable: float, cap_usd: float | None) -> None:
        """Whether the audited share can be paid at the rate that is seen."""
        self._counts.affordable_share = affordable
        if affordable >= wanted:
            self.well("share")
            return
        self.once(
            "share",
            "an audited share of %g cannot be paid: at this rate, %g USD a day pay %.2g; lower audit.share or raise "
            "audit.max_usd_per_day, or auditing pauses each day once they are spent",
            wanted, cap_usd, affordable,
        )  # fmt: skip

    async def _send(self, url: str, row: AlarmRow) -> None:
        if not await self._post(url, {"event": "corea.audit.alarm", **asdict(row)}):
            self._counts.webhook_failed += 1


async def _post(url: str, payload: Mapping[str, Any]) -> bool:
    return await webhook.post(url, payload, rng=random.Random())  # noqa: S311 - jitter, not secrets
