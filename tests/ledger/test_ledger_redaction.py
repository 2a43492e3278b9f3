from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from corea.errors import ConfigError
from corea.ledger import Ledger, get_trace
from corea.types import Confidence, Failure, Message, Trace
from ledger.samples import trace, url_of
from ledger.stores import Place

CANARY = "sk-canary-12345"
PATTERN = r"sk-[a-z]+-\d+"


def full_of_secrets() -> Trace:
    one = trace(id="one", tiers=("small", "large"), metadata={f"a {CANARY}": [{"b": f"{CANARY}!"}, CANARY, 1, None]})
    request = replace(
        one.request,
        messages=(Message(role="system", content=f"key: {CANARY}"), Message(role="user", content=f"{CANARY} 6 × 7?")),
        id=CANARY,
        task=CANARY,
    )
    tried = tuple(
        replace(
            a,
            text=f"I read {CANARY}.",
            answer=CANARY,
            finish_reason=CANARY,
            confidence=Confidence.unknown("verbalized", f"no line in {CANARY}"),
            failure=Failure(kind="UpstreamStatus", message=f"bad key {CANARY}"),
        )
        for a in one.attempts
    )
    return replace(one, request=request, attempts=tried)


def test_what_matches_is_never_in_the_file(tmp_path: Path) -> None:
    def written() -> list[bytes]:
        return [file.read_bytes() for file in tmp_path.iterdir() if file.is_file()]

    with Ledger.open(url_of(tmp_path / "ledger.db"), redact=[PATTERN]) as ledger:
        asyncio.run(ledger.write(full_of_secrets()))
        asyncio.run(ledger.add_feedback("one", 1.0, f"it said {CANARY}"))
        # Before it is closed, what was written is in the log (-wal).
        assert any(b"[redacted]" in content for content in written())
        assert not any(CANARY.encode() in content for content in written())
    assert any(b"[redacted]" in content for content in written())
    assert not any(CANARY.encode() in content for content in written())


def test_the_rest_of_the_text_stays(place: Place) -> None:
    with Ledger.open(place.url, redact=["nothing", PATTERN]) as ledger:
        asyncio.run(ledger.write(full_of_secrets()))
        stored = get_trace(ledger, "one")
    assert stored.request.question == "[redacted] 6 × 7?"
    assert stored.text == "I read [redacted]."
    assert stored.metadata == {"a [redacted]": [{"b": "[redacted]!"}, "[redacted]", 1, None]}
    assert CANARY not in repr(stored)


@pytest.mark.parametrize("pattern,told", [("(", "not a regular expression"), ("x*", "matches the empty text")])
def test_a_pattern_that_cannot_work_is_refused_before_anything_is_made(tmp_path: Path, pattern: str, told: str) -> None:
    with pytest.raises(ConfigError, match=rf"ledger.redact\[1\]: {told}"):
        Ledger.open(url_of(tmp_path / "ledger.db"), redact=["fine", pattern])
    assert list(tmp_path.glob("ledger*")) == []
