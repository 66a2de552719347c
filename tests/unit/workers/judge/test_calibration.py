"""A calibration holds for its decoder and its concepts; whatever else is a lead, with a reason."""

from pathlib import Path

import pytest

from service.store.write.evidence import Rate
from tests.support.calibrations import MEASURED, calibrated, calibration_of
from workers.judge import calibration
from workers.judge.calibration import Loaded, RejectedReason, put_in_force
from workers.judge.concepts import Concept, ConceptsError, ConceptSet, Matcher
from workers.nla.fake import FakeDecoder

IDENTITY = FakeDecoder().identity
RATE = Rate(MEASURED.rate, MEASURED.upper_limit, MEASURED.requests)


def concept(name: str, pattern: str = "x") -> Concept:
    return Concept(
        name=name, version=1, description="d", severity="critical", matchers=(Matcher(regex=pattern),)
    )


CONCEPTS = ConceptSet((concept("bombs"), concept("fraud")), "0" * 64)


def test_a_calibration_of_this_decoder_and_these_concepts_is_in_force() -> None:
    found = {
        "bombs": calibrated(CONCEPTS.concepts[0], positions_required=3, threshold=0.4),
        "fraud": calibrated(CONCEPTS.concepts[1], reason="no rule meets the target"),
    }
    made = calibration_of(CONCEPTS, IDENTITY).model_copy(update={"concepts": found})
    loaded = Loaded(made, "f" * 64)

    in_force = put_in_force(CONCEPTS, loaded, IDENTITY)

    assert (in_force.digest, in_force.rejected) == ("f" * 64, frozenset())
    bombs, fraud = in_force.rules["bombs"], in_force.rules["fraud"]
    assert (bombs.positions_required, bombs.calibrated, bombs.positions_judged) == (3, RATE, 8)
    assert (fraud.positions_required, fraud.calibrated, fraud.is_calibration_void) == (2, None, False)
    assert in_force.thresholds == {"bombs": 0.4}


@pytest.mark.parametrize("change", [{"decoder_digest": "other"}, {"layer": 7}])
def test_a_calibration_of_another_decoder_calibrates_nothing(change: dict[str, object]) -> None:
    loaded = Loaded(calibration_of(CONCEPTS, IDENTITY, **change), "f" * 64)

    in_force = put_in_force(CONCEPTS, loaded, IDENTITY)

    assert in_force.rejected == {RejectedReason.ANOTHER_DECODER}
    assert all(rule.is_calibration_void for rule in in_force.rules.values())
    assert {rule.calibrated for rule in in_force.rules.values()} == {None}
    assert (in_force.digest, in_force.thresholds) == (None, {})


def test_without_a_calibration_every_concept_is_a_lead() -> None:
    in_force = put_in_force(CONCEPTS, None, IDENTITY)

    assert in_force.rejected == {RejectedReason.ABSENT}
    assert not any(rule.is_calibration_void for rule in in_force.rules.values())
    assert {rule.calibrated for rule in in_force.rules.values()} == {None}


def test_a_changed_concept_is_a_lead_and_the_others_stay_calibrated() -> None:
    loaded = Loaded(calibration_of(CONCEPTS, IDENTITY), "f" * 64)
    changed = CONCEPTS._replace(concepts=(concept("bombs", "y"), CONCEPTS.concepts[1]))

    in_force = put_in_force(changed, loaded, IDENTITY)

    assert in_force.rejected == {RejectedReason.ANOTHER_CONCEPT}
    assert in_force.rules["bombs"].calibrated is None
    assert [in_force.rules[name].is_calibration_void for name in ("bombs", "fraud")] == [True, False]
    assert in_force.rules["fraud"].calibrated == RATE


def test_what_is_saved_loads_again(tmp_path: Path) -> None:
    made = calibration_of(CONCEPTS, IDENTITY)
    calibration.save(made, tmp_path / "new" / "c.json")

    loaded = calibration.load(tmp_path / "new" / "c.json")

    assert loaded.calibration == made
    assert len(loaded.digest) == 64


def test_a_broken_file_is_refused_with_its_field_and_the_fix(tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    with pytest.raises(ConceptsError, match="cannot be read"):
        calibration.load(path)
    path.write_text(
        calibration_of(CONCEPTS, IDENTITY).model_dump_json().replace('"positions_judged":8,', "")
    )

    with pytest.raises(ConceptsError, match="positions_judged: Field required; run `subtext calibrate"):
        calibration.load(path)
