"""Every confidence signal by its name: the names that outcomes, maps and certificates use."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from corea.confidence.base import Estimator
from corea.confidence.expected import Expected
from corea.confidence.generated_tests import GeneratedTests
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
    "generated_tests": GeneratedTests,
}

#: Stated in the reply itself, so the model must be asked for them with the question.
INLINE = ("verbalized", "expected")


def estimator(signal: str, *, allow_code: bool = False) -> Estimator:
    """The estimator of a signal, with its defaults. ``allow_code``: it may run programs that models wrote.

    Raises :class:`InputError` for a name that is none, and for a signal that needs this leave and does not have it.
    """
    if signal not in SIGNALS:
        raise InputError(f'no confidence signal is called "{signal}"; there are: {", ".join(SIGNALS)}')
    if signal == "generated_tests":
        if not allow_code:
            raise InputError(
                "generated_tests runs programs that the model wrote; set allow_code = true beside estimator"
            )
        return GeneratedTests(allow_code=True)
    return SIGNALS[signal]()
