"""The dashboard as an ASGI app below ``/dashboard``: who may see it, which page an address is, and how it is sent.

Every path but sign-in and the static files needs a session; what is not known does, too. Figures are read in threads,
so that no page holds up a request. Knows nothing of the gateway around it.
"""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route, Router

from corea.dashboard import data
from corea.dashboard.alarms import Alarms, NoAlarms
from corea.dashboard.calibration import Calibration, calibration
from corea.dashboard.detail import detail
from corea.dashboard.filters import Filters
from corea.dashboard.html import tag
from corea.dashboard.layout import ROOT, STATIC, THEMES, Theme, View, bare
from corea.dashboard.listing import PAGE, lines_of_csv, listing
from corea.dashboard.overview import Overview, overview, watching
from corea.dashboard.session import SignIn, Tries, sign_in_of
from corea.errors import ConfigError, InputError, LedgerError
from corea.gateway_config import GatewayConfig, is_loopback
from corea.ledger.queries import HasEngine
from corea.ledger.writer import Ledger

logger = logging.getLogger("corea.dashboard")

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Page = Callable[[Request], Response]

SESSION, THEME = "corea_dashboard", "corea_theme"
LOGIN = f"{ROOT}/login"
#: What is sent to whoever asks: it holds nothing of ours but the style sheet.
OPEN_PATHS = frozenset({LOGIN, *(f"{ROOT}/static/{name}" for name in STATIC)})
_MOST_FORM_BYTES = 4096
#: Pages that are made at once: the threads are also those of keys and feedback.
_AT_ONCE = 4
_YEAR_S = 31_536_000

