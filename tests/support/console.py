"""The service with its console in this process, and Debian's Chromium to drive it."""

import asyncio
import datetime as dt
import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import httpx
import pytest
import uvicorn
from playwright.sync_api import Browser, BrowserContext, Error, Page, expect, sync_playwright
from prometheus_client import CollectorRegistry
from sqlalchemy.orm import Session, sessionmaker

from deploy.checks.console import node_modules
from deploy.local.stores import SERVICE_LOGIN
from service import auth
from service.api.app import create_app
from service.api.deps import Resources
from service.metrics import Metrics
from service.serving import Server
from service.sign_in.cookies import Cookies
from service.sign_in.plan import SignInPlan
from service.store import keys
from service.store.engine import create_engine, session_factory, with_user
from tests.integration.service import seed
from tests.support.apt import installed_chromium
from tests.support.waiting import wait_until

WIDE: Final = (1440, 900)
NARROW: Final = (390, 844)
# A busy machine is slow, not wrong: what never comes fails all the same, only later.
_PATIENCE_MS: Final = 20_000
# What WCAG 2.2 AA asks for, as axe names it.
_TAGS: Final = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]


@dataclass
class Console:
    """A running service and a browser. Whatever a page complains about fails the test at its end."""

    url: str
    sessions: sessionmaker[Session]
    """The owner's: what there is to see is written with it."""
    browser: Browser
    complaints: list[str] = field(default_factory=list)
    _contexts: list[BrowserContext] = field(default_factory=list)

    def key(self, *scopes: str, name: str = "test") -> str:
        """Return the secret of a new key."""
        secret = auth.new_secret()
        with self.sessions.begin() as session:
            keys.add_key(session, name=name, secret_sha256=auth.digest(secret), scopes=scopes)
        return secret

    def open(
        self,
        path: str = "",
        scopes: Sequence[str] = ("admin",),
        *,
        purpose: str | None = "debugging",
        size: tuple[int, int] = WIDE,
        scheme: Literal["light", "dark"] = "light",
        name: str = "test",
    ) -> Page:
        """Return a page at ``/console/{path}``, signed in by a new key with these scopes.

        ``purpose`` is stated beforehand as the user would; with None texts are withheld.
        """
        width, height = size
        context = self.browser.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, reduced_motion="reduce"
        )
        self._contexts.append(context)
        context.set_default_timeout(_PATIENCE_MS)
        if purpose is not None:
            context.add_init_script(f"sessionStorage.setItem('subtext.purpose', {json.dumps(purpose)})")
        page = context.new_page()
        if scopes:
            answer = context.request.post(
                f"{self.url}/auth/key",
                headers={
                    "Authorization": f"Bearer {self.key(*scopes, name=name)}",
                    "Sec-Fetch-Site": "same-origin",
                },
            )
            assert answer.ok, answer.text()
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("console", self._hear)
        page.goto(f"{self.url}/console/{path}")
        return page

    def _hear(self, message: Any) -> None:
        # The browser itself reports every answer of 400 and more; the page shows those.
        if message.type == "error" and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)

    def close(self) -> None:
        """Close every page."""
        for context in self._contexts:
            context.close()


class Driver(NamedTuple):
    """A browser, and the event loop by which this thread speaks with it."""

    browser: Browser
    loop: asyncio.AbstractEventLoop

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Let the loop be this thread's running one, as Playwright leaves it.

        It rests otherwise: tests that run a loop of their own come between those of the console.
        """
        asyncio._set_running_loop(self.loop)  # noqa: SLF001  # for whoever implements a loop
        try:
            yield
        finally:
            asyncio._set_running_loop(None)  # noqa: SLF001


@pytest.fixture(scope="session")
def driver(state_dir: Path) -> Iterator[Driver]:
    """One headless Chromium; each test has contexts of its own."""
    program = installed_chromium(state_dir)
    expect.set_options(timeout=_PATIENCE_MS)
    playwright = sync_playwright().start()
    arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
    browser = playwright.chromium.launch(executable_path=program, args=arguments)
    made = Driver(browser, asyncio.get_running_loop())
    asyncio._set_running_loop(None)  # noqa: SLF001
    yield made
    with made.at_work():
        browser.close()
        playwright.stop()


@pytest.fixture
def console(database_url: str, driver: Driver, tmp_path: Path) -> Iterator[Console]:
    """The service over the test's own database, with the rights of a deployment."""
    with running_console(database_url, driver, tmp_path) as made:
        yield made


@contextmanager
def running_console(database_url: str, driver: Driver, folder: Path) -> Iterator[Console]:
    """Serve a database until the block ends, and then tell of what pages complained of meanwhile."""
    owner = create_engine(database_url)
    reader = create_engine(with_user(database_url, SERVICE_LOGIN), pool_size=10)
    exports = folder / "exports"
    exports.mkdir()
    resources = Resources(
        engine=reader,
        sessions=session_factory(reader),
        metrics=Metrics(CollectorRegistry()),
        plan=SignInPlan(cookies=Cookies(is_plain=True)),
        exports=exports,
        subject_secret=seed.SUBJECT_SECRET,
    )
    with _serving(resources) as url, driver.at_work():
        made = Console(url, session_factory(owner), driver.browser)
        yield made
        made.close()
    owner.dispose()
    reader.dispose()
    assert made.complaints == [], made.complaints


@contextmanager
def _serving(resources: Resources) -> Iterator[str]:
    # Held from the first: a port that is only known to be free is taken by whoever connects meanwhile.
    listening = socket.create_server(("127.0.0.1", 0))
    server = Server(
        uvicorn.Config(
            create_app(resources),
            log_config=None,
            access_log=False,
            timeout_graceful_shutdown=1,
        ),
        resources.live,
    )
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    wait_until("the service listens", lambda: server.started, 30)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)


def axe(page: Page, rules: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Return what axe finds against WCAG 2.2 AA on the page as it stands: rule, impact, and where.

    With ``rules`` it looks for these alone.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate((node_modules() / "axe-core" / "axe.min.js").read_text(encoding="utf-8"))
    only = {"type": "rule", "values": [*rules]} if rules else {"type": "tag", "values": _TAGS}
    found = page.evaluate("only => axe.run(document, {runOnly: only}).then(r => r.violations)", only)
    return [
        {
            "rule": rule["id"],
            "impact": rule["impact"],
            "nodes": [{"target": node["target"], "why": node["failureSummary"]} for node in rule["nodes"]],
        }
        for rule in found
    ]


def wait_until_it_fits(page: Page) -> None:
    """Wait until the page is as wide as its screen: a later frame may be the first that is."""
    fits = "document.documentElement.scrollWidth <= innerWidth"
    try:
        page.wait_for_function(fits)
    except Error:
        raise AssertionError(f"{page.url[:200]} scrolls sideways") from None


def now() -> dt.datetime:
    """Return the time in UTC."""
    return dt.datetime.now(dt.UTC)


def get(url: str) -> httpx.Response:
    """Return the answer to a GET without cookies and without a proxy."""
    return httpx.get(url, trust_env=False, timeout=30)
