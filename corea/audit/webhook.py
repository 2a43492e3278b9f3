"""Sends an alarm to the one address that the configuration names. Knows nothing of what an alarm is.

Standard library only, in a thread. Redirects are not followed: where alarms go is for the configuration to say. The
address may hold a secret, so only its host is ever named.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

logger = logging.getLogger("corea.audit")

TIMEOUT_S = 5.0
TRIES = 4
#: Pauses are drawn from 0 to this, doubled each time.
FIRST_PAUSE_S = 1.0

Send = Callable[[str, bytes], int]


async def post(
    url: str,
    payload: Mapping[str, Any],
    *,
    rng: random.Random,
    send: Send | None = None,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> bool:
    """Whether somebody took it (2xx). Tried again after what may pass (no answer, 408, 429, 5xx); never raises."""
    body = json.dumps(payload, allow_nan=False).encode()
    said = "nothing"
    for tried in range(TRIES):
        if tried:
            await sleep(rng.uniform(0, FIRST_PAUSE_S * 2 ** (tried - 1)))
        try:
            status = await asyncio.to_thread(send or _send, url, body)
        except OSError as exc:
            said = type(exc).__name__
            continue
        except ValueError as exc:
            said = type(exc).__name__
            break
        if 200 <= status < 300:
            return True
        said = f"status {status}"
        if status not in (408, 429) and status < 500:
            break
    host = urlsplit(url).hostname
    logger.error(
        "the alarm could not be sent to %s (%s); check audit.webhook, and read: corea audit status", host, said
    )
    return False


class _Nowhere(HTTPRedirectHandler):
    def redirect_request(self, *args: Any, **named: Any) -> None:
        return None


def _send(url: str, body: bytes) -> int:
    """The answer's status. Raises OSError where there is none."""
    request = Request(url, data=body, headers={"content-type": "application/json", "user-agent": "corea"})  # noqa: S310
    try:
        with build_opener(_Nowhere()).open(request, timeout=TIMEOUT_S) as answer:
            return int(answer.status)
    except HTTPError as exc:
        exc.close()
        return exc.code
