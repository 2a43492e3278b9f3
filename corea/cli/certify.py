"""``corea certify``: one threshold that can be trusted, or the honest answer that there is none yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from corea.cli.console import print_json, stdout
from corea.cli.options import ConfigFile, Delta, Domain, DropIncomplete, Guards, Json, Large, MaxDrop, Small
from corea.cli.outcomes import load_guarded, refuse_to_overwrite, tell_left_out
from corea.cli.propose import lines_of, propose
from corea.errors import InputError
from corea.extras import extra

if TYPE_CHECKING:
    from corea.evaluate.certification import Choice
    from corea.policy.certificate import Certificate, Promise

#: More promises than this are only in the file.
MAX_SHOWN = 30


def certify(
    out: Annotated[Path, typer.Option("--out", dir_okay=False, help="Where the certificate goes, JSON.")],
    outcomes: Annotated[
        list[Path] | None, typer.Argument(help="Outcomes, of: corea eval run, or: corea eval import.")
    ] = None,
    from_ledger: Annotated[
        bool, typer.Option("--from-ledger", help="Instead of outcomes: propose one from audits and feedback.")
    ] = False,
    since: Annotated[
        str | None, typer.Option("--since", help="With --from-ledger: how far back, e.g. 30d. Default: all.")
    ] = None,
    task: Annotated[str | None, typer.Option("--task", help="With --from-ledger: only questions of this task.")] = None,
    config: ConfigFile = None,
    max_drop: MaxDrop = 0.02,
    delta: Delta = 0.05,
    signal: Annotated[
        str | None,
        typer.Option("--signal", help="Confidence to certify. Default: the best, by a third of the questions."),
    ] = None,
    map: Annotated[
        Path | None, typer.Option("--map", help="Certify this confidence map, on the questions it was not fitted on.")
    ] = None,
    by: Annotated[Literal["task"] | None, typer.Option("--by", help="One certificate a task.")] = None,
    split_delta: Annotated[
        bool, typer.Option("--split-delta", help="With --by task: share delta out, to promise all of them together.")
    ] = False,
    small: Small = None,
    large: Large = None,
    guard: Guards = None,
    domain: Domain = None,
    drop_incomplete: DropIncomplete = False,
    json: Json = False,
) -> None:
    """Find the cheapest threshold with a promise: at most so much of the large model's accuracy is lost."""
    with extra("evaluate"):
        from corea.evaluate.certification import Terms, certificate_of, choose, with_map

    from corea.confidence.fitted import read as read_map
    from corea.policy.certificate import dump

    if map is not None and signal is not None:
        raise InputError("--map brings its own signal; leave out --signal")
    if split_delta and by is None:
        raise InputError("--split-delta shares delta among tasks; add --by task")
    if from_ledger:
        if outcomes or signal or map or small or large or guard or domain:
            raise InputError("--from-ledger goes by the configuration; leave out outcomes, and what chooses among them")
        wanted = Terms(
            max_drop=max_drop, delta=delta, by_task=by == "task" or task is not None, split_delta=split_delta
        )  # fmt: skip
        proposed, gathered, changes = propose(wanted, out=out, since=since, task=task, config=config)
        if json:
            told = {"exact": gathered.exact, "agreed": gathered.agreed, "worst": gathered.worst}
            promised = [
                {"task": one.task, **asdict(one.certified), "promise": one.certified.promise}
                for one in proposed.promises
            ]
            print_json({"tasks": promised, "changes": changes, **told, "left_out": gathered.other, "out": str(out)})
            return
        for line in lines_of(proposed, gathered, changes, out):
            say(line)
        return
    if since is not None or task is not None:
        raise InputError("--since and --task choose among the ledger's questions; add --from-ledger")
    if not outcomes:
        raise InputError("there is nothing to certify; name outcomes (corea eval run), or use --from-ledger")
    refuse_to_overwrite(out, outcomes if map is None else [*outcomes, map])
    rows, pair, left_out = load_guarded(
        outcomes, small=small, large=large, drop_incomplete=drop_incomplete, guard=guard, domain=domain
    )
    fitted = None if map is None else read_map(map)
    choice = choose(pair, signal, rows) if fitted is None else with_map(pair, fitted, rows)
    terms = Terms(max_drop=max_drop, delta=delta, by_task=by == "task", split_delta=split_delta)
    created_at = datetime.now(UTC).isoformat(timespec="seconds")
    made = certificate_of(rows, choice, terms, created_at=created_at, fitted=fitted)
    dump(made, out)
    tell_left_out(left_out)
    if json:
        print_json(_as_json(made, choice, left_out, out))
        return
    _show(made, choice, out, map, domain)


