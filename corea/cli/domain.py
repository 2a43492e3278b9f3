"""``corea eval domain``: what questions look like that are certified, for the guard ``unlike_certified``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from corea.cli.certify import quoted, say
from corea.cli.outcomes import refuse_to_overwrite
from corea.errors import InputError


def domain(
    questions: Annotated[list[Path], typer.Argument(help="Question files, JSONL or JSONL.gz.")],
    out: Annotated[Path, typer.Option("--out", dir_okay=False, help="Where the domain goes, JSON.")],
) -> None:
    """Learn the word pairs of questions like those to be certified, but not of those themselves.

    A question with more unseen pairs than all but 1 % of these is deferred. The file holds hashes, no texts.
    """
    from corea.batch.rows import BadLine, read_questions
    from corea.guards.domain import Unlike, fit, save
    from corea.identity import hash_of

    refuse_to_overwrite(out, questions)
    rows = [row for file in questions for row in read_questions(file)]
    bad = next((row for row in rows if isinstance(row, BadLine)), None)
    if bad is not None:
        raise InputError(f"a line of the questions cannot be read ({bad.why}); correct it, or leave it out")
    texts = [row.question for row in rows if not isinstance(row, BadLine)]
    created_at = datetime.now(UTC).isoformat(timespec="seconds")
    made = fit(texts, data_hash=hash_of(sorted(texts)), created_at=created_at)
    # Too few questions to tell anything are refused before a file is written.
    Unlike(domain=made)
    save(made, out)
    say(f"{len(made.scores):,} questions, {len(made.seen):,} word pairs. Written to {out}.")
    say("Certify with it on other questions, and name it in the tier:\n")
    say(f"corea certify OUTCOMES --domain {out} --out certificate.json")
    say(f"domain = {quoted(out)}")
