"""``corea eval ladder``: the best ladder of the tiers, certified as a whole, and whether it beats a pair."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from corea.cli.certify import configured, guards_configured, kept, quoted, say
from corea.cli.console import print_json, remark
from corea.cli.options import Delta, Domain, DropIncomplete, Guards, Json, MaxDrop, OutcomesFiles
from corea.cli.outcomes import guards_in_force, refuse_to_overwrite, tell_left_out
from corea.extras import extra

if TYPE_CHECKING:
    from corea.evaluate.ladders import Found
    from corea.policy.certificate import Certificate
    from corea.policy.ladder_certificate import LadderCertificate


def ladder(
    outcomes: OutcomesFiles,
    out: Annotated[
        Path | None, typer.Option("--out", dir_okay=False, help="Where the certificate goes, JSON. Default: nowhere.")
    ] = None,
    tiers: Annotated[
        str | None,
        typer.Option(
            "--tiers", help="Names, comma-separated, from cheap to dear. Default: all. The last one is final."
        ),
    ] = None,
    max_drop: MaxDrop = 0.02,
    delta: Delta = 0.05,
    signal: Annotated[
        str | None, typer.Option("--signal", help="Confidence to judge every tier by. Default: each by its best.")
    ] = None,
    guard: Guards = None,
    domain: Domain = None,
    drop_incomplete: DropIncomplete = False,
    json: Json = False,
) -> None:
    """Find the best ladder among the tiers on a third of the questions, and certify it as a whole on the others."""
    with extra("evaluate"):
        from corea.evaluate.certification import Terms
        from corea.evaluate.guarded import guarded
        from corea.evaluate.ladders import certificate_of_ladder, find, stack_of
        from corea.evaluate.outcomes import read
        from corea.evaluate.pairs import merge

    if out is not None:
        refuse_to_overwrite(out, outcomes)
    rows = merge([read(file) for file in outcomes])
    names = [name.strip() for name in tiers.split(",")] if tiers else []
    stack = stack_of(rows, tiers=names, drop_incomplete=drop_incomplete)
    in_force = guards_in_force(guard, domain)
    stack = replace(stack, pairs=tuple(guarded(pair, rows, in_force) for pair in stack.pairs))
    found, signals = find(rows, stack, Terms(max_drop=max_drop, delta=delta), signal=signal)
    created_at = datetime.now(UTC).isoformat(timespec="seconds")
    made = certificate_of_ladder(rows, stack, found, signals, created_at=created_at)
    if out is not None:
        _dump(made, out)
    tell_left_out(stack.left_out)
    for note in found.notes:
        remark(note)
    if json:
        print_json(_as_json(found, signals, stack.left_out, out))
        return
    _show(found, signals)
    if out is not None:
        _show_use(made, out, domain)


def _dump(made: Certificate | LadderCertificate, out: Path) -> None:
    from corea.policy import certificate, ladder_certificate

    if isinstance(made, certificate.Certificate):
        certificate.dump(made, out)
        return
    ladder_certificate.dump(made, out)


def _as_json(found: Found, signals: Mapping[str, str], left_out: int, out: Path | None) -> dict[str, Any]:
    return {
        "tiers": found.ladder.tiers,
        **asdict(found.ladder),
        "promise": found.ladder.promise,
        "signals": {name: signals[name] for name in found.ladder.tiers[:-1]},
        "verdict": found.verdict,
        "candidates": [asdict(one) for one in found.candidates],
        "chosen_on": found.chosen_on,
        "notes": found.notes,
        "left_out": left_out,
        "out": None if out is None else str(out),
    }


def _show(found: Found, signals: Mapping[str, str]) -> None:
    made = found.ladder
    say(f"{' → '.join(made.tiers)}, chosen on {found.chosen_on:,} questions, certified on {made.n:,}", style="bold")
    say(found.verdict)
    say("")
    for rung, share in zip(made.rungs, made.expected_shares, strict=False):
        held = kept(rung.threshold, rung.tie_fraction, model=rung.tier)
        say(f"  {rung.tier}: {held}, by {signals[rung.tier]}; it answers {share:.1%}")
    say(f"  {made.last}: answers {made.expected_shares[-1]:.1%}")
    saving = "unknown, as costs are" if made.expected_saving is None else f"{made.expected_saving:.1%}, net"
    say(f"  expected saving  {saving}")
    if made.holds:
        say(f"  expected drop    {100 * made.drop:+.2f} points ({made.harm} harmed, {made.gain} gained)")
    if made.needed_n is not None:
        in_all = round(made.needed_n * (1 + found.chosen_on / made.n))
        say(f"  needed           {made.needed_n:,} questions that certify, {in_all:,} in all")
    say(f"  method           {made.method}, n = {made.n:,}, max drop = {made.max_drop:g}, δ = {made.delta:g}")
    say(f"  {made.promise}")


def _show_use(made: Certificate | LadderCertificate, out: Path, domain: Path | None) -> None:
    from corea.policy.certificate import Certificate

    say(f"\nWritten to {out}.")
    if made.models_hash is None:
        say("It was made from foreign outcomes, which do not say what models answered: no cascade runs by it.")
        return
    two = isinstance(made, Certificate)
    judged = {made.small: made.signal} if isinstance(made, Certificate) else dict(made.signals)
    last = made.large if isinstance(made, Certificate) else made.tiers[-1]
    say(f"In corea.toml, with just the tiers {' → '.join([*judged, last])}, instead of a threshold:")
    for name, signal in judged.items():
        say(f'\nfor the tier "{name}"' + ("" if two else ", as for each but the last"))
        say(f"certificate = {quoted(out)}")
        say(f"confidence = {configured(signal, None)}")
        for line in guards_configured(made.guards, domain):
            say(line)
