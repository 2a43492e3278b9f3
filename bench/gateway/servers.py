"""The servers of our own that are compared, each a process: ``corea serve`` as anybody runs it, and a bare relay.

``python -m bench.gateway.servers PORT UPSTREAM_PORT`` is the relay. Knows nothing of the load.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

KEY = "sk-bench"


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """How one is started, and what its requests say. ``loads``: those that it takes part in; None is all."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=lambda: {"Authorization": f"Bearer {KEY}"})
    loads: frozenset[str] | None = None


def bare(upstream_port: int) -> Server:
    return Server(
        name="bare", command=(sys.executable, "-m", "bench.gateway.servers", "PORT", str(upstream_port)), headers={}
    )


def corea(upstream_port: int, folder: Path, *, ledger: bool = True, loads: frozenset[str] | None = None) -> Server:
    """With a key, metrics and the log of each request, as it comes; ``ledger`` is a SQLite file."""
    name = "corea" if ledger else "corea-no-ledger"
    config = folder / f"{name}.toml"
    config.write_text(_CONFIG.format(port=upstream_port, ledger=str(ledger).lower(), file=folder / f"{name}.db"))
    return Server(
        name=name,
        command=(sys.executable, "-m", "corea", "serve", "--config", str(config), "--port", "PORT"),
        env={"COREA_HOME": str(folder), "COREA_API_KEY": KEY, "COREA_BENCH_KEY": "sk-upstream"},
        loads=loads,
    )


#: ``model`` names "large": one call of the upstream for each request, as the others make it.
_CONFIG = """
[[tiers]]
name = "small"
kind = "openai"
base_url = "http://127.0.0.1:{port}/v1"
model = "mock"
api_key_env = "COREA_BENCH_KEY"
prices = {{ input = 0.1, output = 0.2 }}
threshold = 0.5
confidence = {{ estimator = "verbalized" }}

[[tiers]]
name = "large"
kind = "openai"
base_url = "http://127.0.0.1:{port}/v1"
model = "mock"
api_key_env = "COREA_BENCH_KEY"
prices = {{ input = 1, output = 2 }}

[ledger]
enabled = {ledger}
url = "sqlite:///{file}"

[gateway]
api_key_env = "COREA_API_KEY"
"""


def relay(upstream: str) -> Any:
    """Nothing in it: Starlette's request in, aiohttp's answer out."""
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


if __name__ == "__main__":
    import uvicorn

    app = relay(f"http://127.0.0.1:{sys.argv[2]}/v1")
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_config=None, access_log=False, loop="uvloop")
