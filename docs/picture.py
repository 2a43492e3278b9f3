"""Run a command on a terminal of its own and draw what it left there: ``python docs/picture.py demo.svg make demo``.

Progress bars and spinners are overwritten, as on a real screen. The text alone goes to stdout.
"""

from __future__ import annotations

import contextlib
import os
import pty
import re
import subprocess
import sys
import termios
from io import StringIO
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 112
#: Lines shown from the start and from the end; what lies between is left out.
HEAD, TAIL = 24, 14

_CURSOR_UP = re.compile(r"\x1b\[(\d*)A")
_ERASE = re.compile(r"\x1b\[2K")
_OTHER = re.compile(r"\x1b\[\?25[lh]|\x1b\]8;[^\x1b]*\x1b\\|\x1b\[\d*[GK]")


def seen(recording: str) -> list[str]:
    """The lines left on the screen, with their colours."""
    lines = [""]
    for part in re.split(r"(\r\n|\n|\r|\x1b\[\d*A|\x1b\[2K)", recording):
        if part in ("\n", "\r\n"):
            lines.append("")
        elif part == "\r":
            continue
        elif _ERASE.fullmatch(part):
            lines[-1] = ""
        elif match := _CURSOR_UP.fullmatch(part):
            # Rich erases on its way up: what was below the cursor is gone.
            del lines[max(1, len(lines) - int(match[1] or 1)) :]
        else:
            lines[-1] += _OTHER.sub("", part)
    return [line.rstrip() for line in lines]


def recorded(command: list[str]) -> str:
    """What the command writes to a terminal of WIDTH columns, control codes and all."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (50, WIDTH))
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, close_fds=True)
    os.close(slave)
    chunks = []
    # Linux says EIO when the last writer has gone.
    with contextlib.suppress(OSError):
        while chunk := os.read(master, 65536):
            chunks.append(chunk)
    os.close(master)
    if process.wait():
        raise SystemExit(f"the command failed with exit code {process.returncode}")
    return b"".join(chunks).decode(errors="replace")


def main(sink: Path, command: list[str]) -> None:
    lines = seen(recorded(command))
    sys.stdout.write(Text.from_ansi("\n".join(lines)).plain + "\n")
    if len(lines) > HEAD + TAIL + 1:
        lines = [*lines[:HEAD], "       ⋮", *lines[-TAIL:]]
    console = Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True)
    for line in lines:
        console.print(Text.from_ansi(line), soft_wrap=False, overflow="ellipsis", no_wrap=True)
    sink.write_text(console.export_svg(title=" ".join(command)), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
