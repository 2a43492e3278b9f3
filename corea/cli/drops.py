"""``corea eval drops``: what each threshold costs in accuracy, for a budget to say what it is paying with."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from corea.cli.certify import quoted, say
from corea.cli.options import DropIncomplete, Large, OutcomesFiles, Small
from corea.cli.outcomes import load_pair, refuse_to_overwrite, tell_left_out
from corea.extras import extra


def drops(
    outcomes: OutcomesFiles,
    out: Annotated[Path, typer.Option("--out", dir_okay=False, help="Where the drops go, JSON.")],
    signal: Annotated[
        str | None,
        typer.Option("--signal", help="Confidence to go by. Default: the best, by a third of the questions."),
    ] = None,
    small: Small = None,
    large: Large = None,
    drop_incomplete: DropIncomplete = False,
) -> None:
    """Measure what each threshold costs in accuracy. It promises nothing: corea certify does."""
    with extra("evaluate"):
        from corea.evaluate.drops import drops_of

    from corea.policy.drops import save

    refuse_to_overwrite(out, outcomes)
    rows, pair, left_out = load_pair(outcomes, small=small, large=large, drop_incomplete=drop_incomplete)
    created_at = datetime.now(UTC).isoformat(timespec="seconds")
    made = drops_of(rows, pair, signal=signal, created_at=created_at)
    save(made, out)
    tell_left_out(left_out)
    all_kept = 100 * made.drop[0]
    say(f"{made.n:,} questions, {made.signal}: keeping all whose confidence is known loses {all_kept:.2f} points.")
    say(f"Written to {out}. Name it in the budget, which then says what drop it is paying with:\n")
    say(f"[policies.NAME]\nbudget = {{ usd = 20, drops = {quoted(out)} }}")
