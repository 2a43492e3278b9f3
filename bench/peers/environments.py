"""An environment for each peer, with pinned versions, and how a peer is asked in it. Knows no data and no rule."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

INSIDE = Path(__file__).parent / "inside"


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """What one peer needs. ``alone``: its own requirements are left out, and ``others`` has what is used of them."""

    name: str
    version: str
    others: tuple[str, ...] = ()
    alone: bool = False

    @property
    def pinned(self) -> str:
        return f"{self.name}=={self.version}"


def installed(package: Package, folder: Path) -> Path:
    """The Python of the peer's environment under ``folder``; made where it is absent, a minute or so.

    Raises :class:`RuntimeError` where another version is there.
    """
    home = folder / package.name
    python = home / "bin" / "python"
    if not (home / "installed").exists():
        _run([sys.executable, "-m", "venv", str(home)])
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        if package.others:
            _run([*pip, *package.others])
        _run([*pip, *(["--no-deps"] if package.alone else []), package.pinned])
        (home / "installed").touch()
    asked = f"from importlib.metadata import version; print(version({package.name!r}))"
    told = subprocess.run([str(python), "-c", asked], check=False, capture_output=True, text=True)
    if told.stdout.strip() != package.version:
        raise RuntimeError(f"{home} does not hold {package.pinned}; delete it, and it is installed anew")
    return python


def ask(python: Path, script: str, question: dict[str, Any]) -> dict[str, Any]:
    """The reply of ``inside/SCRIPT.py``. What it prints goes to stderr. Raises where it fails."""
    with tempfile.TemporaryDirectory() as scratch:
        asked, told = Path(scratch) / "asked.json", Path(scratch) / "told.json"
        asked.write_text(json.dumps(question))
        # -P: a script named like its package must not be taken for it.
        command = [str(python), "-P", str(INSIDE / f"{script}.py"), str(asked), str(told)]
        subprocess.run(command, check=True, stdout=sys.stderr, env=_ENV, cwd=scratch)
        reply: dict[str, Any] = json.loads(told.read_text())
    return reply


#: Nothing is fetched, nothing reported, one core.
_ENV = {
    "PATH": "/usr/bin:/bin", "LITELLM_LOCAL_MODEL_COST_MAP": "True", "MPLBACKEND": "Agg", "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}  # fmt: skip


def _run(command: list[str]) -> None:
    print("$", *command, file=sys.stderr, flush=True)
    subprocess.run(command, check=True)
