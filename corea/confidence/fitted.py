"""A fitted confidence map: from what signals say to the probability that it means, and the estimator that applies it.

Maps are fitted by ``corea.evaluate.maps``, which needs numpy; to read and to apply one needs the standard library only.
A map holds for the model and the prompt that it was fitted with, and for no other. Knows no thresholds.
"""

from __future__ import annotations

import asyncio
import json
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import reduce
from pathlib import Path
from typing import Any, Literal

from corea import sealed
from corea.confidence.base import Estimate, Estimator, Exchange
from corea.errors import InputError
from corea.models.base import Model
from corea.types import Confidence, Usage

VERSION = 1
_FORMAT = "corea.confidence-map"
#: Stated certainty is read as 1 − CLIP: its log-odds would be infinite.
CLIP = 1e-4

Kind = Literal["platt", "isotonic", "temperature", "fitted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sigmoid:
    """p = σ(slope · logit(c) + intercept), slope ≥ 0: Platt scaling of log-odds. A temperature T is slope 1/T alone."""

    slope: float
    intercept: float

    def __post_init__(self) -> None:
        if not (0 <= self.slope < math.inf and math.isfinite(self.intercept)):
            raise ValueError(f"slope {self.slope!r} and intercept {self.intercept!r} make no increasing map")

    def __call__(self, values: Sequence[float | None]) -> float | None:
        (value,) = values
        return None if value is None else sigmoid(self.slope * logit(value) + self.intercept)


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """Straight lines between the points (xs, ys), both rising; flat beyond the ends: isotonic regression."""

    xs: tuple[float, ...]
    ys: tuple[float, ...]

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.xs, self.xs[1:], strict=False))
        rising = rising and all(a <= b for a, b in zip(self.ys, self.ys[1:], strict=False))
        if not (self.xs and len(self.xs) == len(self.ys) and rising and self.ys[0] >= 0 and self.ys[-1] <= 1):
            raise ValueError("the points of an isotonic map must rise, within 0 to 1")

    def __call__(self, values: Sequence[float | None]) -> float | None:
        (value,) = values
        if value is None:
            return None
        right = bisect_right(self.xs, value)
        if right == 0 or right == len(self.xs):
            return self.ys[min(right, len(self.xs) - 1)]
        (x0, x1), (y0, y1) = self.xs[right - 1 : right + 1], self.ys[right - 1 : right + 1]
        return min(y1, y0 + (y1 - y0) * ((value - x0) / (x1 - x0)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """What one signal adds to the log-odds: weight · (logit(c) − mean) / deviation, or ``missing`` where it is unknown.

    ``missing=None``: it never was unknown when the map was fitted, so nobody knows what that would mean.
    """

    mean: float
    deviation: float
    weight: float
    missing: float | None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean + self.weight + (self.missing or 0.0)) and 0 < self.deviation < math.inf):
            raise ValueError("a term of a fitted map is not finite")


@dataclass(frozen=True, slots=True, kw_only=True)
class Combination:
    """Logistic regression on the standardised log-odds of several signals, and on which of them are unknown."""

    intercept: float
    terms: tuple[Term, ...]

    def __post_init__(self) -> None:
        if not (self.terms and math.isfinite(self.intercept)):
            raise ValueError("a fitted map needs terms and a finite intercept")

    def __call__(self, values: Sequence[float | None]) -> float | None:
        if all(value is None for value in values):
            return None
        total = self.intercept
        for value, term in zip(values, self.terms, strict=True):
            part = term.missing if value is None else term.weight * ((logit(value) - term.mean) / term.deviation)
            if part is None:
                return None
            total += part
        return sigmoid(total)


Parameters = Sigmoid | Steps | Combination


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfidenceMap:
    """A map with what it was fitted on.

    ``signals``: names, in the order of the parameters. ``model``: hash of the model whose answers were judged;
    ``prompt``: hash of all that shapes its answers and signals. ``n``: questions it was fitted on, those of a data set
    for which SHA-256(``salt``:id) ÷ 2²⁵⁶ < ``share``. ``created_at``: ISO 8601.
    """

    kind: Kind
    signals: tuple[str, ...]
    parameters: Parameters
    model: str
    prompt: str
    n: int
    share: float
    salt: str
    created_at: str

    def __post_init__(self) -> None:
        wanted = len(self.parameters.terms) if isinstance(self.parameters, Combination) else 1
        if len(self.signals) != wanted or len(set(self.signals)) != wanted:
            raise ValueError(f"a {self.kind} map with {wanted} inputs cannot read the signals {self.signals}")

    def apply(self, values: Mapping[str, float | None], *, source: str = "fitted") -> Confidence:
        """The mapped confidence. A signal that is absent or None is unknown; unknown comes out with a note."""
        given = [values.get(signal) for signal in self.signals]
        value = self.parameters(given)
        if value is not None:
            return Confidence(value=value, source=source)
        missing = ", ".join(signal for signal, one in zip(self.signals, given, strict=True) if one is None)
        return Confidence.unknown(source, f"{missing} unknown, which the map was not fitted for")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """Runs the estimators of the map's signals on the same exchange, and maps what they say.

    ``estimators``: by signal, exactly the map's; raises :class:`InputError` otherwise.
    """

    map: ConfidenceMap
    estimators: Mapping[str, Estimator]
    name: str = "fitted"

    def __post_init__(self) -> None:
        if set(self.estimators) != set(self.map.signals):
            given, wanted = ", ".join(sorted(self.estimators)) or "none", ", ".join(sorted(self.map.signals))
            raise InputError(f"the confidence map reads the signals {wanted}, but the estimators give: {given}")

    @property
    def ask(self) -> Literal["inline", "followup", "none"]:
        """The strongest of what its estimators need: a line in the reply, a second turn, nothing."""
        ways = {estimator.ask for estimator in self.estimators.values()}
        return "inline" if "inline" in ways else "followup" if "followup" in ways else "none"

    @property
    def top_logprobs(self) -> int:
        return max(estimator.top_logprobs for estimator in self.estimators.values())

    async def estimate(self, exchange: Exchange, model: Model, *, timeout_s: float | None = None) -> Estimate:
        asked = (self.estimators[signal] for signal in self.map.signals)
        estimates = await asyncio.gather(*(one.estimate(exchange, model, timeout_s=timeout_s) for one in asked))
        usage = _sum([estimate.usage for estimate in estimates])
        for signal, estimate in zip(self.map.signals, estimates, strict=True):
            # Missing signals were fitted where models gave none, not where calls failed.
            if estimate.usage is None and estimate.confidence.value is None:
                note = f"{signal}: {estimate.confidence.note}"
                return Estimate(confidence=Confidence.unknown(self.name, note), usage=usage)
        values = {signal: one.confidence.value for signal, one in zip(self.map.signals, estimates, strict=True)}
        return Estimate(confidence=self.map.apply(values, source=self.name), usage=usage)


