"""How much accuracy each threshold costs, as measured on outcomes: what a budget says that it is paying with.

Decides nothing: a certificate promises, this only tells. Read from a file that ``corea eval drops`` makes. Knows not
how it was measured.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from corea import sealed
from corea.errors import InputError
from corea.policy.dual import Cut

VERSION = 1
_FORMAT = "corea-drops"
_AGAIN = "make it again with: corea eval drops"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drops:
    """Keep if confidence ≥ ``thresholds[i]``, rising, and ``drop[i]`` of accuracy is lost over all questions.

    1 is all accuracy; below 0 the cascade is the better one. Above the last threshold nothing is kept or lost. The
    hashes are None for foreign outcomes, which do not say what model answered.
    """

    thresholds: tuple[float, ...]
    drop: tuple[float, ...]
    n: int
    signal: str
    models_hash: str | None
    prompts_hash: str | None
    data_hash: str
    created_at: str

    def __post_init__(self) -> None:
        if not len(self.thresholds) == len(self.drop) > 0:
            raise ValueError("there are no thresholds, or not as many drops")
        if not all(one < two for one, two in pairwise(self.thresholds)):
            raise ValueError("thresholds do not rise")
        if not all(math.isfinite(one) for one in (*self.thresholds, *self.drop)) or self.n < 1:
            raise ValueError("a number is not finite, or n is below 1")

    def at(self, cut: Cut) -> float:
        """What this cut loses. Between two thresholds nothing was seen, so it is that of the next higher one."""
        above = self._from(bisect_right(self.thresholds, cut.threshold))
        return above + cut.tie_fraction * (self._from(bisect_left(self.thresholds, cut.threshold)) - above)

    def _from(self, place: int) -> float:
        return self.drop[place] if place < len(self.drop) else 0.0


def save(drops: Drops, path: Path) -> None:
    """Write it with a checksum, atomically. Raises :class:`InputError` where it cannot be written."""
    sealed.write(path, _body(drops))


def load(path: Path) -> Drops:
    """Read it. Raises :class:`InputError` for a file that is missing, damaged, altered, newer or another thing."""
    return sealed.load(
        path,
        version=VERSION,
        mark={"format": _FORMAT},
        nothing="drops by threshold; make them with: corea eval drops",
        make="make it with: corea eval drops",
        again=_AGAIN,
        parse=_drops,
    )


def check_applies(drops: Drops, *, models_hash: str, prompts_hash: str, signal: str, source: str) -> None:
    """Raises :class:`InputError` where it was measured on another signal, or known to be on other models or prompts."""
    found = (("confidence", drops.signal, signal), ("pair of models", drops.models_hash, models_hash),
             ("prompt", drops.prompts_hash, prompts_hash))  # fmt: skip
    for what, was, now in found:
        if was not in (None, now):
            raise InputError(
                f"{source} was measured for another {what} ({was}, here {now}) and would say something wrong; measure "
                "the tiers anew with: corea eval run, and then: corea eval drops"
            )


def _body(drops: Drops) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "version": VERSION,
        "thresholds": list(drops.thresholds),
        "drop": list(drops.drop),
        "n": drops.n,
        "signal": drops.signal,
        "models_hash": drops.models_hash,
        "prompts_hash": drops.prompts_hash,
        "data_hash": drops.data_hash,
        "created_at": drops.created_at,
    }


def _drops(data: Mapping[str, Any]) -> Drops:
    return Drops(
        thresholds=tuple(float(one) for one in data["thresholds"]),
        drop=tuple(float(one) for one in data["drop"]),
        n=int(data["n"]),
        signal=str(data["signal"]),
        models_hash=data["models_hash"],
        prompts_hash=data["prompts_hash"],
        data_hash=str(data["data_hash"]),
        created_at=str(data["created_at"]),
    )
