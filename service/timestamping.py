"""`subtext timestamp`: have an authority say when each log's newest checkpoint was there (RFC 3161).

It reads the folder of checkpoints and no database, and keeps each note with the authority's answer.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Final
from uuid import UUID

import httpx2

from service.evidence import folder, timestamp
from service.evidence.note import NoteError, Verifier, read_checkpoint, read_verifier
from service.evidence.timestamp import Authority, TimestampError, read_authority
from service.evidence.timestamped import Timestamp
from service.evidence.verify import origin_of

_BAD_USE: Final = 2
_FAILED: Final = 1
_NOTE: Final = ".note"
_RESPONSE: Final = ".tsr"
_QUERY: Final = {"Content-Type": "application/timestamp-query", "Accept": "application/timestamp-reply"}
_AT_MOST_BYTES: Final = 65_536
_TIMEOUT_SECONDS: Final = 20.0

Ask = Callable[[bytes], bytes]
"""Sends a TimeStampReq and returns the TimeStampResp; raises UnavailableError."""


class UnavailableError(Exception):
    """The authority does not answer, or not with a timestamp; the message says which."""


class Timestamper:
    """Has the newest checkpoint of each tenant's log timestamped."""

    def __init__(
        self, ask: Ask, authority: Authority, verifier: Verifier, checkpoints: Path, timestamps: Path
    ) -> None:
        """``checkpoints`` is read alone; ``timestamps`` is this process's own."""
        self._ask = ask
        self._authority = authority
        self._verifier = verifier
        self._checkpoints = checkpoints
        self._timestamps = timestamps

    def look(self) -> int:
        """Have what has grown timestamped; return how many logs have.

        Raises UnavailableError, TimestampError for an answer that does not hold, and NoteError for a note
        that is not of the log's key. What was kept before it raises stays.
        """
        return sum(self._look(tenant) for tenant in folder.tenants(self._checkpoints))

    def _look(self, tenant: UUID) -> bool:
        notes = folder.read(self._checkpoints, tenant).whole
        if not notes:
            return False
        newest = read_checkpoint(self._verifier.open(notes[-1]))
        if newest.origin != origin_of(self._verifier.name, tenant):
            raise NoteError(f"tenant {tenant}: the newest checkpoint is of the log {newest.origin}")
        file = self._timestamps / str(tenant) / f"{newest.size:020d}{_RESPONSE}"
        if file.exists():
            return False
        question = timestamp.ask(notes[-1])
        response = self._ask(question.encoded)
        self._authority.open(response, notes[-1], question.nonce)
        file.parent.mkdir(exist_ok=True)
        # The answer comes last: a note that has none is asked about again.
        _write(file.with_suffix(_NOTE), notes[-1].encode())
        _write(file, response)
        return True


def read_timestamped(timestamps: Path, tenant: UUID) -> Iterator[Timestamp]:
    """Yield what was timestamped of a tenant's log, the smallest tree first."""
    for file in sorted((timestamps / str(tenant)).glob(f"*{_RESPONSE}")):
        note = file.with_suffix(_NOTE)
        yield Timestamp(note.read_text(errors="replace") if note.exists() else "", file.read_bytes())


def _write(file: Path, content: bytes) -> None:
    """Write a file at once: after a kill it is whole or not there."""
    unfinished = file.with_name(f"{file.name}.tmp")
    with unfinished.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    unfinished.rename(file)


def over_http(url: str) -> Ask:
    """Return what asks the authority at this address (RFC 3161, section 3.4)."""

    def ask(request: bytes) -> bytes:
        try:
            with (
                httpx2.Client(timeout=_TIMEOUT_SECONDS) as client,
                client.stream("POST", url, content=request, headers=_QUERY) as answer,
            ):
                if answer.status_code != HTTPStatus.OK:
                    raise UnavailableError(f"the authority answers {answer.status_code}")
                return _bounded(answer.iter_bytes())
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            raise UnavailableError(f"the authority does not answer: {type(error).__name__}") from error

    return ask


def _bounded(chunks: Iterator[bytes]) -> bytes:
    found = bytearray()
    for chunk in chunks:
        found += chunk
        if len(found) > _AT_MOST_BYTES:
            raise UnavailableError(f"the authority answers over {_AT_MOST_BYTES} bytes")
    return bytes(found)


def run(argv: list[str]) -> int:
    """Have checkpoints timestamped until told to stop, or once; 1 when it could not."""
    options = _parser().parse_args(argv)
    if not options.authority.startswith(("http://", "https://")):
        sys.stderr.write("subtext timestamp: --authority: it begins with neither http:// nor https://\n")
        return _BAD_USE
    for name in ("checkpoints", "timestamps"):
        if not getattr(options, name).is_dir():
            sys.stderr.write(f"subtext timestamp: --{name}: {getattr(options, name)} is no folder\n")
            return _BAD_USE
    try:
        timestamper = Timestamper(
            over_http(options.authority),
            read_authority(options.roots.read_bytes()),
            read_verifier(options.public_key.read_text()),
            options.checkpoints,
            options.timestamps,
        )
    except (TimestampError, NoteError, OSError) as error:
        sys.stderr.write(f"subtext timestamp: {error}\n")
        return _BAD_USE
    return _serve(timestamper, every=None if options.once else options.every)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="subtext timestamp",
        description="Have an authority of RFC 3161 say when the newest checkpoint of each log was there,"
        " and keep what it answers. It is sent a hash alone.",
    )
    parser.add_argument("--authority", required=True, metavar="URL", help="address of the authority")
    parser.add_argument("--roots", type=Path, required=True, help="its root certificates, PEM")
    parser.add_argument("--public-key", type=Path, required=True, help="public key of the log")
    parser.add_argument(
        "--checkpoints", type=Path, required=True, help="the folder that subtext log writes; only read"
    )
    parser.add_argument(
        "--timestamps", type=Path, required=True, help="a folder of its own; what is there is never deleted"
    )
    parser.add_argument("--once", action="store_true", help="ask once and end")
    parser.add_argument("--every", type=float, default=3600.0, help="seconds between two; %(default)s")
    return parser


def _serve(timestamper: Timestamper, *, every: float | None) -> int:
    while True:
        try:
            timestamper.look()
        except (NoteError, folder.FolderError) as error:
            sys.stderr.write(f"subtext timestamp: nothing is timestamped: {error}\n")
            return _FAILED
        except (UnavailableError, TimestampError, OSError) as error:
            again = "" if every is None else "; it asks again later"
            sys.stderr.write(f"subtext timestamp: {error}{again}\n")
            if every is None:
                return _FAILED
        if every is None:
            return 0
        time.sleep(every)
