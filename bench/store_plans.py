"""What PostgreSQL does for an answer of the API: its statements, explained as the service runs them.

The application runs in this process, so that every statement of an answer is seen. Each is run twice, so
no time of it is a bar's.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from fastapi.testclient import TestClient
from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, event, text

from service.api.app import create_app
from service.api.deps import Resources
from service.metrics import Metrics
from service.store.engine import create_engine, session_factory

_DAY: Final = len("_20261128")
_WITHOUT_DAY: Final = re.compile(r"_\d{8}(?=_)")


class Plan(NamedTuple):
    """What PostgreSQL did for one statement."""

    planning_ms: float
    execution_ms: float
    rows: int
    """That scans came upon, whether they were wanted or not."""
    blocks: int
    """Of 8 KiB that it touched, in memory or on the disk."""
    partitions: int
    """That it looked into."""
    planned: int
    """Partitions that it was planned for, in all of its scans."""
    scans: tuple[str, ...]
    """How each table was looked into: by which index, without the day."""


class Cost(NamedTuple):
    """What one answer took."""

    statements: int
    """All of them, those of the session and the key too."""
    plans: list[Plan]
    """Of those that read."""

    @property
    def rows(self) -> int:
        """Rows that were come upon."""
        return sum(plan.rows for plan in self.plans)

    @property
    def blocks(self) -> int:
        """Blocks that were touched."""
        return sum(plan.blocks for plan in self.plans)

    @property
    def longest(self) -> Plan:
        """The plan that took longest."""
        return max(self.plans, key=lambda plan: plan.planning_ms + plan.execution_ms)


@contextmanager
def watched(url: str) -> Iterator["Watch"]:
    """Run the application over the database with the URL's login."""
    engine = create_engine(url)
    held = Resources(engine=engine, sessions=session_factory(engine), metrics=Metrics(CollectorRegistry()))
    with TestClient(create_app(held)) as client:
        with engine.connect() as connection:
            backend = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
        parent = Path(f"/proc/{backend}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1]
        yield Watch(engine, client, int(parent))
    engine.dispose()


class Watch(NamedTuple):
    """The application, and the engine that its statements go through."""

    engine: Engine
    client: TestClient
    postmaster: int
    """PostgreSQL's first process."""

    def ask(self, path: str, headers: Mapping[str, str]) -> Cost:
        """Return what the answer to this question took."""
        plans: list[Plan] = []
        statements = 0

        def explain(*arguments: Any) -> None:
            nonlocal statements
            _, cursor, statement, parameters, *_ = arguments
            statements += 1
            if statement.startswith(("SELECT", "WITH")) and " FROM " in statement.replace("\n", " "):
                cursor.execute(
                    f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {statement}", parameters
                )
                plans.append(read(cursor.fetchone()[0][0]))

        event.listen(self.engine, "before_cursor_execute", explain)
        try:
            self.client.get(path, headers=dict(headers)).raise_for_status()
        finally:
            event.remove(self.engine, "before_cursor_execute", explain)
        return Cost(statements, plans)


def read(found: Mapping[str, Any]) -> Plan:
    """Return what an explanation in JSON says."""
    partitions: set[str] = set()
    planned = 0
    scans: set[str] = set()
    rows = 0

    def walk(node: Mapping[str, Any]) -> None:
        nonlocal rows, planned
        loops = node.get("Actual Loops", 0)
        planned += node.get("Subplans Removed", 0)
        planned += _is_of_day(node.get("Relation Name", ""))
        if loops and "Relation Name" in node:
            table = node["Relation Name"]
            come_upon = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
            rows += round(loops * (come_upon + node.get("Rows Removed by Index Recheck", 0)))
            if _is_of_day(table):
                partitions.add(table)
                name, day = table[:-_DAY], table[-_DAY:]
            else:
                name, day = table, "\0"
            by = node.get("Index Name", node["Node Type"]).replace(day, "").removeprefix(f"{name}_")
            scans.add(f"{name} by {by}")
        for part in node.get("Plans", []):
            walk(part)
        if loops and node["Node Type"] == "Bitmap Index Scan":
            scans.add(f"by {_WITHOUT_DAY.sub('', node['Index Name'])}")

    top = found["Plan"]
    walk(top)
    return Plan(
        found["Planning Time"],
        found["Execution Time"],
        rows,
        top["Shared Hit Blocks"] + top["Shared Read Blocks"],
        len(partitions),
        planned,
        tuple(sorted(scans)),
    )


def _is_of_day(table: str) -> bool:
    return table[-_DAY:].replace("_", "", 1).isdigit()
