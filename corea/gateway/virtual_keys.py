"""Virtual keys as an :class:`Authorizer`: looked up in the ledger's database, their limits held over all replicas."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corea.gateway.auth import Caller, presented_key, wrong_key
from corea.gateway.errors import ApiError
from corea.gateway.keys import TTL_S, KeyStore, Pepper
from corea.gateway.limits import Limiter
from corea.ledger.keys import Key
from corea.ledger.queries import HasEngine
from corea.ledger.quota import Granted, Refused
from corea.ledger.records import RESERVATION
from corea.types import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyHolder(Caller):
    """A caller with a virtual key."""

    key: Key


class VirtualKeys:
    """``ledger`` is open, and outlives this. Spend is charged by the ledger, with the trace."""

    has_keys = True

    def __init__(self, ledger: HasEngine, pepper: Pepper, *, ttl_s: float = TTL_S) -> None:
        self._store = KeyStore(ledger, pepper, ttl_s=ttl_s)
        self._limiter = Limiter(ledger)
        self._granted: OrderedDict[str, Granted] = OrderedDict()

    async def authorize(self, headers: Mapping[str, str]) -> Caller:
        key = await self._store.authorize(presented_key(headers))
        if key is None:
            raise wrong_key()
        profiles = None if key.profiles is None else frozenset(key.profiles)
        return KeyHolder(id=key.id, profiles=profiles, task=key.task, key=key)

    async def reserve(self, caller: Caller, *, profile: str, tokens: int, nano_usd: int) -> Mapping[str, Any]:
        assert isinstance(caller, KeyHolder)  # noqa: S101  It came from authorize.
        answer = await self._limiter.reserve(caller.key, tokens=tokens, nano_usd=nano_usd)
        if isinstance(answer, Refused):
            raise _over_limit(answer)
        self._granted[answer.id] = answer
        return answer.metadata

    async def settle(self, trace: Trace) -> None:
        granted = self._granted.pop(str(trace.metadata.get(RESERVATION)), None)
        if granted is not None:
            await self._limiter.settle(granted, tokens=_tokens(trace))

    async def release(self, reserved: Mapping[str, Any]) -> None:
        """A request that left no trace keeps its reservation until it expires: nobody knows what it cost."""
        self._granted.pop(str(reserved.get(RESERVATION)), None)

    async def aclose(self) -> None:
        await self._limiter.aclose()


def _tokens(trace: Trace) -> int | None:
    """All tokens of all attempts; None where any of them was not counted."""
    usages = [usage for attempt in trace.attempts for usage in (attempt.usage, attempt.confidence_usage)]
    asked = [usage for usage, attempt in zip(usages[::2], trace.attempts, strict=True) if attempt.answered]
    if None in asked:
        return None
    return sum(usage.prompt_tokens + usage.completion_tokens for usage in usages if usage is not None)


def _over_limit(refused: Refused) -> ApiError:
    wait_s = refused.retry_after_s
    return ApiError(
        refused.message,
        status=429,
        code="rate_limit_exceeded",
        type="rate_limit_error",
        retry=wait_s is not None,
        retry_after_s=None if wait_s is None else math.ceil(wait_s),
    )
