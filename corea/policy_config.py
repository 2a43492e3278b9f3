"""What can be said of policies in TOML, under ``[policies.NAME]``. Knows no tiers."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator


def placed_in(folder: Path, path: Path | None) -> Path | None:
    """A path as it is meant in a file of that folder: absolute, from the user's home, or relative to the folder."""
    # A name beginning with ~ that is no user's home is left as it is.
    with suppress(RuntimeError):
        path = None if path is None else path.expanduser()
    return None if path is None else folder / path


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class BudgetConfig(_Frozen):
    """What may be spent in an hour or a day (UTC), by all replicas together."""

    usd: float = Field(le=10**9, allow_inf_nan=False)
    per: Literal["hour", "day"] = "day"
    #: Counts the requests of this task alone; None counts all that are in the ledger, whatever policy they went by.
    task: str | None = None
    #: False only lowers thresholds: money that is left over stays so.
    tightens: bool = True
    #: Share of right answers of the last tier, for the expected drop; 1 where nobody knows.
    accuracy: float = Field(default=1.0, gt=0, le=1)
    #: What each threshold costs in accuracy, by ``corea eval drops``; only told, so it is no part of the fingerprint.
    drops: Path | None = Field(default=None, exclude=True)

    @property
    def nano_usd(self) -> int:
        return round(self.usd * 1e9)

    @model_validator(mode="after")
    def _is_something(self) -> Self:
        if self.nano_usd <= 0:
            raise ValueError(
                f"a budget of {self.usd:g} pays for no answer; raise usd, or remove the dear tiers to spend nothing"
            )
        return self


class LatencyConfig(_Frozen):
    """How long all but one in twenty requests may take."""

    p95_s: float = Field(gt=0, allow_inf_nan=False)
    #: Leave a tier out; keep more of its answers, which a certificate forbids; ask the next one beside it.
    may: tuple[Literal["skip", "keep", "hedge"], ...] = Field(default=("skip", "keep"), min_length=1)


class CriticalConfig(_Frozen):
    """The second signal that must agree, named as in a tier's ``confidence``."""

    estimator: Literal["verbalized", "expected", "logprob", "p_true", "self_consistency", "fitted", "gate"]
    threshold: float = Field(ge=0, le=1, allow_inf_nan=False)
    samples: int = Field(default=5, ge=2, le=64)
    temperature: float = Field(default=0.7, gt=0, le=2)
    map: Path | None = None
    #: A gate of this tier, made by ``corea eval gate``, for estimator "gate".
    gate: Path | None = None

    @property
    def file(self) -> Path | None:
        """What the signal is read with, where that is a file."""
        return self.map or self.gate

    @model_validator(mode="after")
    def _gate_suits_estimator(self) -> Self:
        if (self.estimator == "gate") != (self.gate is not None):
            raise ValueError('estimator "gate" goes with gate = "FILE", made by: corea eval gate; set both or neither')
        return self


class PolicyConfig(_Frozen):
    """Policies that go together under one name (docs/policies.md)."""

    #: Whether a client may choose it, by the header ``x-corea-policy``.
    selectable: bool = False
    #: Never below the certificate. Default: wherever there is one. False gives its promise up.
    certified: bool | None = None
    budget: BudgetConfig | None = None
    latency: LatencyConfig | None = None
    critical: CriticalConfig | None = None

    @property
    def loosens(self) -> bool:
        """Whether something in it may lower a threshold."""
        return self.budget is not None or (self.latency is not None and "keep" in self.latency.may)

    def beside(self, folder: Path) -> PolicyConfig:
        """The same, with relative paths of maps, gates and drops taken from ``folder``."""
        placed: dict[str, object] = {}
        if self.critical is not None:
            files = {"map": placed_in(folder, self.critical.map), "gate": placed_in(folder, self.critical.gate)}
            placed["critical"] = self.critical.model_copy(update=files)
        if self.budget is not None:
            placed["budget"] = self.budget.model_copy(update={"drops": placed_in(folder, self.budget.drops)})
        return self.model_copy(update=placed)

    @model_validator(mode="after")
    def _is_any(self) -> Self:
        if self.certified is False and not self.loosens:
            raise ValueError("certified = false gives a promise up for nothing; remove it, or add budget or latency")
        return self
