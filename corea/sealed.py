"""JSON files that say what they hold and whether it is whole: with a checksum, written atomically.

Certificates and confidence maps are such files. Knows nothing of what is in them.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from corea.errors import InputError

_Value = TypeVar("_Value")


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


def read(
    path: Path, *, version: int, mark: Mapping[str, str], nothing: str, make: str, again: str
) -> tuple[dict[str, Any], Any]:
    """The body, and the checksum that it states. Whether that fits is for the caller to see, who knows the whole body.

    ``mark``: what the body says of its kind. Raises :class:`InputError` for a file that cannot be read (``make`` says
    how to have one), is no JSON (``again``, how to have another), of another kind (``nothing``) or a newer version.
    """
    try:
        body = json.loads(path.read_bytes())
    except OSError as exc:
        raise InputError(f"{path} cannot be read ({exc.strerror}); {make}") from exc
    except (ValueError, RecursionError) as exc:
        raise InputError(f"{path} is damaged, it is not JSON ({exc}); {again}") from exc
    marked = isinstance(body, dict) and all(body.get(key) == value for key, value in mark.items())
    if not marked or not isinstance(body.get("version"), int):
        raise InputError(f"{path} holds no {nothing}")
    if body["version"] > version:
        raise InputError(f"{path} is of version {body['version']}, newer than this corea; upgrade corea")
    return body, body.pop("sha256", None)


def load(
    path: Path,
    *,
    version: int,
    mark: Mapping[str, str],
    nothing: str,
    make: str,
    again: str,
    parse: Callable[[dict[str, Any]], _Value],
) -> _Value:
    """What ``parse`` makes of the body of a file whose every byte counts.

    Raises :class:`InputError` as :func:`read` does, and for a body that was altered or that ``parse`` cannot take.
    """
    body, stated = read(path, version=version, mark=mark, nothing=nothing, make=make, again=again)
    if stated != checksum(body):
        raise InputError(f"{path} is damaged or was altered: its checksum does not fit; {again}")
    try:
        return parse(body)
    except (KeyError, TypeError, ValueError, struct.error) as exc:
        raise InputError(f"{path} is damaged ({exc}); {again}") from exc
