"""The fenced blocks of README and docs, and what becomes of each when the tests go through a page.

A block of commands is run, or says in a comment on the line before it why not: ``<!-- not run: needs a GPU -->``. A
block with a ``title`` is a file that the page's reader makes. Knows nothing of how commands are run.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

#: All that may keep a command from being run. A reason of its own for each would excuse anything.
REASONS = frozenset(
    {
        "needs a GPU",
        "needs a cluster",
        "needs another program",
        "needs data that is not here",
        "installs packages",
        "downloads models",
        "takes hours",
    }
)
SHELL = frozenset({"sh", "bash", "shell", "console"})
#: What makes commands of a block without a language.
PROGRAMS = frozenset(
    {
        "accelerate", "apt-get", "bash", "cat", "cd", "corea", "createdb", "curl", "docker", "export", "git", "inspect",
        "install", "kubectl", "llm", "make", "mkdocs", "openssl", "pip", "pip3", "psql", "python", "python3",
        "systemctl", "systemd-run", "torchrun", "uv",
    }
)  # fmt: skip
_FENCE = re.compile(r"^(?P<indent> *)(?P<ticks>```+)(?P<info>[^`]*)$")
_MARK = re.compile(r"^\s*<!-- not run: (?P<reason>.*?) -->\s*$")
_TITLE = re.compile(r'title="(?P<title>[^"]+)"')
_ASSIGNED = re.compile(r"^(?:[A-Z_][A-Z0-9_]*=\S*\s+)+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """One fenced block; ``line`` is that of its fence, counted from 1."""

    page: str
    line: int
    language: str
    title: str | None
    text: str
    not_run: str | None

    @property
    def where(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_commands(self) -> bool:
        if self.language:
            return self.language in SHELL
        return any(program_of(line) in PROGRAMS for line in self.text.splitlines())

    @property
    def is_run(self) -> bool:
        return self.is_commands and self.not_run is None


def pages() -> list[Path]:
    """README and everything under docs that a user reads: not the decisions, which tell what was tried."""
    found = [page for page in sorted((ROOT / "docs").rglob("*.md")) if "decisions" not in page.parts]
    return [ROOT / "README.md", *found]


def blocks_of(page: Path) -> list[Block]:
    return list(_blocks(page.relative_to(ROOT).as_posix(), page.read_text(encoding="utf-8").splitlines()))


def _blocks(name: str, lines: list[str]) -> Iterator[Block]:
    rest = enumerate(lines, start=1)
    for number, line in rest:
        if (fence := _FENCE.match(line)) is None:
            continue
        mark = _MARK.match(lines[number - 2]) if number > 1 else None
        inside = []
        for _, text in rest:
            if text.strip() == fence["ticks"]:
                break
            inside.append(text.removeprefix(fence["indent"]))
        language, _, more = fence["info"].strip().partition(" ")
        title = _TITLE.search(more)
        yield Block(
            page=name,
            line=number,
            language=language,
            title=title["title"] if title else None,
            text="\n".join(inside) + "\n",
            not_run=mark["reason"] if mark else None,
        )


def program_of(line: str) -> str:
    """The word that a line begins with, variables that are set for it aside."""
    words = _ASSIGNED.sub("", line.strip()).split(maxsplit=1)
    return words[0] if words else ""


def prose_of(page: Path) -> str:
    """A page without its fenced blocks, line for line."""
    kept, ticks = [], None
    for line in page.read_text(encoding="utf-8").splitlines():
        fence = _FENCE.match(line)
        inside = ticks is not None
        if ticks is None and fence:
            inside, ticks = True, fence["ticks"]
        elif ticks is not None and line.strip() == ticks:
            ticks = None
        kept.append("" if inside else line)
    return "\n".join(kept)
