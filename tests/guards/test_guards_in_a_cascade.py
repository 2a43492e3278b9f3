"""Guards as a tier asks them: after the threshold, whatever the confidence, and never of the last tier."""

from __future__ import annotations

import asyncio
from pathlib import Path

from corea import Cascade
from corea.confidence.named import estimator
from corea.guards.registry import GUARDS
from corea.ledger import Ledger, get_trace, reading
from corea.models.scripted import ScriptedModel, Step, scripted_answer, scripted_reply
from corea.policy.explain import explain_trace
from corea.tier import Tier
from corea.types import Reason, Trace

SURE = -0.001
DECLINES = scripted_reply("I'm sorry, but I can't help with that.", logprob=SURE)


def asked(small: Step, *, guards: bool = True, threshold: float = 0.5, ledger: Ledger | None = None) -> Trace:
    tiers = [
        Tier(
            name="small", model=ScriptedModel("s", replies=[small]), estimator=estimator("logprob"),
            threshold=threshold, guards=GUARDS if guards else (),
        ),
        Tier(name="large", model=ScriptedModel("l", replies=[DECLINES]), guards=GUARDS),
    ]  # fmt: skip

    async def main() -> Trace:
        async with Cascade(tiers, ledger=ledger) as cascade:
            return await cascade.ask("What is 6 × 7?")

    return asyncio.run(main())


def test_a_sure_answer_that_declines_is_deferred_and_the_trace_names_the_guard() -> None:
    trace = asked(DECLINES)
    first = trace.attempts[0].decision
    assert (first.keep, first.reason, first.guard) == (False, Reason.GUARDED, "refusal")
    assert explain_trace(trace).startswith(f"Deferred from small: the guard refusal objected: {first.note}.")


def test_the_last_tiers_answer_is_final_whatever_it_says() -> None:
    assert asked(DECLINES).tier == "large"


def test_without_guards_the_same_answer_is_kept() -> None:
    assert asked(DECLINES, guards=False).tier == "small"


def test_an_answer_that_no_guard_objects_to_is_kept() -> None:
    decision = asked(scripted_answer("42", logprob=SURE)).attempts[0].decision
    assert (decision.keep, decision.guard, decision.note) == (True, None, None)


def test_what_is_below_the_threshold_is_deferred_for_that_and_no_guard_is_asked() -> None:
    decision = asked(scripted_reply("I'm sorry, but I can't help with that.", logprob=-3.0)).attempts[0].decision
    assert (decision.reason, decision.guard) == (Reason.BELOW_THRESHOLD, None)


def test_the_ledger_keeps_which_guard_objected_and_why(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'l.db'}"
    trace = asked(DECLINES, ledger=Ledger.open(url))
    with reading(url) as ledger:
        assert get_trace(ledger, trace.id) == trace
