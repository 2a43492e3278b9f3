"""Who is asking. Knows headers and keys, not where keys are kept: another :class:`Authorizer` may look them up."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from corea.errors import ConfigError
from corea.gateway.errors import ApiError
from corea.gateway_config import GatewayConfig
from corea.types import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody with a key. ``profiles``: what they may name as ``model``; None is everything."""

    id: str
    profiles: frozenset[str] | None = None
    task: str | None = None

    def may_use(self, model: str) -> bool:
        return self.profiles is None or model in self.profiles


class Authorizer(Protocol):
    """Says who a request is from. ``headers`` have lower-case names.

    ``authorize`` raises :class:`ApiError` (401) for a key that is missing or wrong. ``reserve`` comes once the request
    is read, with the most it is expected to use; it raises 429 for a caller over its limits, and what it returns goes
    into the trace's metadata. ``settle`` is told every trace once it is written, those of callers who went away too;
    ``release`` ends a reservation whose request is over, with a trace or without.
    """

    @property
    def has_keys(self) -> bool:
        """False where everybody is let in."""
        ...

    async def authorize(self, headers: Mapping[str, str]) -> Caller: ...

    async def reserve(self, caller: Caller, *, profile: str, tokens: int, nano_usd: int) -> Mapping[str, Any]: ...

    async def settle(self, trace: Trace) -> None: ...

    async def release(self, reserved: Mapping[str, Any]) -> None: ...

    async def aclose(self) -> None: ...


class _Unlimited:
    """Callers without limits."""

    async def reserve(self, caller: Caller, *, profile: str, tokens: int, nano_usd: int) -> Mapping[str, Any]:
        return {"key": caller.id}

    async def settle(self, trace: Trace) -> None:
        """Nobody counts."""

    async def release(self, reserved: Mapping[str, Any]) -> None:
        """Nothing was reserved."""

    async def aclose(self) -> None:
        """Nothing to close."""


class Open(_Unlimited):
    """Everybody is let in: for the loopback interface only."""

    has_keys = False
    _CALLER = Caller(id="local")

    async def authorize(self, headers: Mapping[str, str]) -> Caller:
        return self._CALLER


class OneKey(_Unlimited):
    """One key for all."""

    has_keys = True
    _CALLER = Caller(id="key")

    def __init__(self, key: str) -> None:
        self._digest = _digest(key)

    async def authorize(self, headers: Mapping[str, str]) -> Caller:
        # Digests have one length, so the time taken tells nothing of the key.
        if not hmac.compare_digest(self._digest, _digest(presented_key(headers))):
            raise wrong_key()
        return self._CALLER


def authorizer_of(
    settings: GatewayConfig, ledger: object = None, environ: Mapping[str, str] = os.environ
) -> Authorizer:
    """As configured. Raises :class:`ConfigError` when the variable is not set, or the ledger cannot hold keys."""
    if settings.virtual_keys:
        return _virtual(ledger)
    api_key_env = settings.api_key_env
    if api_key_env is None:
        return Open()
    key = environ.get(api_key_env, "").strip()
    if not key:
        raise ConfigError(
            f"the environment variable {api_key_env} is not set; run: export {api_key_env}=…",
            field="gateway.api_key_env",
        )
    return OneKey(key)


def _virtual(ledger: object) -> Authorizer:
    from corea.gateway.keys import Pepper
    from corea.gateway.virtual_keys import VirtualKeys
    from corea.ledger import Ledger

    if not isinstance(ledger, Ledger):
        raise ConfigError(
            "virtual keys are kept in the ledger; set ledger.enabled = true", field="gateway.virtual_keys"
        )
    return VirtualKeys(ledger, Pepper.load())


def presented_key(headers: Mapping[str, str]) -> str:
    """The key that a request came with. Raises :class:`ApiError` where there is none."""
    scheme, _, key = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not key.strip():
        message = "no API key was sent; set it as your client's api_key (header Authorization: Bearer …)"
        raise ApiError(message, status=401, code="missing_api_key")
    return key.strip()


def wrong_key() -> ApiError:
    return ApiError("the API key is not known here; check it", status=401, code="invalid_api_key")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode(errors="surrogateescape")).digest()