def save(fitted: ConfidenceMap, path: Path) -> None:
    """Write the map with a checksum, atomically. Raises :class:`InputError` where it cannot be written."""
    sealed.write(path, _body(fitted))


def load(path: Path, *, model: str, prompt: str) -> ConfidenceMap:
    """The map in a file, for this model and prompt.

    Raises :class:`InputError` for a file that is damaged, of another kind or a newer version, or that was fitted for
    another model or prompt.
    """
    found = read(path)
    for what, fitted_for, here in (("model", found.model, model), ("prompt", found.prompt, prompt)):
        if fitted_for != here:
            raise InputError(
                f"{path} was fitted for another {what} ({fitted_for}, here {here}) and would mean nothing; "
                f"fit a map for this {what}"
            )
    return found


def read(path: Path) -> ConfidenceMap:
    """The map in a file, whatever it was fitted for. Raises :class:`InputError` as :func:`load` does."""
    try:
        body = json.loads(path.read_bytes())
    except OSError as exc:
        raise InputError(f"{path} cannot be read ({exc.strerror}); fit a confidence map first") from exc
    except (ValueError, RecursionError) as exc:
        raise InputError(f"{path} is damaged: it is not JSON; fit the confidence map again") from exc
    if not isinstance(body, dict) or body.get("format") != _FORMAT:
        raise InputError(f"{path} is no confidence map; fit one first")
    version = body.get("version")
    if isinstance(version, int) and version > VERSION:
        raise InputError(f"{path} is of version {version}, newer than this corea; upgrade corea")
    if body.pop("sha256", None) != sealed.checksum(body):
        raise InputError(f"{path} is damaged: its checksum does not fit; fit the confidence map again")
    try:
        return _map_of(body)
    except (KeyError, TypeError, ValueError) as exc:
        raise InputError(f"{path} is damaged: {exc!r}; fit the confidence map again") from exc


def checksum(fitted: ConfidenceMap) -> str:
    """Which map it is: SHA-256 over all of its fields."""
    return sealed.checksum(_body(fitted))


def logit(value: float) -> float:
    """log(c / (1 − c)), with c kept :data:`CLIP` away from 0 and 1."""
    clipped = min(max(value, CLIP), 1 - CLIP)
    return math.log(clipped / (1 - clipped))


def sigmoid(value: float) -> float:
    """1 / (1 + e⁻ˣ), for any x."""
    if value >= 0:
        return 1 / (1 + math.exp(-value))
    grown = math.exp(value)
    return grown / (1 + grown)


def _map_of(body: Mapping[str, Any]) -> ConfidenceMap:
    kind: Kind = body["kind"]
    if kind not in ("platt", "isotonic", "temperature", "fitted"):
        raise ValueError(f"unknown kind {kind!r}")
    given = body["parameters"]
    parameters: Parameters
    if kind == "isotonic":
        parameters = Steps(xs=tuple(given["xs"]), ys=tuple(given["ys"]))
    elif kind == "fitted":
        parameters = Combination(
            intercept=given["intercept"], terms=tuple(Term(**dict(term)) for term in given["terms"])
        )
    else:
        parameters = Sigmoid(slope=given["slope"], intercept=given["intercept"])
    return ConfidenceMap(
        kind=kind,
        signals=tuple(body["signals"]),
        parameters=parameters,
        model=body["model"],
        prompt=body["prompt"],
        n=body["n"],
        share=body["share"],
        salt=body["salt"],
        created_at=body["created_at"],
    )


def _body(fitted: ConfidenceMap) -> dict[str, Any]:
    return {"format": _FORMAT, "version": VERSION, **asdict(fitted)}


def _sum(usages: Sequence[Usage | None]) -> Usage | None:
    known = [usage for usage in usages if usage is not None]
    return reduce(Usage.__add__, known, Usage()) if len(known) == len(usages) else None
