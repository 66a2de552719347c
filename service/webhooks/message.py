"""What a webhook is told of an incident: a CloudEvent 1.0 in structured mode, signed by Standard Webhooks.

It holds ids, names and figures, and neither explanation text nor tokens nor anybody's note.
"""

import datetime as dt
import json
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import quote, urlencode

from standardwebhooks import Webhook

from service.store.outbox import Telling

CONTENT_TYPE: Final = "application/cloudevents+json; charset=utf-8"


def body(told: Telling, public_url: str) -> bytes:
    """Return the JSON of one message: the same bytes however often it is sent.

    ``public_url`` is the service's, in front of the path of the link; empty when nobody said it.
    """
    event, incident = told.event, told.incident
    document = {
        "specversion": "1.0",
        "id": str(event.id),
        "source": f"/models/{quote(told.model, safe='')}/layers/{incident.layer}",
        "type": f"io.subtext.incident.{event.kind}.v1",
        "subject": str(incident.id),
        "time": event.at.astimezone(dt.UTC).isoformat(),
        "datacontenttype": "application/json",
        "data": _data(told) | _links(told, public_url),
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()


def _links(told: Telling, public_url: str) -> dict[str, str]:
    """Return where a person reads on: the incident in the console, and the request that it is of."""
    incident = told.incident
    capture = {} if incident.capture_id is None else {"capture": str(incident.capture_id)}
    query = capture | {"model": told.model, "layer": str(incident.layer)}
    request = f"/console/requests/{quote(incident.request_id, safe='')}?{urlencode(query)}"
    return {
        "link": f"{public_url}/console/review/{incident.id}",
        "request_link": f"{public_url}{request}",
        "api_link": f"{public_url}/v1/incidents/{incident.id}",
    }


def _data(told: Telling) -> dict[str, Any]:
    event, incident = told.event, told.incident
    rates = [found.get("false_positive_rate") for found in told.findings]
    return {
        "incident_id": str(incident.id),
        "version": event.version,
        "hypothesis": True,
        "status": "calibrated" if any(rate is not None for rate in rates) else "lead",
        "severity": event.severity,
        "state": event.to_state,
        "previous_state": event.from_state,
        "reason_code": event.reason,
        "labels": event.labels,
        "model": told.model,
        "layer": incident.layer,
        "decoder": {"name": told.decoder_name, "digest": told.decoder_digest},
        "request_id": incident.request_id,
        "capture_id": None if incident.capture_id is None else str(incident.capture_id),
        "findings": list(told.findings),
        # A verdict that a second reviewer has to give too: the labels are its own, and the state stays.
        **({} if event.proposed_state is None else {"proposed_state": event.proposed_state}),
    }


def headers(message_id: str, content: bytes, secrets: Sequence[str], now: dt.datetime) -> dict[str, str]:
    """Return the headers of Standard Webhooks, with a signature by each secret."""
    signatures = [Webhook(secret).sign(message_id, now, content.decode()) for secret in secrets]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }
