"""COREA next to LiteLLM, Portkey and a bare relay: the same mock upstream, the same load, one worker each, in one run.

``python -m bench.gateway.compare --peers DIR`` installs what is missing under DIR, measures for ``--seconds``, writes
``--out`` and prints the table. Without ``--peers`` nothing is measured: the table of an earlier run is shown.
``python -m bench.pages`` writes what is in ``bench/results`` into docs/gateway.md.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import textwrap
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.gateway import peers
from bench.gateway.measure import DIRECT, LOADS, Measured, Summary, measure, own
from bench.gateway.servers import Server
from bench.measure import Figure
from bench.parts.records import filled, kept, read

ROOT = Path(__file__).parents[2]
NAME = "gateway_compare"
RESULT = ROOT / "bench" / "results" / f"{NAME}.json"
HEADING = "## Next to LiteLLM and Portkey"
_NAMES = {
    "corea": "COREA",
    "corea-no-ledger": "COREA, no ledger",
    "bare": "bare aiohttp relay",
    "portkey": "Portkey",
    "litellm": "LiteLLM",
}
_PACED = [load.name for load in LOADS if load.at_once < 64]
_SATURATED = [load.name for load in LOADS if load.at_once == 64]

Loads = Mapping[str, Mapping[str, Summary]]


def servers(folder: Path, mock_port: int, scratch: Path) -> list[Server]:
    return [*own(mock_port, scratch), peers.portkey(folder, mock_port), peers.litellm(folder, mock_port, scratch)]


def figures(loads: Loads, memory_mb: Mapping[str, float]) -> list[Figure]:
    """What is wanted of COREA, each as a ratio to another's in the same load."""
    return [
        *(_ratio(loads, "added_p50_ms", "litellm", load, limit=0.15) for load in _PACED),
        *(_ratio(loads, "added_p99_ms", "litellm", load, limit=0.15) for load in _PACED),
        *(_ratio(loads, "added_p50_ms", "portkey", load, limit=1.0) for load in _PACED),
        *(_ratio(loads, "added_p99_ms", "portkey", load, limit=1.0) for load in _PACED),
        *(_ratio(loads, "added_first_word_p50_ms", "litellm", load, limit=0.15) for load in _PACED if "stream" in load),
        *(_ratio(loads, "added_first_word_p50_ms", "portkey", load, limit=1.0) for load in _PACED if "stream" in load),
        *(_ratio(loads, "added_p50_ms", "bare", load, limit=2.0) for load in _PACED),
        *(_ratio(loads, "cpu_ms", "litellm", load.name, limit=0.1) for load in LOADS),
        *(_ratio(loads, "requests_per_s", "litellm", load, limit=15.0, at_least=True) for load in _SATURATED),
        *(_ratio(loads, "requests_per_s", "portkey", load, limit=2.0, at_least=True) for load in _SATURATED),
        *(_ratio(loads, "requests_per_s", "corea-no-ledger", load, limit=0.8, at_least=True) for load in _SATURATED),
        Figure(
            name="memory ÷ LiteLLM's",
            value=memory_mb["corea"] / memory_mb["litellm"],
            limit=0.4,
            detail=f"{memory_mb['corea']:.0f} ÷ {memory_mb['litellm']:.0f} MB",
        ),
    ]


_MEASURES = {
    "added_p50_ms": ("added p50", "ms"),
    "added_p99_ms": ("added p99", "ms"),
    "added_first_word_p50_ms": ("added to the first word, p50", "ms"),
    "cpu_ms": ("CPU a request", "ms"),
    "requests_per_s": ("requests/s", "/s"),
}


#: Times of the direct line differ by so much from round to round.
_TOLD_MS = 0.1


