"""A certificate: a threshold, what it promises, and what it was made from, as a JSON file.

Light on purpose: a cascade reads certificates without numpy. Knows no statistics.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import floor, log10
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError

from corea import sealed
from corea.errors import InputError

VERSION = 1
METHOD = "exact score-ordered net-drop test, walk"
TieKey = Literal["question", "id"]

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
_Value = TypeVar("_Value")
_MAX_LISTED = 5
#: Fields that were added to version 1.
_LATER = frozenset({"guards", "gate"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """What the walk along ``n`` questions established, each at risk ``delta`` of being wrong.

    ``threshold=None`` promises nothing: always defer, and don't call the small model; counts are then 0. ``drop`` is
    (harm − gain) ÷ n.
    """

    threshold: float | None
    #: Share of the hash range kept at exactly the threshold (:mod:`corea.policy.ties`).
    tie_fraction: float
    method: str = METHOD
    n: int
    max_drop: float
    delta: float
    kept: int
    harm: int
    gain: int
    drop: float
    #: Net of the small model's cost, as a share of asking the large model always; None where costs are unknown.
    expected_saving: float | None
    expected_deferral_rate: float
    p_value: float | None
    #: Without a threshold: how many questions would do, at the rates seen; None if no number can help.
    needed_n: int | None = None

    __pydantic_config__ = _STRICT

    @property
    def promise(self) -> str:
        """What is promised, or why nothing is, in a sentence or two."""
        points = f"{_short(100 * self.max_drop)} point{'' if self.max_drop == 0.01 else 's'}"
        if self.threshold is not None:
            return (
                f"With probability at least {_short(100 * (1 - self.delta))} %, the cascade loses at most {points} of "
                f"the large model's accuracy on questions like these {self.n:,}, and defers about "
                f"{100 * self.expected_deferral_rate:.0f} % of them."
            )
        given = "this one question" if self.n == 1 else f"these {self.n:,} questions"
        nothing = f"Nothing can be promised with {given}"
        if self.needed_n is None:
            return (
                f"{nothing}, and more would not help: wherever the small model saves money, it loses {points} or more."
            )
        return f"{nothing}: about {_rounded(self.needed_n - self.n):,} more are needed."


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What was established for one task; ``task=None``: for all tasks together, mixed as they were in the data."""

    task: str | None = None
    certified: Certified

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """Promises for the answers of ``small`` instead of ``large``; void for other hashes or another signal.

    ``signal`` says which confidence was certified, ``guards`` which guards had no objection to what was kept, ``gate``
    which gate let the small model be asked (:func:`corea.policy.gate.label`), ``tie_key`` what was hashed for ties.
    ``tasks`` are those of the data; the hashes are None where foreign outcomes did not say which models answered.
    """

    version: int = VERSION
    promises: tuple[Promise, ...]
    small: str
    large: str
    signal: str
    guards: tuple[str, ...] = ()
    gate: str | None = None
    tie_key: TieKey = "question"
    tasks: tuple[str, ...] = ()
    models_hash: str | None
    prompts_hash: str | None
    data_hash: str
    #: ISO 8601, UTC.
    created_at: str

    __pydantic_config__ = _STRICT

    def for_task(self, task: str | None) -> Certified | None:
        """What holds for a question of this task: the task's own promise, else that for all together, else none."""
        held = {promise.task: promise.certified for promise in self.promises}
        return held.get(task) or held.get(None)

    def warning(self, task: str | None) -> str | None:
        """What to tell whoever asks a question of a task that was not in the data; None where all is well."""
        if self.for_task(task) is None:
            made = _listed([str(promise.task) for promise in self.promises])
            asked = f'task "{task}"' if task else "questions of no task"
            return f"the certificate was made for {made} and promises nothing about {asked}: they are all deferred"
        if task is None or task in self.tasks or not self.tasks:
            return None
        made = _listed(self.tasks)
        return f'the certificate was made on {made}; what it promises was not shown for task "{task}"'


def dump(certificate: Certificate, path: Path) -> None:
    """Write the certificate with a checksum, atomically. Raises :class:`InputError` where it cannot be written."""
    sealed.write(path, _body(certificate))


def load(path: Path) -> Certificate:
    """Read a certificate. Raises :class:`InputError` for one that is missing, damaged, newer or altered."""
    data, stated = sealed.read(
        path,
        version=VERSION,
        mark={},
        nothing="certificate; make one with: corea certify",
        make="make a certificate with: corea certify",
        again="certify again with: corea certify",
    )
    certificate = _validated(Certificate, data, path)
    if stated != sealed.checksum(_body(certificate)):
        raise InputError(
            f"{path} is damaged or was altered: its checksum does not fit; certify again with: corea certify, "
            "or set a threshold of your own instead"
        )
    return certificate


def check_applies(
    certificate: Certificate,
    *,
    models_hash: str,
    prompts_hash: str,
    signal: str,
    guards: tuple[str, ...] = (),
    gate: str | None = None,
    source: str = "the certificate",
) -> None:
    """Raises :class:`InputError` where the promise is void: other models, prompts, signal or guards were certified."""
    if certificate.models_hash is None:
        raise InputError(
            f"{source} was made from foreign outcomes, which do not say what models answered; "
            "ask the tiers themselves with: corea eval run, and certify that"
        )
    if certificate.tie_key != "question":
        raise InputError(f"{source} splits ties by ids, which a cascade does not know; certify outcomes with questions")
    measured_anew = "measure the tiers anew with: corea eval run, and certify that"
    for name, was, now, mend in (
        ("models or sampling settings", certificate.models_hash, models_hash, measured_anew),
        ("prompts", certificate.prompts_hash, prompts_hash, measured_anew),
        ("confidence", certificate.signal, signal, "set the tier's confidence back, or certify again: corea certify"),
        ("guards", _named(certificate.guards), _named(guards), "set the tier's guards to those, or certify again"),
        ("gates", certificate.gate or "none", gate or "none", "set the tier's gate back, or certify again with one"),
    ):
        if was != now:
            raise InputError(f"{source} was made for other {name} ({was}, now {now}), so its promise is void; {mend}")


def _validated(kind: type[_Value], data: dict[str, Any], path: Path) -> _Value:
    try:
        return TypeAdapter(kind).validate_python(data)
    except ValidationError as exc:
        first = exc.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        if first["type"] == "unexpected_keyword_argument":
            raise InputError(f"{path}: {field}: unknown key; certify again with: corea certify") from exc
        raise InputError(f"{path}: {field}: {first['msg'].lower()}; certify again with: corea certify") from exc


def _body(certificate: Certificate) -> dict[str, Any]:
    return later(TypeAdapter(Certificate).dump_python(certificate, mode="json"))


def later(body: dict[str, Any]) -> dict[str, Any]:
    """Without what files of before lack, where it says nothing: their checksums still fit."""
    return {key: value for key, value in body.items() if value or key not in _LATER}


def _named(guards: Sequence[str]) -> str:
    return ", ".join(guards) or "none"


def _listed(names: Sequence[str]) -> str:
    """The first few, quoted."""
    shown = ", ".join(f'"{name}"' for name in names[:_MAX_LISTED])
    return shown if len(names) <= _MAX_LISTED else f"{shown} and {len(names) - _MAX_LISTED} more"


def _short(number: float) -> str:
    return f"{number:.4g}"


def _rounded(count: int) -> int:
    """Two significant digits, upwards."""
    unit = int(10 ** max(0, floor(log10(max(count, 1))) - 1))
    return -(-max(count, 1) // unit) * unit
