"""``corea models``: list, fetch, find and verify model files."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from corea import paths
from corea.catalogue import CATALOGUE, CatalogueModel, find
from corea.cli.console import print_json, stdout
from corea.cli.fetch import fetch
from corea.cli.options import Json
from corea.errors import CatalogueError, ModelFileError, UnknownModel
from corea.models.verified import path_of
from corea.models.verified import verify as verify_file

app = typer.Typer(help="List, fetch, find and verify model files.", no_args_is_help=True)

Names = Annotated[list[str] | None, typer.Argument(help="Names from `corea models list`; by default all of them.")]
Name = Annotated[str, typer.Argument(help="A name from `corea models list`.")]


@app.command("list")
def list_(json: Json = False) -> None:
    """List the models COREA can fetch by itself."""
    rows = [
        {
            "name": model.name,
            "parameters": model.parameters,
            "size_bytes": model.size_bytes,
            "context_tokens": model.context_tokens,
            "licence": model.licence,
            "state": _state(model),
        }
        for model in CATALOGUE.values()
    ]
    if json:
        print_json(rows)
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "parameters", "size", "context", "licence", "on this disk"):
        table.add_column(heading, justify="left" if heading in ("name", "licence", "on this disk") else "right")
    for model, row in zip(CATALOGUE.values(), rows, strict=True):
        table.add_row(
            model.name,
            f"{model.parameters / 1e9:.2f} B",
            f"{model.size_bytes / 1e6:.0f} MB",
            f"{model.context_tokens}",
            model.licence,
            str(row["state"]),
        )
    stdout().print(table)
    typer.echo(f"in {paths.models_dir()}; any other .gguf file can be used by its path")


@app.command()
def pull(names: Names = None, json: Json = False) -> None:
    """Fetch models: in parallel, resumable, checked against their published hash."""
    models = [_catalogued(name) for name in names or CATALOGUE]
    files = fetch(models)
    if json:
        print_json({model.name: str(file) for model, file in zip(models, files, strict=True)})
        return
    for file in files:
        typer.echo(file)


@app.command()
def path(name: Name, json: Json = False) -> None:
    """Print where a model's file is."""
    found = path_of(name)
    if found is None:
        raise ModelFileError(f"{name} is not on this disk yet; run: corea models pull {name}")
    if json:
        print_json({"name": name, "path": str(found)})
    else:
        typer.echo(found)


@app.command()
def verify(names: Names = None, json: Json = False) -> None:
    """Check files against their published hash, byte by byte. By default all that are on this disk."""
    wanted = names or [model.name for model in CATALOGUE.values() if _state(model) != "no"]
    verified = {name: str(verify_file(name)) for name in wanted}
    if json:
        print_json(verified)
        return
    for name in verified:
        typer.echo(f"{name}: fine")
    if not verified:
        typer.echo("no models on this disk yet; run: corea models pull")


def _catalogued(name: str) -> CatalogueModel:
    found = find(name)
    if isinstance(found, CatalogueModel):
        return found
    raise UnknownModel(f"{name} is a file of yours, and needs no pulling; name one of: {', '.join(CATALOGUE)}")


def _state(model: CatalogueModel) -> str:
    try:
        return "yes" if path_of(model.name) else "no"
    except CatalogueError:
        return "damaged"
