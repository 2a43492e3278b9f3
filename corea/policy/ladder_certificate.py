"""A certificate of a whole ladder: a threshold for each tier but the last, under one promise, as a JSON file.

The promise is about the answers of all its tiers together, so no threshold in it holds without the others. Light on
purpose, like :mod:`corea.policy.certificate`. Knows no statistics.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from corea import sealed
from corea.errors import InputError
from corea.policy.certificate import Certificate, Certified, Promise, TieKey, check_applies, later

VERSION = 1
METHOD = "exact score-ordered net-drop test, fixed sequence of ladders"

_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """A tier of a ladder, and what its confidence must reach. ``threshold=None``: it is not asked."""

    tier: str
    threshold: float | None
    #: Share of the hash range kept at exactly the threshold (:mod:`corea.policy.ties`).
    tie_fraction: float = 1.0

    __pydantic_config__ = _STRICT


@dataclass(frozen=True, slots=True, kw_only=True)
class CertifiedLadder:
    """What was established for a ladder on ``n`` questions, at risk ``delta`` of being wrong.

    ``rungs``: every tier but the last, cheapest first. Without any threshold nothing is promised: only the last tier is
    asked. ``harm`` and ``gain`` count the ladder's answers against those of ``last``; ``drop`` is (harm − gain) ÷ n.
    """

    rungs: tuple[Rung, ...]
    last: str
    method: str = METHOD
    n: int
    max_drop: float
    delta: float
    harm: int
    gain: int
    drop: float
    #: Of the last tier's cost, net of all other calls; None where costs are unknown.
    expected_saving: float | None
    #: Shares of the questions answered by each tier, the last one's at the end.
    expected_shares: tuple[float, ...]
    p_value: float | None
    #: Without a promise: how many certifying questions would do, at the rates seen; None if no number can help.
    needed_n: int | None = None

    __pydantic_config__ = _STRICT

    @property
    def tiers(self) -> tuple[str, ...]:
        return (*(rung.tier for rung in self.rungs), self.last)

    @property
    def holds(self) -> bool:
        """Whether anything is promised."""
        return any(rung.threshold is not None for rung in self.rungs)

    @property
    def promise(self) -> str:
        """What is promised, or why nothing is, in a sentence or two."""
        points = f"{100 * self.max_drop:.4g} point{'' if self.max_drop == 0.01 else 's'}"
        if self.holds:
            return (
                f"With probability at least {100 * (1 - self.delta):.4g} %, the ladder as a whole loses at most "
                f"{points} of {self.last}'s accuracy on questions like these {self.n:,}, and asks {self.last} about "
                f"{100 * self.expected_shares[-1]:.0f} % of them."
            )
        nothing = f"Nothing can be promised with these {self.n:,} questions"
        if self.needed_n is None:
            return f"{nothing}, and more would not help: wherever the ladder saves money, it loses {points} or more."
        return f"{nothing}: about {self.needed_n - self.n:,} more are needed."


@dataclass(frozen=True, slots=True, kw_only=True)
class LadderCertificate:
    """A promise for the answers of ``tiers`` together instead of the last of them; void for other hashes or signals.

    ``signals``: by tier, which confidence was certified; ``guards``: which guards, the same for all of them. The hashes
    are those of all tiers, in order.
    """

    kind: Literal["ladder"] = "ladder"
    version: int = VERSION
    certified: CertifiedLadder
    tiers: tuple[str, ...]
    signals: Mapping[str, str]
    guards: tuple[str, ...] = ()
    tie_key: TieKey = "question"
    tasks: tuple[str, ...] = ()
    models_hash: str | None
    prompts_hash: str | None
    data_hash: str
    #: ISO 8601, UTC.
    created_at: str

    __pydantic_config__ = _STRICT

    def of_tier(self, index: int) -> Certificate:
        """The threshold of one tier but the last, as the certificate that a tier obeys. By place: names may change."""
        found = self.certified
        rung = found.rungs[index]
        certified = Certified(
            threshold=rung.threshold, tie_fraction=rung.tie_fraction, method=found.method, n=found.n,
            max_drop=found.max_drop, delta=found.delta, kept=round(found.n * (1 - found.expected_shares[-1])),
            harm=found.harm, gain=found.gain, drop=found.drop, expected_saving=found.expected_saving,
            expected_deferral_rate=found.expected_shares[-1], p_value=found.p_value, needed_n=found.needed_n,
        )  # fmt: skip
        return Certificate(
            promises=(Promise(certified=certified),), small=rung.tier, large=found.last,
            signal=self.signals[rung.tier], guards=self.guards, tie_key=self.tie_key, tasks=self.tasks,
            models_hash=self.models_hash, prompts_hash=self.prompts_hash, data_hash=self.data_hash,
            created_at=self.created_at,
        )  # fmt: skip


def dump(certificate: LadderCertificate, path: Path) -> None:
    """Write the certificate with a checksum, atomically. Raises :class:`InputError` where it cannot be written."""
    sealed.write(path, _body(certificate))


def is_ladder(path: Path) -> bool:
    """Whether the file calls itself a ladder's certificate; one that cannot be read does not."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(data, dict) and data.get("kind") == "ladder"


def load(path: Path) -> LadderCertificate:
    """Read a ladder's certificate. Raises :class:`InputError` for one that is missing, damaged, newer or altered."""
    again = "certify again with: corea eval ladder"
    data, stated = sealed.read(
        path,
        version=VERSION,
        mark={"kind": "ladder"},
        nothing="certificate of a ladder; make one with: corea eval ladder --out",
        make="make one with: corea eval ladder --out",
        again=again,
    )
    try:
        certificate = TypeAdapter(LadderCertificate).validate_python(data)
    except ValidationError as exc:
        first = exc.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {field}: {first['msg'].lower()}; {again}") from exc
    if stated != sealed.checksum(_body(certificate)):
        raise InputError(f"{path} is damaged or was altered: its checksum does not fit; {again}")
    if certificate.tiers != certificate.certified.tiers or set(certificate.signals) != set(certificate.tiers[:-1]):
        raise InputError(f"{path} contradicts itself about its tiers; {again}")
    return certificate


def check_ladder_applies(
    certificate: LadderCertificate,
    *,
    models_hash: str,
    prompts_hash: str,
    signals: tuple[str, ...],
    guards: tuple[tuple[str, ...], ...] = (),
    gates: tuple[str | None, ...] = (),
    source: str,
) -> None:
    """Raises :class:`InputError` where the promise is void: other tiers, prompts or signals than were certified.

    ``signals``, ``guards``, ``gates``: of the cascade's tiers but the last, in order; no guards or gates by default.
    """
    if len(signals) + 1 != len(certificate.tiers):
        raise InputError(
            f"{source} was made for {len(certificate.tiers)} tiers ({' → '.join(certificate.tiers)}), and this cascade "
            f"has {len(signals) + 1}; configure just those tiers, or certify these with: corea eval ladder"
        )
    for index, signal in enumerate(signals):
        check_applies(
            certificate.of_tier(index),
            models_hash=models_hash,
            prompts_hash=prompts_hash,
            signal=signal,
            guards=guards[index] if guards else (),
            gate=gates[index] if gates else None,
            source=source,
        )


def _body(certificate: LadderCertificate) -> dict[str, Any]:
    return later(TypeAdapter(LadderCertificate).dump_python(certificate, mode="json"))
