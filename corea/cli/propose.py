"""``corea certify --from-ledger``: a certificate from audits and feedback, as a proposal. Changes nothing in force."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corea.cli.keys import duration_s
from corea.cli.outcomes import refuse_to_overwrite
from corea.config import Config

if TYPE_CHECKING:
    from corea.audit.recertify import Gathered
    from corea.evaluate.certification import Terms
    from corea.policy.certificate import Certificate, Certified, Promise

_COMPARED = ("n", "drop", "max_drop", "delta", "expected_deferral_rate", "expected_saving")

#: A task's name, and of each figure what it was and would be.
Change = dict[str, Any]


def propose(
    terms: Terms, *, out: Path, since: str | None, task: str | None, config: Path | None
) -> tuple[Certificate, Gathered, list[Change]]:
    """Writes the proposal; what it was made from, and how it differs from what is in force."""
    from corea.audit.plans import certificate_at
    from corea.audit.recertify import gathered_outcomes
    from corea.build import guards_of
    from corea.evaluate.certification import Choice, certificate_of
    from corea.evaluate.guarded import guarded
    from corea.evaluate.pairs import pair_of
    from corea.identity import fingerprint, signal_of
    from corea.ledger.audits import fair_sample
    from corea.ledger.database import reading
    from corea.policy.certificate import dump
    from corea.policy.gate import label
    from corea.policy.gate import load as load_gate

    loaded = Config.load(config)
    first = loaded.tiers[0]
    if first.certificate is not None:
        refuse_to_overwrite(out, [first.certificate])
    since_unix_s = 0.0 if since is None else time.time() - duration_s(since, "--since")
    with reading(loaded.ledger.url) as ledger:
        rows = fair_sample(ledger, since_unix_s=since_unix_s, task=task)
    gathered = gathered_outcomes(rows, loaded, fingerprint=fingerprint(loaded))
    pair, _ = pair_of(gathered.outcomes)
    # A deferred answer was shown to no guard, and a lower threshold would show it to them.
    choice = Choice(pair=guarded(pair, gathered.outcomes, guards_of(first)), signal=gathered.signal)
    created_at = datetime.now(UTC).isoformat(timespec="seconds")
    made = certificate_of(gathered.outcomes, choice, terms, created_at=created_at)
    # Which map is behind a fitted confidence, how self-consistency samples, and which gate was asked first, the
    # configuration says.
    gate = None if first.gate is None else label(load_gate(first.gate))
    made = replace(made, signal=signal_of(first.confidence), gate=gate)
    before = certificate_at(first.certificate)
    dump(made, out)
    return made, gathered, [change_of(promise, before, first.threshold) for promise in made.promises]


def change_of(promise: Promise, before: Certificate | None, by_hand: float | None) -> Change:
    """``before``: the certificate in force; without one, the threshold was set by hand."""
    held: Certified | None = None if before is None else before.for_task(promise.task)
    threshold = by_hand if before is None else None if held is None else held.threshold
    found = promise.certified
    return {
        "task": promise.task,
        "threshold": [threshold, found.threshold],
        **{name: [None if held is None else getattr(held, name), getattr(found, name)] for name in _COMPARED},
    }


def lines_of(made: Certificate, gathered: Gathered, changes: list[Change], out: Path) -> list[str]:
    """For people."""
    total = gathered.exact + gathered.agreed + gathered.worst
    lines = [
        f"{made.small} → {made.large}, by {made.signal}: {total:,} questions, a fair sample of the ledger's",
        f"  {gathered.exact:,} by feedback, {gathered.agreed:,} with the same answer from both; {gathered.worst:,} of "
        "which nobody knows, counted as harm",
    ]
    if gathered.other:
        why = "of another configuration, without a text, or skipped by a policy"
        lines.append(f"  {gathered.other:,} are left out: {why}")
    for promise, change in zip(made.promises, changes, strict=True):
        lines += ["", promise.task or "all tasks"]
        lines += [f"  {name:24} {_number(was)} → {_number(now)}" for name, (was, now) in _differing(change)]
        lines.append(f"  {promise.certified.promise}")
    return [
        *lines,
        "",
        f"Proposed in {out}. Nothing has changed: to go by it, name it as the certificate of tier {made.small}.",
    ]


def _differing(change: Change) -> list[tuple[str, list[Any]]]:
    return [(name, pair) for name, pair in change.items() if name != "task" and pair[0] != pair[1]]


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.6g}"
