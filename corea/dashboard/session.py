"""Who may see the dashboard: a password, then a signed cookie that ends by itself. Knows no pages and no HTTP.

The cookie's key is derived from the password, so that replicas agree, a restart signs nobody out, and a new password
ends every session.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import secrets
from collections import OrderedDict
from collections.abc import Callable, Mapping

from corea.errors import ConfigError
from corea.gateway_config import DashboardConfig

#: A password that machines made, or a sentence. Shorter ones can be guessed.
SHORTEST = 12
#: Wrong passwords that an address may send in a minute, and all addresses together.
TRIES, ALL_TRIES, WINDOW_S = 5, 100, 60.0
_MOST_ADDRESSES = 4096
# 2¹⁴ × 8 × 128 bytes = 16 MiB for a twentieth of a second, once: a cookie is no way to guess the password faster.
_SCRYPT = {"n": 2**14, "r": 8, "p": 1, "dklen": 32}


class SignIn:
    """Compares passwords, makes and reads the cookie's value."""

    def __init__(
        self,
        password: str,
        *,
        session_s: float,
        clock: Callable[[], float],
        nonce: Callable[[], str] = secrets.token_urlsafe,
    ) -> None:
        self._digest = _digest(password)
        self._key = hashlib.scrypt(_encoded(password), salt=b"corea dashboard session", **_SCRYPT)
        self.session_s = session_s
        self._clock = clock
        self._nonce = nonce

    def accepts(self, password: str) -> bool:
        # Digests have one length, so the time taken tells nothing of the password.
        return hmac.compare_digest(self._digest, _digest(password))

    def new_session(self) -> str:
        """A cookie's value that works for ``session_s``."""
        told = f"{int(self._clock() + self.session_s)}.{self._nonce()}"
        return f"{told}.{self._signature(told)}"

    def is_session(self, value: str) -> bool:
        told, _, signature = value.rpartition(".")
        if not hmac.compare_digest(self._signature(told).encode(), _encoded(signature)):
            return False
        # Signed by us, so it has the form that we gave it.
        return self._clock() < int(told.partition(".")[0])

    def _signature(self, told: str) -> str:
        return hmac.new(self._key, _encoded(told), hashlib.sha256).hexdigest()


class Tries:
    """Wrong passwords of the last minute, so that nobody tries thousands."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, list[float]] = OrderedDict()
        self._all: list[float] = []

    def wait_s(self, address: str) -> float:
        """How long this address must wait before it may try; 0 is not at all."""
        after_s = self._clock() - WINDOW_S
        self._all = [at for at in self._all if at > after_s][-ALL_TRIES:]
        mine = [at for at in self._wrong.get(_network(address), ()) if at > after_s]
        waits = [
            times[-most] - after_s for times, most in ((mine, TRIES), (self._all, ALL_TRIES)) if len(times) >= most
        ]
        return max(waits, default=0.0)

    def note_wrong(self, address: str) -> None:
        now_s, network = self._clock(), _network(address)
        self._all.append(now_s)
        self._wrong[network] = [*self._wrong.get(network, ())[-TRIES + 1 :], now_s]
        self._wrong.move_to_end(network)
        if len(self._wrong) > _MOST_ADDRESSES:
            self._wrong.popitem(last=False)


def sign_in_of(
    settings: DashboardConfig,
    *,
    host_is_local: bool,
    api_has_keys: bool,
    clock: Callable[[], float],
    environ: Mapping[str, str] = os.environ,
) -> SignIn | None:
    """As configured; None where nobody needs to sign in, which only a gateway may that needs no keys and listens on
    the loopback interface. Raises :class:`ConfigError`."""
    name = settings.password_env
    if name is None:
        if host_is_local and not api_has_keys:
            return None
        raise ConfigError(
            "the dashboard shows everybody's questions, so it needs a password here; name the variable that holds it: "
            'password_env = "COREA_DASHBOARD_PASSWORD"',
            field="gateway.dashboard.password_env",
        )
    password = environ.get(name, "").strip()
    if not password:
        raise ConfigError(
            f"the environment variable {name} is not set; run: export {name}=…", field="gateway.dashboard.password_env"
        )
    if len(password) < SHORTEST:
        raise ConfigError(
            f"the password in {name} is shorter than {SHORTEST} characters; make one: openssl rand -base64 24",
            field="gateway.dashboard.password_env",
        )
    return SignIn(password, session_s=settings.session_s, clock=clock)


def _network(address: str) -> str:
    """An IPv6 address stands for its /64, of which one machine has all."""
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:100]
    return str(found) if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))


def _digest(password: str) -> bytes:
    return hashlib.sha256(_encoded(password)).digest()


def _encoded(text: str) -> bytes:
    return text.encode(errors="surrogateescape")
