"""Two tiers side by side: what is paired, what is left out and counted, and what is refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corea.errors import InputError
from corea.evaluate.outcomes import CONFIDENCE, SIGNAL_COST, Outcomes, read, write
from corea.evaluate.pairs import has_texts, merge, pair_of, tie_keys
from corea.policy.thresholds import decide
from corea.types import Confidence

Rows = list[dict[str, Any]]


def row(id: str, tier: str, **values: Any) -> dict[str, Any]:
    return {"id": id, "tier": tier, "task": "toy", "question": f"say {id}", "gold": id, "correct": 1.0, **values}


def both(*ids: str) -> Rows:
    small = [row(id, "small", cost_nano_usd=3, **{CONFIDENCE + "logprob": 0.5}) for id in ids]
    return [*small, *(row(id, "large", cost_nano_usd=40) for id in ids)]


def outcomes(folder: Path, rows: Rows, *, signals: tuple[str, ...] = ("logprob",), **metadata: Any) -> Outcomes:
    """Written and read back, as a user's are."""
    write(folder / "o.parquet", rows, metadata={"tiers": ["small", "large"], **metadata}, signals=signals)
    return read(folder / "o.parquet")


def test_rows_are_brought_side_by_side_whatever_their_order(tmp_path: Path) -> None:
    rows = both("a", "b", "c")
    rows[1] |= {"correct": 0.0, CONFIDENCE + "logprob": 0.25, SIGNAL_COST + "logprob": 7}
    rows[4]["cost_nano_usd"] = 99
    for given_rows in (rows, rows[::-1]):
        pair, left_out = pair_of(outcomes(tmp_path, given_rows))
        at = list(pair.ids).index("b")
        assert (pair.small, pair.large, len(pair), left_out) == ("small", "large", 3, 0)
        assert (pair.small_correct[at], pair.large_correct[at]) == (0.0, 1.0)
        assert (pair.confidence["logprob"][at], pair.signal_cost_nano_usd["logprob"][at]) == (0.25, 7)
        assert (pair.small_cost_nano_usd[at], pair.large_cost_nano_usd[at]) == (3, 99)
        assert (pair.tasks[at], pair.questions[at], pair.golds[at]) == ("toy", "say b", "b")


def test_what_is_unknown_is_nan_and_never_a_number(tmp_path: Path) -> None:
    rows = both("a", "b")
    rows[0] |= {CONFIDENCE + "logprob": None, "cost_nano_usd": None}
    pair, _ = pair_of(outcomes(tmp_path, rows))
    assert np.isnan(pair.confidence["logprob"]).tolist() == [True, False]
    assert np.isnan(pair.small_cost_nano_usd).tolist() == [True, False]


def test_a_signal_that_only_another_tier_has_is_none_of_the_small_ones(tmp_path: Path) -> None:
    rows = both("a", "b")
    rows[2][CONFIDENCE + "p_true"] = 0.9
    pair, _ = pair_of(outcomes(tmp_path, rows, signals=("logprob", "p_true")))
    assert list(pair.confidence) == ["logprob"]
    with pytest.raises(InputError, match="no confidence signal 'p_true'; they hold: logprob"):
        pair.judged_by("p_true")


@given(
    finish_reason=st.sampled_from([None, "stop", "length", "content_filter"]),
    value=st.one_of(st.none(), st.floats(0, 1)),
    threshold=st.floats(0, 1),
)
@settings(max_examples=40, deadline=None)
def test_a_pair_keeps_what_a_cascade_keeps_and_so_never_a_reply_that_was_cut_off(
    tmp_path_factory: pytest.TempPathFactory, finish_reason: str | None, value: float | None, threshold: float
) -> None:
    rows = both("a")
    rows[0] |= {"finish_reason": finish_reason, CONFIDENCE + "logprob": value}
    rows.append(row("b", "small", **{CONFIDENCE + "logprob": 0.5}))
    rows.append(row("b", "large"))
    pair, _ = pair_of(outcomes(tmp_path_factory.mktemp("cut"), rows))
    decided = decide(
        threshold=threshold, confidence=Confidence(value=value, source="logprob"), finish_reason=finish_reason
    )
    assert bool(pair.confidence["logprob"][0] >= threshold) == decided.keep


