"""The page in a real browser, the network cut off: it asks for nothing, fits a phone, can be read out and printed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Page

from corea.evaluate.report import to_html
from evaluate.test_report import pair_of, report_of

SIZES = {"phone": (390, 844), "small phone": (360, 640), "desktop": (1280, 900)}
SECTIONS = ("promise", "signals", "cascade", "confidence", "by-task", "wrong", "slices", "method")
CHARTS = ("frontier", "costs", "reliability", "risk", "fates", "accuracies")
NASTY = "<script>document.title = 'broken'</script><img src=x onerror=\"document.title='broken'\"> $\\frac{1}{2}$ "


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """A page with what it asked for and complained about since it was opened."""

    page: Page
    requests: list[str]
    complaints: list[str]


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with markup, formulas and a very long word where only text should be."""
    pair = pair_of(400, signals=5)
    tasks = np.array(
        [("sums", "<b>stories</b>", "$x_1$ " + "y" * 200, "数学")[i % 4] for i in range(400)], dtype=object
    )
    questions = np.array([NASTY + "w" * 3000 + f" {i}?" for i in range(400)], dtype=object)
    answers = np.array(["<i>7</i>" * 200] * 400, dtype=object)
    pair = replace(pair, tasks=tasks, questions=questions, answers=answers, small="<u>small</u>", large="l" * 60)
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(to_html(report_of(pair, signal="sure")), encoding="utf-8")
    return path


@pytest.fixture(scope="module", params=SIZES)
def opened(request: pytest.FixtureRequest, browser: Browser, file: Path) -> Iterator[Opened]:
    width, height = SIZES[request.param]
    context = browser.new_context(viewport={"width": width, "height": height}, offline=True)
    yield open_page(context, file)
    context.close()


def open_page(context: BrowserContext, file: Path) -> Opened:
    page = context.new_page()
    found = Opened(page=page, requests=[], complaints=[])
    page.on("request", lambda request: found.requests.append(request.url))
    page.on("console", lambda message: found.complaints.append(message.text))
    page.on("pageerror", lambda error: found.complaints.append(str(error)))
    page.goto(file.as_uri())
    return found


def measured(page: Page, selector: str) -> list[dict[str, Any]]:
    """Size, place and words of each element."""
    script = """elements => elements.map(element => {
        const box = element.getBoundingClientRect();
        return {
            id: element.id, tag: element.tagName, width: box.width, height: box.height, right: box.right,
            text: element.textContent, label: element.getAttribute('aria-label'),
        };
    })"""
    found: list[dict[str, Any]] = page.eval_on_selector_all(selector, script)
    return found


def test_the_page_asks_for_nothing_and_runs_nothing(opened: Opened, file: Path) -> None:
    assert opened.requests == [file.as_uri()]
    assert opened.complaints == []
    assert opened.page.title() == "A test"
    assert measured(opened.page, "script, iframe, img, link[rel=stylesheet]") == []


def test_nothing_sticks_out_to_the_side(opened: Opened) -> None:
    scroll, width = opened.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert scroll <= width
    # A wide table scrolls in a box of its own, which fits.
    outside = [one for one in measured(opened.page, "body *:not(.wide *, .wide)") if one["right"] > width + 1]
    assert outside == []


def test_every_section_and_chart_is_there_to_be_seen(opened: Opened) -> None:
    seen = measured(opened.page, "main section, footer")
    assert len(seen) == len(SECTIONS)
    assert [one["id"] for one in measured(opened.page, "h2")] == list(SECTIONS)
    assert all(one["width"] > 200 and one["height"] > 50 for one in seen)
    assert {one["id"] for one in measured(opened.page, "figure")} == set(CHARTS)
    charts = measured(opened.page, "figure svg")
    assert len(charts) == len(CHARTS)
    assert all(one["width"] > 250 and one["height"] > 100 for one in charts)


def test_charts_hold_text_that_is_large_enough_to_read(opened: Opened) -> None:
    texts = measured(opened.page, "figure svg text")
    assert {"right answers, %", "USD for 1,000 questions", "certified threshold"} <= {one["text"] for one in texts}
    # Turned text is as wide as it is high.
    assert min(min(one["width"], one["height"]) for one in texts if len(one["text"]) > 2) >= 8
    scale = opened.page.evaluate(
        "(s => s.getBoundingClientRect().width / s.viewBox.baseVal.width)(document.querySelector('figure svg'))"
    )
    assert 8.5 * scale >= 8.5


def test_the_page_can_be_read_out(opened: Opened) -> None:
    assert opened.page.get_attribute("html", "lang") == "en"
    named = measured(opened.page, "svg[role=img], [role=region]")
    assert len(named) > len(CHARTS)
    assert all(one["label"] for one in named)
    levels = [int(one["tag"][1]) for one in measured(opened.page, "h1, h2, h3, h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(one["text"].strip() for one in measured(opened.page, "h1, h2, h3, summary, th[scope=row], figcaption"))
    ids: list[str] = opened.page.eval_on_selector_all("[id]", "elements => elements.map(element => element.id)")
    assert len(ids) == len(set(ids))
    pointed: list[str] = opened.page.evaluate(
        '[...document.documentElement.outerHTML.matchAll(/(?:href="#|url\\(#|labelledby=")([\\w-]+)/g)].map(m => m[1])'
    )
    assert set(pointed) <= set(ids)
    assert len(pointed) > 20


def test_what_is_folded_away_unfolds_without_a_script(opened: Opened) -> None:
    details = opened.page.locator("figure#frontier details")
    table = details.locator("table")
    assert not table.is_visible()
    details.locator("summary").click()
    assert table.is_visible()
    assert details.locator("tbody tr").count() > 50
    details.locator("summary").click()


def test_questions_are_text_whatever_they_hold(opened: Opened) -> None:
    shown = opened.page.locator(".gallery .question").first.text_content()
    assert shown is not None
    assert shown.startswith(NASTY.rstrip())
    assert opened.page.locator(".gallery script, .gallery img, svg b, h3 u").count() == 0


def test_the_page_prints(browser: Browser, file: Path) -> None:
    context = browser.new_context(offline=True)
    opened = open_page(context, file)
    printed = opened.page.pdf(format="A4")
    opened.page.set_viewport_size({"width": 695, "height": 980})
    opened.page.emulate_media(media="print")
    scroll, width = opened.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    charts = measured(opened.page, "figure svg")
    context.close()
    assert printed.startswith(b"%PDF")
    # One object of the type Page for each.
    assert printed.count(b"/Type /Page\n") + printed.count(b"/Type /Page ") > 1
    assert len(printed) > 20_000
    assert len(charts) == len(CHARTS)
    assert all(one["width"] > 200 for one in charts)
    assert scroll <= width
