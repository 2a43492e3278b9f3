"""Which threshold is in force, and which are the stricter ones to fall back to. Knows no evidence and no clock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from corea.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Keep above the threshold, and the share ``tie_fraction`` of those at it; ``threshold=None``: always defer."""

    threshold: float | None
    tie_fraction: float = 1.0

    @property
    def strictness(self) -> tuple[float, float]:
        """Higher is stricter: fewer are kept."""
        return (float("inf"), 0.0) if self.threshold is None else (self.threshold, -self.tie_fraction)


ALWAYS_DEFER = Step(threshold=None)


def ladder_of(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The steps from the certified one up, with :data:`ALWAYS_DEFER` at the end.

    Raises :class:`InputError` where they do not get stricter one by one.
    """
    made = (*(step for step in steps if step.threshold is not None), ALWAYS_DEFER)
    for one, two in pairwise(made):
        if one.strictness >= two.strictness:
            raise InputError(
                f"step {two.threshold} is not stricter than the one before, {one.threshold}; order the steps from the "
                "certified threshold upwards"
            )
    return made


def stricter(
    certified: Step, confidences: Sequence[float | None], *, shares: Sequence[float] = (0.5, 0.25)
) -> tuple[Step, ...]:
    """The certified step, and those that keep about these shares of what it keeps of the certifying questions.

    They need no certificate of their own: the walk passed every threshold above the one it certified. A share that no
    higher threshold comes to is left out, so models that state one confidence for all have none.
    """
    if certified.threshold is None:
        return ()
    kept = sorted((one for one in confidences if one is not None and one >= certified.threshold), reverse=True)
    found = [certified]
    for share in sorted(shares, reverse=True):
        at = int(share * len(kept))
        if not 0 < at < len(kept):
            continue
        # All at this confidence are kept, or none: ties are split nowhere but at the certified threshold.
        higher = [one for one in kept if one > kept[at]]
        if higher and higher[-1] > (found[-1].threshold or 0.0):
            found.append(Step(threshold=higher[-1]))
    return tuple(found)
