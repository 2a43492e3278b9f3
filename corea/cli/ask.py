"""``corea ask``: one question, one answer."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from corea.cascade import Cascade
from corea.cli.console import print_json, remark
from corea.cli.options import ConfigFile, Json, Threshold, load
from corea.cli.shapes import trace_json
from corea.errors import InputError
from corea.policy.explain import explain_trace
from corea.prices import format_usd
from corea.types import Request, Trace


def ask(
    question: Annotated[str, typer.Argument(help="The question; - reads it from stdin.")],
    config: ConfigFile = None,
    threshold: Threshold = None,
    task: Annotated[str | None, typer.Option("--task", help="The question's task, for a certificate by task.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say why the answer was kept or deferred.")] = False,
    json: Json = False,
) -> None:
    """Ask one question."""
    if question == "-":
        question = sys.stdin.read()
    if not question.strip():
        raise InputError("the question is empty; write one")
    loaded = load(config, threshold)
    if loaded.audit.enabled:
        remark("corea ask is not audited, and knows nothing of open alarms; corea serve and corea batch are")
    with Cascade.from_config(loaded) as cascade:
        trace = cascade.ask_sync(Request.of(question, task=task))
    if json:
        print_json(trace_json(trace))
        return
    typer.echo(trace.text)
    if explain:
        typer.echo(f"\n{explain_trace(trace)}")
    remark(_footer(trace))


def _footer(trace: Trace) -> str:
    confidence = "" if trace.confidence is None else f" · confidence {trace.confidence:.3f}"
    saved = trace.saved_nano_usd
    saving = "" if saved is None else f" ({'saved' if saved >= 0 else 'lost'} {format_usd(abs(saved))})"
    return (
        f"— {trace.tier}{confidence} · {format_usd(trace.cost_nano_usd)}{saving} · {trace.elapsed_s:.1f} s · {trace.id}"
    )
