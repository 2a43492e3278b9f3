"""From outcomes files to a pair of tiers, as every verb that evaluates them does it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from corea.cli.console import remark
from corea.errors import InputError
from corea.extras import extra

if TYPE_CHECKING:
    from corea.evaluate.outcomes import Outcomes, Pair
    from corea.guards.base import Guard


def load_pair(
    files: Sequence[Path], *, small: str | None, large: str | None, drop_incomplete: bool
) -> tuple[Outcomes, Pair, int]:
    """All rows, the two tiers side by side, and how many questions were left out of them."""
    with extra("evaluate"):
        from corea.evaluate.outcomes import read
        from corea.evaluate.pairs import merge, pair_of

    rows = merge([read(file) for file in files])
    pair, left_out = pair_of(rows, small=small, large=large, drop_incomplete=drop_incomplete)
    return rows, pair, left_out


def load_guarded(
    files: Sequence[Path],
    *,
    small: str | None,
    large: str | None,
    drop_incomplete: bool,
    guard: Sequence[str] | None,
    domain: Path | None,
) -> tuple[Outcomes, Pair, int]:
    """As :func:`load_pair`; what a guard objects to is of unknown confidence, as it is deferred."""
    with extra("evaluate"):
        from corea.evaluate.guarded import guarded

    rows, pair, left_out = load_pair(files, small=small, large=large, drop_incomplete=drop_incomplete)
    return rows, guarded(pair, rows, guards_in_force(guard, domain)), left_out


def guards_in_force(named: Sequence[str] | None, domain: Path | None) -> tuple[Guard, ...]:
    """As :data:`corea.cli.options.Guards` and ``Domain`` say. Raises :class:`InputError` for a name that is none."""
    from corea.guards.domain import Unlike, load
    from corea.guards.registry import GUARDS, UNLIKE, guards

    names = [guard.name for guard in GUARDS] if named is None else [name for name in named if name != "none"]
    if domain is None:
        return guards(names)
    return guards((*names, UNLIKE), unlike=Unlike(domain=load(domain)))


def tell_left_out(left_out: int) -> None:
    if left_out:
        remark(f"{left_out} questions were left out: a tier did not answer them")


def refuse_to_overwrite(out: Path, inputs: Sequence[Path]) -> None:
    """Raises :class:`InputError` where the output is one of the inputs, under whatever name."""
    if out.resolve() in {file.resolve() for file in inputs}:
        raise InputError(f"{out} is one of the inputs; choose another --out")
