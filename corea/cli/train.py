"""``corea train``: teach a small model to say how sure it is."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from corea.cli.console import print_json, remark, stderr, stdout
from corea.cli.options import Json
from corea.extras import extra
from corea.train.stages import STAGES, in_order

if TYPE_CHECKING:
    from corea.train.pipeline import Counter

#: Of a count without a terminal, so many lines.
_LINES = 10


def train(
    config: Annotated[Path, typer.Argument(metavar="CONFIG.toml", help="Model, questions, settings and output.")],
    stage: Annotated[
        list[str] | None,
        typer.Option(
            "--stage", metavar="NAME", help=f"This stage alone: {', '.join(STAGES)}. May be repeated. Default: all."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Train a small model to say how sure it is. Stopped at any moment, the same command goes on where it stopped."""
    with extra("train"):
        from corea.train.config import TrainConfig
        from corea.train.models import hush
        from corea.train.pipeline import Run
        from corea.train.record import is_first

        hush()
    settings = TrainConfig.load(config)
    wanted = in_order(stage or ())
    try:
        run = Run(settings, tell=remark if is_first() else _silent, counting=_counter)
        run.stages(wanted)
    except KeyboardInterrupt:
        remark(f"what was done so far is in {settings.output}; the same command goes on from the last checkpoint there")
        raise
    if not is_first():
        return
    figures, made = run.report, run.made
    if json:
        print_json({"stages": wanted, "report": figures, "made": made, "output": settings.output})
        return
    if figures is not None:
        _show(figures)
    for what, path in made.items():
        typer.echo(f"{what}: {path}")


def _silent(line: str) -> None:
    """Of several processes, one tells."""


def _show(figures: Mapping[str, Any]) -> None:
    from corea.train.report import rows

    table = Table(f"{figures['questions']:,} held-out questions", "before", "after", box=None)
    for row in rows(figures):
        table.add_row(*map(Text, row))
    stdout().print(table)


def _counter(shown: ExitStack, what: str) -> Counter:
    return _Bar(shown, what) if sys.stderr.isatty() else _Lines(what)


class _Bar:
    """Shown from ``start`` on, until the stack ends."""

    def __init__(self, shown: ExitStack, what: str) -> None:
        self._shown = shown
        self._progress = Progress(
            TextColumn(what),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=stderr(),
        )
        self._bar = self._progress.add_task(what, start=False)

    def start(self, total: int, already: int) -> None:
        self._progress.reset(self._bar, total=total, completed=already)
        self._shown.enter_context(self._progress)

    def advance(self) -> None:
        self._progress.update(self._bar, advance=1)


class _Lines:
    """A line each tenth, for a log."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._total = self._done = 0

    def start(self, total: int, already: int) -> None:
        self._total, self._done = total, already

    def advance(self) -> None:
        self._done += 1
        if self._done * _LINES // self._total > (self._done - 1) * _LINES // self._total:
            remark(f"{self._done} of {self._total} {self._what}")
