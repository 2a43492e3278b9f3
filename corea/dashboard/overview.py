"""The first page: money, deferrals, accuracy, latency; by task and key; why; alarms. Asks the ledger nothing itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from corea.dashboard.alarms import Alarm, NoAlarms
from corea.dashboard.charts import Chart, Layer, lines, stacked
from corea.dashboard.data import Bar, Decided, Decisions, Judged, Totals
from corea.dashboard.figures import Rate, rate
from corea.dashboard.filters import DAY_S, Dimension
from corea.dashboard.html import Child, Html, joined, tag
from corea.dashboard.layout import ROOT, View, at, chip, document, empty, figure, filter_bar, table
from corea.dashboard.words import between, clipped, count, counted, day, dollars, hour, money, seconds, share, short
from corea.ledger.rollups import Summary

#: Rows of a table; the others can be chosen by the filters.
_MOST_ROWS = 8
_TABLES: tuple[tuple[Dimension, str], ...] = (
    ("task", "Tasks"), ("key", "Keys"), ("route", "Routes"), ("profile", "Profiles"),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What the page shows. ``alarms`` is None where nothing is watched."""

    totals: Totals
    decisions: Decisions
    judged: Sequence[Judged]
    #: Older feedback was left out.
    capped: bool
    alarms: Sequence[Alarm] | None


def overview(view: View, found: Overview) -> str:
    total = found.totals.total
    body: list[Child] = [tag("h1", "Overview"), filter_bar(view, found.totals.choices)]
    body.append(_alarms(view, found.alarms))
    if not total.traces:
        body.append(_nothing(view))
        return document(view, "Overview", body, live=True)
    body.append(_key_figures(found))
    bars = found.totals.bars
    body.append(tag("div", figure(_requests(bars)), figure(_money(bars)), figure(_latency(bars)), cls="charts"))
    body.append(_decisions(view, found.decisions))
    body.append(_policies(found.decisions))
    tables = (_by(view, name, title, found.totals.by[name], total) for name, title in _TABLES)
    body.append(tag("div", tables, cls="tables"))
    return document(view, "Overview", body, live=True)


def _nothing(view: View) -> Html:
    if view.filters.narrow or view.filters.period != "all":
        wider = tag("a", "Show all time", href=f"{view.path}?period=all")
        return empty("No requests here", "There are none in this period with these filters. ", wider, ".")
    return empty("No requests yet", "Ask the gateway something, and it shows up here: POST /v1/chat/completions.")


def watching(alarms: object) -> bool:
    """Whether anything can ring at all."""
    return not isinstance(alarms, NoAlarms)


def _alarms(view: View, alarms: Sequence[Alarm] | None) -> Html:
    if alarms:
        rows = (
            tag(
                "li",
                chip(one.severity, one.severity.capitalize()),
                tag("div", tag("strong", one.name), f" · {one.task}" if one.task else "", tag("p", one.text)),
                tag("span", "since ", at(one.since_unix_s), cls="since"),
                cls=one.severity,
            )
            for one in alarms
        )
        title = tag("h2", counted(len(alarms), "alarm"), id="alarms-title")
        return tag("section", title, tag("ul", rows), cls="card alarms", aria_labelledby="alarms-title", role="region")
    told = "No alarms." if alarms is not None else "No alarms are set up: nothing watches this gateway."
    return tag("p", told, cls="quiet ok" if alarms is not None else "quiet")


# Key figures


def _key_figures(found: Overview) -> Html:
    total = found.totals.total
    kept = kept_accuracy(found.judged)
    cards = [
        _card("Saved", money(total.saved_nano_usd), _saved(total), cls="gain" if total.saved_nano_usd >= 0 else "lost"),
        _card("Spent", money(total.cost_nano_usd), _spent(total)),
        _card("Requests", count(total.traces), _errors(total)),
        _card("Deferral rate", share(total.deferral_rate), f"{count(total.deferred)} of {count(total.traces)}"),
        _card("Kept accuracy", share(kept.value if kept else None), _kept(found, kept), extra=_strip(kept)),
        _card("Latency, median", seconds(total.latency_s(0.5)), f"95 % within {seconds(total.latency_s(0.95))}"),
    ]  # fmt: skip
    return tag("section", tag("dl", cards, cls="keys"), aria_label="Key figures")


