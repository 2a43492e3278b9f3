"""The dashboard in a real browser: it asks nobody else, fits a phone, and is used by keyboard, by ear, in the dark."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from random import Random
from typing import Any, Literal

import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, expect

from corea.dashboard.alarms import Alarm
from corea.dashboard.pages import SESSION, Dashboard
from corea.dashboard.session import SignIn
from corea.ledger import Ledger
from dashboard.filled import NASTY, NOW, PASSWORD, some_traces, trace, write
from evaluate.test_report_in_a_browser import measured

SIZES = {"phone": (390, 844), "desktop": (1380, 900)}
PATHS = {
    "overview": "", "calibration": "/calibration?period=all", "traces": "/traces?outcome=deferred&period=all",
    "trace": "/traces/t00003",
}  # fmt: skip
Theme = Literal["light", "dark"]

#: All texts that can be seen, with their colours: [text, ratio, size in px, weight].
CONTRASTS = """() => {
    const parse = colour => (colour.match(/[\\d.]+/g) || [0, 0, 0]).map(Number);
    const over = (top, under) => {
        const a = top.length > 3 ? top[3] : 1;
        return [0, 1, 2].map(i => top[i] * a + under[i] * (1 - a));
    };
    const lightness = rgb => {
        const [r, g, b] = rgb.map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const background = element => {
        const layers = [];
        for (let one = element; one; one = one.parentElement) {
            const colour = parse(getComputedStyle(one).backgroundColor);
            if (colour.length === 3 || colour[3] > 0) layers.push(colour);
            if (colour.length === 3 || colour[3] === 1) break;
        }
        return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255]);
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const text = walker.currentNode.textContent.trim(), element = walker.currentNode.parentElement;
        if (!text || !element.checkVisibility() || element.closest('.unseen, title, option')) continue;
        const style = getComputedStyle(element);
        const ink = parse(element.closest('svg') ? style.fill : style.color), ground = background(element);
        const [a, b] = [lightness(over(ink, ground)), lightness(ground)].sort((x, y) => y - x);
        found.push([text.slice(0, 40), (a + 0.05) / (b + 0.05), parseFloat(style.fontSize), Number(style.fontWeight)]);
    }
    return found;
}"""


class Ringing:
    def current(self) -> list[Alarm]:
        return [Alarm(name="drift", task=NASTY, since_unix_s=NOW - 60, text="Too much is lost.", severity="critical")]


@dataclass
class Site:
    address: str
    ledger: Ledger
    session: str


@dataclass
class Opened:
    """A page with what it asked for and complained about since it was opened."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('site') / 'l.db'}") as ledger:
        sign_in = SignIn(PASSWORD, session_s=3600, clock=lambda: NOW)
        app = Dashboard(ledger, sign_in=sign_in, alarms=Ringing(), clock=lambda: NOW)
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        # The browser's own event loop is not to run in this thread yet.
        write(ledger, some_traces(200), feedback=0.7)
        while not server.started and thread.is_alive():
            thread.join(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield Site(f"http://127.0.0.1:{port}/dashboard", ledger, sign_in.new_session())
        server.should_exit = True
        thread.join(10)


def context_of(
    browser: Browser, site: Site, size: str = "desktop", theme: Theme = "light", **options: Any
) -> BrowserContext:
    width, height = SIZES[size]
    context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=theme, **options)
    context.add_cookies([{"name": SESSION, "value": site.session, "url": site.address}])
    context.set_default_timeout(15_000)
    return context


def opened(context: BrowserContext, address: str) -> Opened:
    found = Opened(context.new_page())
    found.page.on("request", lambda request: found.requests.append(request.url))
    found.page.on("console", lambda message: found.complaints.append(message.text))
    found.page.on("pageerror", lambda error: found.complaints.append(str(error)))
    found.page.goto(address)
    return found


@pytest.fixture(scope="module", params=[("phone", "light"), ("desktop", "dark")], ids=["phone, light", "desktop, dark"])
def pages(request: pytest.FixtureRequest, site: Site, browser: Browser) -> Iterator[dict[str, Opened]]:
    size, theme = request.param
    context = context_of(browser, site, size, theme)
    yield {name: opened(context, site.address + path) for name, path in PATHS.items()}
    context.close()


def test_pages_ask_nobody_else_and_complain_of_nothing(pages: dict[str, Opened], site: Site) -> None:
    for name, one in pages.items():
        assert one.complaints == [], name
        assert all(url.startswith(site.address) for url in one.requests), name
        # The page, its style sheet, its script, and the icon where the browser wants it.
        assert 3 <= len(one.requests) <= 4, name
        assert one.page.title().endswith("· COREA")


def test_nothing_sticks_out_to_the_side(pages: dict[str, Opened]) -> None:
    for name, one in pages.items():
        scroll, width = one.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert scroll <= width, name
        inside = "body *:not(.scroll *, .scroll, .unseen, .unseen *, .skip, svg *, .segments *)"
        outside = [box for box in measured(one.page, inside) if box["right"] > width + 1]
        assert outside == [], name


def test_every_text_stands_out_from_its_ground(pages: dict[str, Opened]) -> None:
    for name, one in pages.items():
        one.page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
        found = one.page.evaluate(CONTRASTS)
        assert len(found) > 30, name
        pale = [
            (text, ratio)
            for text, ratio, size, weight in found
            if ratio < (3.0 if size >= 24 or (size >= 18.66 and weight >= 700) else 4.5)
        ]
        assert pale == [], name


