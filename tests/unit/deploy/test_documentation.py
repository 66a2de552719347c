"""What the documents say about the code in numbers and names is what the code does."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic_core import PydanticUndefined

from service import readings
from service.auth import SCOPES, Role, Scope
from service.settings import KeySettings, ServiceSettings, StoreSettings
from subtext_sidecar.anomaly import fit as anomaly_fit
from subtext_sidecar.contract import dead_letters
from subtext_sidecar.contract.counters import (
    COUNTERS,
    DeadLetterReason,
    Hop,
    LossKind,
    RejectReason,
    loss_of,
)
from subtext_sidecar.contract.equations import Place
from subtext_sidecar.local import policy_channel
from subtext_sidecar.local.policy import CapturePolicy, ScreenPolicy
from subtext_sidecar.plugin import settings as plugin_settings
from subtext_sidecar.plugin.sampling import budget
from subtext_sidecar.plugin.settings import CaptureSettings
from subtext_sidecar.plugin.vllm import refusal
from subtext_sidecar.screen import thinning
from subtext_sidecar.shipper import settings
from tests.support import ROOT
from workers.consumer import decoder_health
from workers.settings import WorkerSettings

OPERATIONS = (ROOT / "docs/operations.md").read_text()
FIDELITY = (ROOT / "docs/runbooks/decoder-fidelity.md").read_text()
TEXTS = (
    "*.toml",
    "sidecar/*.toml",
    "service/**/*.py",
    "workers/**/*.py",
    "sidecar/**/*.py",
    "deploy/**/*.py",
)
ROWS_NEEDED = anomaly_fit.rows_needed(anomaly_fit.P_VALUE)
PER_PROCESS = {"SUBTEXT_HTTP_PORT"}  # one default each


def section(title: str) -> str:
    return OPERATIONS.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str, columns: int) -> Iterator[list[str]]:
    """The rows of tables with so many columns, without their heads."""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| `") and len(cells) == columns:
            yield cells


def names(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def value(text: str) -> Any:
    """A default as the tables write it."""
    return {
        "true": True,
        "false": False,
        "served name": "",
        "by `kv_role`": None,
        "data-parallel ranks": None,
        "none": None,
    }.get(text, text)


def zip_defaults(keys: list[str], given: list[str]) -> list[tuple[str, str]]:
    """Several keys have a default each, or one for all."""
    return list(zip(keys, given * len(keys) if len(given) == 1 else given, strict=True))


def documented(text: str) -> dict[str, Any]:
    return {
        name: value(default)
        for keys, given, _ in rows(text, 3)
        for name, default in zip_defaults(names(keys), given.split(", "))
    }


def defaults(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return {
        field.name: "required" if field.required else field.default
        for field in msgspec.structs.fields(kind)
    }


def same(said: Mapping[str, Any], real: Mapping[str, Any]) -> None:
    assert set(said) == set(real)
    for name, default in real.items():
        number = isinstance(default, int | float) and not isinstance(default, bool)
        assert (float(said[name]) if number else said[name]) == default, name


def test_the_plugins_keys_and_their_defaults() -> None:
    real = defaults(CaptureSettings)
    start_policy = defaults(CapturePolicy)
    own = {name: real[name] for name in real if name not in start_policy and not name.startswith("fault")}

    plugin = section("Plugin").split("**What can be captured.**")[0]
    same(documented(plugin), own)
    same(documented(section("Sampling")), start_policy)


def test_the_screens_keys_and_their_defaults() -> None:
    same(documented(section("Screen")), defaults(ScreenPolicy))


class Asked(dict[str, str]):
    """An environment that remembers what it was asked for."""

    def __init__(self) -> None:
        super().__init__(SUBTEXT_SOCKET="ipc:///s", SUBTEXT_REDIS_URL="redis://r")
        self.names: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)


def real_variables() -> dict[str, dict[str, Any]]:
    """Every variable with its default by process; None where there is none."""
    asked = Asked()
    sidecar = settings.parse_settings([], asked)
    found: dict[str, dict[str, Any]] = {
        name: {"sidecar": getattr(sidecar, name.removeprefix("SUBTEXT_").lower())} for name in asked.names
    }
    for name in asked:
        found[name]["sidecar"] = None
    for process, kind in (("worker", WorkerSettings), ("service", ServiceSettings)):
        for name, field in kind.model_fields.items():
            default = None if field.default is PydanticUndefined else field.default
            found.setdefault(f"SUBTEXT_{name.upper()}", {})[process] = default
    for name in KeySettings.model_fields.keys() - StoreSettings.model_fields.keys():
        found[f"SUBTEXT_{name.upper()}"] = {}  # of a command, and of no process
    return found


VARIABLES = real_variables()


def said_of_variables() -> dict[str, tuple[str, str]]:
    return {name: (used, meaning) for keys, used, meaning in rows(OPERATIONS, 3) for name in names(keys)}


def test_every_variable_is_listed_with_the_processes_that_read_it() -> None:
    said = {name: used for name, (used, _) in said_of_variables().items() if name.startswith("SUBTEXT_")}

    assert set(said) == set(VARIABLES)
    for name, by_process in VARIABLES.items():
        used = "sidecar, worker, service" if said[name] == "all three" else said[name]
        assert {"sidecar", "worker", "service"} & set(re.findall(r"\w+", used)) == set(by_process), name


@pytest.mark.parametrize("name", sorted(VARIABLES))
def test_a_variables_default_is_the_one_that_is_listed(name: str) -> None:
    _, meaning = said_of_variables()[name]

    for process, default in VARIABLES[name].items():
        if default is not None:
            shown = f"{default:g}" if isinstance(default, float) else str(default)
            stated = f"{process} {shown}" if name in PER_PROCESS else shown
            assert re.search(rf"(?<![\w.]){re.escape(stated)}(?![\w.])", meaning), (name, stated)


def test_every_reason_for_which_capture_is_off_is_listed() -> None:
    source = Path(refusal.__file__).read_text()
    given = {*re.findall(r'Refusal\(\s*"(\w+)"', source), "bad_settings", "bad_secret"}

    listed = {name for reason, _ in rows(section("Plugin"), 2) for name in names(reason)}

    assert listed == given


def test_every_reason_of_a_dead_letter_is_explained() -> None:
    runbook = (ROOT / "docs/runbooks/dead-letters.md").read_text()

    listed = {
        reason
        for reasons in re.findall(r"^- (`.+?):", runbook, re.MULTILINE | re.DOTALL)
        for reason in names(reasons)
    }

    assert listed == {*RejectReason, *DeadLetterReason}


def lost(kind: LossKind, hop: Hop) -> set[str]:
    found = [(counter, loss_of(counter)) for counter in COUNTERS]
    return {one.reason for counter, one in found if one and one.kind is kind and counter.hop is hop}


@pytest.mark.parametrize("hop", [Hop.PLUGIN, Hop.SIDECAR])
def test_every_drop_is_explained(hop: Hop) -> None:
    runbook = (ROOT / "docs/runbooks/drops.md").read_text().replace(f"| {hop}, `", "| `")

    listed = {reason for reasons, _, _ in rows(runbook, 3) for reason in names(reasons)} - {*Place}

    assert listed == {re.sub("^invalid_.*", "invalid_*", reason) for reason in lost(LossKind.DROPPED, hop)}


def test_everything_that_cannot_be_observed_is_explained() -> None:
    runbook = (ROOT / "docs/runbooks/blind-spots.md").read_text()

    assert lost(LossKind.UNOBSERVABLE, Hop.PLUGIN) <= {
        code for codes, _, _ in rows(runbook, 3) for code in names(codes)
    }


def test_every_scope_is_listed() -> None:
    (line,) = re.findall(r"Scopes: (.+?)\.\n", OPERATIONS, re.DOTALL)

    assert {name for name in names(line) if name in set(Scope)} == set(Scope)


@pytest.mark.parametrize(
    "sentence",
    [
        f"newest {dead_letters.MAX_ENTRIES:,} of each kind are kept",
        f"within {dead_letters.MAX_BYTES >> 20} MiB",
        f"`{dead_letters.stream_of('STREAM', Hop.WORKER, 'REASON').replace('worker', 'WRITER')}`",
        f"path may have {plugin_settings.MAX_IPC_PATH_BYTES - len(policy_channel.SUFFIX)} bytes",
        f"a norm above {anomaly_fit.NORM_FACTOR:g} times the median",
        f"1 at its {100 * anomaly_fit.HIGH:g}th percentile",
        f"{anomaly_fit.ROWS_BEYOND} held-out rows beyond the threshold",
        f"{2 * ROWS_NEEDED:,} rows in all for a p-value of {anomaly_fit.P_VALUE}",
        f"named from a mean of {readings.NAMED_FROM} on",
    ],
)
def test_a_number_of_the_operations_guide_is_the_codes(sentence: str) -> None:
    assert sentence in " ".join(OPERATIONS.split())


@pytest.mark.parametrize(
    "sentence",
    [
        f"last {decoder_health.WINDOW} readings of the random baseline, from {decoder_health.FEWEST} on",
        f"one text is above {100 * decoder_health.COMMONEST_ABOVE:g}%",
        f"below {100 * decoder_health.WELL_FORMED_BELOW:g}% keep the format",
        f"by half of it, and by {decoder_health.DROP_AT_LEAST} at least",
    ],
)
def test_a_number_of_the_fidelity_runbook_is_the_codes(sentence: str) -> None:
    assert sentence in " ".join(FIDELITY.split())


def test_numbers_that_are_written_as_words() -> None:
    prose = " ".join(OPERATIONS.split())

    assert ("within half of the budget" in prose) == (budget.OPT_IN_SHARE == 0.5)
    assert ("adapt once a second" in prose) == (thinning.ADAPT_SECONDS == 1)
    assert ("over the next ten seconds" in prose) == (thinning.REPAY_SECONDS == 10)
    assert (decoder_health.UNIQUE_BELOW, decoder_health.DROP_SHARE) == (0.5, 0.5)
    assert "fewer than half of the texts differ" in FIDELITY


def test_sections_of_the_readme_that_are_pointed_to_are_there() -> None:
    headings = set(re.findall(r"^#+ (.+)$", (ROOT / "README.md").read_text(), re.MULTILINE))

    for pattern in TEXTS:
        for path in ROOT.glob(pattern):
            for title in re.findall(r'README, "([^"]+)"', path.read_text()):
                assert title in headings, f"{path.relative_to(ROOT)} points to {title!r}"


PLACES = (ROOT, ROOT / "sidecar", ROOT / "sidecar" / "subtext_sidecar")
LIVING = [
    *(path for path in sorted((ROOT / "docs").glob("*.md")) if path.name != "files.md"),
    *(ROOT / name for name in ("README.md", "sidecar/README.md")),
]


@pytest.mark.parametrize("document", LIVING, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_every_source_file_that_a_document_names_is_there(document: Path) -> None:
    named = re.findall(r"`([\w./-]*/[\w./-]*\{?[\w,]*\}?[\w/]*(?:\.py|/))`", document.read_text())
    spelled = [name for one in named for name in _spelled_out(one) if "NAME" not in name]
    ours = [name for name in spelled if name.split("/")[0] in OUR_FOLDERS]

    assert [name for name in ours if not any((place / name).exists() for place in PLACES)] == []


OUR_FOLDERS = {
    *("bench", "deploy", "docs", "migrations", "service", "sidecar", "subtext_sidecar", "tests", "workers"),
    *("plugin", "local", "shipper", "screen", "contract"),
}


def _spelled_out(name: str) -> list[str]:
    before, brace, rest = name.partition("{")
    if not brace:
        return [name]
    choices, _, after = rest.partition("}")
    return [f"{before}{choice}{after}" for choice in choices.split(",")]


@pytest.mark.parametrize("role", Role)
def test_every_role_is_listed_with_the_roles_that_it_grows_from(role: Role) -> None:
    [row] = re.findall(rf"^\| `{role}` \| (.+) \|$", OPERATIONS, re.MULTILINE)

    told = names(row)
    listed = {name for name in told if name in set(Scope)}
    for base in (name for name in told if name in set(Role)):
        assert set(SCOPES[Role(base)]) <= set(SCOPES[role])
        listed |= set(SCOPES[Role(base)])
    assert listed == set(SCOPES[role])
