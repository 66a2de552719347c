"""What bench-store asks the API for: every listing, by part, with filters, first and deep pages, and ids.

A part is what one call of the bench measures in some minutes. What has an id, or a word of one explanation,
is asked for another one each time.
"""

import datetime as dt
import hashlib
import json
import random
import urllib.parse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import psycopg

from bench import store_fill, store_stage
from service.store.identity import tenant_id

_PURPOSE: Final = "incident_response"


class Question(NamedTuple):
    """One listing's name, what to ask for, each time another path or the same, as whom, and what for."""

    name: str
    paths: list[str]
    tenant: str = "default"
    purpose: str | None = None


class Asked(NamedTuple):
    """The store, the service before it, and how often each listing is asked for."""

    url: str
    shape: store_fill.Shape
    port: int
    secrets: Mapping[str, str]
    times: int

    @property
    def days(self) -> list[dt.date]:
        """Days by chance, one for each time, the same in every run."""
        chosen = random.Random(0)  # noqa: S311
        return [chosen.choice(self.shape.list_days()) for _ in range(self.times)]


def list_questions(part: str, asked: Asked) -> list[Question]:
    """Return the listings of this part."""
    questions = [Question(name, [path] * asked.times) for name, path in _SAME[part].items()]
    return questions + _OTHERS[part](asked) if part in _OTHERS else questions


_SAME: Final[Mapping[str, Mapping[str, str]]] = {
    "explanations": {
        "explanations": "/v1/explanations?limit=100",
        "explanations of a model": "/v1/explanations?limit=100&model=search",
        "explanations of a seldom model": "/v1/explanations?limit=100&model=seldom",
        "explanations not verified": "/v1/explanations?limit=100&verified=false",
        "explanations of a layer": f"/v1/explanations?limit=100&layer={store_fill.LAYER}",
        "explanations of no layer": "/v1/explanations?limit=100&layer=7",
        "explanations of anomalous states": "/v1/explanations?limit=100&max_anomaly_p=0.01",
    },
    "concepts": {
        "explanations of a concept": "/v1/explanations?limit=100&concept=food",
        "explanations of a rare concept": "/v1/explanations?limit=100&concept=rare",
        "explanations of no concept": "/v1/explanations?limit=100&concept=nowhere",
        "a concept and a model": "/v1/explanations?limit=100&concept=food&model=search",
        "a concept and a seldom model": "/v1/explanations?limit=100&concept=food&model=seldom",
        "a concept, not verified": "/v1/explanations?limit=100&concept=food&verified=false",
    },
    "pages": {},
    "search": {},
    "ids": {},
    "traces": {},
    "flags": {
        "flags": "/v1/flags?limit=100",
        "flags of a model": "/v1/flags?limit=100&model=search",
        "flags of a concept": "/v1/flags?limit=100&concept=self-harm",
        "flags of a severity": "/v1/flags?limit=100&severity=critical",
        "flags by fidelity": "/v1/flags?limit=100&min_fve=0.5",
        "flags by a fidelity that none has": "/v1/flags?limit=100&min_fve=0.95",
        "flags of a concept by fidelity": "/v1/flags?limit=100&concept=self-harm&min_fve=0.5",
    },
    "incidents": {
        "incidents": "/v1/incidents?limit=100",
        "open incidents": "/v1/incidents?limit=100&state=open",
        "incidents of a concept": "/v1/incidents?limit=100&concept=self-harm",
        "the queue of incidents": "/v1/incidents?limit=100&order=queue&state=undecided",
        "incident events": "/v1/incident-events?limit=100",
        "discoveries": "/v1/discoveries?limit=100",
        "reporting clocks": "/v1/reporting-clocks?limit=100",
    },
    "records": {
        "access log": "/v1/access-log?limit=100",
        "access log of an action": "/v1/access-log?limit=100&action=read_text",
        "access log of a purpose": "/v1/access-log?limit=100&purpose=subject_request",
        "keys": "/v1/keys?limit=100",
        "legal holds": "/v1/legal-holds?limit=100",
        "erasures": "/v1/erasures?limit=100",
        "exports": "/v1/exports?limit=100",
        "deletion certificates": "/v1/retention/certificates?limit=100",
        "changes of configuration": "/v1/configuration/changes?limit=100",
    },
}
PARTS: Final = tuple(_SAME)


def _explanations(asked: Asked) -> list[Question]:
    path = ["/v1/explanations?limit=100"] * asked.times
    return [
        Question("explanations with text", path, purpose=_PURPOSE),
        Question("explanations of acme", path, store_fill.ACME),
    ]