def test_a_cascade_pays_for_the_signal_it_is_judged_by_and_for_no_other(tmp_path: Path) -> None:
    rows = both("a", "b")
    rows[0] |= {CONFIDENCE + "p_true": 0.9, SIGNAL_COST + "p_true": 20, SIGNAL_COST + "logprob": 0}
    rows[1] |= {CONFIDENCE + "p_true": None, SIGNAL_COST + "p_true": None, SIGNAL_COST + "logprob": 0}
    pair, _ = pair_of(outcomes(tmp_path, rows, signals=("logprob", "p_true")))
    judged = pair.judged_by("p_true")
    assert judged.small_cost_nano_usd[0] == 23
    assert np.isnan(judged.small_cost_nano_usd[1]), "what the second turn cost is unknown"
    assert list(judged.confidence) == ["p_true"]
    assert pair.judged_by("logprob").small_cost_nano_usd.tolist() == [3, 3]
    again = judged.judged_by("p_true")
    assert again.small_cost_nano_usd[0] == 23, "paid once, however often it is asked for"


def test_where_no_row_says_what_a_signal_costs_it_is_taken_to_come_with_the_reply(tmp_path: Path) -> None:
    """As in foreign outcomes: an unknown there would make every saving unknown."""
    pair, _ = pair_of(outcomes(tmp_path, both("a", "b")))
    assert "logprob" not in pair.signal_cost_nano_usd
    assert pair.judged_by("logprob").small_cost_nano_usd.tolist() == [3, 3]


# What is incomplete ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoil,why",
    [
        (lambda rows: rows.pop(0), '(first: "a", small: has no row)'),
        (lambda rows: rows.pop(3), '(first: "a", large: has no row)'),
        (lambda rows: rows[3].update(error="it answered\n500"), '(first: "a", large: it answered 500)'),
        (lambda rows: rows[0].update(error="refused"), '(first: "a", small: refused)'),
    ],
)
def test_a_question_that_a_tier_did_not_answer_is_an_error_or_leaves_with_a_count(
    tmp_path: Path, spoil: Any, why: str
) -> None:
    rows = both("a", "b", "c")
    spoil(rows)
    found = outcomes(tmp_path, rows)
    with pytest.raises(InputError) as caught:
        pair_of(found)
    assert "1 of 3 questions lack an answer of small or large" in str(caught.value)
    assert why in str(caught.value)
    assert "--drop-incomplete" in str(caught.value)
    assert "\n" not in str(caught.value)
    pair, left_out = pair_of(found, drop_incomplete=True)
    assert (pair.ids.tolist(), left_out) == (["b", "c"], 1)


