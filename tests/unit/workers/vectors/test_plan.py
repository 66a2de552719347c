"""Whose vectors are kept: what the operator's files say, and what is refused of them."""

from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from service.store.vectors import sealing
from workers.settings import WorkerSettings
from workers.vectors import plan
from workers.vectors.plan import VectorPlanError

PLAN = "keep:\n  - {tenant: acme, model: tiny, days: 7}\n  - {tenant: acme, model: large, days: 1}\n"


def written(folder: Path, content: str) -> Path:
    file = folder / "vectors.yaml"
    file.write_text(content)
    return file


def settings(folder: Path, **changes: object) -> WorkerSettings:
    return WorkerSettings(
        database_url=SecretStr("postgresql://db/subtext"),
        redis_url=SecretStr("redis://queue"),
        decoder_dir=folder,
        concepts_file=folder,
        **changes,  # type: ignore[arg-type]  # of the test's own
    )


def test_only_what_is_named_is_kept(tmp_path: Path) -> None:
    kept = plan.load_plan(written(tmp_path, PLAN))

    assert kept.days_of("acme", "tiny") == 7
    assert kept.days_of("acme", "large") == 1
    assert kept.days_of("acme", "other") is None
    assert kept.days_of("default", "tiny") is None


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("keep: [{tenant: acme, model: tiny, days: 91}]", "keep.0.days"),
        ("keep: [{tenant: acme, model: tiny, days: 0}]", "keep.0.days"),
        ("keep: [{tenant: acme, model: tiny, days: 1.5}]", "keep.0.days"),
        ("keep: [{tenant: acme, model: tiny}]", "keep.0.days"),
        ("keep: [{tenant: '*', model: tiny, days: 7}]", "keep.0.tenant"),
        ("keep: [{tenant: acme, model: '', days: 7}]", "keep.0.model"),
        ("keep: [{tenant: acme, model: tiny, days: 7, class: x}]", "keep.0.class"),
        ("keep: [{tenant: a, model: m, days: 7}, {tenant: a, model: m, days: 8}]", "named 2 times"),
        ("kept: []", "keep"),
        ("", "keep"),
        ("keep: [", "no YAML"),
    ],
)
def test_a_file_that_says_something_else_is_refused_with_the_field(
    tmp_path: Path, content: str, named: str
) -> None:
    with pytest.raises(VectorPlanError, match="SUBTEXT_VECTORS_FILE is") as caught:
        plan.load_plan(written(tmp_path, content))

    assert named in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(VectorPlanError, match=r"none\.yaml, which cannot be read"):
        plan.load_plan(tmp_path / "none.yaml")
    with pytest.raises(VectorPlanError, match=r"SUBTEXT_VECTORS_KEY_FILE is .*cannot be read"):
        plan.load_key(tmp_path / "none.key")


def test_a_worker_keeps_nothing_unless_told_to(tmp_path: Path) -> None:
    assert settings(tmp_path).keeping is None


def test_a_worker_takes_no_plan_without_a_key_of_its_owner_alone(tmp_path: Path) -> None:
    file, key_file = written(tmp_path, PLAN), tmp_path / "vectors.key"
    made = sealing.generate_file(key_file)

    keeping = settings(tmp_path, vectors_file=file, vectors_key_file=key_file).keeping
    assert keeping is not None
    assert keeping.wrapping == made
    with pytest.raises(ValidationError, match="set SUBTEXT_VECTORS_KEY_FILE"):
        settings(tmp_path, vectors_file=file)
    key_file.chmod(0o604)
    with pytest.raises(ValidationError, match=r"SUBTEXT_VECTORS_KEY_FILE is .*chmod 600"):
        settings(tmp_path, vectors_file=file, vectors_key_file=key_file)
