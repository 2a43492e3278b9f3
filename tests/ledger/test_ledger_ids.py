from __future__ import annotations

import subprocess
import sys
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from corea.ledger.ids import new_trace_id


@given(st.floats(0, 1e10), st.floats(0, 1e10), st.integers())
def test_ids_of_different_milliseconds_sort_by_time(first_s: float, second_s: float, seed: int) -> None:
    rng = Random(seed)
    first, second = new_trace_id(lambda: first_s, rng), new_trace_id(lambda: second_s, rng)
    if int(first_s * 1000) != int(second_s * 1000):
        assert (first < second) == (first_s < second_s)


def test_ids_are_short_lowercase_and_distinct_within_one_millisecond() -> None:
    ids = {new_trace_id(lambda: 1.7e9) for _ in range(1000)}
    assert len(ids) == 1000
    assert all(len(id) == 24 and id.isalnum() and id == id.lower() for id in ids)


def test_a_seeded_rng_and_a_fixed_clock_make_the_same_id() -> None:
    assert new_trace_id(lambda: 5.0, Random(7)) == new_trace_id(lambda: 5.0, Random(7))


def test_ids_and_the_package_itself_load_without_sqlalchemy() -> None:
    code = (
        "import sys, corea.ledger.ids; corea.ledger.new_trace_id(); print([m for m in sys.modules if 'alchemy' in m])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