@given(st.lists(st.tuples(*[st.sampled_from(["right", "failed", "absent"])] * 3), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_every_question_is_in_the_pair_or_counted(
    tmp_path_factory: pytest.TempPathFactory, states: list[tuple[str, ...]]
) -> None:
    tiers = ["small", "middle", "large"]
    rows = [
        row(f"q{i}", tier, error="x" if state == "failed" else None)
        for i, of_question in enumerate(states)
        for tier, state in zip(tiers, of_question, strict=True)
        if state != "absent"
    ]
    found = outcomes(tmp_path_factory.mktemp("states"), rows, tiers=tiers)
    asked = {one["id"] for one in rows}
    answered = {f"q{i}" for i, (small, _, large) in enumerate(states) if small == large == "right"}
    if not answered:
        with pytest.raises(InputError, match="no question was answered by both"):
            pair_of(found, drop_incomplete=True)
        return
    pair, left_out = pair_of(found, drop_incomplete=True)
    assert set(pair.ids) == answered
    assert left_out == len(asked) - len(answered)


@pytest.mark.parametrize(
    "change,words",
    [
        ({"small": "tiny"}, 'no tier "tiny"; they hold: small, middle, large'),
        ({"small": "large"}, '"large" cannot defer to itself; name two tiers of: small, middle, large'),
    ],
)
def test_tiers_that_cannot_be_paired_are_told(tmp_path: Path, change: dict[str, str], words: str) -> None:
    found = outcomes(tmp_path, both("a"), tiers=["small", "middle", "large"])
    with pytest.raises(InputError, match=words):
        pair_of(found, **change)  # type: ignore[arg-type]


def test_one_tier_makes_no_pair(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='one tier only, "small"; a cascade needs two: corea eval run'):
        pair_of(outcomes(tmp_path, [row("a", "small")], tiers=["small"]))


def test_any_two_of_three_tiers_can_be_paired(tmp_path: Path) -> None:
    rows = [*both("a", "b"), row("a", "middle", correct=0.0), row("b", "middle")]
    pair, _ = pair_of(outcomes(tmp_path, rows, tiers=["small", "middle", "large"]), large="middle")
    assert (pair.large, pair.large_correct.tolist()) == ("middle", [0.0, 1.0])


@pytest.mark.parametrize("column", ["question", "gold", "task"])
def test_one_id_for_two_questions_is_told(tmp_path: Path, column: str) -> None:
    rows = both("a", "b")
    rows[3][column] = "other"
    with pytest.raises(InputError, match=f'"b" has another {column} in tier small than in large'):
        pair_of(outcomes(tmp_path, rows))


def test_what_one_tier_says_of_a_question_holds_for_both(tmp_path: Path) -> None:
    rows = both("a", "b")
    for one in rows[:2]:
        one |= {"question": None, "task": None, "gold": None}
    pair, _ = pair_of(outcomes(tmp_path, rows))
    assert (pair.questions.tolist(), pair.tasks.tolist()) == (["say a", "say b"], ["toy", "toy"])


def test_ties_are_split_by_the_text_a_cascade_sees_or_by_ids_where_there_is_none(tmp_path: Path) -> None:
    pair, _ = pair_of(outcomes(tmp_path, both("a", "b")))
    assert has_texts(pair)
    assert tie_keys(pair).tolist() == ["say a", "say b"]
    rows = both("a", "b")
    rows[0]["question"] = rows[2]["question"] = None
    pair, _ = pair_of(outcomes(tmp_path, rows))
    assert not has_texts(pair)
    assert tie_keys(pair).tolist() == ["a", "b"]


# Several files --------------------------------------------------------------------------------------------------------


def run_of(folder: Path, name: str, *ids: str, **metadata: Any) -> Outcomes:
    (folder / name).mkdir()
    given_metadata = {"shape_hashes": {"small": "s1", "large": "l1"}, "data_hash": name, "samples": 0, **metadata}
    return outcomes(folder / name, both(*ids), **given_metadata)


def test_files_of_the_same_run_settings_are_one(tmp_path: Path) -> None:
    parts = [run_of(tmp_path, "x", "a", "b"), run_of(tmp_path, "y", "c")]
    pair, left_out = pair_of(merge(parts))
    assert (sorted(pair.ids), left_out) == (["a", "b", "c"], 0)
    assert merge(parts).metadata["data_hash"] == merge(parts[::-1]).metadata["data_hash"]
    assert merge(parts).metadata["data_hash"] != merge(parts[:1]).metadata["data_hash"]


@pytest.mark.parametrize(
    "other,words",
    [
        ({"shape_hashes": {"small": "s1", "large": "l2"}}, 'mix models or prompts: tier "large" was not the same'),
        ({"shape_hashes": {}}, 'mix models or prompts: tier "small"'),
        ({"tiers": ["small", "huge", "large"]}, "hold other tiers"),
        ({"samples": 5}, "other samples of self-consistency \\(0 and 5\\)"),
    ],
)
def test_files_of_other_models_prompts_tiers_or_samples_never_mix(
    tmp_path: Path, other: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words) as caught:
        merge([run_of(tmp_path, "x", "a"), run_of(tmp_path, "y", "b", **other)])
    assert "evaluate them one by one" in str(caught.value)


def test_a_row_that_two_files_hold_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='the files together: "a" has 2 rows of tier "small"; leave one of each'):
        merge([run_of(tmp_path, "x", "a"), run_of(tmp_path, "y", "a")])


# Files that are not what they should be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spoil,words",
    [
        (lambda rows: rows.append(rows[0]), '"a" has 2 rows of tier "small"; leave one of each'),
        (lambda rows: rows[0].update({CONFIDENCE + "logprob": 1.5}), 'confidence.logprob of "a", tier "small" is 1.5'),
        (lambda rows: rows[1].update({CONFIDENCE + "logprob": -0.1}), 'of "b", tier "small" is -0.1'),
        (
            lambda rows: rows[1].update({CONFIDENCE + "logprob": float("nan")}),
            "is nan; it must lie in [0, 1], or be null",
        ),
        (lambda rows: rows[2].update(correct=float("nan")), 'correct of "a", tier "large" is nan'),
        (lambda rows: rows[2].update(correct=2.0), 'correct of "a", tier "large" is 2'),
        (lambda rows: rows[2].update(tier="huge"), 'rows of tier "huge", which is none of its tiers (small, large)'),
    ],
)
def test_values_that_cannot_be_are_told_with_their_place(tmp_path: Path, spoil: Any, words: str) -> None:
    rows = both("a", "b")
    spoil(rows)
    with pytest.raises(InputError) as caught:
        outcomes(tmp_path, rows)
    assert words in str(caught.value)
    assert str(tmp_path / "o.parquet") in str(caught.value)
    assert "\n" not in str(caught.value)


