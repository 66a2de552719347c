"""What ``subtext retention run`` does in the database."""

import signal
import sys
import threading

from sqlalchemy.exc import SQLAlchemyError

from service.retention import record_run
from service.retention.pace import Pace
from service.retention.run import run as run_retention
from service.store import engine


def run(url: str) -> int:
    """Run once over all tenants and return the exit status; a signal ends it between two transactions."""
    stopping = threading.Event()
    for wanted in (signal.SIGTERM, signal.SIGINT):
        signal.signal(wanted, lambda *_: stopping.set())
    database = engine.create_engine(url, application_name="subtext-retention")
    try:
        sessions = engine.session_factory(database)
        outcomes = run_retention(sessions, Pace(), stop=stopping.is_set)
        of_records = record_run.run(sessions, Pace(), stop=stopping.is_set)
    except engine.UnusableDatabaseError as error:
        sys.stderr.write(f"subtext retention: {error}\n")
        return 2
    except SQLAlchemyError as error:
        sys.stderr.write(
            f"subtext retention: {type(error).__name__}: {error}\n"
            "Is the database migrated? subtext migrate\n"
        )
        return 1
    finally:
        database.dispose()
    told = [
        *((f"{a.model}: {a.explanations} explanations", a.is_finished, a.certificate) for a in outcomes),
        *((f"{b.records}: {b.removed} rows", b.is_finished, b.certificate) for b in of_records),
    ]
    for removed, is_finished, certificate in told:
        state = "finished" if is_finished else "not finished; run it again"
        of = "" if certificate is None else f", certificate {certificate}"
        sys.stdout.write(f"{removed} removed, {state}{of}\n")
    return 0 if all(is_finished for _, is_finished, _ in told) else 1
