"""docs/counters.md from the contract: `python -m deploy.checks.counters` compares, `--write` writes it."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from subtext_sidecar.contract.counters import (
    COUNTERS,
    DeadLetterReason,
    Hop,
    LossKind,
    RejectReason,
    Stratum,
)
from subtext_sidecar.contract.equations import EQUATIONS

DOCUMENT: Final = Path(__file__).resolve().parents[2] / "docs" / "counters.md"
_COMMAND: Final = "python -m deploy.checks.counters --write"
_TEXT: Final = """\
# Counters

Written by `{command}` from `sidecar/subtext_sidecar/contract/`, where a
counter is added. `make check` compares.

Counts are by minute of capture, model and stratum. Plugin and sidecar send sums of a minute that only
grow, and the store keeps the largest of each process start: a count that comes twice changes nothing. A
worker adds its counts in the transaction that stores what they count. `GET /v1/coverage` answers every
counter, the losses by reason, and whether the equations hold.

## What the plugin counts

A row that is dropped here is in `rows_sampled` as well.

{plugin}
## What the sidecar counts

A refused row that no longer tells its stratum counts as `unknown`, and so does every trimmed one.

{sidecar}
## What a worker counts

{worker}
## What must add up

Once nothing is on its way, at each place that rows come into and out of. `*` stands for every reason,
also for one of another version that is not listed here.

{equations}
## Strata

Requests that are sampled by one rule. A share is always of one stratum or says that it is of all.

{strata}
## Losses

A counter of a loss starts with the kind; the reason follows.

{losses}
## Reasons

Why the sidecar refuses a row (`dropped_invalid_*`), or a worker sets it aside (`dead_lettered_*`):

{reject_reasons}
Why a worker alone sets one aside:

{dead_letter_reasons}"""


def document() -> str:
    """Return the whole document, in Markdown."""
    return _TEXT.format(
        command=_COMMAND,
        equations=_table(
            ("place", "in = out", "in words"),
            ((f"`{one.place}`", f"`{one}`", one.meaning) for one in EQUATIONS),
        ),
        strata=_table(("stratum", "rule"), ((f"`{one}`", one.meaning) for one in Stratum)),
        losses=_table(("kind", "what happened"), ((f"`{one}_*`", one.meaning) for one in LossKind)),
        reject_reasons=_table(("reason", "why"), ((f"`{one}`", one.meaning) for one in RejectReason)),
        dead_letter_reasons=_table(
            ("reason", "why"), ((f"`{one}`", one.meaning) for one in DeadLetterReason)
        ),
        **{str(hop): _counters(hop) for hop in Hop},
    )


def _counters(hop: Hop) -> str:
    rows = ((f"`{name}`", name.unit, name.meaning) for name in COUNTERS if name.hop is hop)
    return _table(("counter", "unit", "said of one"), rows)


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(cells)} |\n" for cells in (heads, *rows)]
    return "".join([lines[0], f"|{'---|' * len(heads)}\n", *lines[1:]])


def main(arguments: list[str]) -> int:
    """Write the document when told to; 1 when it is not what the contract says."""
    if arguments == ["--write"]:
        DOCUMENT.write_text(document(), encoding="utf-8")
    if not DOCUMENT.is_file() or DOCUMENT.read_text(encoding="utf-8") != document():
        sys.stderr.write(f"docs/counters.md is not what the contract says; run: {_COMMAND}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