def with_column(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, values)


@pytest.mark.parametrize(
    "change,words",
    [
        (lambda t: t.drop_columns(["gold"]), 'lacks the column "gold"'),
        (lambda t: with_column(t, "correct", pa.array(["yes"] * 4)), 'the column "correct" holds string, not double'),
        (lambda t: with_column(t, CONFIDENCE + "logprob", pa.array([1] * 4)), "holds int64, not double"),
        (lambda t: with_column(t, "id", pa.array([None, "a", "b", "c"])), 'has a row without "id"'),
        (lambda t: with_column(t, "correct", pa.array([None, 1.0, 1.0, 1.0])), 'has a row without "correct"'),
        (lambda t: t.append_column("mood", pa.array([1] * 4)), 'a column "mood" that outcomes have no place for'),
        (lambda t: t.replace_schema_metadata({}), "holds no outcomes"),
        (lambda t: t.replace_schema_metadata({b"corea.outcomes": b"{"}), "does not say what it holds"),
        (lambda t: t.replace_schema_metadata({b"corea.outcomes": b"[1]"}), "does not say what it holds"),
        (lambda t: t.replace_schema_metadata({b"corea.outcomes": b'{"version": 1}'}), "does not say what it holds"),
        (lambda t: t.replace_schema_metadata({b"corea.outcomes": b'{"version": 1, "tiers": []}'}), "does not say"),
        (lambda t: t.replace_schema_metadata({b"corea.outcomes": b'{"version": "1", "tiers": ["s"]}'}), "does not say"),
        (lambda t: t.replace_schema_metadata({b"corea.outcomes": b'{"version": 2, "tiers": ["s"]}'}), "upgrade corea"),
    ],
)
def test_a_file_that_another_program_wrote_or_changed_is_refused_in_one_line(
    tmp_path: Path, change: Any, words: str
) -> None:
    table = outcomes(tmp_path, both("a", "b")).table
    pq.write_table(change(table), tmp_path / "o.parquet")
    with pytest.raises(InputError) as caught:
        read(tmp_path / "o.parquet")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_flipped_bit_is_an_error_or_changes_no_value(tmp_path: Path) -> None:
    path = tmp_path / "o.parquet"
    before = outcomes(tmp_path, both("a", "b")).table
    raw = path.read_bytes()
    refused = 0
    for at in range(0, len(raw), 19):
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 4]) + raw[at + 1 :])
        try:
            after = read(path).table
        except InputError:
            refused += 1
            continue
        for name in before.column_names:
            # Names of signals are free, so a damaged one is another name.
            assert name.startswith((CONFIDENCE, SIGNAL_COST)) or after[name].equals(before[name])
    assert refused > len(raw) // 19 // 3


def test_outcomes_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot write .*none.o.parquet: No such file or directory; choose another"):
        write(tmp_path / "none" / "o.parquet", both("a"), metadata={"tiers": ["small", "large"]}, signals=["logprob"])
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match="cannot write"):
        write(tmp_path / "folder", both("a"), metadata={"tiers": ["small", "large"]}, signals=["logprob"])
    assert [path.name for path in tmp_path.iterdir() if "home" not in path.name] == ["folder"]


def test_the_metadata_is_plain_json_in_the_file(tmp_path: Path) -> None:
    outcomes(tmp_path, both("a"), samples=3)
    described = pq.read_schema(tmp_path / "o.parquet").metadata[b"corea.outcomes"]
    assert json.loads(described) == {"version": 1, "tiers": ["small", "large"], "samples": 3}


def test_a_pair_that_is_judged_twice_pays_once_for_samples_that_were_not_recorded(tmp_path: Path) -> None:
    rows = both("a", "b")
    for one in rows[:2]:
        one[CONFIDENCE + "self_consistency"] = 0.5
    pair, _ = pair_of(outcomes(tmp_path, rows, signals=("logprob", "self_consistency")))
    judged = pair.judged_by("self_consistency")
    assert judged.small_cost_nano_usd.tolist() == [18, 18]
    assert judged.judged_by("self_consistency").small_cost_nano_usd.tolist() == [18, 18]
