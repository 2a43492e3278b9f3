"""A map is refused wherever it would mean nothing; applied, it says what it was fitted to say, or unknown."""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corea.confidence import Estimate, Estimator, Expected, Logprob, PTrue, SelfConsistency, Verbalized
from corea.confidence.conformance import check, exchange_of
from corea.confidence.fitted import (
    VERSION,
    Combination,
    ConfidenceMap,
    Fitted,
    Parameters,
    Sigmoid,
    Steps,
    Term,
    load,
    logit,
    read,
    save,
    sigmoid,
)
from corea.errors import InputError, UpstreamGarbage
from corea.models.scripted import ScriptedModel, Step, scripted_answer, scripted_reply
from corea.types import Reply

PLATT = Sigmoid(slope=0.5, intercept=-1.0)
STEPS = Steps(xs=(0.2, 0.6, 0.9), ys=(0.1, 0.3, 0.8))
BOTH = Combination(
    intercept=0.2,
    terms=(
        Term(mean=1.0, deviation=2.0, weight=0.7, missing=-0.4),
        Term(mean=0.0, deviation=0.5, weight=0.3, missing=None),
    ),
)


def map_of(parameters: Parameters, *signals: str) -> ConfidenceMap:
    kind = {Sigmoid: "platt", Steps: "isotonic", Combination: "fitted"}[type(parameters)]
    return ConfidenceMap(
        kind=kind,  # type: ignore[arg-type]
        signals=signals,
        parameters=parameters,
        model="sha-model",
        prompt="sha-prompt",
        n=300,
        share=0.5,
        salt="map",
        created_at="2026-01-01T00:00:00Z",
    )


ESTIMATORS: dict[str, Callable[[], Estimator]] = {
    "logprob, platt": lambda: Fitted(map=map_of(PLATT, "logprob"), estimators={"logprob": Logprob()}),
    "p_true, platt": lambda: Fitted(map=map_of(PLATT, "p_true"), estimators={"p_true": PTrue()}),
    "expected, isotonic": lambda: Fitted(map=map_of(STEPS, "expected"), estimators={"expected": Expected()}),
    "p_true and logprob": lambda: Fitted(
        map=map_of(BOTH, "p_true", "logprob"), estimators={"logprob": Logprob(), "p_true": PTrue()}
    ),
    "two second turns": lambda: Fitted(
        map=map_of(BOTH, "stated", "p_true"), estimators={"stated": Verbalized(ask="followup"), "p_true": PTrue()}
    ),
    "samples and a line": lambda: Fitted(
        map=map_of(BOTH, "agree", "expected"), estimators={"agree": SelfConsistency(samples=2), "expected": Expected()}
    ),
}


@pytest.mark.parametrize("name", ESTIMATORS)
def test_fitted_passes_the_conformance_suite(name: str) -> None:
    check(ESTIMATORS[name])


def estimate(estimator: Estimator, reply: Reply, *second: Step) -> Estimate:
    model = ScriptedModel("scripted", replies=list(second) or [UpstreamGarbage("no second call was expected")])
    return asyncio.run(estimator.estimate(exchange_of(estimator, reply), model, timeout_s=5))


def test_fitted_maps_what_its_estimator_says() -> None:
    reply = scripted_reply("a b c", logprob=math.log(0.8))
    confidence = estimate(ESTIMATORS["logprob, platt"](), reply).confidence
    assert confidence.source == "fitted"
    assert confidence.value == pytest.approx(1 / (1 + math.exp(1 - 0.5 * math.log(4))))


def test_fitted_asks_for_all_that_its_estimators_need() -> None:
    both = ESTIMATORS["samples and a line"]()
    assert (both.ask, both.top_logprobs) == ("inline", 20)
    assert ESTIMATORS["p_true and logprob"]().ask == "followup"
    assert ESTIMATORS["logprob, platt"]().ask == "none"


def test_the_usage_of_all_its_calls_is_counted() -> None:
    replies = scripted_reply("8"), scripted_reply("True", distribution={"True": 0.9, "False": 0.1})
    found = estimate(ESTIMATORS["two second turns"](), scripted_answer("42"), *replies)
    assert found.usage is not None
    assert found.usage.prompt_tokens == 40
    assert found.confidence.value is not None


