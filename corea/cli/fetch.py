"""Fetching models with progress bars on stderr."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bars

from corea.build import missing_models
from corea.catalogue import CATALOGUE, CatalogueModel
from corea.cli.console import stderr
from corea.config import Config


def fetch_missing(config: Config) -> None:
    """Fetch the catalogue models that the configuration uses and that are not here. Says nothing if all are."""
    if missing := missing_models(config):
        fetch([CATALOGUE[name] for name in missing])


def fetch(models: Sequence[CatalogueModel]) -> list[Path]:
    """One model after the other, each in parallel pieces. Raises :class:`CatalogueError`."""
    return asyncio.run(_fetch(models))


async def _fetch(models: Sequence[CatalogueModel]) -> list[Path]:
    from corea.models.download import pull

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=stderr()) as bars:
        return [await pull(model, progress=_Bar(bars, model)) for model in models]


class _Bar:
    """One model's progress, as :class:`corea.models.download.Progress` wants it."""

    def __init__(self, bars: Bars, model: CatalogueModel) -> None:
        self._bars = bars
        self._task = bars.add_task(model.name, total=model.size_bytes)

    def started(self, total_bytes: int) -> None:
        self._bars.reset(self._task, total=total_bytes)

    def advanced(self, n_bytes: int) -> None:
        self._bars.advance(self._task, n_bytes)

    def note(self, text: str) -> None:
        self._bars.console.print(text, style="dim", soft_wrap=True)

    def finished(self) -> None:
        self._bars.stop_task(self._task)
