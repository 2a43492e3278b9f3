"""Nothing that is not markup becomes markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corea.dashboard.html import Html, tag, text
from corea.dashboard.layout import STATIC


class Read(HTMLParser):
    """Tags and text as a parser sees them."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, list[tuple[str, str | None]]]] = []
        self.words = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, attrs))

    def handle_data(self, data: str) -> None:
        self.words += data


@given(st.text(), st.text())
def test_whatever_a_text_holds_a_parser_reads_one_element_with_that_text(content: str, title: str) -> None:
    read = Read(tag("p", content, title=title))
    assert [name for name, _ in read.tags] == ["p"]
    ((name, value),) = read.tags[0][1]
    assert name == "title"
    assert value is not None
    # Control characters become boxes; nothing else changes.
    assert len(value) == len(title)
    assert all(b in (a, "\ufffd") for a, b in zip(title, value, strict=True))
    assert "\x00" not in read.words


def test_markup_of_ours_stays_and_text_is_escaped() -> None:
    assert tag("p", tag("b", "a<b"), "&", None, 3) == "<p><b>a&lt;b</b>&amp;3</p>"
    assert isinstance(tag("p"), Html)
    assert text("\x00\x1b[31m\u0085") == "\ufffd\ufffd[31m\ufffd"
    assert tag("input", required=True, value="'\"", checked=False, list=None) == '<input required value="&#x27;&quot;">'


def test_no_attribute_is_named_by_a_text() -> None:
    with pytest.raises(ValueError, match="attribute"):
        tag("p", **{"a onload": "x"})


def test_the_style_sheet_and_the_script_ask_for_nothing_elsewhere() -> None:
    for body, _ in STATIC.values():
        told = body.decode().replace("http://www.w3.org/2000/svg", "")
        assert "http" not in told
        assert "@import" not in told
        assert "url(" not in told
        assert "eval(" not in told
        assert "innerHTML" not in told


def test_the_dark_colours_are_the_same_by_choice_and_by_the_readers_system() -> None:
    told = STATIC["dashboard.css"][0].decode()
    blocks = [dict(re.findall(r"(--[a-z-]+): ([^;]+);", block)) for block in re.findall(r":root[^{]*{([^}]*)}", told)]
    light, by_system, by_choice = blocks[:3]
    assert by_system == by_choice
    assert by_system.keys() == light.keys()
