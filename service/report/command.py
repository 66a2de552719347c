"""Write a report's files, from the store alone."""

import datetime as dt
import sys
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from service.errors import ProblemError
from service.report.gather import gather
from service.report.period import Period
from service.settings import StoreSettings
from service.store.engine import UnusableDatabaseError, create_engine, session_factory
from service.store.identity import DEFAULT_TENANT, tenant_id
from service.store.tenants import admin as tenants
from service.store.tenants import scope

_STATEMENT_SECONDS = 300.0  # a year of a large store; nobody waits for it but whoever asked


def run(settings: StoreSettings, period: Period, out: Path, *, tenant: str = DEFAULT_TENANT) -> int:
    """Write report.json and report.pdf of a tenant into the folder.

    Returns 1 when the store fails, 2 for a wrong period or an unknown tenant.
    """
    from service.report import pdf

    engine = create_engine(
        settings.database,
        pool_size=1,
        statement_timeout_seconds=_STATEMENT_SECONDS,
        application_name="subtext-report",
    )
    try:
        with session_factory(engine)() as session:
            # All figures are of one state of the store.
            session.connection(execution_options={"isolation_level": "REPEATABLE READ"})
            scope.enter(session, scope.Reach(tenant_id(tenant)))
            if not tenants.is_there(session, tenant):
                sys.stderr.write(f"subtext report: --tenant: there is no tenant {tenant!r}\n")
                return 2
            report = gather(session, period, dt.datetime.now(dt.UTC))
    except ProblemError as error:
        detail = "; ".join(one.message for one in error.problem.errors or ())
        sys.stderr.write(f"subtext report: --from and --to: {detail or error.problem.detail}\n")
        return 2
    except (SQLAlchemyError, UnusableDatabaseError) as error:
        sys.stderr.write(f"subtext report: {type(error).__name__}: {error}\n")
        return 1
    finally:
        engine.dispose()
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(
        report.model_dump_json(by_alias=True, indent=2) + "\n", encoding="utf-8"
    )
    pdf.write(report, str(out / "report.pdf"))
    sys.stdout.write(f"{out / 'report.json'}\n{out / 'report.pdf'}\n")
    return 0
