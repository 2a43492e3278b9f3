"""``import corea`` against ``import httpx``, each in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys

from bench.measure import Figure, paired

_TIMED = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def measure() -> list[Figure]:
    ours, theirs, ratio = paired(lambda: _import_s("corea"), lambda: _import_s("httpx"), rounds=15)
    detail = f"corea {ours * 1e3:.1f} ms, httpx {theirs * 1e3:.1f} ms"
    return [Figure(name="time of `import corea` ÷ `import httpx`", value=ratio, limit=2, detail=detail)]


def _import_s(module: str) -> float:
    done = subprocess.run([sys.executable, "-c", _TIMED.format(module)], capture_output=True, text=True, check=True)
    return float(done.stdout)
