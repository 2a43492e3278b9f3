"""``corea eval tasks``: learn from labelled questions what task a question is of."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from corea.cli.certify import quoted, say
from corea.cli.outcomes import refuse_to_overwrite
from corea.errors import InputError
from corea.extras import extra


def tasks(
    labels: Annotated[list[Path], typer.Argument(help='Question files with a "task" each, JSONL or JSONL.gz.')],
    out: Annotated[Path, typer.Option("--out", dir_okay=False, help="Where it goes, JSON.")],
    precision: Annotated[
        float, typer.Option("--precision", min=0.5, max=1, help="Of the tasks it names, so many are to be right.")
    ] = 0.95,
) -> None:
    """Learn to tell tasks apart by their words, for requests whose key and header do not say. Unsure, it names none."""
    with extra("evaluate"):
        from corea.batch.rows import BadLine, read_questions
        from corea.evaluate.tasks import fit
        from corea.policy.tasks import save

    refuse_to_overwrite(out, labels)
    rows = [row for file in labels for row in read_questions(file)]
    bad = next((row for row in rows if isinstance(row, BadLine)), None)
    if bad is not None:
        raise InputError(f"a line of the questions cannot be read ({bad.why}); correct it, or leave it out")
    questions = [row for row in rows if not isinstance(row, BadLine)]
    created_at = datetime.now(UTC).isoformat(timespec="seconds")
    made = fit(questions, precision=precision, created_at=created_at)
    save(made.tasks, out)
    say(
        f"{len(questions):,} questions of {len(made.tasks.names)} tasks. Of others like them it names a task for "
        f"{made.recognised:.0%}, rightly for {made.right:.1%} of those. Written to {out}; name it:\n"
    )
    say(f"[cascade]\nrecognise = {quoted(out)}")
