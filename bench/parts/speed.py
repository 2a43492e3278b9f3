"""Parts about our own code: what it costs, how the gateway fails, how training compares. Ratios within one run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.parts.records import cores, figures, filled, kept, number, only, read, span, table

#: Those on the page in any case, and those that join them once they were run.
OVERHEAD = ("startup", "overhead", "memory", "embedded", "certify_speed", "metrics_speed")
MORE = ("limits", "million", "ledger_summary", "ray_batch")


def overhead(bench: Path) -> str:
    names = [*OVERHEAD, *(name for name in MORE if kept(bench, name))]
    found = [figure for name in names for figure in figures(bench, name)]
    missed = sum(figure.met is False for figure in found)
    wanted = sum(figure.met is not None for figure in found)
    head = f"On {cores(bench, names)}; {wanted - missed} of {wanted} limits are met."
    return f"{head}\n\n{table(found)}"


def faults(bench: Path) -> str:
    cells = read(bench, "gateway_faults")
    agree = sum(not cell["wrong"] and cell["ledger_nano_usd"] == cell["invoice_nano_usd"] for cell in cells)
    small = [cell["success_rate"] for cell in only(cells, tier="small", rate=1.0)]
    head = (
        f"{len(cells)} cells of fault × share × phase × tier, {span((cell['requests'] for cell in cells), 'd')} "
        "requests each. Wherever the ledger knows a cost it equals the mock upstream's invoice to the nano-dollar: in "
        f"{agree} of {len(cells)} cells. With the small tier down, {span(small, '.0%')} of the requests were answered."
    )
    return "\n".join([filled(head), "", *_large_tier(cells)])


def _large_tier(cells: list[Mapping[str, Any]]) -> Iterator[str]:
    """Calls are of its upstream, for each request that is deferred to it."""
    yield (
        "| the large tier | all fail before the first word: calls a request | a fifth fails before it: answered "
        "| calls a request | a fifth fails mid-stream: answered |"
    )
    yield "|---|---|---|---|---|"
    for fault in dict.fromkeys(cell["fault"] for cell in cells):
        of = only(cells, tier="large", fault=fault)
        before = [cell for cell in of if cell["phase"] != "mid-stream"]
        some, midway = only(before, rate=0.2), only(of, rate=0.2, phase="mid-stream")
        shown = [
            span((cell["calls_per_request"] for cell in only(before, rate=1.0)), ".2f"),
            span((cell["success_rate"] for cell in some), ".0%"),
            span((cell["calls_per_request"] for cell in some), ".2f"),
            span((cell["success_rate"] for cell in midway), ".0%"),
        ]
        yield f"| {fault} | {' | '.join(shown)} |"


def soak(bench: Path) -> str:
    return f"On {cores(bench, ['gateway_soak'])}:\n\n{table(figures(bench, 'gateway_soak'))}"


def training(bench: Path) -> str:
    parity = figures(bench, "export_parity")
    wanted = [figure for figure in parity if figure.limit is not None]
    others = [figure for figure in parity if figure.limit is None]
    lines = [table([*figures(bench, "train_step"), *wanted]), ""]
    lines += [
        "| the same prompts, and the adapter on | mean \\|Δ log-probability\\| | same top digit |",
        "|---|---|---|",
    ]
    for log_probabilities, same in zip(others[::2], others[1::2], strict=True):
        name = log_probabilities.name.partition(":")[0]
        lines.append(f"| {name} | {number(log_probabilities.value)} | {same.value:.0%} |")
    return "\n".join(lines)
