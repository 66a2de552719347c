"""What ``subtext tenant`` does in the database."""

import argparse
import sys

from sqlalchemy.exc import SQLAlchemyError

from service.store import engine
from service.store.tenants import admin


def run(url: str, arguments: argparse.Namespace) -> int:
    """Run the chosen action in one transaction and return the exit status."""
    database = engine.create_engine(url, application_name="subtext-tenant")
    try:
        with engine.session_factory(database).begin() as session:
            if arguments.action == "create":
                made = admin.add_tenant(session, arguments.name)
                output = f"created tenant {made.name}\n"
            elif arguments.action == "wait":
                admin.set_objection_hours(session, arguments.name, arguments.hours)
                output = f"what is asked from now on waits for {arguments.hours} hours\n"
            else:
                tenants = admin.list_tenants(session)
                output = "".join(
                    f"{one.name}  since {one.created_at:%Y-%m-%d}  removals wait {one.objection_hours} h\n"
                    for one in tenants
                )
    except (engine.UnusableDatabaseError, admin.TenantError) as error:
        sys.stderr.write(f"subtext tenant: {error}\n")
        return 2
    except SQLAlchemyError as error:
        sys.stderr.write(
            f"subtext tenant: {type(error).__name__}: {error}\nIs the database migrated? subtext migrate\n"
        )
        return 1
    finally:
        database.dispose()
    sys.stdout.write(output)
    return 0
