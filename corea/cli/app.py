"""The command's tree."""

from __future__ import annotations

from typing import Annotated

import typer

from corea import __version__
from corea.cli import (
    ask,
    audit,
    batch,
    certify,
    config,
    demo,
    eval,
    keys,
    ledger,
    models,
    serve,
    simulate,
    trace,
    train,
)

app = typer.Typer(
    name="corea",
    help="A cascade of language models: the small one answers when it is sure, the large one answers the rest.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("ask")(ask.ask)
app.command("batch")(batch.batch)
app.command("demo")(demo.demo)
app.command("certify")(certify.certify)
app.command("serve")(serve.serve)
app.command("simulate")(simulate.simulate)
app.command("train")(train.train)
app.add_typer(eval.app, name="eval")
app.add_typer(models.app, name="models")
app.add_typer(config.app, name="config")
app.add_typer(trace.app, name="trace")
app.add_typer(ledger.app, name="ledger")
app.add_typer(keys.app, name="keys")
app.add_typer(audit.app, name="audit")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"corea {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Nothing to do here: each verb has its own file."""
