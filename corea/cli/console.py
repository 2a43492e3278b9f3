"""Where words go: stdout for results, stderr for everything else."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import typer
from rich.console import Console


def stderr() -> Console:
    """Made anew each time, so that a redirected stderr is the one written to."""
    return Console(stderr=True, highlight=False)


def stdout() -> Console:
    """As wide as the terminal; a file or a pipe has no edge to cut a table at."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=200)


def fail(message: str) -> None:
    """One line on stderr."""
    stderr().print(f"[bold red]error:[/] {_escaped(' '.join(message.split()))}", soft_wrap=True)


def remark(message: str) -> None:
    stderr().print(_escaped(message), style="dim", soft_wrap=True)


def print_json(value: Any) -> None:
    typer.echo(json.dumps(value, ensure_ascii=False, indent=2, default=str))


def show_warnings() -> None:
    """Warnings of the library, one dim line each, on stderr."""
    logger = logging.getLogger("corea")
    logger.handlers[:] = [_Remarks()]
    logger.setLevel(logging.WARNING)


class _Remarks(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        remark(" ".join(record.getMessage().split()))


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
