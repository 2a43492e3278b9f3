"""Options that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from corea.config import Config

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", help="Configuration file. Default: $COREA_CONFIG, ./corea.toml, then a built-in pair."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
AllowCode = Annotated[
    bool, typer.Option("--allow-code", help='Grade questions of kind "code" by running the programs, in a sandbox.')
]
OutcomesFiles = Annotated[list[Path], typer.Argument(help="Outcomes, of: corea eval run, or: corea eval import.")]
Small = Annotated[str | None, typer.Option("--small", help="The tier that answers first. Default: the cheapest.")]
Large = Annotated[str | None, typer.Option("--large", help="The tier it defers to. Default: the dearest.")]
DropIncomplete = Annotated[
    bool, typer.Option("--drop-incomplete", help="Leave out questions that a tier did not answer, and say how many.")
]
MaxDrop = Annotated[
    float, typer.Option("--max-drop", help="Accuracy that may be lost: 0.02 is two points.", min=0, max=1)
]
Delta = Annotated[
    float, typer.Option("--delta", help="Probability that the promise is broken all the same.", min=0, max=1)
]
Guards = Annotated[
    list[str] | None,
    typer.Option(
        "--guard", help="Guard that will be in force; more than once for more, or: none. Default: all, as in a tier."
    ),
]
Domain = Annotated[
    Path | None, typer.Option("--domain", help="The tier's domain of questions: its guard will be in force too.")
]
Threshold = Annotated[
    float | None,
    typer.Option("--threshold", help="Confidence needed to keep an answer, 0 to 1, for every tier but the last."),
]


def load(config: Path | None, threshold: float | None = None) -> Config:
    """The configuration, with its models on this disk: what is missing is fetched, with a progress bar."""
    from corea.cli.console import show_warnings
    from corea.cli.fetch import fetch_missing

    show_warnings()
    loaded = Config.load(config)
    if threshold is not None:
        loaded = loaded.with_threshold(threshold)
    fetch_missing(loaded)
    return loaded
