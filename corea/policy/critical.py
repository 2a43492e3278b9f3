"""Keep only what two independent signals agree on; defer all else. Knows no model.

Two readings of one thing are one signal: a stated digit read in two ways errs twice at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from corea.confidence.base import Estimate, Exchange
from corea.errors import InputError
from corea.models.base import Model
from corea.policy.base import Bar, Second, View
from corea.policy.gate import Gate
from corea.types import Confidence, Trace

#: What a signal is read from. Signals of one family are not independent of each other.
_FAMILIES: Mapping[str, str] = {
    "verbalized": "what the model states",
    "expected": "what the model states",
    "verbalized_followup": "what the model states",
    "expected_followup": "what the model states",
    "p_true": "the model's verdict on its answer",
    "logprob": "the reply's probabilities",
    "self_consistency": "other samples",
    "gate": "the question",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """The gate's chance as a signal: read from the question, so nothing that the model says can raise it. Is free."""

    gate: Gate
    ask: Literal["none"] = "none"
    name: str = "gate"
    top_logprobs: int = 0

    async def estimate(self, exchange: Exchange, model: Model, *, timeout_s: float | None = None) -> Estimate:
        turns = [message for message in exchange.prompt.messages if message.role != "system"]
        if len(turns) != 1:
            note = "a gate knows single questions, not conversations"
            return Estimate(confidence=Confidence.unknown(self.name, note))
        return Estimate(confidence=Confidence(value=self.gate.ask(turns[0].content), source=self.name))


class Critical:
    """The second signal must reach a threshold of its own. It is only asked for where the first one would keep."""

    name = "critical"

    def __init__(self, second: Second) -> None:
        self._second = second

    def before(self, view: View, bar: Bar) -> Bar:
        # What is critical is not asked of two tiers at once: the answer that is there first is not the one to take.
        return bar if bar.threshold is None else replace(bar, second=self._second, hedge=None)

    def after(self, trace: Trace) -> None:
        """Nothing is learned."""


def check_independent(first: Iterable[str], second: Iterable[str], *, tier: str) -> None:
    """Raises :class:`InputError` where two groups of signals, by name, share what they are read from."""
    ours = {family_of(name): name for name in first}
    shared = next((name for name in second if family_of(name) in ours), None)
    if shared is not None:
        raise InputError(
            f'"{shared}" is not independent of "{ours[family_of(shared)]}", which {tier} is judged by already: both '
            f"are read from {family_of(shared)}; choose another signal for critical"
        )


def family_of(signal: str) -> str:
    return _FAMILIES.get(signal, signal)
