"""Answers are seen in the order they were asked, whatever their audits do."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corea.audit.order import InOrder


def test_nothing_is_seen_past_an_audit_that_has_not_ended() -> None:
    queue: InOrder[str] = InOrder()
    queue.add("a")
    waiting = queue.add()
    queue.add("c")
    assert list(queue.ready()) == ["a"]
    queue.end(waiting, "b")
    queue.end(waiting, "again")
    assert list(queue.ready()) == ["b", "c"]
    assert len(queue) == 0


@given(audited=st.lists(st.booleans(), max_size=30), data=st.data())
def test_all_are_seen_once_and_in_order(audited: list[bool], data: st.DataObject) -> None:
    queue: InOrder[int] = InOrder()
    places = [queue.add(None if late else number) for number, late in enumerate(audited)]
    seen = list(queue.ready())
    for number in data.draw(st.permutations([n for n, late in enumerate(audited) if late])):
        queue.end(places[number], number)
        seen += queue.ready()
    assert seen == list(range(len(audited)))
