from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from corea.ledger import Ledger, get_trace, list_traces
from corea.ledger.schema import escape, unescape
from corea.types import Attempt, Confidence, Decision, Failure, Message, Reason, Request, Trace, Usage
from ledger.samples import sql, trace, url_of
from ledger.stores import Place

# Surrogates too: a model's JSON may hold a lone \\ud800, and Python reads it as such.
any_text = st.text(st.characters(exclude_categories=()), max_size=20) | st.sampled_from(["\x00", "\x1a", "\x1a0000"])
maybe_text = st.none() | any_text
counts = st.integers(-(2**62), 2**62)
maybe_money = st.none() | counts
seconds = st.floats(allow_nan=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=5,
)
messages = st.builds(Message, role=st.sampled_from(["system", "user", "assistant"]), content=any_text)
requests = st.builds(
    Request,
    messages=st.lists(messages, max_size=3).map(tuple),
    id=maybe_text,
    task=maybe_text,
    kind=st.sampled_from([None, "number", "expression", "choice", "boolean", "text"]),
)
usages = st.builds(
    Usage, prompt_tokens=counts, cached_prompt_tokens=counts, completion_tokens=counts, reasoning_tokens=counts
)
attempts = st.builds(
    Attempt,
    tier=any_text,
    model=any_text,
    decision=st.builds(Decision, keep=st.booleans(), reason=st.sampled_from(Reason), threshold=st.none() | seconds),
    confidence=st.builds(Confidence, value=st.none() | st.floats(0, 1), source=any_text, note=maybe_text),
    text=any_text,
    answer=maybe_text,
    finish_reason=maybe_text,
    usage=st.none() | usages,
    confidence_usage=st.none() | usages,
    cost_nano_usd=maybe_money,
    latency_s=seconds,
    failure=st.none() | st.builds(Failure, kind=any_text, message=any_text),
)


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    tried = tuple(draw(st.lists(attempts, max_size=3)))
    return Trace(
        id=draw(any_text),
        request=draw(requests),
        attempts=tried,
        final=draw(st.none() | st.integers(0, len(tried) - 1)) if tried else None,
        started_at_unix_s=draw(seconds),
        elapsed_s=draw(seconds),
        cost_nano_usd=draw(maybe_money),
        baseline_nano_usd=draw(maybe_money),
        fingerprint=draw(any_text),
        prices_version=draw(any_text),
        metadata=draw(st.dictionaries(any_text, json_values, max_size=3)),
    )


def test_any_trace_reads_back_equal_to_the_one_written(place: Place) -> None:
    number = itertools.count()
    with Ledger.open(place.url) as ledger:

        @settings(deadline=None, max_examples=70)
        @given(traces())
        def reads_back(one: Trace) -> None:
            unique = replace(one, id=f"{next(number)}-{one.id}")
            asyncio.run(ledger.write(unique))
            assert get_trace(ledger, unique.id) == unique

        reads_back()


@given(any_text)
@example("\x1a0000\x00\ud800\udfff\U0010ffff")
def test_escaped_text_can_be_stored_anywhere_and_comes_back(text: str) -> None:
    stored = escape(text)
    assert "\x00" not in stored
    stored.encode()
    assert unescape(stored) == text


def test_ordinary_text_is_stored_as_it_is() -> None:
    assert escape("¿Cuánto? 6 × 7 = 42 \N{SMILING FACE WITH SUNGLASSES}\n\t") == (
        "¿Cuánto? 6 × 7 = 42 \N{SMILING FACE WITH SUNGLASSES}\n\t"
    )


def test_without_texts_nothing_the_user_or_a_model_wrote_is_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    one = trace(tiers=("small", "large"))
    with Ledger.open(url_of(path), store_texts=False) as ledger:
        asyncio.run(ledger.write(one))
        stored = get_trace(ledger, one.id)
        listed = list_traces(ledger)
    assert sql(path, "SELECT messages, text, answer FROM traces") == [(None, None, None)]
    assert sql(path, "SELECT text, answer FROM attempts") == [(None, None)] * 2
    for file in tmp_path.iterdir():
        content = file.read_bytes()
        assert b"42" not in content.replace(one.id.encode(), b"")
        assert "6 × 7".encode() not in content
    without: dict[str, Any] = {"text": "", "answer": None}
    assert stored == replace(
        one,
        request=replace(one.request, messages=()),
        attempts=tuple(replace(attempt, **without) for attempt in one.attempts),
    )
    assert (listed[0].question, listed[0].answer) == (None, None)
