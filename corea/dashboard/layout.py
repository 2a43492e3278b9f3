"""What all pages share: the frame, the filters, figures, tables. Knows no ledger."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from corea.dashboard.charts import Chart, swatch
from corea.dashboard.filters import DIMENSIONS, NONE, OUTCOMES, PERIODS, Dimension, Filters
from corea.dashboard.html import Child, Html, joined, tag
from corea.dashboard.words import clipped, iso, when

ROOT = "/dashboard"
Theme = Literal["auto", "light", "dark"]
THEMES: tuple[Theme, ...] = ("auto", "light", "dark")
#: What is asked of an outcome.
WHY: Mapping[str, str] = {
    "kept": "Why was this kept?", "deferred": "Why was this deferred?", "failed": "Why did this fail?",
}  # fmt: skip
_NAV = ((ROOT, "Overview"), (f"{ROOT}/calibration", "Calibration"), (f"{ROOT}/traces", "Traces"))
_WORDS: Mapping[Dimension, str] = {"task": "Task", "key": "Key", "profile": "Profile", "route": "Route"}
#: A list that nobody scrolls through; the address takes any value.
_MOST_CHOICES = 200

STATIC: Mapping[str, tuple[bytes, str]] = {
    name: ((Path(__file__).parent / "static" / name).read_bytes(), content_type)
    for name, content_type in (
        ("dashboard.css", "text/css; charset=utf-8"),
        ("dashboard.js", "text/javascript; charset=utf-8"),
        ("icon.svg", "image/svg+xml"),
    )
}
VERSION = hashlib.sha256(b"".join(body for body, _ in STATIC.values())).hexdigest()[:12]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Whom a page is for, and which part of the requests it is about."""

    path: str
    filters: Filters = field(default_factory=Filters)
    now_unix_s: float = 0.0
    theme: Theme = "auto"
    #: Whether there is a session that can be ended.
    can_leave: bool = False
    #: Names of virtual keys by id.
    keys: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        return self.path + self.filters.query()

    def name(self, dimension: Dimension, value: str) -> str:
        """What a value is called; "" is none."""
        if dimension == "key" and value in self.keys:
            return self.keys[value]
        if dimension == "route" and not value:
            return "(unanswered)"
        return value or NONE


