"""``corea serve``: the cascade behind an OpenAI-compatible API."""

from __future__ import annotations

import logging
import sys
from typing import Annotated, Literal

import typer

from corea.cascade import Cascade
from corea.cli.console import remark
from corea.cli.fetch import fetch_missing
from corea.cli.options import ConfigFile, Threshold
from corea.config import Config
from corea.extras import extra


def serve(
    config: ConfigFile = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on. Default: 127.0.0.1.")] = None,
    port: Annotated[
        int | None, typer.Option("--port", min=0, max=65535, help="Port. Default: 8080; 0 picks a free one.")
    ] = None,
    threshold: Threshold = None,
    log_format: Annotated[
        Literal["text", "json"] | None,
        typer.Option("--log-format", help="For a terminal, or one JSON object a line. Default: text."),
    ] = None,
) -> None:
    """Serve the cascade to any OpenAI client: set its base_url to http://HOST:PORT/v1, and model to "corea"."""
    from corea.audit.serving import auditor_of
    from corea.ledger.writer import Ledger

    with extra("serve"):
        from corea.dashboard.audited import AuditAlarms
        from corea.dashboard.pages import dashboard_of
        from corea.gateway.app import Gateway
        from corea.gateway.auth import authorizer_of
        from corea.gateway.logs import holding, logging_to, secrets_of
        from corea.gateway.serve import serve as run
        from corea.gateway.served import observer_of
        from corea.gateway_config import check_exposure

    # What is to be said while the configuration is read waits until it is known how to say it.
    with holding() as held:
        loaded = Config.load(config)
    if threshold is not None:
        loaded = loaded.with_threshold(threshold)
    options = {"host": host, "port": port, "log_format": log_format}
    chosen = {name: value for name, value in options.items() if value is not None}
    settings = loaded.gateway.model_copy(update=chosen)
    check_exposure(settings.host, has_keys=settings.virtual_keys or settings.api_key_env is not None)

    def say(url: str) -> None:
        message = f"listening on {url}/v1 (Ctrl-C stops)"
        if settings.log_format == "json":
            logging.getLogger("corea.gateway").info(message)
        else:
            remark(message)

    with logging_to(sys.stderr, settings.log_format, held=held, secrets=secrets_of(loaded)):
        fetch_missing(loaded)
        cascade = Cascade.from_config(loaded)
        authorizer, observer = authorizer_of(settings, cascade.ledger), observer_of(settings, loaded)
        auditor = auditor_of(loaded, cascade)
        alarms = AuditAlarms(cascade.ledger) if auditor and isinstance(cascade.ledger, Ledger) else None
        pages = dashboard_of(settings, cascade.ledger, api_has_keys=authorizer.has_keys, alarms=alarms)
        gateway = Gateway(
            cascade, settings, authorizer=authorizer, observer=observer, auditor=auditor, pages=pages
        )  # fmt: skip
        run(gateway, on_start=say)
