"""What ``subtext retention run`` does in the database."""

import signal
import sys
import threading

from sqlalchemy.exc import SQLAlchemyError

from service.retention.run import Pace
from service.retention.run import run as run_retention
from service.store import engine


def run(url: str) -> int:
    """Run once over all tenants and return the exit status; a signal ends it between two transactions."""
    stopping = threading.Event()
    for wanted in (signal.SIGTERM, signal.SIGINT):
        signal.signal(wanted, lambda *_: stopping.set())
    database = engine.create_engine(url, application_name="subtext-retention")
    try:
        outcomes = run_retention(engine.session_factory(database), Pace(), stop=stopping.is_set)
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
    for one in outcomes:
        state = "finished" if one.is_finished else "not finished; run it again"
        sys.stdout.write(
            f"{one.model}: {one.explanations} explanations removed, {state}"
            f"{'' if one.certificate is None else f', certificate {one.certificate}'}\n"
        )
    return 0 if all(one.is_finished for one in outcomes) else 1
