"""Charts as inline SVG, drawn on the server: no script, no library. Knows figures, not where they come from.

About 420 units wide, so that text has its size on a phone and in a column of a desktop alike. Colours come from the
style sheet by class; shape and order tell the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor, log10

from corea.dashboard.html import Html, joined, tag

WIDTH, HEIGHT = 420.0, 210.0
#: Words for all values of an axis, so that they have as many decimals.
Told = Callable[[Sequence[float]], Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A drawing, what is read out instead of it, and its figures as a table. ``legend``: class and words."""

    name: str
    title: str
    label: str
    svg: Html
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    legend: Sequence[tuple[str, str]] = ()
    note: Html | str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plane:
    """Where in the drawing a value lies; ``x`` and ``y`` are the values at the edges."""

    x: tuple[float, float]
    y: tuple[float, float]
    left: float = 46.0
    right: float = WIDTH - 8.0
    top: float = 10.0
    bottom: float = HEIGHT - 24.0

    def across(self, value: float) -> float:
        low, high = self.x
        return self.left + (self.right - self.left) * (value - low) / ((high - low) or 1.0)

    def up(self, value: float) -> float:
        low, high = self.y
        return self.bottom - (self.bottom - self.top) * (value - low) / ((high - low) or 1.0)

    def rows(self, ticks: Sequence[float], told: Told) -> Iterator[Html]:
        """Horizontal lines with their values."""
        for tick, words in zip(ticks, told(ticks), strict=True):
            y = self.up(tick)
            zero = "axis" if tick == 0 else "grid"
            yield tag("line", x1=self.left, x2=self.right, y1=y, y2=y, cls=zero)
            yield tag("text", words, x=self.left - 6, y=y + 4, text_anchor="end", cls="tick")

    def columns(self, ticks: Sequence[float], told: Told) -> Iterator[Html]:
        """Vertical lines with their values below."""
        for tick, words in zip(ticks, told(ticks), strict=True):
            x = self.across(tick)
            yield tag("line", x1=x, x2=x, y1=self.top, y2=self.bottom, cls="grid")
            anchor = "start" if x < self.left + 12 else "end" if x > self.right - 12 else "middle"
            yield tag("text", words, x=x, y=self.bottom + 16, text_anchor=anchor, cls="tick")

    def named(self, x: str, y: str) -> Iterator[Html]:
        """What the axes say."""
        yield tag("text", x, x=(self.left + self.right) / 2, y=self.bottom + 33, text_anchor="middle", cls="name")
        middle = (self.top + self.bottom) / 2
        turned = f"translate(11 {middle:.1f}) rotate(-90)"
        yield tag("text", y, transform=turned, text_anchor="middle", cls="name")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One part of stacked bars: its class, what it is called, and a value a bar."""

    cls: str
    name: str
    values: Sequence[float]


def drawn(label: str, *parts: Html | Iterator[Html], height: float = HEIGHT) -> Html:
    return tag(
        "svg", *parts, cls="chart", role="img", aria_label=label, viewBox=f"0 0 {WIDTH:.0f} {height:.0f}",
        preserveAspectRatio="xMidYMid meet",
    )  # fmt: skip


def stacked(
    layers: Sequence[Layer],
    *,
    label: str,
    titles: Sequence[str],
    told: Told,
    marks: Sequence[tuple[int, str]],
) -> Html:
    """Bars over time; what is negative hangs below zero. ``marks``: places on the axis and what is written there."""
    n = len(titles)
    tops = [sum(max(layer.values[i], 0.0) for layer in layers) for i in range(n)]
    lows = [sum(min(layer.values[i], 0.0) for layer in layers) for i in range(n)]
    ticks = nice(min(lows, default=0.0), max(tops, default=0.0) or 1.0)
    plane = Plane(x=(0.0, float(n)), y=(ticks[0], ticks[-1]))
    gap = 0.0 if n > 90 else 0.14
    bars: list[Html] = []
    for i, title in enumerate(titles):
        above = below = 0.0
        parts: list[Html] = []
        for layer in layers:
            value = layer.values[i]
            base = above if value >= 0 else below
            if value:
                parts.append(_bar(plane, i, gap, base, base + value, layer.cls))
            above, below = above + max(value, 0.0), below + min(value, 0.0)
        # The whole column answers the pointer, also where the bar is low.
        x, width = plane.across(i), plane.across(i + 1) - plane.across(i)
        parts.append(tag("rect", x=x, y=plane.top, width=width, height=plane.bottom - plane.top, cls="hover"))
        bars.append(tag("g", tag("title", title), *parts))
    return drawn(label, plane.rows(ticks, told), joined(bars), _marks(plane, marks))


def lines(
    layers: Sequence[tuple[str, Sequence[float | None]]],
    *,
    label: str,
    titles: Sequence[str],
    told: Told,
    marks: Sequence[tuple[int, str]],
) -> Html:
    """Lines over time, broken where nothing is known. ``layers``: class and values."""
    n = len(titles)
    known = [value for _, values in layers for value in values if value is not None]
    ticks = nice(0.0, max(known, default=0.0) or 1.0)
    plane = Plane(x=(0.0, float(n)), y=(ticks[0], ticks[-1]))
    parts: list[Html] = []
    for cls, values in layers:
        at = [None if one is None else (plane.across(i + 0.5), plane.up(one)) for i, one in enumerate(values)]
        parts += [tag("path", d=path, cls=f"line {cls}") for path in _paths(at)]
        parts += [tag("circle", cx=one[0], cy=one[1], r=2.0 if n > 24 else 2.6, cls=f"dot {cls}") for one in at if one]
    width = plane.across(1) - plane.across(0)
    hovers = (
        tag(
            "g",
            tag("title", title),
            tag("rect", x=plane.across(i), y=plane.top, width=width, height=plane.bottom - plane.top, cls="hover"),
        )
        for i, title in enumerate(titles)
    )
    return drawn(label, plane.rows(ticks, told), joined(parts), joined(hovers), _marks(plane, marks))


def nice(low: float, high: float, steps: int = 4) -> list[float]:
    """Round values that enclose ``low`` to ``high``, about so many steps apart."""
    raw = (high - low) / steps or 1.0
    size = 10.0 ** floor(log10(raw))
    step = next(size * one for one in (1, 2, 2.5, 5, 10) if size * one >= raw * 0.999)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def swatch(cls: str) -> Html:
    """What a legend shows: a bar's colour, a line, a point."""
    kind, _, colour = cls.partition(" ")
    if kind == "line":
        inner = tag("line", x1=0, x2=18, y1=5, y2=5, cls=f"line {colour}")
    elif kind == "dot":
        inner = tag("circle", cx=9, cy=5, r=4, cls=f"dot {colour}")
    else:
        inner = tag("rect", x=4, y=0, width=10, height=10, rx=2, cls=cls)
    return tag("svg", inner, cls="swatch", viewBox="0 0 18 10", width=18, height=10, aria_hidden="true")


def _bar(plane: Plane, i: int, gap: float, low: float, high: float, cls: str) -> Html:
    x, y = plane.across(i + gap / 2), min(plane.up(low), plane.up(high))
    width, height = plane.across(1 - gap) - plane.across(0), abs(plane.up(low) - plane.up(high))
    return tag("rect", x=x, y=y, width=width, height=height, cls=cls)


def _marks(plane: Plane, marks: Sequence[tuple[int, str]]) -> Html:
    parts = []
    for place, told in marks:
        x = plane.across(place + 0.5)
        anchor = "start" if x < plane.left + 14 else "end" if x > plane.right - 18 else "middle"
        x = plane.left if anchor == "start" else plane.right if anchor == "end" else x
        parts.append(tag("text", told, x=x, y=plane.bottom + 16, text_anchor=anchor, cls="tick"))
    return joined(parts)


def _paths(places: Sequence[tuple[float, float] | None]) -> Iterator[str]:
    run: list[str] = []
    for place in (*places, None):
        if place is not None:
            run.append(f"{place[0]:.1f} {place[1]:.1f}")
            continue
        if len(run) > 1:
            yield "M" + "L".join(run)
        run = []
