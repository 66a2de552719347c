"""`subtext verify BUNDLE`: hold a bundle against a public key, and name what does not fit."""

import json
import sys
from pathlib import Path

from service.evidence.bundle.check import check
from service.evidence.bundle.finding import Report
from service.evidence.note import Verifier


def run(bundle: Path, verifier: Verifier, earlier: str | None) -> int:
    """Verify a bundle and tell what was found; 0 when all fits, 1 when something does not."""
    report = check(bundle, verifier, earlier)
    for found in report.findings:
        sys.stdout.write(f"{found.what}  {found.place}: {found.why}\n")
    sys.stdout.write(json.dumps(_counts(report)) + "\n")
    return 1 if report.findings else 0


def _counts(report: Report) -> dict[str, object]:
    return {
        "findings": len(report.findings) + report.further,
        "log": report.log,
        "period": report.period,
        "log_entries": report.tree_size,
        "entries_checked": report.entries,
        "entries_of_period": report.entries_in_period,
        "entries_of_other_kinds": report.of_other_kinds,
        "rows_opened": report.rows_opened,
        "rows_without_text": report.rows_without_text,
        "rows_not_in_log": report.rows_not_in_log,
        "tombstones": report.tombstones,
        "withheld": report.withheld,
    }