def _card(name: str, value: str, told: Child, *, cls: str = "", extra: Html | None = None) -> Html:
    parts = (tag("dt", name), tag("dd", value, cls="value"), extra, tag("dd", told, cls="told"))
    return tag("div", parts, cls=f"key {cls}".strip())


def _saved(total: Summary) -> str:
    alone = total.cost_nano_usd + total.saved_nano_usd
    lacking = f"; unknown for {count(total.saved_unknown)}" if total.saved_unknown else ""
    if alone <= 0:
        return f"against the last tier alone{lacking}"
    saved = total.saved_nano_usd / alone
    how = "less" if saved >= 0 else "more"
    return f"{share(abs(saved))} {how} than the last tier alone{lacking}"


def _spent(total: Summary) -> str:
    known = total.traces - total.cost_unknown
    each = money(total.cost_nano_usd / known) if known else money(None)
    return f"{each} a request" + (f"; unknown for {count(total.cost_unknown)}" if total.cost_unknown else "")


def _errors(total: Summary) -> str:
    return "all answered" if not total.errors else f"{counted(total.errors, 'request')} without an answer"


def kept_accuracy(judged: Sequence[Judged]) -> Rate | None:
    """How often answers are right that were kept by their confidence, as far as feedback tells."""
    kept = [one for one in judged if one.told and one.keep and one.reason == "confident"]
    return rate(sum(one.correct for one in kept), len(kept))


def _kept(found: Overview, kept: Rate | None) -> Child:
    if kept is None:
        return "no feedback on kept answers yet"
    newest = "newest " if found.capped else ""
    interval = between(kept.low, kept.high)
    return f"95 % interval {interval}, from feedback on {count(kept.n)} {newest}kept answers"


def _strip(kept: Rate | None) -> Html | None:
    """The interval on a line from 0 to 100 %; the words next to it say the same."""
    if kept is None:
        return None
    line = tag("rect", x=0, y=4, width=100, height=2, cls="rail")
    band = tag("rect", x=100 * kept.low, y=2, width=max(100 * (kept.high - kept.low), 1.0), height=6, cls="band")
    dot = tag("rect", x=100 * kept.value - 0.6, y=0, width=1.2, height=10, cls="needle")
    inner = tag(
        "svg", line, band, dot, viewBox="0 0 100 10", preserveAspectRatio="none", aria_hidden="true", cls="strip"
    )
    return tag("dd", inner)


# Charts


