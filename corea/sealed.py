"""JSON files that say what they hold and whether it is whole: with a checksum, written atomically.

Certificates and confidence maps are such files. Knows nothing of what is in them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corea.errors import InputError


def checksum(body: Mapping[str, Any]) -> str:
    """SHA-256 over canonical JSON: other spaces or another order of keys change nothing."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write(path: Path, body: Mapping[str, Any]) -> None:
    """The body with its checksum. Raises :class:`InputError` where the file cannot be written."""
    text = json.dumps({**body, "sha256": checksum(body)}, indent=2, allow_nan=False, ensure_ascii=False)
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text + "\n", encoding="utf-8")
        partial.replace(path)
    except OSError as exc:
        partial.unlink(missing_ok=True)
        raise InputError(f"cannot write {path}: {exc.strerror or exc}; choose another --out") from exc
