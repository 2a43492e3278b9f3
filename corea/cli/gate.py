"""``corea eval gate``: whether to ask the small model at all, certified together with its threshold; or no gate."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from corea.cli.certify import configured, guards_configured, kept, quoted, say
from corea.cli.console import print_json
from corea.cli.options import Delta, Domain, DropIncomplete, Guards, Json, Large, MaxDrop, OutcomesFiles, Small
from corea.cli.outcomes import load_guarded, refuse_to_overwrite, tell_left_out
from corea.errors import InputError
from corea.extras import extra

if TYPE_CHECKING:
    from corea.evaluate.gates import Found
    from corea.evaluate.metrics import Estimate
    from corea.policy.certificate import Certificate


def gate(
    outcomes: OutcomesFiles,
    out: Annotated[Path, typer.Option("--out", dir_okay=False, help="Where the gate goes, JSON, if one is better.")],
    certificate: Annotated[
        Path, typer.Option("--certificate", dir_okay=False, help="Where the certificate of both goes, JSON.")
    ],
    max_drop: MaxDrop = 0.02,
    delta: Delta = 0.05,
    signal: Annotated[
        str | None,
        typer.Option("--signal", help="Confidence to certify. Default: the best, by the questions that fit the gate."),
    ] = None,
    map: Annotated[
        Path | None, typer.Option("--map", help="Certify this confidence map, on the questions it was not fitted on.")
    ] = None,
    share: Annotated[
        float, typer.Option("--share", min=0.05, max=0.95, help="Of the questions, to fit the gate on.")
    ] = 1 / 3,
    small: Small = None,
    large: Large = None,
    guard: Guards = None,
    domain: Domain = None,
    drop_incomplete: DropIncomplete = False,
    json: Json = False,
) -> None:
    """Fit a gate, which skips the small model where it is not worth asking, and certify it with the threshold."""
    with extra("evaluate"):
        import numpy as np

        from corea.evaluate.certification import Terms
        from corea.evaluate.gates import certificate_with, fit, search, split_of

    from corea.confidence.fitted import read as read_map
    from corea.policy.certificate import dump
    from corea.policy.gate import save

    if map is not None and signal is not None:
        raise InputError("--map brings its own signal; leave out --signal")
    inputs = outcomes if map is None else [*outcomes, map]
    refuse_to_overwrite(out, [*inputs, certificate])
    refuse_to_overwrite(certificate, inputs)
    rows, pair, left_out = load_guarded(
        outcomes, small=small, large=large, drop_incomplete=drop_incomplete, guard=guard, domain=domain
    )
    fitted = None if map is None else read_map(map)
    halves = split_of(pair, rows, signal=signal, fitted=fitted, share=share)
    created_at = datetime.now(UTC).isoformat(timespec="seconds")
    terms = Terms(max_drop=max_drop, delta=delta)
    made = fit(halves.judged.where(halves.fitting), rows, tasks=halves.judged.tasks, created_at=created_at)
    # The same outcomes give the same gate.
    found = search(halves, terms, made, rng=np.random.default_rng(0))
    promised = certificate_with(rows, halves, found, terms, created_at=created_at, fitted=fitted)
    if found.gate is not None:
        save(found.gate, out)
    dump(promised, certificate)
    tell_left_out(left_out)
    if json:
        print_json(_as_json(found, promised, left_out, out, certificate))
        return
    _show(found, promised)
    _show_use(found, promised, out, certificate, map, domain)


def _as_json(found: Found, made: Certificate, left_out: int, out: Path, certificate: Path) -> dict[str, Any]:
    return {
        "gate": made.gate,
        "kind": found.kind,
        "cut": None if found.gate is None else found.gate.cut,
        "skipped": found.skipped,
        "verdict": found.verdict,
        **asdict(found.certified),
        "promise": found.certified.promise,
        "without_a_gate": asdict(found.plain),
        "saving": asdict(found.saving),
        "saving_without_a_gate": asdict(found.plain_saving),
        "gain": asdict(found.gain),
        "candidates": [asdict(one) for one in found.candidates],
        "fitted_on": found.fitted_on,
        "small": made.small,
        "large": made.large,
        "signal": made.signal,
        "data_hash": made.data_hash,
        "left_out": left_out,
        "out": None if found.gate is None else str(out),
        "certificate": str(certificate),
    }


def _show(found: Found, made: Certificate) -> None:
    held = found.certified
    name = made.signal.partition(":")[0]
    say(
        f"{made.small} → {made.large}, by {name}; the gate was fitted on {found.fitted_on:,} questions, certified on "
        f"{held.n:,} others",
        style="bold",
    )
    say(found.verdict)
    say("")
    if found.gate is not None:
        cut = f"where its chance to be right is below {found.gate.cut:.4g}"
        say(f"  gate             {made.small} is not asked {cut}: {found.skipped:.1%} of the questions")
    every = ": every answer of known confidence" if found.kind == "walked" and held.threshold == 0 else ""
    say(f"  threshold        {kept(held.threshold, held.tie_fraction)}{every}")
    if found.gate is None:
        say(f"  saving, net      {_with_interval(found.plain_saving)}")
    else:
        say(f"  saving, net      {_with_interval(found.saving)}")
        say(f"  without a gate   {_with_interval(found.plain_saving)}, certified on the same questions")
        say(f"  gain             {_with_interval(found.gain, points=True)}")
    if held.threshold is not None:
        say(f"  expected drop    {100 * held.drop:+.2f} points ({held.harm} harmed, {held.gain} gained)")
    if held.needed_n is not None:
        in_all = round(held.needed_n * (1 + found.fitted_on / held.n))
        say(f"  needed           {held.needed_n:,} questions that certify, {in_all:,} in all")
    say(f"  method           {held.method}, n = {held.n:,}, max drop = {held.max_drop:g}, δ = {held.delta:g}")
    say(f"  {held.promise}")


def _show_use(
    found: Found, made: Certificate, out: Path, certificate: Path, map: Path | None, domain: Path | None
) -> None:
    if found.gate is None:
        say(f"\nThe certificate, without a gate, is written to {certificate}; nothing is written to {out}.")
    else:
        say(f"\nWritten to {out} and {certificate}; neither holds without the other.")
    if made.models_hash is None:
        say("They were made from foreign outcomes, which do not say what models answered: no cascade runs by them.")
        return
    say(f'In corea.toml, for the tier "{made.small}", instead of a threshold:\n')
    if found.gate is not None:
        say(f"gate = {quoted(out)}")
    say(f"certificate = {quoted(certificate)}")
    say(f"confidence = {configured(made.signal, map)}")
    for line in guards_configured(made.guards, domain):
        say(line)


def _with_interval(found: Estimate, *, points: bool = False) -> str:
    """A share in per cent, or a difference in points, with its 95 % interval over the questions."""
    if found.value is None:
        return f"unknown: {found.note}"
    told, unit = (f"{100 * found.value:+.1f} points", "") if points else (f"{found.value:.1%}", " %")
    if found.low is None or found.high is None:
        return told
    sign = "+" if points else ""
    return f"{told} ({100 * found.low:{sign}.1f} to {100 * found.high:{sign}.1f}{unit})"
