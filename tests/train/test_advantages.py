"""No reasoning token is moved by calibration and no digit by accuracy, however a text is cut into tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from corea.confidence.protocol import DIGIT_VALUES, parse
from corea.train.advantages import CONFIDENCE, FRAME, REASONING, advantages, centred, token_roles
from corea.train.replies import protocol_form, read
from corea.train.rewards import Parts, Reward

pytest.importorskip("tokenizers", reason="the train extra is not installed: see docs/training.md")

from train import tokenizers_built_here

NAN = float("nan")
Decode = Callable[[Sequence[int]], str]


@cache
def tokenizer(name: str) -> Any:
    return tokenizers_built_here.ALL[name]()


def decoder(name: str) -> Decode:
    return lambda ids: str(tokenizer(name).decode(list(ids), skip_special_tokens=True))


pieces = st.sampled_from(
    [
        "Confidence: ",
        "Confidence:",
        "Answer: ",
        "7",
        "0",
        "\n",
        " ",
        "12",
        "90%",
        "high",
        "é",
        "東",
        "🙂",
        "so ",
        "Conf",
    ]
)
endings = st.sampled_from(
    [
        "",
        "\n",
        "  \n\n",
        "\nAnswer: 5\nConfidence: 7",
        "\nConfidence:3\n",
        "\nAnswer: 🙂\nConfidence: \t9 \n",
        "é\nConfidence: 0",
    ]
)
texts = st.builds(lambda parts, end: "".join(parts) + end, st.lists(pieces | st.text(max_size=4), max_size=12), endings)
cuts = st.lists(st.integers(0, 60), max_size=12)


def sampled(name: str, text: str, where: list[int], special_at: int | None) -> list[int]:
    """Tokens of a text as a model may sample them: cut where no encoder would, a special token anywhere."""
    encoded = tokenizer(name).encode
    edges = [0, *sorted({cut for cut in where if cut < len(text)}), len(text)]
    ids = [i for a, b in pairwise(edges) for i in encoded(text[a:b], add_special_tokens=False).ids]
    if special_at is not None:
        ids.insert(min(special_at, len(ids)), tokenizer(name).token_to_id("<eos>"))
    return ids


def settled(decode: Decode, ids: Sequence[int]) -> list[int]:
    """Characters of the whole text that each prefix has settled: the slow way, over all prefixes."""
    text = decode(ids)
    ends = []
    for length in range(len(ids) + 1):
        prefix = decode(ids[:length])
        agree = 0
        while agree < min(len(prefix), len(text)) and prefix[agree] == text[agree]:
            agree += 1
        ends.append(agree)
    return ends


@pytest.mark.parametrize("name", tokenizers_built_here.ALL)
@given(texts, cuts, st.none() | st.integers(0, 40))
@settings(max_examples=150, deadline=None)
def test_roles_are_those_of_the_characters_that_each_token_brought(
    name: str, text: str, where: list[int], special_at: int | None
) -> None:
    decode, ids = decoder(name), sampled(name, text, where, special_at)
    whole, ends = decode(ids), settled(decode, ids)
    # Only half-decoded characters may make prefixes disagree.
    assume(all(a <= b for a, b in pairwise(ends)))
    stated = read(whole)
    roles = token_roles(ids, decode)
    assert len(roles) == len(ids)
    if stated.digit_at is None or stated.line_at is None:
        assert not roles.any()
        return
    assert list(roles).count(CONFIDENCE) == 1
    for index, role in enumerate(roles):
        start, end = ends[index], ends[index + 1]
        holds_digit = start <= stated.digit_at < end
        assert (role == CONFIDENCE) == holds_digit
        assert role == (CONFIDENCE if holds_digit else FRAME if start >= stated.line_at else REASONING)


groups_of_replies = st.lists(
    st.tuples(texts, cuts, st.none() | st.integers(0, 40), st.booleans()), min_size=4, max_size=4
)


@pytest.mark.parametrize("name", tokenizers_built_here.ALL)
@given(groups_of_replies)
@settings(max_examples=60, deadline=None)
def test_calibration_never_moves_reasoning_and_accuracy_never_a_digit(
    name: str, drawn: list[tuple[str, list[int], int | None, bool]]
) -> None:
    decode, reward = decoder(name), Reward(name="hybrid")
    replies = [sampled(name, text, where, special) for text, where, special, _ in drawn]
    stated = [read(decode(ids)) for ids in replies]
    roles = [token_roles(ids, decode) for ids in replies]
    width = max(map(len, replies), default=0)
    known = np.array([one.digit is not None for one in stated])
    parts = reward.parts(
        np.array([float(right) for *_, right in drawn]),
        np.array([one.confidence for one in stated]),
        np.array([one.well_formed for one in stated]),
        group=4,
    )

    def moved(changed: Parts) -> np.ndarray[Any, Any]:
        return advantages(reward, changed, known, group=4).tokens(roles, width=width)

    plain = moved(parts)
    noise = np.array([0.1, -0.4, 0.2, 0.3])
    other_score = moved(Parts(correct=parts.correct, format=parts.format, calibration=parts.calibration + noise))
    other_grade = moved(Parts(correct=1 - parts.correct, format=parts.format, calibration=parts.calibration))
    for row, own in enumerate(roles):
        here = slice(0, len(own))
        assert np.array_equal(plain[row, here][own != CONFIDENCE], other_score[row, here][own != CONFIDENCE])
        assert np.array_equal(plain[row, here][own != REASONING], other_grade[row, here][own != REASONING])
        assert not plain[row, len(own) :].any()


def test_the_protocols_tokens_have_their_roles() -> None:
    for name in tokenizers_built_here.ALL:
        text = protocol_form("3 + 4 = 7", "7", 9)
        ids = [*sampled(name, text, [], None), tokenizer(name).token_to_id("<eos>")]
        roles = token_roles(ids, decoder(name))
        held = decoder(name)([i for i, role in zip(ids, roles, strict=True) if role == CONFIDENCE])
        assert "9" in held
        assert roles[-1] == FRAME, "what ends a reply after its line belongs to the line"


@given(texts)
def test_what_training_reads_everyone_reads_alike(text: str) -> None:
    stated = read(text)
    if stated.digit is None:
        assert np.isnan(stated.confidence)
        assert not stated.well_formed
        return
    parsed = parse(text)
    assert parsed.confidence == stated.confidence == DIGIT_VALUES[stated.digit]
    assert parsed.digit_at == stated.digit_at


@pytest.mark.parametrize(
    "text, digit, well_formed",
    [
        ("So 7.\nAnswer: 7\nConfidence: 8", 8, True),
        ("Answer: 7\nConfidence: 8\n\n", 8, True),
        ("So 7.\nConfidence: 8", 8, False),
        ("Answer: \nConfidence: 8", 8, False),
        ("Answer: 7\nConfidence: 80", None, False),
        ("Answer: 7\nConfidence: 80%", None, False),
        ("Answer: 7\nConfidence: high", None, False),
        ("Answer: 7\nConfidence: 8 or so", None, False),
        ("Confidence: 8\nAnswer: 7", None, False),
        ("My Confidence: 8", None, False),
        ("", None, False),
    ],
)
def test_only_the_letter_of_the_protocol_is_well_formed(text: str, digit: int | None, well_formed: bool) -> None:
    assert (read(text).digit, read(text).well_formed) == (digit, well_formed)


def test_group_statistics_leave_the_unknown_out() -> None:
    values = np.array([1.0, 0.0, NAN, 0.5, NAN, NAN])
    assert list(centred(values, 3)) == [0.5, -0.5, 0, 0, 0, 0]
    assert list(centred(np.array([1.0, 1.0]), 2)) == [0, 0]


@given(st.lists(st.tuples(st.booleans(), st.sampled_from([*DIGIT_VALUES, NAN])), min_size=8, max_size=8))
def test_advantages_of_a_group_sum_to_nothing(drawn: list[tuple[bool, float]]) -> None:
    correct, stated = np.array([float(y) for y, _ in drawn]), np.array([c for _, c in drawn])
    known = ~np.isnan(stated)
    for reward in (Reward(), Reward(name="rlcr")):
        made = advantages(reward, reward.parts(correct, stated, known, group=4), known, group=4)
        for moved in (made.reasoning, made.frame, made.confidence):
            assert moved.reshape(2, 4).sum(axis=1) == pytest.approx([0, 0], abs=1e-9)


def test_a_summed_reward_moves_every_token_alike() -> None:
    reward = Reward(name="rlcr")
    correct, stated = np.array([1.0, 0.0]), np.array([0.95, 0.95])
    known = np.array([True, True])
    made = advantages(reward, reward.parts(correct, stated, known, group=2), known, group=2)
    table = made.tokens([np.array([0, 0, 1, 2, 1], dtype=np.int8)] * 2, width=6)
    assert set(table[0, :5]) == {table[0, 0]}
    assert table[0, 0] > 0 > table[1, 0]


def test_a_group_all_right_still_teaches_the_digit() -> None:
    reward, known = Reward(), np.ones(3, dtype=bool)
    parts = reward.parts(np.ones(3), np.array([0.95, 0.55, 0.05]), known, group=3)
    made = advantages(reward, parts, known, group=3)
    assert not made.reasoning.any()
    assert made.confidence[0] > made.confidence[1] > made.confidence[2]
    assert made.part(slice(1, 3)).confidence.tolist() == made.confidence[1:].tolist()
