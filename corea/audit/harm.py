"""What one audited answer says about harm: a number where all is known, an interval where it is not.

Harm is large right − small right for a kept answer, and 0 for a deferred one: its mean over *all* questions, kept or
not, is the drop that certificates promise (docs/audit.md). Knows no models, no grading and no statistics.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

from corea.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """The least and the most that a question's harm can be; equal where it is known."""

    least: float
    most: float

    def __post_init__(self) -> None:
        # NaN fails the comparison, so it is refused too.
        if not -1.0 <= self.least <= self.most <= 1.0:
            raise InputError(f"harm lies in [-1, 1], its least below its most; got {self.least} to {self.most}")


def drop_between(*, agrees: bool | None, small_right: bool | None = None, large_right: bool | None = None) -> Between:
    """Harm of a kept answer, from whether the large model's answer agrees and from what feedback or gold says.

    ``agrees=None``: the audit failed or could not be graded. Takes it that of two different answers one at most is
    right, and that the same answer is as right from either. Without feedback, a disagreement is anything from −1 to 1.
    """
    if small_right is not None and large_right is not None:
        return Between(least=large_right - small_right, most=large_right - small_right)
    possible = [
        large - small
        for small, large in product((False, True), repeat=2)
        if _fits(small, small_right) and _fits(large, large_right) and _can_be(agrees, small, large)
    ]
    return Between(least=min(possible), most=max(possible))


def disagreement(agrees: bool | None) -> Between:
    """1 for an answer that differs from the large model's: never less than the harm, often more."""
    return Between(least=0.0, most=1.0) if agrees is None else Between(least=not agrees, most=not agrees)


def disagreement_limit(*, max_drop: float, n: int, differing: int, harm: int, gain: int) -> float:
    """How much disagreement means a drop of ``max_drop``, if the rest of it is as on the ``n`` certifying questions.

    ``differing``: kept answers there that differ from the large model's; of them ``harm`` and ``gain`` count, the
    others are two wrong answers. max_drop + (differing − (harm − gain)) ÷ n.
    """
    if not 0 <= harm + gain <= differing <= n or min(harm, gain) < 0 or n == 0:
        raise InputError(
            f"{harm} harmed and {gain} gained are not among {differing} differing answers of {n}; count them again on "
            "the certifying questions"
        )
    return max_drop + (differing - (harm - gain)) / n


def _fits(value: bool, known: bool | None) -> bool:
    return known is None or value == known


def _can_be(agrees: bool | None, small: bool, large: bool) -> bool:
    if agrees is None:
        return True
    return small == large if agrees else not (small and large)
