"""Values as TOML writes them. Knows no configuration; reading is the standard library's."""

from __future__ import annotations

import json
from collections.abc import Mapping

Value = str | bool | int | float | Mapping[str, "Value"]


def lines(values: Mapping[str, Value]) -> list[str]:
    """``name = value``, each on its line. Names are our own, so they need no quotes."""
    return [f"{name} = {text(value)}" for name, value in values.items()]


def text(value: Value) -> str:
    match value:
        case bool():
            return str(value).lower()
        case str():
            # TOML's basic strings are JSON's, but for one character that JSON leaves as it is.
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case Mapping():
            return "{ " + ", ".join(lines(value)) + " }"
        case _:
            return str(value)


def comment(words: str) -> str:
    """One line of a comment, whatever is in ``words``."""
    return "# " + "".join(letter if letter.isprintable() else "�" for letter in words)