def _ratio(loads: Loads, measure: str, other: str, load: str, *, limit: float, at_least: bool = False) -> Figure:
    ours, theirs = loads[load]["corea"][measure], loads[load][other][measure]
    what, unit = _MEASURES[measure]
    return Figure(
        name=f"{what} ÷ {_whose(other)}, {load}",
        # The direct line is by chance as slow as a quick server: what that one adds is no less than can be told.
        value=ours / max(theirs, _TOLD_MS),
        limit=limit,
        at_least=at_least,
        detail=f"{ours:.4g} ÷ {theirs:.4g} {unit}",
    )


def _whose(other: str) -> str:
    return {"corea-no-ledger": "that without a ledger", "bare": "the bare relay's"}.get(other, f"{_NAMES[other]}'s")


def record_of(measured: Measured, *, versions: Mapping[str, str], seconds: float, rounds: int) -> dict[str, Any]:
    """Everything, as it is kept."""
    machine = {
        "system": platform.system(),
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "pinned": measured.pinned,
    }
    return {
        "machine": machine,
        "versions": dict(versions),
        "seconds": seconds,
        "rounds": rounds,
        "loads": measured.loads,
        "memory_mb": measured.memory_mb,
        "figures": [figure.record for figure in figures(measured.loads, measured.memory_mb)],
    }


def section(record: Mapping[str, Any]) -> str:
    """The section of docs/gateway.md, all of it from the record."""
    loads, versions, machine = record["loads"], record["versions"], record["machine"]
    verdict, missed = _verdict(record)
    cores = f"{machine['cores']} cores" if machine["cores"] > 1 else "one core"
    where = ", servers on one of them, clients and upstream on another" if machine["pinned"] else ""
    method = (
        f"COREA {versions['corea']} as `corea serve` runs it (a key, the ledger, metrics, a log line a request), "
        f"LiteLLM's proxy {versions['litellm']} (a master key, no database), Portkey's gateway {versions['portkey']} "
        f"(Node {versions['node']}) and a bare relay (Starlette, aiohttp): one worker each, before the same mock "
        f"upstream, whose first byte comes after 20 ms. {record['rounds']} interleaved rounds, {record['seconds']:g} s "
        f"of load in all, on {cores}{where}. “Added” is to the direct line in the same round; figures are medians over "
        "the rounds."
    )
    return "\n".join(
        [
            HEADING,
            "",
            textwrap.fill(method, 120, break_on_hyphens=False),
            "",
            *_table(loads, record["memory_mb"], streamed=False),
            "",
            *_table(loads, record["memory_mb"], streamed=True),
            "",
            *([f"{verdict}. Missed:", "", *_missed(missed)] if missed else [f"{verdict}."]),
            "",
            "`python -m bench gateway_compare --envs DIR` measures anew and writes this section; all ratios are in",
            "`bench/results/gateway_compare.json`.",
            "",
        ]
    )


def _table(loads: Loads, memory_mb: Mapping[str, float], *, streamed: bool) -> list[str]:
    end = ", streamed" if streamed else ""
    alone, sixteen, saturated = loads[f"alone{end}"], loads[f"16 at once{end}"], loads[f"64 at once{end}"]
    head = ["added p50 / p99, alone", "16 at once", "CPU a request, 64 at once", "requests/s, 64 at once"]
    head += ["first word p50, alone", "16 at once"] if streamed else ["memory"]
    lines = [
        f"| {'streamed, 32 words' if streamed else 'buffered'} | {' | '.join(head)} |",
        "|---" * (len(head) + 1) + "|",
    ]
    for name, shown_as in _NAMES.items():
        busy = saturated[name]
        cells = [
            _added(alone, name),
            _added(sixteen, name),
            f"{busy['cpu_ms']:.2f} ms",
            f"{busy['requests_per_s']:.0f}",
        ]
        cells += [_first(alone, name), _first(sixteen, name)] if streamed else [f"{memory_mb[name]:.0f} MB"]
        lines.append(f"| {shown_as} | {' | '.join(cells)} |")
    return lines


