"""The list of traces, and the same as CSV. Asks the ledger nothing itself."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from urllib.parse import quote

from corea.dashboard.data import Cursor
from corea.dashboard.filters import Dimension
from corea.dashboard.html import Child, Html, tag
from corea.dashboard.layout import ROOT, WHY, View, at, chip, document, empty, filter_bar, table
from corea.dashboard.words import clipped, dollars, iso, number, seconds
from corea.ledger.records import Row

PAGE = 50
_COLUMNS = (
    ("Question", False), ("Why", False), ("Route", False), ("Task", False), ("Cost", True), ("Saved", True),
    ("Latency", True), ("Time (UTC)", False),
)  # fmt: skip
#: A spreadsheet takes what begins so for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
CSV_COLUMNS = (
    "id", "started_at", "task", "key", "profile", "route", "outcome", "confidence", "cost_usd", "saved_usd",
    "latency_s",
)  # fmt: skip
CSV_TEXTS = ("question", "answer")


def listing(
    view: View, rows: Sequence[Row], choices: Mapping[Dimension, Sequence[str]], *, older: Cursor | None, first: bool
) -> str:
    """``first``: these are the newest."""
    body: list[Child] = [tag("h1", "Traces"), filter_bar(view, choices, outcome=True), _tools(view)]
    if not rows:
        body.append(empty("No traces here", "There are none in this period with these filters, or they were pruned."))
        return document(view, "Traces", body)
    caption = "Requests, newest first: open one to see why it was kept or deferred"
    costs, saved = dollars([row["cost_nano_usd"] for row in rows]), dollars([row["saved_nano_usd"] for row in rows])
    told = [_row(view, row, costs[i], saved[i]) for i, row in enumerate(rows)]
    list_ = table(caption, _COLUMNS, told, hidden_caption=True)
    body.append(tag("section", list_, cls="card list", aria_label="Traces"))
    body.append(_turning(view, older, first))
    return document(view, "Traces", body)


def _tools(view: View) -> Html:
    find = tag(
        "form", tag("label", "Trace id", for_="find"),
        tag(
            "input", id="find", name="id", type="search", autocomplete="off", spellcheck="false",
            placeholder="or how it starts",
        ),
        tag("button", "Open"), method="get", action=f"{ROOT}/traces", cls="find",
    )  # fmt: skip
    query = view.filters.query
    plain = tag("a", "CSV", href=f"{ROOT}/traces.csv{query()}", download="")
    whole = tag("a", "CSV with texts", href=f"{ROOT}/traces.csv{query(texts='on')}", download="")
    return tag("div", find, tag("p", "Export: ", plain, " · ", whole, cls="export"), cls="row")


def _turning(view: View, older: Cursor | None, first: bool) -> Html:
    newest = None if first else tag("a", "Newest", href=view.address, cls="button")
    next_ = (
        tag("a", "Older", href=view.path + view.filters.query(after=str(older)), rel="next", cls="button")
        if older
        else None
    )
    end = None if older else tag("span", "These are the oldest.", cls="quiet")
    return tag("nav", newest, next_, end, cls="turning", aria_label="Pages of the list")


def outcome(row: Row) -> tuple[str, str]:
    """Class and word."""
    if row["error"]:
        return "failed", "Failed"
    return ("deferred", "Deferred") if row["deferred"] else ("kept", "Kept")


def _because(row: Row) -> str:
    """What decided about the first attempt, in three words."""
    first = row["first"]
    if first is None:
        return ""
    reason, told = first["reason"], f"{number(first['confidence'])}"
    signs = {"confident": "≥", "below_threshold": "<", "tied": "="}
    if reason in signs and first["confidence"] is not None and first["threshold"] is not None:
        return f"{told} {signs[reason]} {number(first['threshold'])}"
    return f"guard {first['guard']}" if first["guard"] else reason.replace("_", " ")


def _row(view: View, row: Row, cost: str, saved: str) -> Html:
    href = trace_href(row["id"])
    question = clipped(row["question"], 110) if row["question"] else "(text not stored)"
    kind, word = outcome(row)
    why = tag("a", chip(kind, word), tag("span", _because(row), cls="because"), href=href, title=WHY[kind], cls="why")
    cells = (
        tag("th", tag("a", tag("bdi", question), href=href), scope="row", cls="question"), tag("td", why),
        tag("td", tag("bdi", view.name("route", row["tier"] or ""))),
        tag("td", tag("bdi", clipped(row["task"] or "", 24))), tag("td", cost, cls="num"),
        tag("td", saved, cls="num"), tag("td", seconds(row["elapsed_s"]), cls="num"),
        tag("td", at(row["started_at_unix_s"]), cls="num when"),
    )  # fmt: skip
    return tag("tr", cells)


def trace_href(trace_id: str) -> str:
    return f"{ROOT}/traces/{quote(trace_id, safe='', errors='replace')}"


def lines_of_csv(pages: Iterable[Sequence[Row]], names: Mapping[str, str], *, texts: bool) -> Iterator[bytes]:
    """A page of lines at a time, the headings first. ``names``: of keys, by id."""
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\r\n")
    writer.writerow(CSV_COLUMNS + (CSV_TEXTS if texts else ()))
    for rows in pages:
        for row in rows:
            writer.writerow(_cells(row, names, texts))
        yield written.getvalue().encode(errors="replace")
        written.seek(0)
        written.truncate()


def _cells(row: Row, names: Mapping[str, str], texts: bool) -> list[str]:
    key = row["key_id"] or ""
    told = [
        row["id"],
        iso(row["started_at_unix_s"]),
        row["task"],
        names.get(key, key),
        row["profile"],
        row["tier"],
        outcome(row)[0],
    ]
    cells = [_safe(one) for one in told]
    cells += [
        _plain(row["confidence"]),
        _usd(row["cost_nano_usd"]),
        _usd(row["saved_nano_usd"]),
        f"{row['elapsed_s']:.4f}",
    ]
    return cells + ([_safe(row["question"]), _safe(row["answer"])] if texts else [])


def _safe(text: str | None) -> str:
    if not text:
        return ""
    # NUL ends a line for some readers.
    told = text.replace("\x00", "\ufffd")
    return f"'{told}" if told.startswith(_FORMULA) else told


def _plain(value: float | None) -> str:
    return "" if value is None else repr(value)


def _usd(nano_usd: int | None) -> str:
    """Exact: nine decimals."""
    if nano_usd is None:
        return ""
    whole, rest = divmod(abs(nano_usd), 10**9)
    return f"{'-' if nano_usd < 0 else ''}{whole}.{rest:09}"