def test_pages_can_be_read_out(pages: dict[str, Opened]) -> None:
    for name, one in pages.items():
        page = one.page
        assert page.get_attribute("html", "lang") == "en"
        levels = [int(box["tag"][1]) for box in measured(page, "h1, h2, h3, h4")]
        assert levels.count(1) == 1, name
        assert all(after - before <= 1 for before, after in pairwise(levels)), name
        named = measured(page, "svg[role=img], [role=region]:not([aria-labelledby]), nav, [role=group]")
        assert all(box["label"] for box in named), name
        assert page.locator("svg:not([role=img]):not([aria-hidden=true])").count() == 0, name
        assert page.locator("table:not(:has(caption)), th:not([scope])").count() == 0, name
        unlabelled = page.evaluate(
            "[...document.querySelectorAll('select, input:not([type=hidden])')].filter(e => !e.labels.length).length"
        )
        assert unlabelled == 0, name
        ids: list[str] = page.eval_on_selector_all("[id]", "elements => elements.map(element => element.id)")
        assert len(ids) == len(set(ids)), name
        pointed: list[str] = page.eval_on_selector_all(
            "[aria-labelledby], [aria-describedby]",
            "all => all.map(e => e.getAttribute('aria-labelledby') || e.getAttribute('aria-describedby'))",
        )
        assert set(pointed) <= set(ids), name


def test_every_chart_has_its_figures_as_a_table(pages: dict[str, Opened]) -> None:
    charts = pages["overview"].page.locator("figure").all() + pages["calibration"].page.locator("figure").all()
    assert len(charts) == 5
    for chart in charts:
        assert chart.locator("svg.chart").bounding_box()["width"] > 250  # type: ignore[index]
        assert chart.locator("details table tbody tr").count() >= 2


def test_one_signs_in_and_around_by_keyboard_alone(browser: Browser, site: Site) -> None:
    context = browser.new_context(viewport={"width": 1000, "height": 700})
    page = opened(context, f"{site.address}/traces?outcome=kept").page
    page.keyboard.type("wrong password")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_have_text("This is not the password.")
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Traces")
    assert page.url.endswith("/traces?outcome=kept")
    page.keyboard.press("Tab")
    skip = page.get_by_role("link", name="Skip to the figures")
    expect(skip).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert skip.bounding_box()["y"] >= 0  # type: ignore[index]
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    page.locator("td a.why").first.focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Why was this kept?")).to_be_visible()
    page.get_by_role("button", name="Sign out").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    page.goto(site.address)
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    context.close()


def test_everything_works_without_a_script(browser: Browser, site: Site) -> None:
    context = context_of(browser, site, java_script_enabled=False)
    page = opened(context, site.address).page
    assert page.locator("svg.chart").count() == 3
    page.get_by_role("combobox", name="Route").select_option("small")
    page.get_by_role("button", name="Apply").click()
    assert "route=small" in page.url
    expect(page.get_by_role("link", name="Clear")).to_be_visible()
    page.get_by_role("link", name="All time").click()
    assert "route=small" in page.url
    assert "period=all" in page.url
    page.get_by_role("button", name="Dark").click()
    assert "route=small" in page.url
    assert page.get_attribute("html", "data-theme") == "dark"
    context.close()


def test_a_choice_is_applied_at_once_and_a_theme_stays(browser: Browser, site: Site) -> None:
    context = context_of(browser, site)
    page = opened(context, site.address).page
    page.get_by_role("combobox", name="Profile").select_option("corea:careful")
    page.wait_for_url("**/dashboard?period=7d&profile=corea%3Acareful")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.get_by_role("button", name="Dark").click()
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    dark = page.evaluate(ground)
    assert dark != light
    page.goto(f"{site.address}/traces")
    assert page.evaluate(ground) == dark
    context.close()


def test_a_live_page_shows_what_came_since(browser: Browser, site: Site) -> None:
    context = context_of(browser, site)
    page = context.new_page()
    page.clock.install()
    page.goto(site.address)
    page.locator("figure#requests summary").click()
    page.evaluate("document.activeElement.blur()")
    requests = page.locator(".key:has(dt:text-is('Requests')) .value")
    before = int(requests.inner_text())
    # Written from a thread of its own: this one has the browser's event loop.
    more = threading.Thread(target=write, args=(site.ledger, [trace(900, Random(900), at=NOW - 5)]))
    more.start()
    more.join(30)
    page.clock.run_for(31_000)
    expect(requests).to_have_text(str(before + 1))
    # What was unfolded stays so.
    assert page.locator("figure#requests details").get_attribute("open") is not None
    context.close()


def test_a_list_can_be_taken_along(browser: Browser, site: Site, tmp_path: Path) -> None:
    context = context_of(browser, site)
    page = opened(context, f"{site.address}/traces?route=large&period=all").page
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV", exact=True).click()
    assert download.value.suggested_filename == "corea-traces.csv"
    download.value.save_as(tmp_path / "t.csv")
    lines = (tmp_path / "t.csv").read_text(encoding="utf-8").splitlines()
    assert len(lines) > 30
    assert all(",large," in line for line in lines[1:])
    context.close()