def _added(load: Mapping[str, Summary], name: str) -> str:
    return f"{load[name]['added_p50_ms']:.2f} / {load[name]['added_p99_ms']:.2f} ms" if name in load else ""


def _first(load: Mapping[str, Summary], name: str) -> str:
    return f"{load[name]['added_first_word_p50_ms']:.2f} ms" if name in load else ""


def _missed(figures: Sequence[Mapping[str, Any]]) -> list[str]:
    rows = [
        f"| {figure['name']} | {figure['value']:.3g} | {'≥' if figure['at_least'] else '≤'} {figure['limit']:g} "
        f"| {figure['detail']} |"
        for figure in figures
    ]
    return ["| ratio | measured | wanted | |", "|---|---|---|---|", *rows]


def _verdict(record: Mapping[str, Any]) -> tuple[str, list[Mapping[str, Any]]]:
    """How many ratios are met, in words, and those that are not."""
    wanted = [figure for figure in record["figures"] if figure["met"] is not None]
    missed = [figure for figure in wanted if not figure["met"]]
    return f"Of {len(wanted)} ratios that are wanted of COREA, {len(wanted) - len(missed)} are met", missed


def part(bench: Path) -> str:
    """The section, or nothing before the first run."""
    return section(read(bench, NAME)) if kept(bench, NAME) else ""


def short(bench: Path) -> str:
    """A sentence for docs/results.md."""
    if not kept(bench, NAME):
        return "Its speed beside other gateways is not measured yet."
    verdict, _ = _verdict(read(bench, NAME))
    where = "[gateway.md](gateway.md#next-to-litellm-and-portkey)"
    return filled(f"Its speed beside LiteLLM's and Portkey's is in {where}. {verdict}.")


def shown(record: Mapping[str, Any]) -> str:
    """For a terminal: all servers in all loads, then what is wanted."""
    lines = [f"{'':<24}{'':<18}{'added p50':>11}{'p99':>9}{'1st word':>10}{'CPU':>9}{'req/s':>9}{'requests':>10}"]
    for load, by_server in record["loads"].items():
        for name, summary in by_server.items():
            figures = (
                f"{summary['added_p50_ms']:>8.2f} ms{summary['added_p99_ms']:>9.2f}"
                f"{summary['added_first_word_p50_ms']:>10.2f}{summary['cpu_ms']:>9.3f}"
            )
            figures = f"{'':>8}   {'':>9}{'':>10}{'':>9}" if name == DIRECT else figures
            lines.append(f"{load:<24}{name:<18}{figures}{summary['requests_per_s']:>9.0f}{summary['requests']:>10.0f}")
    lines += [f"{name:<42}{mb:>8.1f} MB" for name, mb in record["memory_mb"].items()]
    keys = ("name", "value", "unit", "limit", "at_least", "detail")
    return "\n".join([*lines, *(str(Figure(**{key: one[key] for key in keys})) for one in record["figures"])])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gateway.compare", description=__doc__)
    parser.add_argument("--peers", type=Path, help="folder for the environments of LiteLLM and Portkey")
    parser.add_argument("--out", type=Path, default=RESULT, help="the JSON")
    parser.add_argument("--seconds", type=float, default=450.0, help="of load, all servers together")
    parser.add_argument("--rounds", type=int, default=8)
    chosen = parser.parse_args(arguments)
    if chosen.peers is not None:
        versions = {"corea": version("corea"), **peers.installed(chosen.peers)}
        start = partial(servers, chosen.peers.resolve())
        measured = measure(start, seconds=chosen.seconds, rounds=chosen.rounds)
        record = record_of(measured, versions=versions, seconds=chosen.seconds, rounds=chosen.rounds)
        chosen.out.write_text(json.dumps(record, indent=2) + "\n")
    record = json.loads(chosen.out.read_text())
    print(shown(record))
    return int(any(figure["met"] is False for figure in record["figures"]))


if __name__ == "__main__":
    sys.exit(main())
