"""The servers that are compared, each a process: ``python -m bench.gateway.servers NAME PORT UPSTREAM_PORT``."""

from __future__ import annotations

import random
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn

KEY = "sk-bench"


def bare(upstream: str) -> Any:
    """A relay with nothing in it: Starlette's request in, aiohttp's answer out."""
    import aiohttp
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response, StreamingResponse
    from starlette.routing import Route

    sessions: list[aiohttp.ClientSession] = []

    async def chat(request: Request) -> Response:
        if not sessions:
            sessions.append(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        body = await request.body()
        answer = await sessions[0].post(
            f"{upstream}/chat/completions", data=body, headers={"Content-Type": "application/json"}
        )
        if answer.content_type == "text/event-stream":
            return StreamingResponse(answer.content.iter_any(), media_type="text/event-stream")
        return Response(await answer.read(), media_type="application/json")

    return Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])


def gateway(upstream: str, *, ledger: bool = True) -> Any:
    """Ours, with a key, the ledger and metrics. Both tiers are the mock; ``model`` picks the way through them."""
    from corea import Cascade
    from corea.confidence import Verbalized
    from corea.gateway.app import Gateway
    from corea.gateway.auth import OneKey
    from corea.gateway_config import GatewayConfig
    from corea.ledger import Ledger
    from corea.models.openai import OpenAIModel
    from corea.prices import FixedPrice
    from corea.tier import Tier

    def model(name: str) -> OpenAIModel:
        return OpenAIModel(name, base_url=upstream, model="mock", max_connections=0, rng=random.Random(1))

    tiers = (
        Tier(
            name="small",
            model=model("small"),
            estimator=Verbalized(),
            threshold=0.5,
            price=FixedPrice.per_million(0.1, 0.2),
        ),
        Tier(name="large", model=model("large"), price=FixedPrice.per_million(1, 2)),
    )
    folder = tempfile.mkdtemp(prefix="corea-bench-")
    kept = Ledger.open(f"sqlite:///{Path(folder) / 'ledger.db'}") if ledger else None
    settings = GatewayConfig(max_active=1024, max_queued=1024)
    return Gateway(Cascade(tiers, ledger=kept, fingerprint="bench"), settings, authorizer=OneKey(KEY))


APPS: dict[str, Callable[[str], Any]] = {
    "bare": bare,
    "gateway": gateway,
    "no-ledger": partial(gateway, ledger=False),
}


if __name__ == "__main__":
    app = APPS[sys.argv[1]](f"http://127.0.0.1:{sys.argv[3]}/v1")
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_config=None, access_log=False, loop="uvloop")