def test_a_signal_that_was_missing_when_fitted_may_be_missing_now() -> None:
    reply = scripted_reply("Answer: 42", logprob=math.log(0.5))
    # Neither True nor False: P(True) is unknown, though the call went well.
    confidence = estimate(ESTIMATORS["p_true and logprob"](), reply, scripted_reply("Maybe")).confidence
    assert confidence.value == pytest.approx(sigmoid(0.2 - 0.4 + 0.3 * logit(0.5) / 0.5))


def test_a_call_that_fails_is_no_missing_signal_but_unknown() -> None:
    reply = scripted_reply("Answer: 42", logprob=math.log(0.5))
    found = estimate(ESTIMATORS["p_true and logprob"](), reply, UpstreamGarbage("cut"))
    assert found.confidence.value is None
    assert str(found.confidence.note).startswith("p_true: the follow-up failed")
    assert found.usage is None


def test_a_signal_that_never_was_missing_when_fitted_makes_unknown() -> None:
    confidence = map_of(BOTH, "a", "b").apply({"a": 0.9, "b": None})
    assert confidence.value is None
    assert confidence.note == "b unknown, which the map was not fitted for"
    assert map_of(PLATT, "a").apply({}).value is None


def test_all_unknown_is_unknown_whatever_was_fitted() -> None:
    both = Combination(intercept=0, terms=tuple(replace(term, missing=0.1) for term in BOTH.terms))
    assert map_of(both, "a", "b").apply({"a": None, "b": None}).value is None
    assert map_of(both, "a", "b").apply({"a": None, "b": 0.2}).value is not None


@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from([PLATT, STEPS, Sigmoid(slope=800, intercept=0)]))
def test_maps_of_one_signal_rise_and_stay_probabilities(a: float, b: float, parameters: Sigmoid | Steps) -> None:
    low, high = parameters([min(a, b)]), parameters([max(a, b)])
    assert low is not None
    assert high is not None
    assert 0 <= low <= high <= 1


def test_isotonic_steps_are_joined_by_lines_and_flat_outside() -> None:
    found = [STEPS([value]) for value in (0.0, 0.2, 0.4, 0.6, 0.9, 1.0)]
    assert found == pytest.approx([0.1, 0.1, 0.2, 0.3, 0.8, 0.8])


numbers = st.floats(-50, 50)
terms = st.builds(Term, mean=numbers, deviation=st.floats(1e-3, 50), weight=numbers, missing=st.none() | numbers)


@given(numbers, st.lists(terms, min_size=1, max_size=4), st.text(max_size=8))
@settings(deadline=None)
def test_a_map_survives_a_round_trip_bit_by_bit(intercept: float, drawn: list[Term], text: str) -> None:
    signals = tuple(f"{text}{i}" for i in range(len(drawn)))
    made = replace(map_of(Combination(intercept=intercept, terms=tuple(drawn)), *signals), prompt=text)
    path = _folder() / "map.json"
    save(made, path)
    assert load(path, model="sha-model", prompt=text) == made


_FOLDERS: list[Path] = []


def _folder() -> Path:
    return _FOLDERS[0]


@pytest.fixture(autouse=True)
def _remembered_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    if not _FOLDERS:
        _FOLDERS.append(tmp_path_factory.mktemp("maps"))


def saved(tmp_path: Path, parameters: Parameters = PLATT) -> Path:
    signals = ("a", "b") if isinstance(parameters, Combination) else ("a",)
    save(map_of(parameters, *signals), tmp_path / "map.json")
    return tmp_path / "map.json"


@pytest.mark.parametrize("parameters", [PLATT, STEPS, BOTH])
def test_the_file_says_what_it_is(tmp_path: Path, parameters: Parameters) -> None:
    body = json.loads(saved(tmp_path, parameters).read_text())
    assert (body["format"], body["version"]) == ("corea.confidence-map", VERSION)
    assert {"kind", "signals", "parameters", "model", "prompt", "n", "share", "salt", "created_at"} <= set(body)
    assert {"sha256"} <= set(body)
    assert list(tmp_path.iterdir()) == [tmp_path / "map.json"]


