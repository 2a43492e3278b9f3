"""The gate: from a question's text alone, whether the small model is worth asking.

Logistic regression on hashed words and word pairs and on the shape of the text. Gates are fitted by
``corea.evaluate.gates``, which needs numpy; to read one and to ask it needs the standard library only, and a fraction
of a millisecond a question. A gate holds for the model, the prompt and the tasks that it was fitted with. It skips a
tier and keeps nothing: knows no prices, no confidence and no threshold.
"""

from __future__ import annotations

import base64
import math
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from zlib import crc32

from corea import sealed
from corea.errors import InputError
from corea.types import Request

VERSION = 1
_FORMAT = "corea.gate"
#: Places that words and word pairs are hashed to.
PLACES = 2**14
#: Words beyond are not read: nobody's question may take longer than the model that it is to spare.
MAX_CHARACTERS = 8_000
#: In deviations. One word of five thousand letters must not decide alone.
_MOST = 4.0
#: So that another machine's last bit decides nothing.
_DIGITS = 9
_AGAIN = "fit it again with: corea eval gate"

_WORD = re.compile(r"[^\W\d_]+|\d+")
#: Letters of scripts without spaces are words of their own.
_UNSPACED = re.compile(r"([\u3040-\u30ff\u3400-\u9fff])")
_ANY_WORD = re.compile(r"\w+")
_COUNTED = tuple(re.compile(pattern, re.MULTILINE) for pattern in (r"\d", r"\d+(?:[.,]\d+)*", r"[^\w\s]", r"^[A-Z]\)"))
_ASKING = ("who", "what", "when", "where", "why", "how", "which", "many", "much", "not", "if", "each")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What a gate sees of a text: its ``shape``, and the ``places`` of its words with their ``weight``, length 1."""

    shape: tuple[float, ...]
    places: Mapping[int, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trait:
    """What one number of a text's shape adds to the log-odds: weight · (value − mean) ÷ deviation, cut off at ±4."""

    mean: float
    deviation: float
    weight: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean + self.weight) and 0 < self.deviation < math.inf):
            raise ValueError("a trait of the gate is not finite")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """Skip the tier where the chance that its answer is right is below ``cut``.

    ``words``: a weight for each of :data:`PLACES`. ``model``, ``prompt``: hashes of the tier whose answers it was
    fitted on; None for foreign outcomes, which do not say. ``tasks``: of its questions. ``n``: questions it was fitted
    on, ``data_hash`` of their outcomes; ``created_at``: ISO 8601.
    """

    cut: float
    intercept: float
    traits: tuple[Trait, ...]
    words: tuple[float, ...]
    model: str | None
    prompt: str | None
    tasks: tuple[str, ...]
    n: int
    data_hash: str
    created_at: str

    def __post_init__(self) -> None:
        if not 0 <= self.cut <= 1:
            raise ValueError(f"a cut lies within 0 to 1, not at {self.cut!r}")
        if len(self.words) != PLACES or len(self.traits) != len(shape("")):
            raise ValueError("the gate has too few or too many weights")
        if not math.isfinite(self.intercept + math.fsum(self.words)):
            raise ValueError("a weight of the gate is not finite")

    def ask(self, question: str) -> float:
        """The chance that the tier's answer would be right, 0 to 1, before it writes a word."""
        return self.score(see(question))

    def score(self, seen: Seen) -> float:
        """:meth:`ask` for a text that was looked at before."""
        total = self.intercept
        for value, trait in zip(seen.shape, self.traits, strict=True):
            away = (value - trait.mean) / trait.deviation
            total += trait.weight * max(-_MOST, min(away, _MOST))
        words = self.words
        for place, weight in seen.places.items():
            total += words[place] * weight
        # Beyond ±40 it is 0 or 1 to the last digit, and exp would not overflow.
        return round(1 / (1 + math.exp(-max(-40.0, min(total, 40.0)))), _DIGITS)

    def skip(self, request: Request) -> str | None:
        """Why the tier should not be asked, in a few words; None where it should.

        A question of a task the gate was not fitted on is never skipped, nor one with turns before it: the gate would
        see the last turn only.
        """
        if request.task is not None and self.tasks and request.task not in self.tasks:
            return None
        if sum(message.role != "system" for message in request.messages) != 1:
            return None
        chance = self.ask(request.question)
        return (
            None if chance >= self.cut else f"its chance to be right is {chance:.3g}, below the gate's {self.cut:.3g}"
        )


