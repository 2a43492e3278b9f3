"""The gateway as a process: listens, and stops without dropping anybody. Knows uvicorn, and no request."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable
from types import FrameType

import uvicorn

from corea.gateway.app import Gateway
from corea.gateway_config import check_exposure

#: Idle connections of clients are kept longer than most load balancers keep theirs, so that the client hangs up first.
_KEEP_ALIVE_S = 75


def serve(gateway: Gateway, *, on_start: Callable[[str], None] = lambda url: None) -> None:
    """Serve until SIGTERM or SIGINT, then drain: not ready, no new connections, requests in progress finish.

    What is still in progress after ``drain_s`` is cancelled, told so, and recorded. A second signal does not wait.
    ``on_start`` is told the address, and called from the event loop. Raises :class:`ConfigError` for an address that
    others can reach while no key is needed; closes the cascade in any case.
    """
    settings = gateway.settings
    check_exposure(settings.host, has_keys=gateway.authorizer.has_keys)
    config = uvicorn.Config(
        gateway,
        host=settings.host,
        port=settings.port,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_ALIVE_S,
        timeout_graceful_shutdown=max(1, round(settings.drain_s)) if settings.drain_s else 0,
    )
    _Server(config, gateway, on_start).run()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, gateway: Gateway, on_start: Callable[[str], None]) -> None:
        super().__init__(config)
        self._gateway = gateway
        self._on_start = on_start
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        self._loop = asyncio.get_running_loop()
        await super().startup()
        if self.started:
            self._on_start(self._address())

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The first signal drains; a second one does not wait. Drained, the process ends well: exit code 0."""
        if self._gateway.draining:
            self.should_exit = self.force_exit = True
            return
        self._gateway.draining = True
        notice_s = self._gateway.settings.drain_notice_s
        if sig == signal.SIGINT or not notice_s or self._loop is None:
            self.should_exit = True
            return
        # A timer thread, because a signal handler may not touch the loop it interrupted.
        timer = threading.Timer(notice_s, self._exit)
        timer.daemon = True
        timer.start()

    def _exit(self) -> None:
        self.should_exit = True

    def _address(self) -> str:
        host, port = self.servers[0].sockets[0].getsockname()[:2]
        return f"http://{f'[{host}]' if ':' in host else host}:{port}"
