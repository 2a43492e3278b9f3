"""Every confidence signal by its name: the names that outcomes, maps and certificates use."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from corea.confidence.base import Estimator
from corea.confidence.expected import Expected
from corea.confidence.logprob import Logprob
from corea.confidence.p_true import PTrue
from corea.confidence.self_consistency import SelfConsistency
from corea.confidence.verbalized import Verbalized
from corea.errors import InputError

SIGNALS: Mapping[str, Callable[[], Estimator]] = {
    "logprob": Logprob,
    "p_true": PTrue,
    "verbalized": Verbalized,
    "expected": Expected,
    "verbalized_followup": lambda: Verbalized(ask="followup"),
    "expected_followup": lambda: Expected(ask="followup"),
    "self_consistency": SelfConsistency,
}

#: Stated in the reply itself, so the model must be asked for them with the question.
INLINE = ("verbalized", "expected")


def estimator(signal: str) -> Estimator:
    """The estimator of a signal, with its defaults. Raises :class:`InputError` for a name that is none."""
    if signal not in SIGNALS:
        raise InputError(f'no confidence signal is called "{signal}"; there are: {", ".join(SIGNALS)}')
    return SIGNALS[signal]()
