"""Parts of pages that are written from measured files: ``python -m bench.pages`` writes them all anew.

A part lies between ``<!-- figures: NAME -->`` and ``<!-- /figures -->`` and is what the function of that name in
:data:`bench.parts.PARTS` makes of the files under ``bench/``. Measures nothing. ``--check`` writes nothing, and ends in
1 where a page does not show what the files say.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench.parts import made
from bench.registry import BENCH

ROOT = BENCH.parent
END = "<!-- /figures -->"
_START = re.compile(r"^<!-- figures: ([\w-]+) -->\n", re.MULTILINE)


def rendered(text: str, part: Callable[[str], str]) -> str:
    """The page with each part as ``part(name)`` makes it. Raises :class:`ValueError` where a part has no end."""
    pieces, at = [], 0
    for start in _START.finditer(text):
        end = text.find(END, start.end())
        if start.start() < at or end < 0 or _START.search(text, start.end(), end):
            raise ValueError(f"the part {start[1]!r} has no end: write {END} behind it")
        new = part(start[1]).strip("\n")
        pieces += [text[at : start.end()], f"\n{new}\n\n" if new else ""]
        at = end
    return "".join([*pieces, text[at:]])


def without_parts(text: str) -> str:
    """What is left of a page: that which nobody generates."""
    return rendered(text, lambda _: "")


def pages(root: Path = ROOT) -> list[Path]:
    """Every page that has a part."""
    return [page for page in sorted([root / "README.md", *(root / "docs").glob("*.md")]) if _START.search(_read(page))]


def stale(root: Path = ROOT, bench: Path = BENCH) -> dict[Path, str]:
    """The pages that do not show what the files under ``bench`` say, as they ought to be."""
    part = partial(made, bench=bench)
    found = {page: rendered(_read(page), part) for page in pages(root)}
    return {page: text for page, text in found.items() if text != _read(page)}


def write(root: Path = ROOT, bench: Path = BENCH) -> list[Path]:
    """Writes them anew; those that were."""
    changed = stale(root, bench)
    for page, text in changed.items():
        page.write_text(text, encoding="utf-8")
    return list(changed)


def _read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.pages", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing, only say which pages would change")
    chosen = parser.parse_args(words)
    try:
        changed = list(stale()) if chosen.check else write()
    except ModuleNotFoundError as absent:
        # Of an environment for training, say, where a bench may well have been run.
        print(f"the pages are as they were: {absent.name} is not here; .venv/bin/python -m bench.pages writes them")
        return int(chosen.check)
    for page in changed:
        what = "is not what the files say; run python -m bench.pages" if chosen.check else "written"
        print(f"{page.relative_to(ROOT)}: {what}")
    return int(chosen.check and bool(changed))


if __name__ == "__main__":
    sys.exit(main())
