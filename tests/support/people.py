"""Browsers of people who signed in, without an issuer."""

import datetime as dt
from collections.abc import Sequence

from sqlalchemy.orm import Session

from service import auth
from service.store.people import sessions as people
from service.store.people.sessions import NewSession

ISSUER = "https://login.example"
_LATER = dt.datetime(2100, 1, 1, tzinfo=dt.UTC)


def sign_in(
    session: Session,
    person: str,
    *,
    scopes: Sequence[str] = ("admin",),
    models: Sequence[str] | None = None,
    issuer: str = ISSUER,
) -> dict[str, str]:
    """Let a person of the transaction's tenant sign in; return the headers of his browser."""
    token = auth.new_token()
    new = NewSession(
        token_sha256=auth.digest(token),
        issuer=issuer,
        person=person,
        scopes=scopes,
        models=models,
        idle_expires_at=_LATER,
        expires_at=_LATER,
    )
    people.add_session(session, new)
    return browser(token)


def browser(token: str) -> dict[str, str]:
    """Return the headers of a browser with this session, on a page of ours."""
    return {"Cookie": f"__Host-subtext={token}", "Sec-Fetch-Site": "same-origin"}