@pytest.mark.parametrize("model, prompt, what", [("other", "sha-prompt", "model"), ("sha-model", "other", "prompt")])
def test_a_map_is_refused_for_another_model_or_prompt(tmp_path: Path, model: str, prompt: str, what: str) -> None:
    path = saved(tmp_path)
    with pytest.raises(InputError, match=f"another {what} .*here other.*fit a map for this {what}") as caught:
        load(path, model=model, prompt=prompt)
    assert "\n" not in str(caught.value)
    assert read(path) == map_of(PLATT, "a")


def edited(path: Path, **changes: Any) -> Path:
    """The file as somebody would write it who keeps the checksum right."""
    from corea.sealed import checksum as sealed_checksum

    body = json.loads(path.read_text()) | changes
    body = {key: value for key, value in body.items() if key != "sha256" and value is not Ellipsis}
    path.write_text(json.dumps({**body, "sha256": sealed_checksum(body)}))
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "magic"},
        {"kind": "isotonic"},
        {"kind": ["platt"]},
        {"parameters": None},
        {"parameters": {"slope": -1, "intercept": 0}},
        {"parameters": {"slope": "steep", "intercept": 0}},
        {"parameters": {"slope": float("nan"), "intercept": 0}},
        {"kind": "isotonic", "parameters": {"xs": [0.2, 0.1], "ys": [0.1, 0.2]}},
        {"kind": "isotonic", "parameters": {"xs": [0.1, 0.2], "ys": [0.2, 0.1]}},
        {"kind": "isotonic", "parameters": {"xs": [], "ys": []}},
        {"kind": "isotonic", "parameters": {"xs": [0.1], "ys": [1.5]}},
        {"kind": "fitted", "parameters": {"intercept": 0, "terms": []}},
        {"kind": "fitted", "parameters": {"intercept": 0, "terms": [{"mean": 1}]}},
        {"kind": "fitted", "parameters": {"intercept": 0, "terms": [7]}},
        {"signals": []},
        {"signals": ["a", "b"]},
        {"model": ...},
        {"n": ...},
    ],
)
def test_a_file_with_impossible_contents_is_damaged(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = edited(saved(tmp_path), **changes)
    with pytest.raises(InputError, match="damaged.*fit the confidence map again"):
        read(path)


def test_a_newer_version_asks_for_an_upgrade(tmp_path: Path) -> None:
    path = saved(tmp_path)
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(InputError, match="version 2, newer than this corea; upgrade corea"):
        read(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[" * 100_000, b'{"format": "corea.confiden'])
def test_a_file_that_is_not_json_is_damaged(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "map.json").write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        read(tmp_path / "map.json")


@pytest.mark.parametrize("content", ["[]", "3", "{}", '{"format": "other"}'])
def test_another_kind_of_file_is_named_as_such(tmp_path: Path, content: str) -> None:
    (tmp_path / "map.json").write_text(content)
    with pytest.raises(InputError, match="no confidence map"):
        read(tmp_path / "map.json")


@given(st.data())
@settings(deadline=None)
def test_a_file_cut_anywhere_or_with_a_digit_changed_is_refused(data: st.DataObject) -> None:
    path = _folder() / "cut.json"
    save(map_of(STEPS, "a"), path)
    text = path.read_text().rstrip()
    at = data.draw(st.integers(0, len(text) - 1))
    swapped = "5" if text[at] != "5" else "6"
    changed = data.draw(
        st.sampled_from([text[:at], text[:at] + swapped + text[at + 1 :] if text[at].isdigit() else ""])
    )
    path.write_text(changed)
    with pytest.raises(InputError):
        read(path)


def test_a_file_that_is_not_there_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read(tmp_path / "none.json")


def test_estimators_must_be_those_of_the_maps_signals() -> None:
    with pytest.raises(InputError, match="reads the signals logprob, but the estimators give: p_true"):
        Fitted(map=map_of(PLATT, "logprob"), estimators={"p_true": PTrue()})


@pytest.mark.parametrize("value", [-1000.0, -1.0, 0.0, 1.0, 1000.0])
def test_the_sigmoid_never_overflows(value: float) -> None:
    assert 0 <= sigmoid(value) <= 1
    assert sigmoid(value) + sigmoid(-value) == pytest.approx(1)


def test_reading_and_applying_a_map_loads_no_numpy() -> None:
    code = "import sys, corea.confidence.fitted; sys.exit('numpy' in sys.modules or 'sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
