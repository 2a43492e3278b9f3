"""Parts about many at once: replicas on one database, and the dashboard over a million traces."""

from __future__ import annotations

import re
from pathlib import Path

from bench.measure import Figure
from bench.parts.records import cores, figures, filled, number, series, table


def dashboard(bench: Path) -> str:
    name = "dashboard_speed"
    return f"CPU time on {cores(bench, [name])}:\n\n{table(figures(bench, name))}"


def replicas(bench: Path) -> str:
    """What sizing assumes of this code, measured."""
    found, soak = figures(bench, "replicas"), figures(bench, "gateway_soak")
    of_mix = re.findall(r"[\d.]+ ms CPU a request", soak[-1].detail)
    per_s = [one for one in found if one.unit == "/s"]
    writers, database = (_those(found, f"CPU of {whose}") for whose in ("the writers", "PostgreSQL"))
    (memory,) = (one for one in found if one.unit == "kB")
    return filled(
        f"Measured on {cores(bench, ['replicas'])}: of a replica {of_mix[0]}, of a mix of kinds "
        f"(`bench/results/gateway_soak.json`); of a request in progress {memory.value:.0f} kB of memory "
        f"({memory.detail}); and with one PostgreSQL without fsync, on the same cores, the same sums for all: "
        f"{series(one.name.split()[0] for one in per_s)} replicas wrote "
        f"{' · '.join(f'{one.value:,.0f}' for one in per_s)} traces/s, at "
        f"{number(min(writers))} to {number(max(writers))} ms of CPU of the writers and {number(min(database))} to "
        f"{number(max(database))} ms of PostgreSQL for each."
    )


def _those(found: list[Figure], ending: str) -> list[float]:
    return [one.value for one in found if one.name.endswith(ending)]
