"""Links between pages lead somewhere, on a code host and on the site, and the site has every page."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import unquote

import pytest
import yaml  # type: ignore[import-untyped]

from docs.fences import ROOT, pages, prose_of

DOCS = ROOT / "docs"
ALL = sorted({*pages(), *DOCS.rglob("*.md")})
_LINK = re.compile(r"\]\((?P<to>[^()\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(?P<text>.+?)\s*$", re.MULTILINE)


@pytest.mark.parametrize("page", ALL, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_relative_link_and_anchor_leads_somewhere(page: Path) -> None:
    broken = [link for link in _links(page) if not _leads_somewhere(page, link)]
    assert not broken


def test_the_navigation_names_every_page_once_and_none_that_is_not_there() -> None:
    """But for the decisions, which docs/site_hooks.py adds."""
    named = sorted(_leaves(_site()["nav"]))
    there = [page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")]
    assert named == sorted(name for name in there if not re.match(r"decisions/\d", name))


def test_the_site_loads_nothing_from_elsewhere() -> None:
    site = _site()
    assert site["theme"]["font"] is False
    assert not [name for name in site.get("extra_css", []) + site.get("extra_javascript", []) if "//" in name]
    drawn = "".join(picture.read_text(encoding="utf-8") for picture in (DOCS / "pictures").glob("*.svg"))
    assert not re.findall(r"(?:href|url\()=?[\"']?https?:", drawn)


def test_each_package_of_the_site_is_pinned() -> None:
    lines = (ROOT / "requirements-docs.txt").read_text().splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert {"mkdocs", "mkdocs-material", "mkdocstrings-python"} <= {pin.partition("==")[0] for pin in pins}
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", pin) for pin in pins)


def test_the_decisions_are_added_to_the_navigation_in_order() -> None:
    config = _hooks().on_config({"docs_dir": str(DOCS), "nav": [{"Decisions": ["decisions/README.md"]}]})
    added = config["nav"][0]["Decisions"]
    assert added[0] == "decisions/README.md"
    assert added[1:] == sorted(f"decisions/{page.name}" for page in (DOCS / "decisions").glob("[0-9]*.md"))


def test_a_link_out_of_the_docs_becomes_a_path_or_leads_to_the_repository() -> None:
    text = "See [bench/](../bench), [the ledger](ledger.md), ![a picture](../bench) and [one](../README.md#train)."
    assert (
        _on_site(text, repo_url=None) == "See `bench`, [the ledger](ledger.md), ![a picture](../bench) and `README.md`."
    )
    assert "[bench/](https://host.example/r/tree/main/bench)" in _on_site(text, repo_url="https://host.example/r/")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        _on_site("[x](../nowhere)", repo_url=None)


def test_roles_of_docstrings_are_taken_off() -> None:
    html = _hooks().on_page_content("<p>Raises :class:<code>InputError</code>.</p>", page=None, config=None, files=None)
    assert html == "<p>Raises <code>InputError</code>.</p>"


def test_an_example_of_a_docstring_is_code() -> None:
    quoted = "<blockquote>\n<blockquote>\n<blockquote>\n<p>with x as y:  # doctest: +SKIP\n...     use(y)</p>\n"
    html = _hooks().on_page_content(f"{quoted}{'</blockquote>' * 3}", page=None, config=None, files=None)
    assert html == "<div class='highlight'><pre><code>with x as y:\n    use(y)</code></pre></div>"


def _on_site(text: str, *, repo_url: str | None) -> str:
    page = SimpleNamespace(file=SimpleNamespace(src_uri="page.md"))
    return str(
        _hooks().on_page_markdown(text, page=page, config={"docs_dir": str(DOCS), "repo_url": repo_url}, files=None)
    )


def _hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_hooks", DOCS / "site_hooks.py")
    assert spec is not None
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    return hooks


def _site() -> dict[str, Any]:
    """mkdocs.yml, without what its tags stand for."""
    text = re.sub(r"!!python/\S+ \{.*\}", "null", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    site: dict[str, Any] = yaml.safe_load(text)
    return site


def _leaves(nav: Any) -> list[str]:
    if isinstance(nav, str):
        return [nav]
    parts = nav.values() if isinstance(nav, dict) else nav
    return [leaf for part in parts for leaf in _leaves(part)]


def _links(page: Path) -> list[str]:
    plain = re.sub(r"`[^`\n]*`", "", prose_of(page))
    return [link for link in _LINK.findall(plain) if not re.match(r"[a-z]+:", link)]


def _leads_somewhere(page: Path, link: str) -> bool:
    path, _, anchor = unquote(link).partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists():
        return False
    return not anchor or (target.suffix == ".md" and anchor in _anchors(target))


def _anchors(page: Path) -> set[str]:
    """Headings' anchors, as GitHub and the site make them."""
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text) for text in _HEADING.findall(prose_of(page)))
    return {re.sub(r"[^\w\- ]", "", text.strip().lower()).replace(" ", "-") for text in plain}
