"""Kept records, and how a figure is put into a table."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bench.measure import Figure

WIDTH = 120


def read(bench: Path, name: str) -> Any:
    return json.loads((bench / "results" / f"{name}.json").read_text(encoding="utf-8"))


def kept(bench: Path, name: str) -> bool:
    return (bench / "results" / f"{name}.json").exists()


def figures(bench: Path, name: str) -> list[Figure]:
    """Those of a bench with ``measure()``."""
    return [
        Figure(**{key: value for key, value in one.items() if key != "met"}) for one in read(bench, name)["figures"]
    ]


def table(found: Iterable[Figure]) -> str:
    """Markdown; a figure that missed its limit is in bold."""
    lines = ["| | measured | wanted | |", "|---|---|---|---|"]
    for one in found:
        value = f"{number(one.value)} {one.unit}".rstrip()
        wanted = "–" if one.limit is None else f"{'≥' if one.at_least else '≤'} {number(one.limit)}"
        # A bar within a cell would end it.
        name = one.name.replace("|", r"\|")
        lines.append(f"| {name} | {f'**{value}**' if one.met is False else value} | {wanted} | {one.detail} |")
    return "\n".join(lines)


def number(value: float) -> str:
    """Three digits that count, and never an exponent for what is large."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def cores(bench: Path, names: Iterable[str]) -> str:
    """Of the machines that measured these."""
    counts = sorted({int(read(bench, name)["machine"]["cores"]) for name in names})
    return " or ".join("one core" if count == 1 else f"{count} cores" for count in counts)


def filled(text: str) -> str:
    """A paragraph in lines."""
    return textwrap.fill(text, WIDTH, break_on_hyphens=False, break_long_words=False)


def listed(lines: Iterable[str]) -> str:
    """A list, each point in lines."""
    return "\n".join(
        textwrap.fill(f"- {line}", WIDTH, subsequent_indent="  ", break_on_hyphens=False, break_long_words=False)
        for line in lines
    )


def series(words: Iterable[str]) -> str:
    """a, b and c."""
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last


def span(values: Iterable[float], form: str) -> str:
    """``least to most``, or the one value where both look alike."""
    among = list(values)
    low, high = format(min(among), form), format(max(among), form)
    return low if low == high else f"{low} to {high}"


def only(rows: Iterable[Mapping[str, Any]], **wanted: object) -> list[Mapping[str, Any]]:
    """The rows with just these values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]
