"""All guards by name, in the order they are asked: what is cheapest to say comes first. Knows no cascade."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from corea.errors import InputError
from corea.guards.base import Guard, Judged
from corea.guards.contradiction import contradiction
from corea.guards.domain import Unlike, checksum
from corea.guards.ending import confidence_missing, cut_off, no_answer
from corea.guards.language import wrong_language
from corea.guards.refusal import refusal
from corea.guards.repetition import repetition

UNLIKE = "unlike_certified"
#: How much of a domain's checksum a label shows.
_SHOWN = 16
#: Those that need nothing but the reply.
GUARDS: tuple[Guard, ...] = (
    Guard(name="cut_off", check=cut_off),
    Guard(name="confidence_missing", check=confidence_missing),
    Guard(name="no_answer", check=no_answer),
    Guard(name="refusal", check=refusal),
    Guard(name="repetition", check=repetition),
    Guard(name="wrong_language", check=wrong_language),
    Guard(name="contradiction", check=contradiction),
)
NAMES: tuple[str, ...] = (*(guard.name for guard in GUARDS), UNLIKE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objection:
    """Which guard defers the answer, and why."""

    guard: str
    why: str


def guards(names: Iterable[str] | None = None, *, unlike: Unlike | None = None) -> tuple[Guard, ...]:
    """Those named, by default all that can be had, in their own order.

    Raises :class:`InputError` for a name that is none, and for :data:`UNLIKE` without the domain it needs.
    """
    known = GUARDS if unlike is None else (*GUARDS, Guard(name=UNLIKE, check=unlike))
    if names is None:
        return known
    wanted = set(names)
    if strangers := wanted - set(NAMES):
        raise InputError(f"there is no guard {sorted(strangers)[0]!r}; there are: {', '.join(NAMES)}")
    if UNLIKE in wanted and unlike is None:
        raise InputError(f"the guard {UNLIKE!r} needs the certifying questions' domain; fit one, or leave it out")
    return tuple(guard for guard in known if guard.name in wanted)


def labels(asked: Iterable[Guard]) -> tuple[str, ...]:
    """Their names, for a certificate to be bound to; with the domain's checksum and the share where there is one."""
    return tuple(_label(guard) for guard in asked)


def _label(guard: Guard) -> str:
    if not isinstance(guard.check, Unlike):
        return guard.name
    return f"{guard.name}:{guard.check.alpha:g}:{checksum(guard.check.domain)[:_SHOWN]}"


def first_objection(asked: Sequence[Guard], judged: Judged) -> Objection | None:
    """What the first guard says that objects; None where the answer may be kept."""
    for guard in asked:
        if (why := guard.check(judged)) is not None:
            return Objection(guard=guard.name, why=why)
    return None
