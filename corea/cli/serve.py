"""``corea serve``: the cascade behind an OpenAI-compatible API."""

from __future__ import annotations

from typing import Annotated

import typer

from corea.cascade import Cascade
from corea.cli.console import remark
from corea.cli.extras import extra
from corea.cli.options import ConfigFile, Threshold, load


def serve(
    config: ConfigFile = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Port. Default: 8080; 0 picks a free one.")
    ] = None,
    threshold: Threshold = None,
) -> None:
    """Serve the cascade to any OpenAI client: set its base_url to http://HOST:PORT/v1, and model to "corea"."""
    with extra("serve"):
        from corea.gateway.app import Gateway
        from corea.gateway.auth import authorizer_of
        from corea.gateway.serve import serve as run
        from corea.gateway_config import check_exposure

    loaded = load(config, threshold)
    chosen = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = loaded.gateway.model_copy(update=chosen)
    check_exposure(settings.host, has_keys=settings.virtual_keys or settings.api_key_env is not None)
    cascade = Cascade.from_config(loaded)
    gateway = Gateway(cascade, settings, authorizer=authorizer_of(settings, cascade.ledger))
    run(gateway, on_start=lambda url: remark(f"listening on {url}/v1 (Ctrl-C stops)"))
