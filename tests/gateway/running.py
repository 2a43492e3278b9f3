"""A gateway on a port of the loopback interface, in a thread of its own, for real clients."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from corea import Cascade
from corea.audit.auditor import Auditor
from corea.cascade import Recorder
from corea.confidence import Verbalized
from corea.gateway.app import Gateway
from corea.gateway.auth import Authorizer
from corea.gateway.served import Observer
from corea.gateway_config import GatewayConfig
from corea.models.scripted import ScriptedModel, Step, scripted_answer
from corea.prices import FixedPrice
from corea.tier import Tier
from corea.types import Trace


@dataclass
class Kept:
    """A ledger in memory."""

    traces: list[Trace] = field(default_factory=list)
    feedback: list[tuple[str, float]] = field(default_factory=list)
    written: threading.Event = field(default_factory=threading.Event)

    async def write(self, trace: Trace) -> None:
        self.traces.append(trace)
        self.written.set()

    async def add_feedback(self, trace_id: str, correct: float) -> None:
        from corea.errors import InputError

        if trace_id not in {trace.id for trace in self.traces}:
            raise InputError(f"there is no trace {trace_id}")
        self.feedback.append((trace_id, correct))

    async def aclose(self) -> None:
        """Nothing to close."""


def small(*steps: Step, **settings: Any) -> Tier:
    """Sure of itself unless the script says otherwise."""
    model = ScriptedModel("small-model", replies=list(steps) or [scripted_answer("42", digit=9)], record=True)
    price = FixedPrice.per_million(1.0, 2.0)
    return Tier(name="small", model=model, **{"threshold": 0.5, "estimator": Verbalized(), "price": price, **settings})


def large(*steps: Step, **settings: Any) -> Tier:
    model = ScriptedModel("large-model", replies=list(steps) or [scripted_answer("43")], record=True)
    return Tier(name="large", model=model, **{"price": FixedPrice.per_million(10.0, 20.0), **settings})


UNSURE = scripted_answer("41", digit=1)


@dataclass
class Running:
    gateway: Gateway
    ledger: Kept
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def trace(self) -> Trace:
        """The last trace, waiting for it a moment: a stream's is written just before its end."""
        assert self.ledger.written.wait(5)
        return self.ledger.traces[-1]


@contextmanager
def serving(
    *tiers: Tier,
    authorizer: Authorizer | None = None,
    cascade: Any = None,
    recorder: Recorder | None = None,
    observer: Observer | None = None,
    auditor: Callable[[Cascade], Auditor] | None = None,
    **settings: Any,
) -> Iterator[Running]:
    """``recorder`` keeps the traces in place of a ledger in memory."""
    ledger = Kept()
    built = Cascade(tiers or (small(), large()), ledger=recorder or ledger, fingerprint="f00d", **(cascade or {}))
    gateway = Gateway(
        built,
        GatewayConfig(**settings),
        authorizer=authorizer,
        feedback=None if auditor else ledger,
        observer=observer,
        auditor=auditor(built) if auditor else None,
    )
    config = uvicorn.Config(gateway, host="127.0.0.1", port=0, log_config=None, access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        while not server.started and thread.is_alive():
            thread.join(0.005)
        yield Running(gateway=gateway, ledger=ledger, port=server.servers[0].sockets[0].getsockname()[1])
    finally:
        server.should_exit = True
        server.force_exit = False
        thread.join(10)
