"""Is a confidence true? The reliability diagram from feedback, and what other thresholds would have done.

Asks the ledger nothing itself.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt

from corea.dashboard.charts import WIDTH, Chart, Plane, drawn, nice
from corea.dashboard.data import Judged
from corea.dashboard.figures import Asked, Bin, Judgement, Point, Rate, calibration_error, frontier, rate, reliability
from corea.dashboard.filters import Dimension
from corea.dashboard.html import Child, Html, joined, tag
from corea.dashboard.layout import View, document, empty, figure, filter_bar
from corea.dashboard.overview import kept_accuracy
from corea.dashboard.words import between, count, counted, number, points, share
from corea.ledger.records import Row

#: Answers with feedback below which a diagram would be noise.
LEAST = 30
#: Thresholds drawn as lines; profiles and tasks may have many.
_MOST_THRESHOLDS = 3
#: Reasons of attempts that were, or would have been, decided by their confidence.
_BY_CONFIDENCE = ("confident", "below_threshold", "tied")


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """``asked``: first attempts of the newest requests; ``judged``: attempts that feedback tells of."""

    choices: Mapping[Dimension, Sequence[str]]
    asked: Sequence[Row]
    judged: Sequence[Judged]
    capped: bool


def calibration(view: View, found: Calibration) -> str:
    tier = _first_tier(found)
    body: list[Child] = [tag("h1", "Calibration"), filter_bar(view, found.choices)]
    judgements = _judgements(found.judged, tier)
    told = sum(one.told for one in judgements)
    if tier is None or told < LEAST:
        body.append(_too_few(told, tier))
        return document(view, "Calibration", body, live=True)
    thresholds = _thresholds(found.asked, tier)
    body.append(_lead(found, tier, judgements))
    charts = [figure(_reliability(judgements, tier, thresholds))]
    asked = [_asked(row) for row in found.asked if row["tier"] == tier and _is_priced(row)]
    curve = frontier(asked, judgements, least=LEAST)
    if len(curve) > 1:
        now = _now(found, tier, curve)
        charts.append(figure(_frontier(curve, now, asked, found.judged)))
    body.append(tag("div", charts, cls="charts two"))
    body.append(_method())
    return document(view, "Calibration", body, live=True)


def _too_few(told: int, tier: str | None) -> Html:
    words = f"Feedback on {counted(told, 'kept answer')}"
    words += f" of {tier}" if tier is not None else ""
    words += f" so far; the diagrams are drawn from {LEAST} on. Choose a longer period, or send more: "
    return empty(
        "Too little feedback to tell", words, tag("code", 'POST /v1/corea/feedback {"trace_id": "…", "correct": true}')
    )


def _first_tier(found: Calibration) -> str | None:
    """The tier that is asked first, of most requests."""
    tiers = Counter(row["tier"] for row in found.asked)
    return tiers.most_common(1)[0][0] if tiers else None


def _judgements(judged: Sequence[Judged], tier: str | None) -> list[Judgement]:
    return [
        Judgement(confidence=one.confidence, correct=one.correct, told=one.told)
        for one in judged
        if one.tier == tier and one.confidence is not None and one.reason in _BY_CONFIDENCE
    ]


def _thresholds(asked: Sequence[Row], tier: str) -> list[float]:
    """Those in use, the most frequent first."""
    counts = Counter(row["threshold"] for row in asked if row["tier"] == tier and row["threshold"] is not None)
    return [threshold for threshold, _ in counts.most_common()]


def _is_priced(row: Row) -> bool:
    return None not in (row["attempt_nano_usd"], row["cost_nano_usd"], row["baseline_nano_usd"])


def _asked(row: Row) -> Asked:
    own, cost, alone = row["attempt_nano_usd"], row["cost_nano_usd"], row["baseline_nano_usd"]
    return Asked(
        confidence=row["confidence"] if row["reason"] in _BY_CONFIDENCE else None,
        kept_nano_usd=own,
        deferred_nano_usd=cost if row["deferred"] else own + alone,
        alone_nano_usd=alone,
    )


def _lead(found: Calibration, tier: str, judgements: Sequence[Judgement]) -> Html:
    error = calibration_error(reliability(judgements))
    kept = kept_accuracy(found.judged)
    told = sum(one.told for one in judgements)
    mean = sum(one.confidence for one in judgements if one.told) / max(told, 1)
    words = (
        f"{tier} says {share(mean)} on average of the answers it keeps; {share(kept.value if kept else None)} are right"
    )
    words += f" ({between(kept.low, kept.high)})" if kept else ""
    words += f". Expected calibration error {100 * (error or 0.0):.1f} points, from {counted(told, 'judged answer')}"
    return tag("p", words + (", the newest." if found.capped else "."), cls="lead")


# The reliability diagram

_TALL = 360.0


def _reliability(judgements: Sequence[Judgement], tier: str, thresholds: Sequence[float]) -> Chart:
    bins = reliability(judgements)
    plane = Plane(x=(0.0, 1.0), y=(0.0, 1.0), left=46, top=10, bottom=262)
    ticks = [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    diagonal = tag("line", x1=plane.left, y1=plane.bottom, x2=plane.right, y2=plane.top, cls="diagonal")
    most = max(one.right.n for one in bins)
    parts = [diagonal, *_threshold_lines(plane, thresholds), *(_dot(plane, one, most) for one in bins)]
    label = (
        f"Reliability diagram of {tier}: confidence against the share of right answers, in {counted(len(bins), 'bin')}."
    )
    rows = [
        [f"{100 * one.low_edge:.0f}–{100 * one.high_edge:.0f}", share(one.confidence), share(one.right.value),
         between(one.right.low, one.right.high), count(one.right.n), "told" if one.told else "follows"]
        for one in bins
    ]  # fmt: skip
    svg = drawn(
        label, plane.rows(ticks, _percents), plane.columns(ticks, _percents), joined(parts), _mass(bins, plane),
        plane.named("stated confidence, %", "right, %"), height=_TALL,
    )  # fmt: skip
    legend = [("dot told", "kept answers"), ("line diagonal", "as sure as right")]
    if any(not one.told for one in bins):
        legend.insert(1, ("dot follows", "deferred, as far as comparable"))
    return Chart(
        name="reliability", title="Reliability", label=label, svg=svg, rows=rows, legend=legend,
        columns=("Confidence, %", "Mean", "Right", "95 % interval", "Answers", "How known"),
        note="Below the diagonal: surer than right. Bars hold the 95 % interval; the strip below counts the answers.",
    )  # fmt: skip


def _percents(ticks: Sequence[float]) -> list[str]:
    return [points(tick) for tick in ticks]


def _threshold_lines(plane: Plane, thresholds: Sequence[float]) -> list[Html]:
    found: list[Html] = []
    for i, threshold in enumerate(thresholds[:_MOST_THRESHOLDS]):
        x, y = plane.across(threshold), plane.bottom - 9 - 15 * i
        anchor, dx = ("end", -5) if x > (plane.left + plane.right) / 2 else ("start", 5)
        found.insert(0, tag("line", x1=x, x2=x, y1=plane.top, y2=plane.bottom, cls="threshold"))
        found.append(tag("text", f"threshold {number(threshold)}", x=x + dx, y=y, text_anchor=anchor, cls="mark"))
    return found


def _dot(plane: Plane, one: Bin, most: int) -> Html:
    x, radius = plane.across(one.confidence), 3.2 + 4.0 * sqrt(one.right.n / most)
    cls = "told" if one.told else "follows"
    title = f"{share(one.confidence)} stated, {share(one.right.value)} right of {counted(one.right.n, 'answer')}"
    whisker = tag("line", x1=x, x2=x, y1=plane.up(one.right.low), y2=plane.up(one.right.high), cls=f"whisker {cls}")
    return tag(
        "g", tag("title", title), whisker, tag("circle", cx=x, cy=plane.up(one.right.value), r=radius, cls=f"dot {cls}")
    )


def _mass(bins: Sequence[Bin], above: Plane) -> Html:
    """How many answers are in each bin, below the diagram."""
    counts: dict[float, list[int]] = {}
    for one in bins:
        counts.setdefault(one.low_edge, [0, 0])[0 if one.told else 1] += one.right.n
    plane = Plane(
        x=(0.0, 1.0),
        y=(0.0, float(max(map(sum, counts.values())))),
        left=above.left,
        right=above.right,
        top=304.0,
        bottom=_TALL - 4,
    )
    parts: list[Html] = []
    for edge, (told, follows) in counts.items():
        x, width = plane.across(edge + 0.006), plane.across(0.088) - plane.across(0.0)
        for low, high, cls in ((0, told, "told"), (told, told + follows, "follows")):
            if high > low:
                parts.append(
                    tag(
                        "rect",
                        x=x,
                        y=plane.up(high),
                        width=width,
                        height=plane.up(low) - plane.up(high),
                        cls=f"mass {cls}",
                    )
                )
    return joined([tag("line", x1=plane.left, x2=plane.right, y1=plane.bottom, y2=plane.bottom, cls="axis"), *parts])


# The frontier


@dataclass(frozen=True, slots=True, kw_only=True)
class _Now:
    across: float
    right: Rate


def _across(point: Point) -> float:
    return point.kept if point.saving is None else point.saving


def _now(found: Calibration, tier: str, curve: Sequence[Point]) -> _Now | None:
    """Where the gateway is: what it really kept and saved, and how often what it kept was right."""
    kept = kept_accuracy([one for one in found.judged if one.tier == tier])
    rows = [row for row in found.asked if row["tier"] == tier and _is_priced(row)]
    if kept is None or not rows:
        return None
    alone = sum(row["baseline_nano_usd"] for row in rows)
    if curve[0].saving is None or not alone:
        return _Now(across=sum(not row["deferred"] for row in rows) / len(rows), right=kept)
    return _Now(across=1 - sum(row["cost_nano_usd"] for row in rows) / alone, right=kept)


def _frontier(curve: Sequence[Point], now: _Now | None, asked: Sequence[Asked], judged: Sequence[Judged]) -> Chart:
    saves = curve[0].saving is not None
    xs = [_across(point) for point in curve] + ([now.across] if now else [])
    ys = [bound for point in curve for bound in (point.right.low, point.right.high)]
    x_ticks, y_ticks = nice(min(xs), max(xs), 5), [tick for tick in nice(min(ys), max(ys)) if -0.001 <= tick <= 1.001]
    plane = Plane(x=(x_ticks[0], x_ticks[-1]), y=(y_ticks[0], y_ticks[-1]), top=10, bottom=_TALL - 42)
    places = [(plane.across(_across(point)), plane.up(point.right.value)) for point in curve]
    band = [f"{plane.across(_across(p)):.1f} {plane.up(p.right.high):.1f}" for p in curve]
    band += [f"{plane.across(_across(p)):.1f} {plane.up(p.right.low):.1f}" for p in reversed(curve)]
    solid = sum(point.told for point in curve)
    parts = [tag("path", d="M" + "L".join(band) + "Z", cls="confidence")]
    parts += [
        tag("path", d="M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in some), cls=f"line curve{dashed}")
        for some, dashed in ((places[:solid], ""), (places[max(solid - 1, 0) :], " dashed"))
        if len(some) > 1
    ]
    parts += [_point(place, point) for place, point in zip(places, curve, strict=True)]
    if now is not None:
        parts += _marked(plane, now)
    name = "saved against the last tier alone, %" if saves else "kept, % of requests"
    label = f"Frontier: {name} against the accuracy of what is kept, at {counted(len(curve), 'threshold')}."
    if now is not None:
        label += f" Now: {share(now.across)}, {share(now.right.value)} right."
    svg = drawn(
        label, plane.rows(y_ticks, _percents), plane.columns(x_ticks, _percents), joined(parts),
        plane.named(name, "kept answers right, %"), height=_TALL,
    )  # fmt: skip
    rows = [
        [number(p.threshold), share(p.kept), share(p.saving), share(p.right.value),
         between(p.right.low, p.right.high), count(p.right.n)]
        for p in curve
    ]  # fmt: skip
    legend = [("line curve", "other thresholds"), ("dot now", "now")]
    if solid < len(curve):
        legend.insert(1, ("line curve-dashed", "looser than now: indicative"))
    deferred = _deferred_accuracy(judged)
    note = f"Saving over the newest {counted(len(asked), 'request')}, accuracy from feedback."
    if deferred is not None:
        note += f" Answers of the last tier: {share(deferred.value)} right of {count(deferred.n)}."
    return Chart(
        name="frontier", title="Frontier", label=label, svg=svg, rows=rows, legend=legend, note=note,
        columns=("Threshold", "Kept", "Saved", "Right", "95 % interval", "Answers"),
    )  # fmt: skip


def _point(place: tuple[float, float], point: Point) -> Html:
    title = f"threshold {number(point.threshold)}: {share(point.kept)} kept, {share(point.right.value)} of them right"
    title += "" if point.saving is None else f", {share(point.saving)} saved"
    return tag("g", tag("title", title), tag("circle", cx=place[0], cy=place[1], r=2.6, cls="dot curve"))


def _marked(plane: Plane, now: _Now) -> list[Html]:
    x, y = plane.across(now.across), plane.up(min(max(now.right.value, plane.y[0]), plane.y[1]))
    anchor, dx = ("end", -12) if x > WIDTH / 2 else ("start", 12)
    told = f"now: {share(now.right.value)} right"
    return [
        tag("circle", cx=x, cy=y, r=7, cls="ring"),
        tag("circle", cx=x, cy=y, r=3.4, cls="dot now"),
        tag("text", told, x=x + dx, y=y - 10, text_anchor=anchor, cls="mark strong"),
    ]


def _deferred_accuracy(judged: Sequence[Judged]) -> Rate | None:
    deferred = [one for one in judged if one.told and one.reason == "last_tier"]
    return rate(sum(one.correct for one in deferred), len(deferred))


def _method() -> Html:
    items = (
        "Feedback is about answers that were handed out, so kept answers are told of directly. A deferred answer is "
        "known only where another tier gave the same one, or a right one that differs where only one can be right, "
        "and so more often where tiers agree: hollow points and the dashed line flatter.",
        "What the last tier would have said to a kept question is not known from feedback. So the frontier shows the "
        "accuracy of what is kept, not that of all answers; audits tell that one.",
        "It holds as far as those who give feedback are like those who do not, and promises nothing: certificates do.",
    )
    summary = tag("summary", "How to read these")
    return tag("details", summary, tag("ul", (tag("li", one) for one in items)), cls="card method", id="method")
