"""From audits and feedback to outcomes: a fair sample, and the worst where nobody knows."""

from __future__ import annotations

from typing import Any

import pytest

from corea.audit.recertify import gathered_outcomes, judged
from corea.config import parse
from corea.errors import InputError
from corea.evaluate.pairs import pair_of

CONFIG = parse(
    """
[[tiers]]
name = "small"
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
model = "s"
threshold = 0.8
[[tiers]]
name = "large"
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
model = "l"
""",
    source="test",
)


def sampled(id: str, **more: Any) -> dict[str, Any]:
    return {
        "trace_id": id, "request_task": "maths", "kind": "number", "messages": [{"role": "user", "content": f"? {id}"}],
        "fingerprint": "f", "tier": "small", "confidence": 0.9, "text": "Answer: 42", "reason": "confident",
        "policy": None, "finish_reason": "stop", "small_cost_nano_usd": 1, "large_cost_nano_usd": 20, "state": "done",
        "agrees": True, "was_right": None, **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    "state, agrees, was_right, harm, known",
    [
        ("done", True, None, 0, "agreed"),
        ("done", True, False, 0, "exact"),
        ("done", False, None, 1, "worst"),
        ("done", False, True, -1, "exact"),
        # The large answer may be wrong too, and nobody says so.
        ("done", False, False, 1, "worst"),
        ("failed", None, None, 1, "worst"),
        ("lost", None, True, 0, "worst"),
        ("failed", None, False, 1, "worst"),
        # Here feedback is about the large model's answer.
        ("deferred", False, True, 1, "exact"),
        ("deferred", False, False, 0, "exact"),
        ("deferred", False, None, 1, "worst"),
        ("deferred", True, True, 0, "exact"),
        ("deferred", None, None, 1, "worst"),
    ],
)
def test_harm_is_the_most_that_it_can_be(state: str, agrees: Any, was_right: Any, harm: int, known: str) -> None:
    small, large, told = judged({"state": state, "agrees": agrees, "was_right": was_right})
    assert (large - small, told) == (harm, known)


def test_outcomes_have_both_tiers_and_what_each_answer_cost() -> None:
    rows = [sampled("a"), sampled("b", agrees=False, was_right=True), sampled("c", state="failed", agrees=None)]
    found = gathered_outcomes([*rows, sampled("d", fingerprint="other")], CONFIG, fingerprint="f")
    assert (found.exact, found.agreed, found.worst, found.other) == (1, 1, 1, 1)
    pair, left_out = pair_of(found.outcomes)
    assert (pair.small, pair.large, len(pair), left_out) == ("small", "large", 3, 0)
    assert list(pair.small_correct - pair.large_correct) == [0.0, 1.0, -1.0]
    assert list(pair.judged_by("logprob").small_cost_nano_usd) == [1.0] * 3
    assert list(pair.large_cost_nano_usd) == [20.0] * 3
    assert list(pair.questions) == ["? a", "? b", "? c"]


def test_what_a_guard_objected_to_is_never_kept() -> None:
    found = gathered_outcomes([sampled("a", reason="guarded"), sampled("b")], CONFIG, fingerprint="f")
    pair, _ = pair_of(found.outcomes)
    assert [str(one) for one in pair.confidence["logprob"]] == ["nan", "0.9"]


def test_what_a_gate_left_out_is_never_kept_and_what_a_policy_left_out_says_nothing() -> None:
    by_gate = sampled("a", state="deferred", agrees=None, confidence=None, reason="skipped", policy="gate")
    found = gathered_outcomes([by_gate, {**by_gate, "policy": "budget"}, sampled("b")], CONFIG, fingerprint="f")
    pair, _ = pair_of(found.outcomes)
    assert (len(pair), found.other) == (2, 1)
    assert [str(one) for one in pair.confidence["logprob"]] == ["nan", "0.9"]


def test_a_ledger_without_whole_texts_and_a_ladder_are_refused() -> None:
    silent = CONFIG.model_copy(update={"ledger": CONFIG.ledger.model_copy(update={"redact": ("x",)})})
    with pytest.raises(InputError, match="which this ledger does not keep as it was"):
        gathered_outcomes([sampled("a")], silent, fingerprint="f")
    three = CONFIG.model_copy(update={"tiers": (*CONFIG.tiers, CONFIG.tiers[-1])})
    with pytest.raises(InputError, match="corea eval ladder"):
        gathered_outcomes([sampled("a")], three, fingerprint="f")
    with pytest.raises(InputError, match="none of 1 audited questions was asked of this configuration"):
        gathered_outcomes([sampled("a")], CONFIG, fingerprint="g")