def _pages(asked: Asked) -> list[Question]:
    old = (asked.shape.first + dt.timedelta(days=asked.shape.days // 3)).isoformat() + "T00:00:00Z"
    spans = [
        f"/v1/explanations?limit=100&captured_after={day}T09:00:00Z&captured_before={day}T10:00:00Z"
        for day in asked.days
    ]
    deep = {
        "explanations, deep": f"/v1/explanations?limit=100&captured_before={old}",
        "a concept, deep": f"/v1/explanations?limit=100&concept=food&captured_before={old}",
        "a model, deep": f"/v1/explanations?limit=100&model=search&captured_before={old}",
        "flags, deep": f"/v1/flags?limit=100&captured_before={old}",
        "incidents, deep": f"/v1/incidents?limit=100&captured_before={old}",
    }
    questions = [Question(name, [_second_page(asked, path)] * asked.times) for name, path in deep.items()]
    return [*questions, Question("explanations of an hour", spans)]


def _second_page(asked: Asked, path: str) -> str:
    headers = {"Authorization": f"Bearer {asked.secrets['default']}"}
    cursor = json.loads(store_stage.get(asked.port, path, headers).body).get("next_cursor")
    return path if cursor is None else f"{path}&cursor={urllib.parse.quote(cursor)}"


def _search(asked: Asked) -> list[Question]:
    since = f"captured_after={asked.shape.first}T00:00:00Z"
    words = {
        "a common word": "breakfast",
        "two words": "travel 417",
        "a phrase": '"middle of a step" 417',
        "a word or another": "breakfast or quarrel",
        "a word that is nowhere": "xylophone",
    }
    questions = [
        Question(name, [f"/v1/explanations?limit=100&q={urllib.parse.quote(word)}&{since}"] * asked.times)
        for name, word in words.items()
    ]
    seldom = [
        f"/v1/explanations?limit=100&q={_word_of(day)}&{since}&captured_before={day}T23:59:59Z"
        for day in asked.days
    ]
    questions.append(Question("a word of one explanation", seldom))
    return [one._replace(purpose=_PURPOSE) for one in questions]


def _word_of(day: dt.date) -> str:
    """Return a word that one explanation of the default tenant has, of the day's beginning."""
    number = store_fill.base_of(day)
    while number // store_fill.POSITIONS * 37 % 100 >= store_fill.OF_DEFAULT:
        number += store_fill.POSITIONS
    return hashlib.md5(f"x{number}".encode(), usedforsecurity=False).hexdigest()[:8]


def _ids(asked: Asked) -> list[Question]:
    ids = _find_ids(asked)
    return [
        Question("one explanation", [f"/v1/explanations/{one['explanation']}" for one in ids]),
        Question(
            "explanations of a request", [f"/v1/explanations?request={one['request']}" for one in ids]
        ),
        Question("one request", [f"/v1/requests/{one['request']}" for one in ids]),
        Question(
            "positions of a capture",
            [f"/v1/captures/{one['capture']}/positions?model={one['model']}" for one in ids],
        ),
        Question("a hot name", [f"/v1/requests/{one['hot']}?limit=10" for one in ids]),
        Question("flags of a request", [f"/v1/flags?request={one['request']}" for one in ids]),
        Question("one incident", [f"/v1/incidents/{one['incident']}" for one in ids]),
        Question(
            "access log of an explanation", [f"/v1/access-log?subject={one['explanation']}" for one in ids]
        ),
    ]


def _traces(asked: Asked) -> list[Question]:
    ids = _find_ids(asked)
    return [
        Question("requests of a trace", [f"/v1/requests?trace_id={one['trace']}" for one in ids]),
        Question("a trace", [f"/v1/traces/{one['trace']}" for one in ids]),
    ]


_OTHERS: Final[Mapping[str, Callable[[Asked], list[Question]]]] = {
    "explanations": _explanations,
    "pages": _pages,
    "search": _search,
    "ids": _ids,
    "traces": _traces,
}


def _find_ids(asked: Asked) -> Sequence[Mapping[str, Any]]:
    """Return the ids of one flagged capture of the default tenant a day, with a trace."""
    query = """
        SELECT explanations.id AS explanation, samples.request_id AS request, samples.trace_id AS trace,
            samples.capture_id AS capture, models.name AS model, incidents.id AS incident, (
                SELECT name FROM request_names WHERE request_names.name LIKE 'user-%%'
                AND request_names.capture = samples.capture_id
                AND request_names.captured_at >= %(start)s AND request_names.captured_at < %(end)s
            ) AS hot
        FROM incidents JOIN samples ON samples.capture_id = incidents.capture_id
            AND samples.captured_at >= %(start)s AND samples.captured_at < %(end)s
        JOIN explanations ON explanations.sample_id = samples.id
            AND explanations.captured_at >= %(start)s AND explanations.captured_at < %(end)s
        JOIN models ON models.id = samples.model_id
        WHERE incidents.first_captured_at >= %(start)s AND incidents.first_captured_at < %(end)s
        AND incidents.tenant_id = %(tenant)s AND samples.trace_id IS NOT NULL LIMIT 1
    """
    found = []
    with psycopg.connect(asked.url, row_factory=psycopg.rows.dict_row) as connection:
        for day in asked.days:
            start = dt.datetime.combine(day, dt.time(), dt.UTC)
            values = {"start": start, "end": start + dt.timedelta(days=1), "tenant": tenant_id("default")}
            row = connection.execute(query, values).fetchone()
            if row is None:
                raise SystemExit(f"{day} has no flagged capture; use more --rows")
            found.append(row)
    return found
