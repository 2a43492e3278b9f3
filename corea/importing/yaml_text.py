"""YAML that somebody else wrote, read without trusting it. Knows no tool's dialect.

An alias is shared, not copied, so what a page of them would come to costs nothing; nor do merge keys, since PyYAML
6.0.4. No error quotes the file, which may hold secrets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from corea.errors import InputError

MOST_BYTES = 1024 * 1024


def read(path: Path) -> Any:
    """What the file holds. Raises :class:`InputError` that names the line, and quotes nothing."""
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}") from exc
    return parse(raw, source=str(path))


def parse(raw: bytes, *, source: str) -> Any:
    """``source`` is named in errors."""
    if len(raw) > MOST_BYTES:
        raise InputError(f"{source} is larger than {MOST_BYTES:,} bytes; is it the right file?")
    try:
        return yaml.safe_load(raw.decode("utf-8-sig"))
    except UnicodeDecodeError as exc:
        raise InputError(f"{source} is not UTF-8; save it as UTF-8") from exc
    except yaml.YAMLError as exc:
        raise InputError(f"{source}: not YAML{_where(exc)}; correct it") from None
    except _ODD_VALUE as exc:
        raise InputError(f"{source}: a value is not what its type says, or nested too deep; correct it") from exc


#: PyYAML lets these out: for a date that is none, a number of a million digits, brackets in brackets.
_ODD_VALUE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


def _where(exc: yaml.YAMLError) -> str:
    mark = getattr(exc, "problem_mark", None) or getattr(exc, "context_mark", None)
    return "" if mark is None else f" at line {mark.line + 1}, column {mark.column + 1}"