def document(view: View, title: str, *body: Child | Iterable[Child], live: bool = False) -> str:
    """A whole page. ``live``: it may be loaded again by itself."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="robots", content="noindex"),
        tag("meta", name="color-scheme", content="light dark" if view.theme == "auto" else view.theme),
        tag("title", f"{title} · COREA"),
        tag("link", rel="icon", href=f"{ROOT}/static/icon.svg?v={VERSION}", type="image/svg+xml"),
        tag("link", rel="stylesheet", href=f"{ROOT}/static/dashboard.css?v={VERSION}"),
        tag("script", type="module", src=f"{ROOT}/static/dashboard.js?v={VERSION}"),
    )
    main = tag("main", *body, id="main", tabindex=-1, data_live="on" if live else None)
    skip = tag("a", "Skip to the figures", href="#main", cls="skip")
    theme = None if view.theme == "auto" else view.theme
    inner = tag("body", skip, _header(view), main, _footer(view))
    return "<!doctype html>\n" + tag("html", head, inner, lang="en", data_theme=theme)


def bare(title: str, theme: Theme, *body: Child | Iterable[Child]) -> str:
    """A page of one small card: to sign in, or what went wrong."""
    return document(View(path="", theme=theme), title, tag("div", *body, cls="card alone"))


def _header(view: View) -> Html:
    brand = tag("span", tag("span", "", cls="mark", aria_hidden="true"), "COREA", cls="brand")
    if not view.path:
        return tag("header", tag("div", brand, cls="bar"))
    links = (
        tag(
            "li",
            tag("a", name, href=path + view.filters.query(), aria_current="page" if path == view.path else None),
        )
        for path, name in _NAV
    )
    nav = tag("nav", tag("ul", links), aria_label="Pages")
    leave = (
        tag("form", tag("button", "Sign out", cls="plain"), method="post", action=f"{ROOT}/logout")
        if view.can_leave
        else None
    )
    tools = tag("div", tag("span", "", id="live"), _themes(view), leave, cls="tools")
    return tag("header", tag("div", brand, nav, tools, cls="bar"))


def _themes(view: View) -> Html:
    buttons = (
        tag("button", theme.title(), name="theme", value=theme, aria_pressed="true" if theme == view.theme else "false")
        for theme in THEMES
    )
    back = tag("input", type="hidden", name="next", value=view.address)
    group = tag("div", buttons, role="group", aria_label="Colours", cls="segments")
    return tag("form", back, group, method="post", action=f"{ROOT}/theme")


def _footer(view: View) -> Html | None:
    if not view.path:
        return None
    told = f"As of {when(view.now_unix_s)} UTC. Times are UTC; sums are of whole hours."
    return tag("footer", tag("p", told))


def filter_bar(view: View, choices: Mapping[Dimension, Sequence[str]], *, outcome: bool = False) -> Html:
    """The period as links, the rest as a form that works without a script."""
    filters = view.filters
    periods = (
        tag(
            "a", words, href=view.path + _with_period(filters, name).query(),
            aria_current="true" if name == filters.period else None,
        )
        for name, (words, _) in PERIODS.items()
    )  # fmt: skip
    selects = [_select(name, _WORDS[name], _options(view, name, choices[name])) for name in DIMENSIONS]
    if outcome:
        options = [("", "Any", filters.outcome is None)]
        options += [(one, one.capitalize(), one == filters.outcome) for one in OUTCOMES]
        selects.append(_select("outcome", "Outcome", options))
    chosen = filters.narrow
    clear = tag("a", "Clear", href=view.path + Filters(period=filters.period).query(), cls="clear") if chosen else None
    form = tag(
        "form", tag("input", type="hidden", name="period", value=filters.period), selects,
        tag("button", "Apply", cls="apply"), clear, method="get", action=view.path, cls="filters",
    )  # fmt: skip
    group = tag("div", periods, role="group", aria_label="Period", cls="segments")
    return tag("section", group, form, cls="toolbar", aria_label="Filters")


def _with_period(filters: Filters, period: str) -> Filters:
    return Filters(
        period=period, task=filters.task, key=filters.key, profile=filters.profile, route=filters.route,
        outcome=filters.outcome,
    )  # fmt: skip


def _options(view: View, name: Dimension, values: Sequence[str]) -> list[tuple[str, str, bool]]:
    chosen = view.filters.value(name)
    listed = list(values[:_MOST_CHOICES])
    if chosen is not None and chosen not in listed:
        listed.append(chosen)
    any_of_them = [("", "Any", chosen is None)]
    return any_of_them + [(one or NONE, clipped(view.name(name, one), 48), one == chosen) for one in listed]


def _select(name: str, words: str, options: Sequence[tuple[str, str, bool]]) -> Html:
    inner = (tag("option", told, value=value, selected=chosen) for value, told, chosen in options)
    active = any(chosen and value for value, _, chosen in options)
    select = tag("select", inner, name=name, id=f"filter-{name}")
    return tag("div", tag("label", words, for_=f"filter-{name}"), select, cls="choice on" if active else "choice")


def figure(chart: Chart, *, cls: str = "") -> Html:
    """A chart as a card, its figures a click away."""
    legend = tag("ul", (tag("li", swatch(one), told) for one, told in chart.legend), cls="legend")
    head = tag("figcaption", tag("h2", chart.title, id=f"{chart.name}-title"), legend if chart.legend else None)
    body = [tag("tr", _row_head(row[0]), (tag("td", one, cls="num") for one in row[1:])) for row in chart.rows]
    heads = (tag("th", one, scope="col", cls="num" if i else None) for i, one in enumerate(chart.columns))
    table = tag(
        "table", tag("caption", f"{chart.title}: the figures", cls="unseen"), tag("thead", tag("tr", heads)),
        tag("tbody", body),
    )  # fmt: skip
    folded = tag("details", tag("summary", "Figures"), scrolling(table, chart.title), id=f"{chart.name}-figures")
    note = None if chart.note is None else tag("p", chart.note, cls="note")
    return tag("figure", head, chart.svg, note, folded, cls=f"card {cls}".strip(), id=chart.name)


def table(
    caption: str, columns: Sequence[tuple[str, bool]], rows: Iterable[Html], *, hidden_caption: bool = False
) -> Html:
    """``columns``: heading, and whether numbers stand below it."""
    heads = (tag("th", name, scope="col", cls="num" if is_number else None) for name, is_number in columns)
    told = tag("caption", caption, cls="unseen" if hidden_caption else None)
    return scrolling(tag("table", told, tag("thead", tag("tr", heads)), tag("tbody", rows)), caption)


def scrolling(inner: Html, name: str) -> Html:
    """What is too wide scrolls by itself, also by keyboard."""
    return tag("div", inner, cls="scroll", tabindex=0, role="region", aria_label=name)


def _row_head(words: Child) -> Html:
    return tag("th", words, scope="row")


def chip(kind: str, words: str) -> Html:
    return tag("span", words, cls=f"chip {kind}")


def at(unix_s: float) -> Html:
    return tag("time", when(unix_s), datetime=iso(unix_s))


def empty(title: str, *words: Child) -> Html:
    """Instead of figures that are not there yet: what is missing, and how to get it."""
    return tag("div", tag("h2", title), tag("p", words), cls="card empty")


def paragraphs(*told: Child) -> Html:
    return joined(tag("p", one) for one in told)
