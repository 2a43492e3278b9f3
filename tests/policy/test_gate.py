"""The served gate: what it sees of a question, when it skips, and how its file refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea import sealed
from corea.errors import InputError
from corea.policy import certificate
from corea.policy.certificate import Certificate, Certified, Promise
from corea.policy.gate import MAX_CHARACTERS, PLACES, Gate, Trait, check_applies, label, load, save, see, shape
from corea.types import Message, Request

AT = "2026-01-01T00:00:00+00:00"


def gate(*, easy: str = "sum", weight: float = 6.0, **changes: Any) -> Gate:
    """Takes a question for easy that holds this word, and for hard otherwise."""
    (place,) = see(easy).places
    words = [0.0] * PLACES
    words[place] = weight * see(easy).places[place]
    traits = tuple(Trait(mean=0.0, deviation=1.0, weight=0.0) for _ in shape(""))
    given_values: dict[str, Any] = {
        "cut": 0.5, "intercept": -1.0, "traits": traits, "words": tuple(words), "model": "m1", "prompt": "p1",
        "tasks": ("maths",), "n": 100, "data_hash": "d1", "created_at": AT,
    }  # fmt: skip
    return Gate(**{**given_values, **changes})


def conversation(*turns: tuple[str, str]) -> Request:
    return Request(messages=tuple(Message(role=role, content=text) for role, text in turns))  # type: ignore[arg-type]


# Skipping -------------------------------------------------------------------------------------------------------------


def test_a_question_below_the_cut_is_skipped_with_its_chance_and_one_above_is_asked() -> None:
    made = gate()
    assert made.ask("a sum") > 0.5 > made.ask("prove it")
    assert made.skip(Request.of("a sum")) is None
    assert made.skip(Request.of("prove it")) == "its chance to be right is 0.269, below the gate's 0.5"


def test_a_question_exactly_at_the_cut_is_asked() -> None:
    made = gate()
    assert replace(made, cut=made.ask("prove it")).skip(Request.of("prove it")) is None


@pytest.mark.parametrize("task, skipped", [("maths", True), (None, True), ("law", False)])
def test_only_tasks_that_it_was_fitted_on_are_skipped(task: str | None, skipped: bool) -> None:
    assert (gate().skip(Request.of("prove it", task=task)) is not None) == skipped


def test_a_gate_fitted_without_tasks_is_for_every_task() -> None:
    assert gate(tasks=()).skip(Request.of("prove it", task="law")) is not None


def test_a_question_with_turns_before_it_is_never_skipped() -> None:
    made = gate()
    assert made.skip(conversation(("user", "hello"), ("assistant", "hello"), ("user", "prove it"))) is None
    assert made.skip(conversation(("system", "be brief"), ("user", "prove it"))) is not None


# Seeing ---------------------------------------------------------------------------------------------------------------


@given(st.text(max_size=300))
def test_any_text_is_seen_at_length_one_and_has_a_chance(text: str) -> None:
    seen = see(text)
    # Words that share a place may cancel each other out.
    assert sum(value * value for value in seen.places.values()) == pytest.approx(1.0) or not any(seen.places.values())
    assert all(0 <= place < PLACES for place in seen.places)
    assert 0 <= gate().ask(text) <= 1


def test_half_a_surrogate_pair_is_a_text_like_any_other() -> None:
    assert 0 <= gate().ask("\ud83d what is it?") <= 1


def test_all_numbers_are_one_word_and_letters_without_spaces_are_words() -> None:
    assert see("add 12 and 7").places == see("Add 3 and 4567").places
    assert len(see("何個").places) == 3


def test_what_comes_after_the_first_eight_thousand_characters_is_only_counted() -> None:
    start = "word " * (MAX_CHARACTERS // 5)
    assert see(start).places == see(start + "other words").places
    assert shape(start)[0] < shape(start + "other words")[0]


def test_the_weights_of_words_and_of_shape_add_up_to_log_odds() -> None:
    traits = [Trait(mean=0.0, deviation=1.0, weight=0.0) for _ in shape("")]
    traits[0] = Trait(mean=1.0, deviation=0.01, weight=0.25)
    made = gate(traits=tuple(traits))
    # A long text lies far beyond four deviations, and is taken for four: −1 + 4 · 0.25.
    assert made.ask("prove it") == 0.5


@pytest.mark.parametrize("intercept, chance", [(1e9, 1.0), (-1e9, 0.0)])
def test_endless_log_odds_are_certainty_not_an_overflow(intercept: float, chance: float) -> None:
    assert gate(intercept=intercept).ask("prove it") == chance


# The file -------------------------------------------------------------------------------------------------------------


def test_a_gate_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    made = gate()
    save(made, tmp_path / "gate.json")
    found = load(tmp_path / "gate.json")
    assert found == made
    assert label(found) == label(made) != label(replace(made, cut=0.4))


def test_a_file_that_was_altered_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "gate.json"
    save(gate(), file)
    file.write_text(file.read_text().replace('"cut": 0.5', '"cut": 0.1'))
    with pytest.raises(InputError, match="was altered.*fit it again with: corea eval gate"):
        load(file)


@pytest.mark.parametrize(
    "change, said",
    [
        ({"cut": 1.5}, "within 0 to 1"),
        ({"cut": None}, "damaged"),
        ({"words": "AAAAAA=="}, "too few or too many weights"),
        ({"words": "?"}, "damaged"),
        ({"traits": []}, "too few or too many weights"),
        ({"traits": [[0.0, 0.0, 1.0]] * len(shape(""))}, "not finite"),
        ({"version": 2}, "newer than this corea"),
        ({"format": "corea.question-domain"}, "holds no gate"),
    ],
)
def test_a_sealed_file_that_cannot_be_a_gate_is_refused(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    file = tmp_path / "gate.json"
    save(gate(), file)
    body = {**json.loads(file.read_text()), **change}
    del body["sha256"]
    sealed.write(file, body)
    with pytest.raises(InputError, match=said):
        load(file)


def test_a_missing_file_is_refused_with_how_to_have_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="fit a gate with: corea eval gate"):
        load(tmp_path / "gate.json")


# What it holds for ----------------------------------------------------------------------------------------------------


def test_a_gate_applies_to_the_model_and_prompt_it_was_fitted_with_and_to_no_other() -> None:
    check_applies(gate(), model="m1", prompt="p1")
    with pytest.raises(InputError, match=r"another model \(m1, here m2\)"):
        check_applies(gate(), model="m2", prompt="p1")
    with pytest.raises(InputError, match=r"gate\.json was fitted for another prompt"):
        check_applies(gate(), model="m1", prompt="p2", source="gate.json")
    with pytest.raises(InputError, match="foreign outcomes"):
        check_applies(gate(model=None, prompt=None), model="m1", prompt="p1")


def certified_with(name: str | None) -> Certificate:
    held = Certified(
        threshold=0.5, tie_fraction=1.0, n=500, max_drop=0.02, delta=0.05, kept=9, harm=0, gain=0, drop=0.0,
        expected_saving=0.1, expected_deferral_rate=0.9, p_value=0.01,
    )  # fmt: skip
    return Certificate(
        promises=(Promise(certified=held),), small="s", large="l", signal="logprob", gate=name, models_hash="m",
        prompts_hash="p", data_hash="d1", created_at=AT,
    )  # fmt: skip


@pytest.mark.parametrize("was, now", [("g1", "g2"), ("g1", None), (None, "g1")])
def test_a_certificate_is_void_with_another_gate_with_none_or_with_one_too_many(
    was: str | None, now: str | None
) -> None:
    with pytest.raises(InputError, match=rf"made for other gates \({was or 'none'}, now {now or 'none'}\)"):
        certificate.check_applies(certified_with(was), models_hash="m", prompts_hash="p", signal="logprob", gate=now)


def test_a_certificate_keeps_its_gate_in_its_file_and_one_without_is_as_files_were_before(tmp_path: Path) -> None:
    file = tmp_path / "certificate.json"
    for name in ("g1", None):
        certificate.dump(certified_with(name), file)
        found = certificate.load(file)
        assert found.gate == name
        certificate.check_applies(found, models_hash="m", prompts_hash="p", signal="logprob", gate=name)
        assert ("gate" in json.loads(file.read_text())) == (name is not None)


def test_a_gate_is_read_and_asked_without_numpy(tmp_path: Path) -> None:
    save(gate(), tmp_path / "gate.json")
    script = (
        "import sys; from pathlib import Path; from corea.policy.gate import load; "
        "load(Path(sys.argv[1])).ask('a sum'); assert not {'numpy', 'scipy', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path / "gate.json")], check=True)
