"""``corea config``: write, check and show a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

import typer

from corea.cli.console import print_json, remark, show_warnings
from corea.cli.options import ConfigFile, Json
from corea.config import Config, find, template, without_password
from corea.errors import InputError
from corea.extras import extra

app = typer.Typer(help="Write, check and show a configuration.", no_args_is_help=True)
imports = typer.Typer(help="Make a configuration of another tool's.", no_args_is_help=True)
app.add_typer(imports, name="import")


@app.command()
def init(
    file: Annotated[Path, typer.Argument(help="Where to write it.")] = Path("corea.toml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    json: Json = False,
) -> None:
    """Write a commented configuration."""
    _write(file, template(), force=force)
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
    tiers = [_shown(tier.model_dump(mode="json")) for tier in loaded.tiers]
    if json:
        shown = {**loaded.model_dump(mode="json"), "ledger": ledger, "tiers": tiers}
        print_json({"source": str(found) if found else "built-in", **shown})
        return
    typer.echo(f"# {found or 'built-in configuration'}")
    sections = {"cascade": loaded.cascade.model_dump(mode="json"), "ledger": ledger}
    for section, values in {**sections, "gateway": loaded.gateway.model_dump(mode="json")}.items():
        typer.echo(f"\n[{section}]")
        _lines(values)
    for tier in tiers:
        typer.echo("\n[[tiers]]")
        _lines(tier)


@imports.command("litellm")
def import_litellm(
    file: Annotated[Path, typer.Argument(help="LiteLLM's config.yaml.")],
    small: Annotated[str | None, typer.Option("--small", help="model_name of the tier that answers first.")] = None,
    large: Annotated[str | None, typer.Option("--large", help="model_name of the tier it defers to.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Where to write it. Default: print it.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a file that is there.")] = False,
    json: Json = False,
) -> None:
    """Make a corea.toml of LiteLLM's models, cheapest first. Says what it leaves out; copies no keys."""
    with extra("serve"):
        from corea.importing.yaml_text import read
    from corea.importing.litellm import convert

    show_warnings()
    imported = convert(read(file), small=small, large=large)
    if out is not None:
        _write(out, imported.toml, force=force)
    if json:
        told = {"tiers": imported.tiers, "remarks": imported.remarks, "toml": imported.toml}
        print_json({"wrote": str(out) if out else None, **told})
        return
    if out is None:
        typer.echo(imported.toml, nl=False)
        return
    for words in imported.remarks:
        remark(words)
    typer.echo(f"wrote {out}: {' → '.join(imported.tiers)}; check it with: corea config check {out}")


def _shown(tier: dict[str, Any]) -> dict[str, Any]:
    """A tier as it may be shown: its endpoint without user, password and query, any of which may be a secret."""
    if tier.get("base_url") is None:
        return tier
    url = urlsplit(tier["base_url"])
    _, at, host = url.netloc.rpartition("@")
    shown = f"{url.scheme}://{'***@' if at else ''}{host}{url.path}{'?***' if url.query else ''}"
    return {**tier, "base_url": shown}


def _write(file: Path, text: str, *, force: bool) -> None:
    try:
        with file.open("w" if force else "x", encoding="utf-8") as out:
            out.write(text)
    except FileExistsError as exc:
        raise InputError(f"{file} is there already; choose another name or add --force") from exc
    except OSError as exc:
        raise InputError(f"cannot write {file}: {exc.strerror}") from exc


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
