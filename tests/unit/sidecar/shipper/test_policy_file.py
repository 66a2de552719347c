from pathlib import Path

import pytest

from subtext_sidecar.local.policy import CapturePolicy, PolicyError
from subtext_sidecar.shipper.policy_file import MAX_FILE_BYTES, PolicyFile


def test_a_policy_is_returned_once_and_again_after_a_change(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text('{"capture": {"request_rate": 0.5}}')
    file = PolicyFile(path)

    first = file.poll()
    unchanged = file.poll()
    path.write_text('{"capture": {"request_rate": 0.25}}')
    second = file.poll()

    assert first is not None
    assert first.capture == CapturePolicy(request_rate=0.5)
    assert unchanged is None
    assert second is not None
    assert second.capture == CapturePolicy(request_rate=0.25)
    assert first.version != second.version


def test_a_bad_content_is_refused_once_and_the_next_good_one_is_used(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text('{"capture": {"request_rate": 7}}')
    file = PolicyFile(path)

    with pytest.raises(PolicyError, match=r"policy\.json.*request_rate"):
        file.poll()
    still_bad = file.poll()
    path.write_text("{}")

    assert still_bad is None
    assert file.poll() is not None


def test_a_file_that_comes_back_to_what_was_in_force_is_no_change(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text("{}")
    file = PolicyFile(path)
    file.poll()

    path.write_text("{")
    with pytest.raises(PolicyError):
        file.poll()
    path.write_text("{ }")

    assert file.poll() is None


def test_a_missing_file_is_said_once_and_found_when_it_appears(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    file = PolicyFile(path)

    with pytest.raises(PolicyError, match="cannot be read"):
        file.poll()
    assert file.poll() is None
    path.write_text("{}")

    assert file.poll() is not None


def test_a_file_replaced_through_a_link_is_read_anew(tmp_path: Path) -> None:
    for name, rate in (("old", 0.5), ("new", 0.25)):
        (tmp_path / name).write_text(f'{{"capture": {{"request_rate": {rate}}}}}')
    link = tmp_path / "policy.json"
    link.symlink_to(tmp_path / "old")
    file = PolicyFile(link)
    file.poll()

    (tmp_path / "next").symlink_to(tmp_path / "new")
    (tmp_path / "next").rename(link)
    changed = file.poll()

    assert changed is not None
    assert changed.capture == CapturePolicy(request_rate=0.25)


def test_a_huge_file_is_refused_without_reading_it_all(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_bytes(b" " * (MAX_FILE_BYTES + 1))

    with pytest.raises(PolicyError, match="longer"):
        PolicyFile(path).poll()