def _as_json(made: Certificate, choice: Choice, left_out: int, out: Path) -> dict[str, Any]:
    promises = [{"task": one.task, **asdict(one.certified), "promise": one.certified.promise} for one in made.promises]
    about = {
        "small": made.small,
        "large": made.large,
        "signal": made.signal,
        "signal_chosen_on": choice.chosen_on,
        "left_out": left_out,
        "data_hash": made.data_hash,
        "out": str(out),
    }
    if len(promises) == 1 and promises[0]["task"] is None:
        return {**promises[0], **about}
    return {**about, "tasks": promises}


def _show(made: Certificate, choice: Choice, out: Path, map: Path | None, domain: Path | None) -> None:
    say(f"{made.small} → {made.large}, by {choice.signal}, {len(choice.pair):,} questions", style="bold")
    if choice.chosen_on:
        say(f"{choice.signal} was chosen on {choice.chosen_on:,} other questions; --signal names one instead")
    for promise in made.promises[:MAX_SHOWN]:
        _show_promise(promise)
    if len(made.promises) > MAX_SHOWN:
        say(f"\n… and {len(made.promises) - MAX_SHOWN} tasks more, in {out}")
    say(f"\nWritten to {out}.")
    if made.models_hash is None:
        say("It was made from foreign outcomes, which do not say what models answered: no cascade runs by it.")
        return
    say(f'In corea.toml, for the tier "{made.small}", instead of a threshold:\n')
    say(f"certificate = {quoted(out)}")
    say(f"confidence = {configured(made.signal, map)}")
    for line in guards_configured(made.guards, domain):
        say(line)


def _show_promise(promise: Promise) -> None:
    found = promise.certified
    say(f"\n{promise.task}" if promise.task else "", style="bold")
    say(f"  threshold        {kept(found.threshold, found.tie_fraction)}")
    saving = "unknown, as costs are" if found.expected_saving is None else f"{found.expected_saving:.1%}, net"
    say(f"  expected saving  {saving}")
    if found.threshold is not None:
        say(f"  expected drop    {100 * found.drop:+.2f} points ({found.harm} harmed, {found.gain} gained)")
    if found.needed_n is not None:
        say(f"  needed           {found.needed_n:,} questions")
    say(f"  method           {found.method}, n = {found.n:,}, max drop = {found.max_drop:g}, δ = {found.delta:g}")
    say(f"  {found.promise}")


def kept(threshold: float | None, tie_fraction: float, *, model: str = "the small model") -> str:
    """What a threshold keeps, in words."""
    if threshold is None:
        return f"null: always defer, without asking {model}"
    tied = "" if tie_fraction >= 1 else f", and of those exactly there {tie_fraction:.1%}"
    # No digit may be lost to rounding: whoever copies it must not keep other questions.
    return f"{threshold!r} and above are kept{tied}"


def configured(signal: str, map: Path | None) -> str:
    """The ``confidence`` that a tier must have for a signal, as TOML."""
    from corea.confidence import fitted

    name, *rest = signal.split(":")
    if name == "fitted":
        leave = ", allow_code = true" if map and "generated_tests" in fitted.read(map).signals else ""
        return f'{{ estimator = "fitted", map = {quoted(map)}{leave} }}'
    if name == "generated_tests":
        return '{ estimator = "generated_tests", allow_code = true }'
    if name == "self_consistency":
        return f'{{ estimator = "self_consistency", samples = {rest[0]} }}'
    estimator = name.removesuffix("_followup")
    return f'{{ estimator = "{estimator}", ask = "followup" }}' if estimator != name else f'{{ estimator = "{name}" }}'


def guards_configured(made: Sequence[str], domain: Path | None) -> list[str]:
    """The lines that a tier must have for a certificate's guards, as TOML; none where all the usual ones are."""
    from corea.guards.registry import GUARDS

    names = [name for name in made if ":" not in name]
    usual = names == [guard.name for guard in GUARDS]
    lines = [] if usual else [f"guards = [{', '.join(quoted(name) for name in names)}]"]
    return lines if domain is None else [*lines, f"domain = {quoted(domain)}"]


def quoted(path: object) -> str:
    """A string as TOML writes it."""
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def say(line: str, style: str | None = None) -> None:
    """A line for people."""
    # As it is: names may hold brackets, and a line that is to be copied must not be broken.
    stdout().print(line, style=style, markup=False, soft_wrap=True)
