"""``corea certify``: one threshold that can be trusted, or the honest answer that there is none yet."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from corea.cli.console import print_json, remark, stdout
from corea.cli.extras import extra
from corea.cli.options import DropIncomplete, Json, Large, OutcomesFiles, Small
from corea.errors import InputError

if TYPE_CHECKING:
    from corea.evaluate.certification import Choice
    from corea.policy.certificate import Certificate, Promise

#: More promises than this are only in the file.
MAX_SHOWN = 30


def certify(
    outcomes: OutcomesFiles,
    out: Annotated[Path, typer.Option("--out", help="Where the certificate goes, JSON.")],
    max_drop: Annotated[
        float, typer.Option("--max-drop", help="Accuracy that may be lost: 0.02 is two points.", min=0, max=1)
    ] = 0.02,
    delta: Annotated[
        float, typer.Option("--delta", help="Probability that the promise is broken all the same.", min=0, max=1)
    ] = 0.05,
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
    drop_incomplete: DropIncomplete = False,
    json: Json = False,
) -> None:
    """Find the cheapest threshold with a promise: at most so much of the large model's accuracy is lost."""
    with extra("evaluate"):
        from corea.evaluate.certification import Terms, certificate_of, choose, with_map
        from corea.evaluate.outcomes import read
        from corea.evaluate.pairs import merge, pair_of

    from corea.confidence.fitted import read as read_map
    from corea.policy.certificate import dump

    if map is not None and signal is not None:
        raise InputError("--map brings its own signal; leave out --signal")
    if split_delta and by is None:
        raise InputError("--split-delta shares delta among tasks; add --by task")
    rows = merge([read(path) for path in outcomes])
    pair, left_out = pair_of(rows, small=small, large=large, drop_incomplete=drop_incomplete)
    fitted = None if map is None else read_map(map)
    choice = choose(pair, signal) if fitted is None else with_map(pair, fitted, rows)
    terms = Terms(max_drop=max_drop, delta=delta, by_task=by == "task", split_delta=split_delta)
    created_at = datetime.now(UTC).isoformat(timespec="seconds")
    made = certificate_of(rows, choice, terms, created_at=created_at, fitted=fitted)
    dump(made, out)
    if left_out:
        remark(f"{left_out} questions were left out: a tier did not answer them")
    if json:
        print_json(_as_json(made, choice, left_out, out))
        return
    _show(made, choice, out, map)


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


def _show(made: Certificate, choice: Choice, out: Path, map: Path | None) -> None:
    say = stdout().print
    say(f"{made.small} → {made.large}, by {choice.signal}, {len(choice.pair):,} questions", style="bold", markup=False)
    if choice.chosen_on:
        say(f"{choice.signal} was chosen on {choice.chosen_on:,} other questions; --signal names one instead")
    for promise in made.promises[:MAX_SHOWN]:
        _show_promise(promise)
    if len(made.promises) > MAX_SHOWN:
        say(f"\n… and {len(made.promises) - MAX_SHOWN} tasks more, in {out}")
    say(f"\nWritten to {out}.", markup=False)
    if made.models_hash is None:
        say("It was made from foreign outcomes, which do not say what models answered: no cascade runs by it.")
        return
    say(f'In corea.toml, for the tier "{made.small}", instead of a threshold:\n', markup=False)
    say(f'certificate = "{out}"', markup=False)
    say(f"confidence = {_configured(made.signal, map)}", markup=False)


def _show_promise(promise: Promise) -> None:
    say, found = stdout().print, promise.certified
    say(f"\n{promise.task}" if promise.task else "", style="bold", markup=False)
    if found.threshold is not None:
        tied = "" if found.tie_fraction >= 1 else f", and of those exactly there {found.tie_fraction:.1%}"
        say(f"  threshold        {found.threshold:.6g} and above are kept{tied}")
        saving = "unknown, as costs are" if found.expected_saving is None else f"{found.expected_saving:.1%}, net"
        say(f"  expected saving  {saving}")
        say(f"  expected drop    {100 * found.drop:+.2f} points ({found.harm} harmed, {found.gain} gained)")
    say(f"  method           {found.method}, n = {found.n:,}, δ = {found.delta:g}")
    say(f"  {found.promise}")


def _configured(signal: str, map: Path | None) -> str:
    """The ``confidence`` that a tier must have for a signal, as TOML."""
    name, *rest = signal.split(":")
    if name == "fitted":
        return f'{{ estimator = "fitted", map = "{map}" }}'
    if name == "self_consistency":
        return f'{{ estimator = "self_consistency", samples = {rest[0]} }}'
    estimator = name.removesuffix("_followup")
    return f'{{ estimator = "{estimator}", ask = "followup" }}' if estimator != name else f'{{ estimator = "{name}" }}'
