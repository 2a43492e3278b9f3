"""The set that a million ids fit in behaves as a set."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from corea.batch.keys import Keys, key

# The key zero is taken for the key one: see the last test.
_any = st.binary(min_size=8, max_size=8).filter(lambda one: one != bytes(8))
_keys = st.lists(st.one_of(_any, st.integers(0, 50).map(lambda n: key(str(n)))))


def filled(keys: list[bytes]) -> Keys:
    made = Keys()
    for one in keys:
        made.add(one)
    return made


@given(_keys, _keys)
def test_it_holds_what_was_put_in_and_nothing_else(keys: list[bytes], others: list[bytes]) -> None:
    made = filled(keys)
    assert len(made) == len(set(keys))
    assert all(one in made for one in keys)
    assert [one in made for one in others] == [one in set(keys) for one in others]
    assert filled(others).missing_from(made) == len(set(others) - set(keys))


def test_it_keeps_all_of_them_as_it_grows() -> None:
    made = filled([key(str(n)) for n in range(5000)])
    assert len(made) == 5000
    assert all(key(str(n)) in made for n in range(5000))
    assert not any(key(str(n)) in made for n in range(5000, 10_000))


def test_a_key_may_be_zero() -> None:
    zero = bytes(8)
    made = Keys()
    assert zero not in made
    made.add(zero)
    made.add(zero)
    assert zero in made
    assert len(made) == 1
