"""COREA: a cascade of language models, cheapest first, that defers when it is not sure.

``import corea`` is light and offline: names below are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from corea.cascade import Cascade
    from corea.config import Config
    from corea.errors import CoreaError
    from corea.types import Attempt, Confidence, Decision, Request, Trace

__all__ = ["Attempt", "Cascade", "Confidence", "Config", "CoreaError", "Decision", "Request", "Trace", "__version__"]

_HOMES = {
    "Attempt": "corea.types",
    "Cascade": "corea.cascade",
    "Confidence": "corea.types",
    "Config": "corea.config",
    "CoreaError": "corea.errors",
    "Decision": "corea.types",
    "Request": "corea.types",
    "Trace": "corea.types",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'corea' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
