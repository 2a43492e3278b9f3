"""How long each stage took and on what: a small file beside the work, added to by every run. Knows no stage."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "trl", "transformers", "peft")


@contextmanager
def timed(file: Path, stage: str, *, clock: Callable[[], float]) -> Iterator[None]:
    """Add what this run spends on the stage, however it ends: a stage taken up again has the sum of all its runs."""
    started = clock()
    try:
        yield
    finally:
        if is_first():
            _add(file, stage, clock() - started)


def is_first() -> bool:
    """Whether this is the process that writes and tells: of several, the first; alone, this one."""
    return os.environ.get("RANK", "0") == "0"


def read(file: Path) -> Mapping[str, Any]:
    """By stage: ``wall_s``, ``device``. Empty where nothing was recorded, or what was cannot be read."""
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def device() -> str:
    """What torch computes on here, in words."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} × {torch.cuda.get_device_name()}"
    return f"CPU, {torch.get_num_threads()} thread(s) of torch, {os.cpu_count()} core(s)"


def versions() -> dict[str, str]:
    """Of the packages that did the work; those not installed are left out."""
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _add(file: Path, stage: str, elapsed_s: float) -> None:
    kept = dict(read(file))
    before = float(kept.get(stage, {}).get("wall_s", 0.0))
    kept[stage] = {"wall_s": before + elapsed_s, "device": device()}
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{os.getpid()}")
    partial.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
    partial.replace(file)
