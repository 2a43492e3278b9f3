"""Foreign outcomes: every line is taken in or named, nothing is written before all of them are checked."""

from __future__ import annotations

import gzip
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corea.errors import InputError
from corea.evaluate.imported import Imported, import_outcomes
from corea.evaluate.outcomes import read
from corea.evaluate.pairs import pair_of

GOOD: dict[str, Any] = {"id": "q1", "tier": "small", "correct": 1, "confidence": 0.5}


def imported(folder: Path, *lines: object) -> Imported:
    (folder / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return import_outcomes(folder / "in.jsonl", folder / "out.parquet")


def mistake(folder: Path, *lines: object) -> str:
    with pytest.raises(InputError) as caught:
        imported(folder, *lines)
    assert "\n" not in str(caught.value)
    assert not (folder / "out.parquet").exists()
    assert not (folder / "out.parquet.partial").exists()
    return str(caught.value)


def test_all_that_a_line_says_is_read_back(tmp_path: Path) -> None:
    full = {
        "id": 7, "tier": "small", "correct": 0.5, "confidence": {"logprob": 0.25, "p_true": None}, "cost_usd": 0.0012,
        "prompt_tokens": 20, "completion_tokens": 5, "latency_ms": 1500, "task": "toy", "domain": "maths",
        "kind": "number", "question": "6 × 7?", "gold": 42, "answer": "42", "text": "It is 42.",
        "finish_reason": "stop",
    }  # fmt: skip
    taken = imported(tmp_path, full, {**full, "tier": "large", "confidence": None, "cost_usd": 0.1})
    assert (taken.rows, taken.questions, taken.tiers, taken.signals) == (2, 1, ("small", "large"), ("logprob",))
    assert taken.ordered_by_cost
    small, large = read(tmp_path / "out.parquet").table.to_pylist()
    assert small == {
        "id": "7", "tier": "small", "task": "toy", "domain": "maths", "kind": "number", "question": "6 × 7?",
        "gold": "42", "answer": "42", "text": "It is 42.", "correct": 0.5, "error": None, "finish_reason": "stop",
        "prompt_tokens": 20, "completion_tokens": 5, "cost_nano_usd": 1_200_000, "latency_s": 1.5,
        "confidence.logprob": 0.25, "signal_cost_nano_usd.logprob": None,
    }  # fmt: skip
    assert large["confidence.logprob"] is None


def test_three_keys_are_enough_and_a_plain_number_is_a_confidence(tmp_path: Path) -> None:
    imported(tmp_path, GOOD, {"id": "q1", "tier": "large", "correct": True})
    pair, _ = pair_of(read(tmp_path / "out.parquet"))
    assert pair.confidence["confidence"].tolist() == [0.5]
    assert np.isnan(pair.small_cost_nano_usd).all()
    assert pair.large_correct.tolist() == [1.0]


def test_tiers_go_from_cheap_to_dear_or_as_they_come_where_a_cost_is_unknown(tmp_path: Path) -> None:
    dear = {**GOOD, "tier": "dear", "cost_usd": 2}
    assert imported(tmp_path, dear, {**GOOD, "cost_usd": 1}).tiers == ("small", "dear")
    pair, _ = pair_of(read(tmp_path / "out.parquet"))
    assert pair.judged_by("confidence").small_cost_nano_usd.tolist() == [1e9]
    unknown = imported(tmp_path, dear, GOOD)
    assert (unknown.tiers, unknown.ordered_by_cost) == (("dear", "small"), False)


def test_keys_without_a_place_are_counted_not_forgotten(tmp_path: Path) -> None:
    taken = imported(tmp_path, {**GOOD, "prompt": "?", "row": 1}, {**GOOD, "id": "q2", "prompt": "?", "model_dump": 3})
    assert taken.ignored == {"prompt": 2, "row": 1, "model_dump": 1}
    assert json.loads(json.dumps(asdict(taken)))["ignored"] == taken.ignored


def test_a_failed_attempt_stays_and_says_why_and_an_empty_error_is_none(tmp_path: Path) -> None:
    imported(
        tmp_path,
        {**GOOD, "error": ""},
        {**GOOD, "tier": "large", "correct": 0, "error": "HTTP 500"},
    )
    found = read(tmp_path / "out.parquet")
    assert found.table["error"].to_pylist() == [None, "HTTP 500"]
    with pytest.raises(InputError, match="large: HTTP 500"):
        pair_of(found)


def test_half_a_surrogate_pair_costs_its_character_not_the_file(tmp_path: Path) -> None:
    imported(tmp_path, {**GOOD, "question": "a\ud800b", "error": "\ud800"})
    found = read(tmp_path / "out.parquet").table
    assert (found["question"].to_pylist(), found["error"].to_pylist()) == (["a?b"], ["?"])


def test_a_gzipped_file_is_read_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_bytes(gzip.compress(json.dumps(GOOD).encode() + b"\n\n"))
    assert import_outcomes(tmp_path / "in.jsonl", tmp_path / "out.parquet").rows == 1


@pytest.mark.parametrize(
    "change,words",
    [
        ({"id": None}, "id: input should be a valid string, not None"),
        ({"id": ""}, "id: string should have at least 1 character, not ''"),
        ({"tier": ["small"]}, "tier: input should be a valid string; correct the line"),
        ({"correct": "perhaps"}, "correct: input should be a valid number"),
        ({"correct": 2}, "correct: input should be less than or equal to 1, not 2"),
        ({"correct": None}, "correct: input should be a valid number, not None"),
        ({"correct": float("nan")}, "correct: input should be a finite number, not nan"),
        ({"confidence": 1.01}, "confidence: input should be less than or equal to 1, not 1.01"),
        ({"confidence": -1}, "confidence: input should be greater than or equal to 0, not -1"),
        ({"confidence": float("nan")}, "confidence: input should be a finite number, not nan"),
        ({"confidence": float("inf")}, "confidence: input should be a finite number, not inf"),
        ({"confidence": {"p_true": 7}}, "confidence.p_true: input should be less than or equal to 1, not 7"),
        ({"confidence": {"": 0.5}}, "confidence"),
        ({"confidence": "high"}, "not 'high'"),
        ({"cost_usd": -1}, "cost_usd: input should be greater than or equal to 0"),
        ({"cost_usd": 1e300}, "cost_usd: input should be less than or equal to 1000000"),
        ({"prompt_tokens": 2**70}, "prompt_tokens: input should be less than or equal to"),
        ({"prompt_tokens": 1.5}, "prompt_tokens: input should be a valid integer"),
        ({"id": "\ud800"}, "id: input should be a valid string"),
        ({"text": ["x" * 10_000]}, "text: input should be a valid string; correct"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_its_line(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    told = mistake(tmp_path, {**GOOD, "id": "q0"}, {**GOOD, **change})
    assert "in.jsonl: line 2: " in told
    assert words in told
    assert told.endswith("correct the line, or leave it out")


@pytest.mark.parametrize("lacking", ["id", "tier", "correct"])
def test_a_line_that_lacks_what_it_needs_is_named(tmp_path: Path, lacking: str) -> None:
    told = mistake(tmp_path, {name: value for name, value in GOOD.items() if name != lacking})
    assert f"line 1: {lacking}: field required; correct the line" in told


def test_a_row_that_repeats_is_named(tmp_path: Path) -> None:
    other = {**GOOD, "tier": "large"}
    assert 'line 3: "q1" has a row of tier "small" already' in mistake(tmp_path, GOOD, other, {**GOOD, "correct": 0})
    assert 'line 2: "1" has a row' in mistake(tmp_path, {**GOOD, "id": 1}, {**GOOD, "id": "1"})


def test_a_very_long_value_is_not_repeated_whole(tmp_path: Path) -> None:
    assert len(mistake(tmp_path, {**GOOD, "correct": "x" * 100_000})) < 400


@pytest.mark.parametrize(
    "content,words",
    [
        (b"", "holds no outcomes"),
        (b"\n \n", "holds no outcomes"),
        (b"oops", "line 1: not JSON"),
        (b'{"id": "a"', "line 1: not JSON"),
        (b"\xff\xfe\xff", "line 1: not JSON"),
        (b"[1, 2]", "line 1: not a JSON object"),
        (b"null", "line 1: not a JSON object"),
        (b"[" * 100_000, "line 1: not JSON"),
        (gzip.compress(b"{}")[:-6], "cannot read"),
        (b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xff\xff\xff", "cannot read"),
    ],
)
def test_what_is_no_outcomes_is_told(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "in.jsonl").write_bytes(content)
    with pytest.raises(InputError) as caught:
        import_outcomes(tmp_path / "in.jsonl", tmp_path / "out.parquet")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.parquet").exists()


def test_files_that_cannot_be_used_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read .*none.jsonl: No such file"):
        import_outcomes(tmp_path / "none.jsonl", tmp_path / "out.parquet")
    imported(tmp_path, GOOD)
    with pytest.raises(InputError, match="is the input; choose another --out"):
        import_outcomes(tmp_path / "in.jsonl", tmp_path / "." / "in.jsonl")
    assert json.loads((tmp_path / "in.jsonl").read_text()) == GOOD
    with pytest.raises(InputError, match="cannot write .*No such file or directory; choose another --out"):
        import_outcomes(tmp_path / "in.jsonl", tmp_path / "none" / "out.parquet")


# Whatever a line says -------------------------------------------------------------------------------------------------

_odd = st.sampled_from(["", "NaN", "\ud800", "0.5", "é", 0, 1, -1, 0.5, 10**30, 1e308, -0.0])
_scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), _odd)
_json = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)  # fmt: skip
_signals = st.dictionaries(st.sampled_from(["logprob", "p_true", "é"]), st.one_of(st.none(), st.floats(0, 1)))
_fits: dict[str, st.SearchStrategy[Any]] = {
    "id": st.sampled_from(["a", "b", "c", "é", 1]),
    "tier": st.sampled_from(["small", "large"]),
    "correct": st.sampled_from([0, 1, 0.5, True]),
    "confidence": st.one_of(st.none(), st.floats(0, 1), _signals),
    "cost_usd": st.floats(0, 10),
    "latency_ms": st.floats(0, 1e6),
    "prompt_tokens": st.integers(0, 10**6),
    "text": st.text(st.characters(codec=None), max_size=5),
}
_good = st.fixed_dictionaries(
    {name: _fits[name] for name in ("id", "tier", "correct")},
    optional={**{name: _fits[name] for name in list(_fits)[3:]}, "extra": _json, "model_fields": _json},
)
_spoilt = st.fixed_dictionaries({}, optional={name: st.one_of(fits, _json) for name, fits in _fits.items()})


@given(
    lines=st.one_of(
        st.lists(_good, min_size=1, max_size=4, unique_by=lambda line: (str(line["id"]), line["tier"])),
        st.lists(st.one_of(_good, _spoilt, _json), max_size=4),
    ),
    ascii_only=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_any_json_lines_are_all_taken_in_or_refused_as_a_whole(
    tmp_path_factory: pytest.TempPathFactory, lines: list[Any], ascii_only: bool
) -> None:
    folder = tmp_path_factory.mktemp("fuzz", numbered=True)
    text = "\n".join(json.dumps(line, ensure_ascii=ascii_only) for line in lines)
    (folder / "in.jsonl").write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        taken = import_outcomes(folder / "in.jsonl", folder / "out.parquet")
    except InputError:
        assert list(folder.iterdir()) == [folder / "in.jsonl"]
        return
    found = read(folder / "out.parquet")
    assert found.table.num_rows == taken.rows == len(lines)
    assert (found.tiers, found.signals) == (taken.tiers, taken.signals)


@given(st.binary(max_size=50))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_refused_or_read(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("bytes", numbered=True)
    for number, data in enumerate((content, b"\x1f\x8b" + content, gzip.compress(content)[:-1])):
        source = folder / str(number)
        source.write_bytes(data)
        with pytest.raises(InputError):
            import_outcomes(source, folder / "out.parquet")
