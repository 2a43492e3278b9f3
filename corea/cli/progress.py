"""The bar over questions: how many, how fast, how long still. On stderr."""

from __future__ import annotations

from contextlib import ExitStack

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from corea.cli.console import stderr


class QuestionBar:
    """Shown from :meth:`start` on, until the stack ends: what fails before that gets one line, not a bar as well."""

    def __init__(self, shown: ExitStack) -> None:
        self._shown = shown
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=stderr(),
        )
        self._bar = self._progress.add_task("questions", start=False, rate="")
        self._done = 0

    def start(self, total: int, already: int) -> None:
        self._progress.reset(self._bar, total=total, completed=already)
        self._shown.enter_context(self._progress)

    def advance(self) -> None:
        self._done += 1
        self._progress.update(self._bar, advance=1, rate=self._rate())

    def _rate(self) -> str:
        elapsed_s = self._progress.tasks[0].elapsed or 0
        if elapsed_s <= 0:
            return ""
        per_s = self._done / elapsed_s
        return f"{per_s:.1f}/s" if per_s >= 1 else f"{per_s * 60:.1f}/min"