#: No script, style, font or picture but our own, no form to elsewhere, in nobody's frame, in nobody's cache.
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Dashboard:
    """``sign_in=None``: nobody needs to, and only this machine's own names for itself are answered."""

    path = ROOT

    def __init__(
        self,
        ledger: HasEngine,
        *,
        sign_in: SignIn | None,
        alarms: Alarms | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.sign_in = sign_in
        self.alarms: Alarms = alarms or NoAlarms()
        self._ledger = ledger
        self._clock = clock
        self._tries = Tries(clock)
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self.routes = [
            Route(ROOT, self._page(self._overview)),
            Route(f"{ROOT}/calibration", self._page(self._calibration)),
            Route(f"{ROOT}/traces", self._page(self._traces)),
            Route(f"{ROOT}/traces.csv", self._page(self._csv)),
            Route(f"{ROOT}/traces/{{id}}", self._page(self._trace)),
            Route(LOGIN, self._login, methods=["GET", "POST"]),
            Route(f"{ROOT}/logout", self._logout, methods=["POST"]),
            Route(f"{ROOT}/theme", self._set_theme, methods=["POST"]),
            Route(f"{ROOT}/static/{{name}}", self._static),
        ]
        self._router = Router(self.routes, redirect_slashes=False, default=self._unknown)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        answer = self._door(request)

        async def sent(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                headers.update(HEADERS)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        await (self._router if answer is None else answer)(scope, receive, sent)

    # Who may come in

    def _door(self, request: Request) -> Response | None:
        """What is answered instead of the page; None lets through."""
        if self.sign_in is None and not is_loopback(_host(request)):
            # A page elsewhere may have its own name point here, and then read what it likes.
            told = "Without a password the dashboard answers to localhost only. Set gateway.dashboard.password_env."
            return self._wrong(request, 403, told)
        if request.method == "POST" and not _is_from_here(request):
            return self._wrong(request, 403, "This form was sent from another site. Open the dashboard and try again.")
        if request.url.path in OPEN_PATHS or self._is_signed_in(request):
            return None
        if request.method not in ("GET", "HEAD"):
            return self._wrong(request, 401, "Sign in first.")
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"{LOGIN}?next={quote(wanted, safe='')}", 303)

    def _is_signed_in(self, request: Request) -> bool:
        return self.sign_in is None or self.sign_in.is_session(request.cookies.get(SESSION, ""))

    async def _login(self, request: Request) -> Response:
        sign_in = self.sign_in
        if sign_in is None or (request.method == "GET" and self._is_signed_in(request)):
            return RedirectResponse(_next(request.query_params.get("next")), 303)
        if request.method == "GET":
            return _login_page(_theme(request), request.query_params.get("next"))
        form = await _form(request)
        if form is None:
            return self._wrong(request, 413, "That is too much for a password.")
        address = request.client.host if request.client else ""
        wait_s = self._tries.wait_s(address)
        if wait_s:
            told = f"Too many wrong passwords. Try again in {max(1, round(wait_s))} seconds."
            answer = _login_page(_theme(request), form.get("next"), told, status=429)
            answer.headers["retry-after"] = str(max(1, round(wait_s)))
            return answer
        if not sign_in.accepts(form.get("password", "")):
            self._tries.note_wrong(address)
            logger.warning("a wrong password for the dashboard, from %s", address or "an unknown address")
            return _login_page(_theme(request), form.get("next"), "This is not the password.", status=401)
        answer = RedirectResponse(_next(form.get("next")), 303)
        _set_cookie(answer, request, SESSION, sign_in.new_session(), max_age_s=int(sign_in.session_s))
        return answer

    async def _logout(self, request: Request) -> Response:
        answer = RedirectResponse(LOGIN, 303)
        _set_cookie(answer, request, SESSION, "", max_age_s=0)
        return answer

    async def _set_theme(self, request: Request) -> Response:
        form = await _form(request) or {}
        theme = form.get("theme")
        if theme not in THEMES:
            return self._wrong(request, 400, f"There is no such theme; there are: {', '.join(THEMES)}.")
        answer = RedirectResponse(_next(form.get("next")), 303)
        _set_cookie(answer, request, THEME, theme, max_age_s=_YEAR_S)
        return answer

    async def _static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in STATIC:
            return self._wrong(request, 404, "There is no such file.")
        body, content_type = STATIC[name]
        # The address names the version, so it never changes.
        return Response(body, headers={"content-type": content_type, "cache-control": f"public, max-age={_YEAR_S}"})

    async def _unknown(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = self._wrong(Request(scope), 404, "There is no such page.")
        await answer(scope, receive, send)

    # Pages

    def _page(self, made: Page) -> Callable[[Request], Awaitable[Response]]:
        @functools.wraps(made)
        async def answer(request: Request) -> Response:
            try:
                async with self._turns:
                    return await asyncio.to_thread(made, request)
            except InputError as exc:
                return self._wrong(request, 400, f"{str(exc)[:1].upper()}{str(exc)[1:]}.")
            except LedgerError:
                logger.exception("the dashboard cannot read the ledger")
                return self._wrong(request, 503, "The ledger cannot be read. The gateway's log says why.")
            except Exception:
                logger.exception("the dashboard failed")
                return self._wrong(request, 500, "Something went wrong. The gateway's log says what.")

        return answer

    def _overview(self, request: Request) -> Response:
        view = self._view(request, ROOT)
        filters, now = view.filters, view.now_unix_s
        judged, capped = data.judged(self._ledger, filters, now_unix_s=now)
        alarms = self.alarms.current() if watching(self.alarms) else None
        found = Overview(
            totals=data.totals(self._ledger, filters, now_unix_s=now),
            decisions=data.decisions(self._ledger, filters, now_unix_s=now),
            judged=judged,
            capped=capped,
            alarms=alarms,
        )
        return _html(overview(view, found))

    def _calibration(self, request: Request) -> Response:
        view = self._view(request, f"{ROOT}/calibration")
        filters, now = view.filters, view.now_unix_s
        judged, capped = data.judged(self._ledger, filters, now_unix_s=now)
        found = Calibration(
            choices=data.choices(self._ledger, filters, now_unix_s=now),
            asked=data.asked_first(self._ledger, filters, now_unix_s=now),
            judged=judged,
            capped=capped,
        )
        return _html(calibration(view, found))

    def _traces(self, request: Request) -> Response:
        wanted = request.query_params.get("id", "").strip()
        if wanted:
            trace = data.find(self._ledger, wanted)
            if trace is None:
                told = "No trace, or more than one, has an id that starts so. It may have been pruned."
                return self._wrong(request, 404, told)
            return RedirectResponse(f"{ROOT}/traces/{quote(trace.id, safe='', errors='replace')}", 303)
        view = self._view(request, f"{ROOT}/traces")
        after = data.Cursor.read(request.query_params.get("after"))
        rows, older = data.page(self._ledger, view.filters, now_unix_s=view.now_unix_s, limit=PAGE, after=after)
        choices = data.choices(self._ledger, view.filters, now_unix_s=view.now_unix_s)
        return _html(listing(view, rows, choices, older=older, first=after is None))

    def _trace(self, request: Request) -> Response:
        view = self._view(request, f"{ROOT}/traces")
        trace = data.find(self._ledger, request.path_params["id"])
        if trace is None:
            return self._wrong(request, 404, "There is no trace of this id. It may have been pruned.")
        return _html(detail(view, trace, data.feedback_on(self._ledger, trace.id)))

    def _csv(self, request: Request) -> Response:
        view = self._view(request, f"{ROOT}/traces")
        texts = request.query_params.get("texts") == "on"
        pages = data.pages(self._ledger, view.filters, now_unix_s=view.now_unix_s, texts=texts)
        # The first page is read before anything is sent: what goes wrong with it can still be told.
        lines = _begun(lines_of_csv(pages, view.keys, texts=texts))
        headers = {"content-disposition": 'attachment; filename="corea-traces.csv"'}
        return StreamingResponse(lines, media_type="text/csv; charset=utf-8", headers=headers)

    def _view(self, request: Request, path: str) -> View:
        return View(
            path=path,
            filters=Filters.read(request.query_params),
            now_unix_s=self._clock(),
            theme=_theme(request),
            can_leave=self.sign_in is not None,
            keys=data.key_names(self._ledger),
        )

    def _wrong(self, request: Request, status: int, told: str) -> Response:
        """An error as a page, or as JSON where no page is wanted."""
        if "text/html" not in request.headers.get("accept", ""):
            body = json.dumps({"error": {"message": told, "type": "dashboard_error", "param": None, "code": None}})
            return Response(body, status, media_type="application/json")
        back = tag("p", tag("a", "To the dashboard", href=ROOT))
        return _html(
            bare("Not here", _theme(request), tag("h1", HTTPStatus(status).phrase), tag("p", told), back), status
        )


def dashboard_of(
    settings: GatewayConfig, ledger: object, *, api_has_keys: bool, alarms: Alarms | None = None
) -> Dashboard | None:
    """As configured; None where it is off. Raises :class:`ConfigError` where it would be open, or has no ledger."""
    if not settings.dashboard.enabled:
        return None
    if not isinstance(ledger, Ledger):
        raise ConfigError(
            "the dashboard shows the ledger; set ledger.enabled = true", field="gateway.dashboard.enabled"
        )
    sign_in = sign_in_of(
        settings.dashboard, host_is_local=is_loopback(settings.host), api_has_keys=api_has_keys, clock=time.time
    )
    return Dashboard(ledger, sign_in=sign_in, alarms=alarms)


def _begun(parts: Iterator[bytes]) -> Iterator[bytes]:
    first = next(parts, b"")

    def all_of_them() -> Iterator[bytes]:
        yield first
        yield from parts

    return all_of_them()


def _html(page: str, status: int = 200) -> Response:
    # A lone surrogate, which models write, cannot be encoded.
    return HTMLResponse(page.encode(errors="replace"), status)


def _login_page(theme: Theme, next_: str | None, told: str | None = None, *, status: int = 200) -> Response:
    wrong = tag("p", told, cls="failure", role="alert", id="wrong") if told else None
    form = tag(
        "form",
        tag("label", "Password", for_="password"),
        tag(
            "input", type="password", id="password", name="password", autocomplete="current-password", required=True,
            autofocus=True, aria_describedby="wrong" if told else None,
        ),
        tag("input", type="hidden", name="next", value=_next(next_)),
        tag("button", "Sign in"),
        method="post", action=LOGIN, cls="login",
    )  # fmt: skip
    return _html(bare("Sign in", theme, tag("h1", "Sign in"), wrong, form), status)


async def _form(request: Request) -> dict[str, str] | None:
    """What a form sent; None where it is too large."""
    body = b""
    try:
        async for part in request.stream():
            body += part
            if len(body) > _MOST_FORM_BYTES:
                return None
    except ClientDisconnect:
        return None
    # parse_qs replaces what is no UTF-8.
    return {name: values[-1] for name, values in parse_qs(body.decode("latin-1"), keep_blank_values=True).items()}


def _set_cookie(answer: Response, request: Request, name: str, value: str, *, max_age_s: int) -> None:
    secure = request.url.scheme == "https"
    answer.set_cookie(name, value, max_age=max_age_s, path=ROOT, secure=secure, httponly=True, samesite="strict")


def _theme(request: Request) -> Theme:
    said = request.cookies.get(THEME)
    return next((theme for theme in THEMES if theme == said), "auto")


def _next(wanted: str | None) -> str:
    """Where to go on: a page of ours, never elsewhere."""
    if not wanted or not wanted.isprintable() or "\\" in wanted or len(wanted) > 2000:
        return ROOT
    path = wanted.partition("?")[0]
    inside = path == ROOT or path.startswith(f"{ROOT}/")
    return wanted if inside and path not in OPEN_PATHS else ROOT


def _host(request: Request) -> str:
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def _is_from_here(request: Request) -> bool:
    """Whether a form was sent by a page of ours. Browsers say so; what says nothing is no browser."""
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == request.headers.get("host")
