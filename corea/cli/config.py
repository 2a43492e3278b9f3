"""``corea config``: write, check and show a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from corea.cli.console import print_json, show_warnings
from corea.cli.options import ConfigFile, Json
from corea.config import Config, find, template, without_password
from corea.errors import InputError

app = typer.Typer(help="Write, check and show a configuration.", no_args_is_help=True)


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("corea.toml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    json: Json = False,
) -> None:
    """Write a commented configuration."""
    try:
        with file.open("w" if force else "x", encoding="utf-8") as out:
            out.write(template())
    except FileExistsError as exc:
        raise InputError(f"{file} is there already; choose another name or add --force") from exc
    except OSError as exc:
        raise InputError(f"cannot write {file}: {exc.strerror}") from exc
    if json:
        print_json({"wrote": str(file)})
    else:
        typer.echo(f"wrote {file}; check it with: corea config check {file}")


@app.command()
def check(
    file: Annotated[Path | None, typer.Argument(help="The file; by default the one that would be used.")] = None,
    json: Json = False,
) -> None:
    """Check a configuration: its fields, its keys in the environment, its model files."""
    from corea.build import missing_models, tiers_of

    show_warnings()
    found = find(file)
    config = Config.load(file)
    missing = missing_models(config)
    if not missing:
        tiers_of(config)
    source = str(found) if found else "built-in configuration"
    if json:
        print_json(
            {"source": source, "ok": True, "tiers": [tier.name for tier in config.tiers], "missing_models": missing}
        )
        return
    typer.echo(f"{source}: fine, {len(config.tiers)} tiers: {' → '.join(tier.name for tier in config.tiers)}")
    for name in missing:
        typer.echo(f"{name} is not on this disk yet; it is fetched at first use, or by: corea models pull {name}")


@app.command()
def show(config: ConfigFile = None, json: Json = False) -> None:
    """Print the configuration in force, defaults filled in."""
    found = find(config)
    loaded = Config.load(config)
    ledger = {**loaded.ledger.model_dump(mode="json"), "url": without_password(loaded.ledger.url)}
    if json:
        shown = {**loaded.model_dump(mode="json"), "ledger": ledger}
        print_json({"source": str(found) if found else "built-in", **shown})
        return
    typer.echo(f"# {found or 'built-in configuration'}")
    sections = {"cascade": loaded.cascade.model_dump(mode="json"), "ledger": ledger}
    for section, values in {**sections, "gateway": loaded.gateway.model_dump(mode="json")}.items():
        typer.echo(f"\n[{section}]")
        _lines(values)
    for tier in loaded.tiers:
        typer.echo("\n[[tiers]]")
        _lines(tier.model_dump(mode="json"))


def _lines(values: dict[str, object]) -> None:
    for name, value in values.items():
        if value is not None:
            typer.echo(f"{name} = {_toml(value)}")


def _toml(value: object) -> str:
    """A value as TOML writes it; enough for what a configuration holds."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        import json as _json

        return _json.dumps(value, ensure_ascii=False)
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items() if item is not None) + " }"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    return str(value)
