"""What generated parts of pages are made of: for each name, the function that makes it of the files under ``bench/``.

A new part is one line here and one pair of markers in a page (:mod:`bench.pages`). A function takes the folder that
holds ``results/`` and ``outcomes/``, measures nothing, and gives Markdown; nothing where there is nothing to show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

#: As words, so that a page imports what its own parts need.
PARTS: Mapping[str, str] = {
    "gsm8k-60": "bench.parts.outcomes:sixty",
    "gsm8k-60-says": "bench.parts.outcomes:sixty_says",
    "real-outcomes": "bench.parts.outcomes:real",
    "real-outcomes-says": "bench.parts.outcomes:real_says",
    "overhead": "bench.parts.speed:overhead",
    "gateway-faults": "bench.parts.speed:faults",
    "gateway-soak": "bench.parts.speed:soak",
    "training": "bench.parts.speed:training",
    "replicas": "bench.parts.serving:replicas",
    "dashboard-speed": "bench.parts.serving:dashboard",
    "certified": "bench.parts.certified:certificates",
    "ladders": "bench.parts.certified:ladders",
    "benches": "bench.parts.benches:listed",
    "gateway-compare": "bench.gateway.compare:part",
    "gateway-compare-short": "bench.gateway.compare:short",
    "peers": "bench.peers.page:part",
    "programs": "bench.programs:part",
}


def made(name: str, *, bench: Path) -> str:
    """The text of a part. Raises :class:`ValueError` for a name that is not here."""
    if name not in PARTS:
        raise ValueError(f"there is no part {name!r}; bench/parts/__init__.py has {', '.join(PARTS)}")
    module, _, function = PARTS[name].partition(":")
    make: Callable[[Path], str] = getattr(import_module(module), function)
    return make(bench)
