"""HTML from values, every text escaped unless it is :class:`Html` already. Knows no page.

No template language: what is served must not need another package, and a text that is not ``Html`` cannot slip through.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

#: What has no closing tag.
_VOID = frozenset({"br", "input", "link", "meta"})
# HTML knows no control characters but these white spaces, not even written as references. And what turns the direction
# of writing would turn our own words around it as well.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9-]*")


class Html(str):
    """Markup that is safe to send as it is. Only :func:`tag`, :func:`joined` and constants of ours make it."""

    __slots__ = ()


Child = Html | str | int | None
Attribute = str | int | float | bool | None


def text(value: str) -> Html:
    """Escaped, for content and for attributes in double quotes; what cannot be shown is a box."""
    return Html(escape(_CONTROL.sub("\ufffd", value)))


def joined(children: Iterable[Child]) -> Html:
    return Html("".join(_child(one) for one in children))


def tag(name: str, /, *children: Child | Iterable[Child], **attributes: Attribute) -> Html:
    """An element. ``cls`` is ``class``, ``_`` in a name is ``-``; None and False leave an attribute out."""
    told = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Html(f"<{name}{told}>")
    inner = "".join(_child(one) if isinstance(one, str | int | None) else joined(one) for one in children)
    return Html(f"<{name}{told}>{inner}</{name}>")


def _child(value: Child) -> str:
    if value is None:
        return ""
    return value if isinstance(value, Html) else text(str(value))


def _attribute(name: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    written = "class" if name == "cls" else name.strip("_").replace("_", "-")
    if not _NAME.fullmatch(written):
        raise ValueError(f"{written!r} is no attribute's name")
    if value is True:
        return f" {written}"
    told = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
    return f' {written}="{text(told)}"'