def _marks(bars: Sequence[Bar]) -> list[tuple[int, str]]:
    """About five dates or hours below the bars."""
    whole_s = len(bars) * bars[0].length_s if bars else 0
    told = hour if whole_s <= 30 * 3600 else day
    starts = [bar.start_unix_s for bar in bars]
    places = list(range(len(bars)))
    if told is day and bars and bars[0].length_s < DAY_S:
        places = [i for i in places if starts[i] % DAY_S == 0]
    step = max(1, -(-len(places) // 6))
    return [(i, told(starts[i])) for i in places[::step]]


def _span(bar: Bar) -> str:
    start, end = bar.start_unix_s, bar.start_unix_s + bar.length_s
    if bar.length_s < DAY_S:
        return f"{day(start)}, {hour(start)}–{hour(end)}"
    return day(start) if bar.length_s == DAY_S else f"{day(start)}–{day(end - 1)}"


def _requests(bars: Sequence[Bar]) -> Chart:
    sums = [bar.sums for bar in bars]
    layers = (
        Layer(cls="kept", name="kept", values=[one.traces - one.deferred for one in sums]),
        Layer(cls="deferred", name="deferred", values=[one.deferred - one.errors for one in sums]),
        Layer(cls="failed", name="failed", values=[one.errors for one in sums]),
    )
    rows = [[_span(bar), *(count(int(layer.values[i])) for layer in layers)] for i, bar in enumerate(bars)]
    total = sum(one.traces for one in sums)
    deferred = sum(one.deferred for one in sums)
    label = f"Requests over time, stacked bars: {counted(total, 'request')}, of which {count(deferred)} were deferred."
    titles = [f"{row[0]}: {row[1]} kept, {row[2]} deferred, {row[3]} failed" for row in rows]
    return Chart(
        name="requests", title="Requests", label=label, columns=("Time", "Kept", "Deferred", "Failed"), rows=rows,
        svg=stacked(layers, label=label, titles=titles, told=_counts, marks=_marks(bars)),
        legend=[(layer.cls, layer.name.capitalize()) for layer in layers if any(layer.values)],
    )  # fmt: skip


def _money(bars: Sequence[Bar]) -> Chart:
    sums = [bar.sums for bar in bars]
    layers = (
        Layer(cls="spent", name="spent", values=[one.cost_nano_usd for one in sums]),
        Layer(cls="saved", name="saved", values=[max(one.saved_nano_usd, 0) for one in sums]),
        Layer(cls="lost", name="lost", values=[min(one.saved_nano_usd, 0) for one in sums]),
    )
    rows = [[_span(bar), money(bar.sums.cost_nano_usd), money(bar.sums.saved_nano_usd)] for bar in bars]
    spent, saved = sum(one.cost_nano_usd for one in sums), sum(one.saved_nano_usd for one in sums)
    label = f"Money over time, stacked bars: {money(spent)} spent, {money(saved)} saved."
    titles = [f"{row[0]}: {row[1]} spent, {row[2]} saved" for row in rows]
    shown = layers if any(layers[2].values) else layers[:2]
    return Chart(
        name="money", title="Money", label=label, columns=("Time", "Spent", "Saved"), rows=rows,
        svg=stacked(shown, label=label, titles=titles, told=_dollars, marks=_marks(bars)),
        legend=[(layer.cls, layer.name.capitalize()) for layer in shown],
        note="Saved: what the last tier alone would have cost, less what was spent. Below zero, it cost more.",
    )  # fmt: skip


def _dollars(ticks: Sequence[float]) -> list[str]:
    """With as few decimals as they all can do with."""
    usd = [tick / 1e9 for tick in ticks]
    digits = max(len(f"{one:.9f}".rstrip("0").partition(".")[2]) for one in usd)
    return [f"{'−' if one < 0 else ''}${abs(one):,.{max(digits, 2) if digits else 0}f}" for one in usd]


def _seconds(ticks: Sequence[float]) -> list[str]:
    return [seconds(tick).replace(".0", "") if tick else "0" for tick in ticks]


def _counts(ticks: Sequence[float]) -> list[str]:
    return [short(tick) for tick in ticks]


def _latency(bars: Sequence[Bar]) -> Chart:
    halves, most = ([bar.sums.latency_s(quantile) for bar in bars] for quantile in (0.5, 0.95))
    rows = [[_span(bar), seconds(halves[i]), seconds(most[i])] for i, bar in enumerate(bars)]
    known = [one for one in most if one is not None]
    label = f"Latency over time, two lines: 95 % of the requests within {seconds(max(known, default=None))} at worst."
    titles = [f"{row[0]}: median {row[1]}, 95 % within {row[2]}" for row in rows]
    return Chart(
        name="latency", title="Latency", label=label, columns=("Time", "Median", "95 %"), rows=rows,
        svg=lines((("p95", most), ("p50", halves)), label=label, titles=titles, told=_seconds, marks=_marks(bars)),
        legend=(("line p50", "Median"), ("line p95", "95 %")),
        note="From a histogram whose edges double: right within a factor of two.",
    )  # fmt: skip


# Tables

REASONS: Mapping[str, str] = {
    "confident": "confident enough",
    "last_tier": "last tier, whose answer is final",
    "relayed": "relayed as it is, nobody judged it",
    "below_threshold": "below its threshold",
    "tied": "exactly at the threshold, and not among those kept there",
    "not_certified": "no certificate for such questions",
    "unknown_confidence": "confidence unknown",
    "cut_off": "reply cut off",
    "guarded": "a guard objected",
    "disagreed": "a second opinion disagreed",
    "skipped": "left out by a policy",
    "failed": "the call failed",
    "too_long": "does not fit its context",
}


def _decisions(view: View, decisions: Decisions) -> Html:
    most = max((one.count for one in decisions.decided), default=1)
    rows = (_decided(one, decisions.requests, most) for one in decisions.decided)
    columns = (
        ("Reason", False), ("Tier", False), ("Decision", False), ("Attempts", True), ("Of requests", True),
        ("", False),
    )  # fmt: skip
    told = f"Why answers were kept or deferred: the newest {counted(decisions.requests, 'request')}"
    head = tag("h2", "Decisions", id="decisions")
    link = tag("a", "See the traces", href=f"{ROOT}/traces{view.filters.query()}", cls="more")
    return tag(
        "section", tag("div", head, link, cls="head"), table(told, columns, rows), cls="card",
        aria_labelledby="decisions",
    )  # fmt: skip


def _decided(one: Decided, requests: int, most: int) -> Html:
    words = REASONS.get(one.reason, one.reason.replace("_", " "))
    if one.guard is not None:
        words = f"guard {one.guard} objected"
    kind = "kept" if one.keep else "deferred"
    bar = tag("rect", width=100 * one.count / most, height=8, rx=2, cls=kind)
    drawing = tag("svg", bar, viewBox="0 0 100 8", preserveAspectRatio="none", aria_hidden="true", cls="share")
    return tag(
        "tr", tag("th", words, scope="row"), tag("td", one.tier), tag("td", chip(kind, kind.capitalize())),
        tag("td", count(one.count), cls="num"), tag("td", share(one.count / requests), cls="num"), tag("td", drawing),
    )  # fmt: skip


def _policies(decisions: Decisions) -> Html | None:
    """What policies last said: of a budget, how it fares and what drop it is paying with."""
    if not decisions.policies:
        return None
    rows = (
        tag(
            "tr", tag("th", one.policy, scope="row"), tag("td", count(one.count), cls="num"),
            tag("td", one.said or "nothing"),
        )
        for one in decisions.policies
    )  # fmt: skip
    told = f"Attempts that a policy decided: the newest {counted(decisions.requests, 'request')}"
    columns = (("Policy", False), ("Attempts", True), ("Last said", False))
    return tag(
        "section", tag("h2", "Policies", id="policies"), table(told, columns, rows), cls="card",
        aria_labelledby="policies",
    )  # fmt: skip


def _by(view: View, name: Dimension, title: str, parts: Sequence[Summary], total: Summary) -> Html:
    columns = (
        (title[:-1], False), ("Requests", True), ("Deferred", True), ("Spent", True), ("Saved", True), ("Median", True),
        ("95 %", True),
    )  # fmt: skip
    rows = joined(_rows(view, name, parts[:_MOST_ROWS]))
    rest = parts[_MOST_ROWS:]
    more = f"{counted(len(rest), 'other')} with {counted(sum(one.traces for one in rest), 'request')}: see the filters."
    return tag(
        "section", tag("h2", title, id=f"by-{name}"),
        table(f"Figures by {title[:-1].lower()}", columns, [rows], hidden_caption=True),
        tag("p", more, cls="note") if rest else None, cls="card", aria_labelledby=f"by-{name}",
    )  # fmt: skip


def _rows(view: View, name: Dimension, parts: Sequence[Summary]) -> Iterator[Html]:
    spent, saved = dollars([one.cost_nano_usd for one in parts]), dollars([one.saved_nano_usd for one in parts])
    for i, one in enumerate(parts):
        value = str(next(iter(one.group.values())))
        href = ROOT + view.filters.having(name, value).query()
        figures = (
            count(one.traces), share(one.deferral_rate), spent[i], saved[i], seconds(one.latency_s(0.5)),
            seconds(one.latency_s(0.95)),
        )  # fmt: skip
        head = tag("th", tag("a", tag("bdi", clipped(view.name(name, value), 40)), href=href), scope="row")
        yield tag("tr", head, (tag("td", told, cls="num") for told in figures))
