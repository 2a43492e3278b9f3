"""The pages over HTTP: who gets what, what is sent with it, and that a trace's text stays text."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from html import escape
from html.parser import HTMLParser
from itertools import product
from pathlib import Path
from random import Random

import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from corea.dashboard.alarms import Alarm
from corea.dashboard.calibration import LEAST
from corea.dashboard.pages import HEADERS, LOGIN, OPEN_PATHS, SESSION, Dashboard, dashboard_of
from corea.dashboard.session import TRIES, SignIn
from corea.errors import ConfigError, LedgerError
from corea.gateway_config import DashboardConfig, GatewayConfig
from corea.ledger import Ledger
from corea.policy.explain import explain
from corea.types import Decision, Reason
from dashboard.filled import NASTY, NOW, PASSWORD, attempt, some_traces, trace, write
from gateway.running import serving

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE")
PAGES = ("/dashboard", "/dashboard/calibration", "/dashboard/traces", "/dashboard/traces/t00003")
HTML = {"accept": "text/html"}


class Ringing:
    def current(self) -> Sequence[Alarm]:
        return [Alarm(name="drift", task=NASTY, since_unix_s=NOW - 60, text=f"lost {NASTY}", severity="critical")]


@dataclass(frozen=True, slots=True)
class Served:
    ledger: Ledger
    app: Dashboard

    def client(self, *, signed_in: bool = True) -> TestClient:
        client = TestClient(self.app, base_url="http://127.0.0.1:8080", follow_redirects=False, headers=HTML)
        if signed_in and self.app.sign_in is not None:
            client.cookies.set(SESSION, self.app.sign_in.new_session())
        return client


@pytest.fixture(scope="module")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path_factory.mktemp('pages') / 'l.db'}") as opened:
        write(opened, some_traces(200), feedback=0.7)
        yield opened


def locked(ledger: Ledger, *, alarms: Ringing | None = None) -> Dashboard:
    sign_in = SignIn(PASSWORD, session_s=3600, clock=lambda: NOW)
    return Dashboard(ledger, sign_in=sign_in, alarms=alarms, clock=lambda: NOW)


@pytest.fixture
def served(ledger: Ledger) -> Served:
    return Served(ledger, locked(ledger))


def test_the_overview_tells_what_policies_last_said_and_nothing_where_none_spoke(
    served: Served, tmp_path: Path
) -> None:
    assert "Last said" not in served.client().get("/dashboard").text
    why = Decision(keep=True, reason=Reason.CONFIDENT, threshold=0.5, policy="budget", note=f"costs 1.2 points {NASTY}")
    with Ledger.open(f"sqlite:///{tmp_path / 'p.db'}") as ledger:
        write(ledger, [trace(1, Random(1), at=NOW - 60, attempts=(attempt(decision=why),), final=0)])
        page = Served(ledger, locked(ledger)).client().get("/dashboard").text
    assert "Last said" in page
    assert "costs 1.2 points" in page
    assert NASTY not in page


# Who gets what


def test_whoever_is_not_signed_in_gets_nothing_from_any_path_by_any_method(served: Served) -> None:
    client = served.client(signed_in=False)
    paths = [route.path for route in served.app.routes if isinstance(route, Route)]
    paths = [path.replace("{id}", "t00003").replace("{name}", "x") for path in paths]
    assert len(paths) == 9
    for path, method in product([*paths, "/dashboard/", "/dashboard/x/y", "/dashboard/../dashboard"], METHODS):
        if path in OPEN_PATHS:
            continue
        for cookie in ("", "x", f"9999999999.x.{'0' * 64}"):
            client.cookies.set(SESSION, cookie)
            answer = client.request(method, path)
            assert answer.status_code in ((303,) if method in ("GET", "HEAD") else (401,)), (method, path)
            assert "t00003" not in answer.text
            if answer.status_code == 303:
                assert answer.headers["location"].startswith(f"{LOGIN}?next=")


def test_the_right_password_opens_every_page_and_signing_out_closes_them(served: Served) -> None:
    client = served.client(signed_in=False)
    wanted = client.get("/dashboard/traces?outcome=kept").headers["location"]
    assert client.get(wanted).status_code == 200
    form = {"password": PASSWORD, "next": "/dashboard/traces?outcome=kept"}
    answer = client.post(LOGIN, data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/traces?outcome=kept")
    cookie = answer.headers["set-cookie"].lower()
    assert all(part in cookie for part in ("httponly", "samesite=strict", "path=/dashboard", "max-age=3600"))
    assert "secure" not in cookie
    for path in (*PAGES, "/dashboard/traces.csv"):
        assert client.get(path).status_code == 200, path
    assert client.get(LOGIN).headers["location"] == "/dashboard"
    out = client.post("/dashboard/logout")
    assert "max-age=0" in out.headers["set-cookie"].lower()
    assert client.get("/dashboard").status_code == 303


def test_over_tls_the_cookie_stays_on_tls(served: Served) -> None:
    client = TestClient(served.app, base_url="https://corea.example.com", follow_redirects=False)
    assert "secure" in client.post(LOGIN, data={"password": PASSWORD}).headers["set-cookie"].lower()


def test_a_wrong_password_gets_nothing_and_after_a_few_one_has_to_wait(served: Served) -> None:
    client = served.client(signed_in=False)
    for _ in range(TRIES):
        answer = client.post(LOGIN, data={"password": PASSWORD + "x", "next": NASTY.replace("\ud800", "")})
        assert answer.status_code == 401
        assert "set-cookie" not in answer.headers
        assert PASSWORD not in answer.text
        assert "<script>" not in answer.text
    answer = client.post(LOGIN, data={"password": PASSWORD})
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["retry-after"]) <= 60


@pytest.mark.parametrize(
    "elsewhere",
    ["https://evil.example", "//evil.example", "/\\evil.example", "/v1/models", "/dashboardx", "/dashboard/login",
     "javascript:alert(1)", "/dashboard\r\nset-cookie: a=b", "", "/dashboard/\\..\\x"],
)  # fmt: skip
def test_signing_in_leads_to_a_page_of_ours_and_nowhere_else(served: Served, elsewhere: str) -> None:
    answer = served.client(signed_in=False).post(LOGIN, data={"password": PASSWORD, "next": elsewhere})
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard")


@pytest.mark.parametrize(
    "headers",
    [{"sec-fetch-site": "cross-site"}, {"sec-fetch-site": "same-site"}, {"origin": "https://evil.example"},
     {"origin": "null"}],
)  # fmt: skip
def test_forms_of_other_sites_are_refused(served: Served, headers: dict[str, str]) -> None:
    client = served.client()
    for path in (LOGIN, "/dashboard/logout", "/dashboard/theme"):
        answer = client.post(path, data={"password": PASSWORD, "theme": "dark"}, headers=headers)
        assert answer.status_code == 403, path
        assert "set-cookie" not in answer.headers
    assert client.post(
        "/dashboard/theme", data={"theme": "dark"}, headers={"sec-fetch-site": "same-origin"}
    ).is_redirect
    assert client.post(
        "/dashboard/theme", data={"theme": "dark"}, headers={"origin": "http://127.0.0.1:8080"}
    ).is_redirect


def test_a_form_that_is_too_large_is_not_read(served: Served) -> None:
    assert served.client(signed_in=False).post(LOGIN, data={"password": "x" * 5000}).status_code == 413


def test_without_a_password_only_this_machine_is_answered_by_its_own_names(ledger: Ledger) -> None:
    app = Dashboard(ledger, sign_in=None, clock=lambda: NOW)
    for host, status in (("localhost:8080", 200), ("127.0.0.1", 200), ("[::1]:8080", 200), ("evil.example", 403)):
        client = TestClient(app, base_url=f"http://{host}", headers=HTML)
        assert client.get("/dashboard").status_code == status, host
    client = TestClient(app, base_url="http://localhost", follow_redirects=False)
    assert client.get("/dashboard", headers={"host": "evil.example"}).status_code == 403
    assert "Sign out" not in client.get("/dashboard").text


def test_the_gateways_keys_open_no_page_and_a_session_opens_no_api(ledger: Ledger) -> None:
    import httpx

    from corea.gateway.app import Gateway
    from corea.gateway.auth import OneKey

    with serving(authorizer=OneKey("sk-good")) as running:
        app = locked(ledger)
        gateway = Gateway(running.gateway.cascade, authorizer=OneKey("sk-good"), pages=app)
        assert app.sign_in is not None
        client = TestClient(gateway, base_url="http://127.0.0.1", follow_redirects=False)
        key = {"authorization": "Bearer sk-good"}
        answer = client.get("/dashboard", headers=key)
        assert answer.status_code == 303
        assert answer.headers["x-request-id"]
        assert client.get("/dashboard/traces.csv", headers=key).status_code == 303
        client.cookies.set(SESSION, app.sign_in.new_session())
        assert client.get("/dashboard").status_code == 200
        assert client.get("/dashboard/traces/t00003").status_code == 200
        for path in ("/v1/models", "/metrics", "/openapi.json", "/dashboardx"):
            assert client.get(path).status_code == 401, path
        assert 'route="/dashboard"' in gateway.metrics.text().decode()
        # Without pages, there is no such path.
        assert httpx.get(f"{running.url}/dashboard", headers=key).status_code == 404


def test_it_is_off_unless_it_is_turned_on_and_never_open_to_a_network(ledger: Ledger) -> None:
    assert dashboard_of(GatewayConfig(), ledger, api_has_keys=False) is None
    on = GatewayConfig(dashboard=DashboardConfig(enabled=True))
    found = dashboard_of(on, ledger, api_has_keys=False)
    assert found is not None
    assert found.sign_in is None
    with pytest.raises(ConfigError, match="password"):
        dashboard_of(on.model_copy(update={"host": "0.0.0.0"}), ledger, api_has_keys=False)
    with pytest.raises(ConfigError, match="password"):
        dashboard_of(on, ledger, api_has_keys=True)
    with pytest.raises(ConfigError, match=r"ledger\.enabled"):
        dashboard_of(on, None, api_has_keys=False)


# What is sent


def test_every_answer_forbids_scripts_and_frames_of_others_and_stays_in_no_cache(served: Served) -> None:
    client = served.client()
    outside = served.client(signed_in=False)
    paths = [*PAGES, LOGIN, "/dashboard/traces.csv", "/dashboard/gone", "/dashboard/traces/gone"]
    answers = [client.get(path) for path in paths] + [outside.get("/dashboard"), outside.put("/dashboard")]
    for answer in answers:
        assert {name: answer.headers[name] for name in HEADERS} == HEADERS
        assert answer.headers["cache-control"] == "no-store"
    policy = HEADERS["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert "http" not in policy
    static = outside.get("/dashboard/static/dashboard.css")
    assert static.status_code == 200
    assert "max-age=31536000" in static.headers["cache-control"]


class Elements(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.mark.parametrize("path", [*PAGES, "/dashboard?task=" + "%3Cscript%3E", "/dashboard/traces?key=%22%3E%3Cimg%3E"])
def test_no_page_has_an_element_or_an_address_that_is_not_ours(ledger: Ledger, path: str) -> None:
    page = Served(ledger, locked(ledger, alarms=Ringing())).client().get(path).text
    elements = Elements(page).found
    scripts = [attrs for name, attrs in elements if name == "script"]
    assert [str(attrs["src"]).partition("?")[0] for attrs in scripts] == ["/dashboard/static/dashboard.js"]
    assert not {"img", "iframe", "object", "embed", "style", "base"} & {name for name, _ in elements}
    for name, attrs in elements:
        assert not [one for one in attrs if one.startswith("on") or one == "style"], name
        for where in ("src", "href", "action"):
            assert (attrs.get(where) or "/dashboard").startswith(("/dashboard", "#")), (name, attrs)
    assert "broken" not in page or "&lt;script&gt;document.title=" in page


def test_every_page_says_what_it_is_about(ledger: Ledger) -> None:
    client = Served(ledger, locked(ledger, alarms=Ringing())).client()
    front = client.get("/dashboard").text
    words = ("Saved", "Spent", "Deferral rate", "Kept accuracy", "95 % interval", "Latency", "guard repeats objected")
    for word in (*words, "1 alarm", "drift", "Tasks", "Keys", "confident enough"):
        assert word in front, word
    assert "No alarms are set up" in Served(ledger, locked(ledger)).client().get("/dashboard").text
    listed = client.get("/dashboard/traces?outcome=failed").text
    assert listed.count('class="chip failed"') == sum(one.final is None for one in some_traces(200))
    deferred = next(one for one in some_traces(200) if one.attempts[0].decision.guard and one.final == 1)
    shown = client.get(f"/dashboard/traces/{deferred.id}").text
    assert "Why was this deferred?" in shown
    assert escape(explain(deferred.attempts[0])) in shown
    assert "Sampling and metadata" in shown
    assert "Handed out" in shown


def test_a_list_leads_to_why_in_one_click_and_on_to_the_oldest(served: Served) -> None:
    client = served.client()
    seen: list[str] = []
    path = "/dashboard/traces?period=all"
    for _ in range(10):
        links = [str(a["href"]) for name, a in Elements(client.get(path).text).found if name == "a" and a.get("href")]
        whys = [href for href in links if href.startswith("/dashboard/traces/t")]
        seen += dict.fromkeys(whys)
        older = [href for href in links if "after=" in href]
        if not older:
            break
        path = older[0]
    assert len(seen) == len(set(seen)) == 200
    assert client.get(seen[0]).status_code == 200


def test_the_diagrams_are_drawn_from_enough_feedback_on(tmp_path: Path, served: Served) -> None:
    page = served.client().get("/dashboard/calibration?period=all").text
    assert page.count('class="chart"') == 2
    assert "threshold 0.5" in page
    assert "now: " in page
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as few:
        write(few, some_traces(20), feedback=0.9)
        short = Served(few, locked(few)).client().get("/dashboard/calibration?period=all").text
    assert f"the diagrams are drawn from {LEAST} on" in short
    assert "/v1/corea/feedback" in short
    assert 'class="chart"' not in short


def test_an_empty_ledger_is_no_error(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as empty:
        client = Served(empty, locked(empty)).client()
        for path in ("/dashboard", "/dashboard?period=all", "/dashboard/calibration", "/dashboard/traces"):
            assert client.get(path).status_code == 200, path
        assert "No requests yet" in client.get("/dashboard?period=all").text
        assert client.get("/dashboard/traces.csv").text.count("\r\n") == 1


@pytest.mark.parametrize(
    "path, status",
    [("/dashboard?period=1y", 400), ("/dashboard/traces?after=x", 400), ("/dashboard/traces?outcome=x", 400),
     ("/dashboard/traces/gone", 404), ("/dashboard/traces?id=gone", 404), ("/dashboard/gone", 404),
     ("/dashboard/static/../pages.py", 404), ("/dashboard/traces/%00%ff", 404), ("/dashboard?task=%ff%00", 200)],
)  # fmt: skip
def test_what_is_asked_wrongly_is_told(served: Served, path: str, status: int) -> None:
    answer = served.client().get(path)
    assert answer.status_code == status
    assert "Traceback" not in answer.text
    if status != 200:
        assert "To the dashboard" in answer.text
        assert served.client().get(path, headers={"accept": "*/*"}).json()["error"]["message"]


def test_a_ledger_that_cannot_be_read_is_told_without_its_place(
    served: Served, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from corea.dashboard import data

    def fail(*_: object, **__: object) -> None:
        raise LedgerError("ledger /secret/place: disk I/O error")

    monkeypatch.setattr(data, "key_names", fail)
    answer = served.client().get("/dashboard")
    assert answer.status_code == 503
    assert "secret" not in answer.text
    assert "/secret/place" in caplog.text


def test_a_start_of_an_id_leads_to_the_trace(served: Served) -> None:
    answer = served.client().get("/dashboard/traces?id=t00003")
    assert (answer.status_code, answer.headers["location"]) == (303, "/dashboard/traces/t00003")


def test_a_theme_is_remembered_and_marks_the_page(served: Served) -> None:
    client = served.client()
    assert "data-theme" not in client.get("/dashboard").text
    answer = client.post("/dashboard/theme", data={"theme": "dark", "next": "/dashboard/traces?route=small"})
    assert answer.headers["location"] == "/dashboard/traces?route=small"
    assert 'data-theme="dark"' in client.get("/dashboard").text
    assert client.post("/dashboard/theme", data={"theme": NASTY.replace("\ud800", "")}).status_code == 400


# CSV


def test_the_csv_has_every_trace_that_the_filters_mean(served: Served) -> None:
    answer = served.client().get("/dashboard/traces.csv?outcome=deferred&period=all")
    assert answer.headers["content-disposition"] == 'attachment; filename="corea-traces.csv"'
    rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    meant = {one.id: one for one in some_traces(200) if one.deferred and one.final is not None}
    assert {row["id"] for row in rows} == set(meant)
    for row in rows:
        saved = meant[row["id"]].saved_nano_usd
        assert saved is not None
        assert round(float(row["saved_usd"]) * 1e9) == saved
        assert row["outcome"] == "deferred"
    assert "question" not in rows[0]


def test_no_cell_is_a_formula_and_texts_come_only_where_they_are_wanted(tmp_path: Path) -> None:
    questions = ["=cmd|'/C calc'!A1", "+1", "-1", "@SUM(A1)", "\t=1", 'two\r\nlines, "quoted"', "plain"]
    with Ledger.open(f"sqlite:///{tmp_path / 'l.db'}") as ledger:
        made = []
        for i, question in enumerate(questions):
            one = trace(i, Random(i), at=NOW - i)
            message = replace(one.request.messages[0], content=question)
            made.append(replace(one, request=replace(one.request, messages=(message,), task="=task()")))
        write(ledger, made)
        client = Served(ledger, locked(ledger)).client()
        rows = list(csv.DictReader(io.StringIO(client.get("/dashboard/traces.csv?texts=on").text, newline="")))
        assert "SUM" not in client.get("/dashboard/traces.csv").text
    for row, question in zip(rows, questions, strict=True):
        assert row["question"] == (question if question[0] in "tp" else f"'{question}")
        assert row["task"] == "'=task()"


def test_a_long_export_is_sent_in_parts(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    from corea.dashboard import data

    sizes: list[int] = []
    whole = data.page

    def small_page(*args: object, **kwargs: object) -> object:
        found = whole(*args, **{**kwargs, "limit": 30})  # type: ignore[arg-type]
        sizes.append(len(found[0]))
        return found

    monkeypatch.setattr(data, "page", small_page)
    text = served.client().get("/dashboard/traces.csv?period=all").text
    assert text.count("\r\n") == 201
    assert len(sizes) == 7
