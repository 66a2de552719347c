"""A sampled request names its data subject as the engine's settings let it, and never fails by it."""

from collections import Counter

import pytest

from subtext_sidecar.contract.canary import ARGUMENT as CANARY
from subtext_sidecar.contract.canary import Canary, canary_key, make_token, prompt_digest
from subtext_sidecar.contract.subject import ARGUMENT, make_proof, subject_key, tenant_secret
from subtext_sidecar.local.policy import CapturePolicy
from subtext_sidecar.plugin.sampling.canary import CanaryGate
from subtext_sidecar.plugin.sampling.subject import SubjectReader
from subtext_sidecar.plugin.sampling.watchlist import NewRequest, Watchlist
from tests.support.secret import KEY, SECRET

NOW = 1_800_000_000.0
OF_ACME = tenant_secret(SECRET, "acme")
ADA = subject_key(OF_ACME, "ada")
PROOF = make_proof(OF_ACME, ADA, int(NOW) + 60)
FORGED = make_proof(tenant_secret(SECRET, "bolt"), ADA, int(NOW) + 60)
PROMPT = [1, 2, 3, 4]


def reader(*, proved: bool = False) -> SubjectReader:
    return SubjectReader(OF_ACME, is_proof_needed=proved, unix_time=lambda: NOW)


def arrive(
    subjects: SubjectReader | None,
    extra_args: dict[str, object] | None = None,
    policy: CapturePolicy | None = None,
) -> tuple[set[str | None], Counter[str]]:
    """Let one request arrive; return whom its rows name, and what is counted."""
    counts: Counter[str] = Counter()
    requests = Watchlist(
        policy or CapturePolicy(skip_first=0),
        lambda _, counter, count: counts.update({str(counter): count}),
        context=100,
        key=KEY,
        canaries=CanaryGate(canary_key(SECRET), "m", lambda: NOW),
        subjects=subjects,
    )
    requests.add([NewRequest("a-00000000", 4, extra_args, max_tokens=8, prompt=PROMPT)], 0.0)
    picked = requests.pick(["a-00000000"], [0, 4], [0], {}, 0.0)
    return {watch.request.subject for watch, _ in picked.wanted}, counts


@pytest.mark.parametrize(
    ("said", "proved"), [("ada", False), (PROOF, False), (PROOF, True)], ids=["id", "either", "proof"]
)
def test_the_rows_of_a_request_name_its_subject_by_the_key_alone(said: str, *, proved: bool) -> None:
    named, counts = arrive(reader(proved=proved), {ARGUMENT: said})

    assert named == {ADA}
    assert counts == {"requests_seen": 1, "requests_sampled": 1, "requests_of_subject": 1}


@pytest.mark.parametrize("proved", [False, True])
@pytest.mark.parametrize(
    "said",
    ["", "x" * 257, "x" * 1_000_000, "\ud800", 5, 0.5, True, ["ada"], {"a": 1}, FORGED],
    ids=repr,
)
def test_what_names_nobody_is_counted_and_the_request_is_read_all_the_same(
    said: object, *, proved: bool
) -> None:
    named, counts = arrive(reader(proved=proved), {ARGUMENT: said})

    assert named == {None}
    assert counts == {"requests_seen": 1, "requests_sampled": 1, "ignored_subject": 1}


@pytest.mark.parametrize("said", ["ada", ADA, FORGED, make_proof(OF_ACME, ADA, int(NOW))])
def test_where_proofs_are_needed_nobody_is_named_without_one(said: str) -> None:
    assert arrive(reader(proved=True), {ARGUMENT: said}) == (
        {None},
        {"requests_seen": 1, "requests_sampled": 1, "ignored_subject": 1},
    )


def test_a_request_that_names_nobody_is_counted_where_subjects_are_kept() -> None:
    assert arrive(reader()) == ({None}, {"requests_seen": 1, "requests_sampled": 1, "subject_missing": 1})
    assert arrive(None) == ({None}, {"requests_seen": 1, "requests_sampled": 1})


def test_a_subject_is_counted_and_not_kept_where_none_are() -> None:
    named, counts = arrive(None, {ARGUMENT: PROOF})

    assert named == {None}
    assert counts == {"requests_seen": 1, "requests_sampled": 1, "subject_not_honoured": 1}


def test_of_a_request_that_is_not_sampled_no_subject_is_read() -> None:
    named, counts = arrive(reader(), {ARGUMENT: "ada"}, CapturePolicy(request_rate=0.0))

    assert (named, counts) == (set(), {"requests_seen": 1})


def test_a_canary_is_nobodys_data() -> None:
    canary = Canary("ab" * 16, int(NOW) + 60, prompt_digest(PROMPT))
    token = make_token(canary_key(SECRET), canary, "m")

    named, counts = arrive(reader(), {CANARY: token, ARGUMENT: "ada"})

    assert named == {None}
    assert counts == {"requests_seen": 1, "requests_sampled": 1}