def see(text: str) -> Seen:
    """What a gate sees of a text."""
    read = _UNSPACED.sub(r" \1 ", text[:MAX_CHARACTERS].lower())
    words = ["0" if word[0].isdigit() else word for word in _WORD.findall(read)]
    places: dict[int, float] = {}
    for gram in (*words, *(f"{one} {two}" for one, two in pairwise(words))):
        hashed = crc32(gram.encode("utf-8", "surrogatepass"))
        place = hashed % PLACES
        # Signs, so that words that share a place do not add up.
        places[place] = places.get(place, 0.0) + (1.0 if hashed >> 31 else -1.0)
    length = math.sqrt(math.fsum(count * count for count in places.values())) or 1.0
    return Seen(shape=shape(text), places={place: count / length for place, count in places.items()})


def shape(text: str, *, most: int | None = MAX_CHARACTERS) -> tuple[float, ...]:
    """Length, words, lines, digits, numbers, signs, choices, length of words, and which question words it holds.

    All but the length are of the first ``most`` characters; None reads them all.
    """
    read = text[:most]
    words = [word.lower() for word in _ANY_WORD.findall(read)]
    counts = (len(text), len(words), read.count("\n"), *(len(pattern.findall(read)) for pattern in _COUNTED))
    mean_word = sum(map(len, words)) / max(len(words), 1)
    held = set(words)
    return (*map(math.log1p, counts), mean_word, *(float(word in held) for word in _ASKING))


def save(gate: Gate, path: Path) -> None:
    """Write it with a checksum, atomically. Raises :class:`InputError` where it cannot be written."""
    sealed.write(path, _body(gate))


def load(path: Path) -> Gate:
    """Read it. Raises :class:`InputError` for a file that is missing, damaged, altered, newer or another thing."""
    return sealed.load(
        path,
        version=VERSION,
        mark={"format": _FORMAT},
        nothing="gate; fit one with: corea eval gate",
        make="fit a gate with: corea eval gate",
        again=_AGAIN,
        parse=_gate,
    )


def label(gate: Gate) -> str:
    """Which gate it is, as a certificate names it: sixteen hex digits of SHA-256 over all of its fields."""
    return sealed.checksum(_body(gate))[:16]


def check_applies(gate: Gate, *, model: str, prompt: str, source: str = "the gate") -> None:
    """Raises :class:`InputError` where it was fitted on another tier's answers. The hashes are those of the tier."""
    if gate.model is None or gate.prompt is None:
        raise InputError(
            f"{source} was fitted on foreign outcomes, which do not say what model answered; "
            "ask the tiers themselves with: corea eval run, and fit a gate on that"
        )
    for what, was, now in (("model", gate.model, model), ("prompt", gate.prompt, prompt)):
        if was != now:
            raise InputError(
                f"{source} was fitted for another {what} ({was}, here {now}) and would mean nothing; "
                "measure the tiers anew with: corea eval run, and fit a gate on that: corea eval gate"
            )


def _body(gate: Gate) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "version": VERSION,
        "cut": gate.cut,
        "intercept": gate.intercept,
        "traits": [[trait.mean, trait.deviation, trait.weight] for trait in gate.traits],
        "words": packed(gate.words),
        "model": gate.model,
        "prompt": gate.prompt,
        "tasks": list(gate.tasks),
        "n": gate.n,
        "data_hash": gate.data_hash,
        "created_at": gate.created_at,
    }


def _gate(data: Mapping[str, Any]) -> Gate:
    traits: Sequence[Sequence[float]] = data["traits"]
    return Gate(
        cut=float(data["cut"]),
        intercept=float(data["intercept"]),
        traits=tuple(
            Trait(mean=float(mean), deviation=float(deviation), weight=float(weight))
            for mean, deviation, weight in traits
        ),
        words=unpacked(data["words"]),
        model=_text(data["model"]),
        prompt=_text(data["prompt"]),
        tasks=tuple(str(task) for task in data["tasks"]),
        n=int(data["n"]),
        data_hash=str(data["data_hash"]),
        created_at=str(data["created_at"]),
    )


def packed(weights: Sequence[float]) -> str:
    """Base64 of the weights, little-endian, four bytes each: as a file keeps them."""
    return base64.b64encode(struct.pack(f"<{len(weights)}f", *weights)).decode("ascii")


def unpacked(text: str) -> tuple[float, ...]:
    """The weights again. Raises ValueError or ``struct.error`` for what is none."""
    raw = base64.b64decode(text, validate=True)
    return struct.unpack(f"<{len(raw) // 4}f", raw)


def _text(value: object) -> str | None:
    return None if value is None else str(value)
