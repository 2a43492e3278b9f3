"""One trace: why its answer was kept or deferred, attempt by attempt. Asks the ledger nothing itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from corea.dashboard.charts import Plane
from corea.dashboard.html import Child, Html, tag
from corea.dashboard.layout import ROOT, WHY, View, at, chip, document, scrolling
from corea.dashboard.words import count, counted, money, number, seconds
from corea.ledger.records import Row
from corea.policy.explain import explain, explain_trace
from corea.types import Attempt, Trace, Usage

#: Longer texts begin folded.
_OPEN = 1200


def detail(view: View, trace: Trace, said: Sequence[Row]) -> str:
    kind, word = (
        ("failed", "Failed")
        if trace.final is None
        else ("deferred", "Deferred")
        if trace.deferred
        else ("kept", "Kept")
    )
    title = f"Trace {trace.id}"
    crumbs = tag("nav", tag("a", "Traces", href=f"{ROOT}/traces"), aria_label="Where you are", cls="crumbs")
    head = tag("div", tag("h1", "Trace ", tag("code", trace.id)), chip(kind, word), cls="title")
    why = tag(
        "section",
        tag("h2", WHY[kind], id="why"),
        tag("p", explain_trace(trace)),
        cls=f"card why {kind}",
        aria_labelledby="why",
    )
    attempts = [_attempt(i, attempt, is_final=i == trace.final) for i, attempt in enumerate(trace.attempts)]
    left = tag(
        "div",
        why,
        _conversation(trace),
        tag("h2", "Attempts", cls="part"),
        tag("ol", attempts, cls="attempts"),
        cls="wide",
    )
    right = tag("div", _facts(view, trace), _feedback(said), _metadata(trace.metadata), cls="side")
    return document(view, title, crumbs, head, tag("div", left, right, cls="split"))


def _conversation(trace: Trace) -> Html:
    messages = trace.request.messages
    if not messages:
        return tag(
            "section",
            tag("h2", "Question"),
            tag("p", "Its text is not stored: store_texts is off.", cls="quiet"),
            cls="card",
        )
    earlier = [_said(message.role, message.content) for message in messages[:-1]]
    folded = (
        tag("details", tag("summary", counted(len(earlier), "earlier message")), earlier, id="earlier")
        if earlier
        else None
    )
    return tag("section", tag("h2", "Question"), folded, _text(messages[-1].content, "question"), cls="card")


def _said(role: str, content: str) -> Html:
    return tag("div", tag("h3", role), _text(content, "message"), cls="said")


def _text(content: str, what: str) -> Html:
    block = tag("pre", tag("bdi", content), cls="text")
    if len(content) <= _OPEN:
        return block
    return tag("details", tag("summary", f"The {what}: {counted(len(content), 'character')}"), block)


def _attempt(place: int, attempt: Attempt, *, is_final: bool) -> Html:
    kept = attempt.decision.keep
    chips = [chip("kept" if kept else "deferred", "Kept" if kept else "Deferred")]
    if is_final:
        chips.append(chip("final", "Handed out"))
    head = tag("div", tag("h3", tag("bdi", attempt.tier), tag("small", tag("bdi", attempt.model))), chips, cls="head")
    body: list[Child] = [head, tag("p", explain(attempt), cls="because"), _gauge(attempt)]
    if attempt.failure is not None:
        body.append(tag("p", tag("strong", attempt.failure.kind), ": ", attempt.failure.message, cls="failure"))
    body.append(_attempt_facts(attempt))
    if attempt.text:
        body.append(
            tag(
                "details",
                tag("summary", "Reply"),
                tag("pre", tag("bdi", attempt.text), cls="text"),
                id=f"reply-{place}",
            )
        )
    return tag("li", body, cls="card attempt")


def _gauge(attempt: Attempt) -> Html | None:
    """Confidence against threshold on a line from 0 to 1."""
    confidence, threshold = attempt.confidence.value, attempt.decision.threshold
    if confidence is None:
        return None
    plane = Plane(x=(0.0, 1.0), y=(0.0, 1.0), left=4, right=416, top=0, bottom=40)
    x = plane.across(confidence)
    told = f"Confidence {number(confidence)}"
    parts = [
        tag("rect", x=plane.left, y=18, width=plane.right - plane.left, height=6, rx=3, cls="rail"),
        tag(
            "rect",
            x=plane.left,
            y=18,
            width=max(x - plane.left, 1.0),
            height=6,
            rx=3,
            cls="kept" if attempt.decision.keep else "deferred",
        ),
    ]
    if threshold is not None:
        told += f", threshold {number(threshold)}"
        at_ = plane.across(threshold)
        anchor = "end" if at_ > 260 else "start"
        parts.append(tag("line", x1=at_, x2=at_, y1=11, y2=31, cls="threshold"))
        parts.append(
            tag(
                "text",
                f"threshold {number(threshold)}",
                x=at_ - 5 if anchor == "end" else at_ + 5,
                y=40,
                text_anchor=anchor,
                cls="tick",
            )
        )
    parts.append(
        tag(
            "text",
            f"confidence {number(confidence)}",
            x=min(max(x, 60.0), 360.0),
            y=11,
            text_anchor="middle",
            cls="mark",
        )
    )
    return tag("svg", parts, viewBox="0 0 420 44", cls="gauge", role="img", aria_label=told)


def _attempt_facts(attempt: Attempt) -> Html:
    facts: list[tuple[str, Child]] = [("Cost", money(attempt.cost_nano_usd)), ("Latency", seconds(attempt.latency_s))]
    facts.append(("Tokens", _tokens(attempt.usage)))
    if attempt.confidence_usage is None or attempt.confidence_usage.completion_tokens:
        facts.append(("Tokens for its confidence", _tokens(attempt.confidence_usage)))
    facts.append(("Confidence from", attempt.confidence.source or "–"))
    if attempt.confidence.note:
        facts.append(("Note on it", attempt.confidence.note))
    decision = attempt.decision
    facts += [
        (name, value)
        for name, value in (("Guard", decision.guard), ("Policy", decision.policy), ("Note", decision.note))
        if value
    ]
    if attempt.answer is not None:
        facts.append(("Answer", tag("bdi", attempt.answer)))
    if attempt.finish_reason:
        facts.append(("Ended", attempt.finish_reason))
    return _list(facts)


def _tokens(usage: Usage | None) -> str:
    if usage is None:
        return "not counted"
    return f"{count(usage.prompt_tokens)} in, {count(usage.completion_tokens)} out"


def _facts(view: View, trace: Trace) -> Html:
    key = trace.metadata.get("key")
    facts: list[tuple[str, Child]] = [
        ("Route", view.name("route", trace.tier or "")),
        ("Confidence", number(trace.confidence)),
        ("Cost", money(trace.cost_nano_usd)),
        ("Last tier alone", money(trace.baseline_nano_usd)),
        ("Saved", money(trace.saved_nano_usd)),
        ("Took", seconds(trace.elapsed_s)),
        ("Began (UTC)", at(trace.started_at_unix_s)),
        ("Task", trace.request.task or "–"),
        ("Kind", trace.request.kind or "–"),
        ("Key", view.name("key", key) if isinstance(key, str) else "–"),
        ("Request id", tag("code", trace.request.id or "–")),
        ("Configuration", tag("code", trace.fingerprint or "–")),
        ("Prices of", trace.prices_version or "–"),
    ]
    return tag("section", tag("h2", "Facts", id="facts"), _list(facts), cls="card", aria_labelledby="facts")


def _feedback(said: Sequence[Row]) -> Html:
    inner = tag("ul", map(_said_so, said), cls="feedback") if said else tag("p", "None so far.", cls="quiet")
    return tag("section", tag("h2", "Feedback", id="feedback"), inner, cls="card", aria_labelledby="feedback")


def _said_so(row: Row) -> Html:
    note = tag("p", tag("bdi", row["note"])) if row["note"] else None
    by = (tag("strong", _judged(row["correct"])), " by ", tag("bdi", row["source"]), ", ", at(row["at_unix_s"]))
    return tag("li", by, note)


def _judged(correct: float) -> str:
    return {1.0: "Right", 0.0: "Wrong"}.get(correct, f"{number(correct)} right")


def _metadata(metadata: Mapping[str, Any]) -> Html | None:
    if not metadata:
        return None
    told = json.dumps(metadata, indent=2, ensure_ascii=False, sort_keys=True, default=str)
    block = scrolling(tag("pre", tag("bdi", told), cls="text"), "Metadata")
    return tag(
        "section", tag("h2", "Sampling and metadata", id="metadata"), block, cls="card", aria_labelledby="metadata"
    )


def _list(facts: Sequence[tuple[str, Child]]) -> Html:
    return tag("dl", (tag("div", tag("dt", name), tag("dd", value)) for name, value in facts), cls="facts")
