import re
import time
from pathlib import Path
from typing import Any

import pytest

from subtext_sidecar.contract.subject import ARGUMENT, make_proof, subject_key, tenant_secret
from subtext_sidecar.plugin.secret import SecretError, key_of, read_keys, subject_reader
from subtext_sidecar.plugin.settings import CaptureSettings
from tests.support.secret import SECRET, write_secret

WHERE = "additional_config.subtext.secret_file"


@pytest.mark.parametrize("content", [SECRET, SECRET + b"\n", SECRET + b"\r\n", b"x" * 32, b"x" * 4096])
@pytest.mark.parametrize("mode", [0o400, 0o600, 0o440])
def test_a_secret_is_read_without_its_line_end(tmp_path: Path, content: bytes, mode: int) -> None:
    key = read_keys(write_secret(tmp_path / "s", content, mode), WHERE).draw

    assert key == key_of(content.strip())
    assert len(key) == 32


@pytest.mark.parametrize(
    ("content", "mode", "fix"),
    [
        (b"", 0o600, "must hold 32 to 4096 bytes, not 0"),
        (b"x" * 31 + b"\n", 0o600, "must hold 32 to 4096 bytes, not 31"),
        (b"x" * 4097, 0o600, "must hold 32 to 4096 bytes, not more"),
        (SECRET, 0o644, r"mode 0644\): `chmod o= "),
        (SECRET, 0o602, r"mode 0602\): `chmod o= "),
    ],
)
def test_a_secret_that_is_none_is_refused_with_the_fix(
    tmp_path: Path, content: bytes, mode: int, fix: str
) -> None:
    path = write_secret(tmp_path / "s", content, mode)

    with pytest.raises(SecretError, match=f"{re.escape(WHERE)}: {re.escape(str(path))} .*{fix}") as refused:
        read_keys(path, WHERE)

    assert SECRET.decode() not in str(refused.value)


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_file_that_cannot_be_read_is_named_with_the_fix(tmp_path: Path, name: str) -> None:
    with pytest.raises(SecretError, match=r"cannot be read \(.*\): make one with .*openssl"):
        read_keys(tmp_path / name, WHERE)


def test_another_secret_is_another_key() -> None:
    assert key_of(SECRET) != key_of(SECRET[:-1] + b"0")


def settings(**changes: Any) -> CaptureSettings:
    return CaptureSettings(layer=1, socket="ipc:///s", secret_file="-", **changes)


def test_subjects_are_read_by_the_secret_and_tenant_of_the_engine(tmp_path: Path) -> None:
    file = str(write_secret(tmp_path / "s", SECRET + b"\n"))
    secret = tenant_secret(SECRET, "acme")
    key = subject_key(secret, "ada")
    asserted, proved = (
        subject_reader(settings(subjects=mode, subject_secret_file=file, tenant="acme"))
        for mode in ("asserted", "proved")
    )

    assert asserted is not None
    assert proved is not None
    assert asserted.read({ARGUMENT: "ada"}).key == key
    assert proved.read({ARGUMENT: "ada"}).key is None
    assert proved.read({ARGUMENT: make_proof(secret, key, int(time.time()) + 60)}).key == key


def test_without_subjects_no_secret_of_theirs_is_read(tmp_path: Path) -> None:
    assert subject_reader(settings()) is None
    assert subject_reader(settings(subject_secret_file=str(tmp_path / "none"))) is None


def test_subjects_without_a_usable_secret_are_refused_by_name(tmp_path: Path) -> None:
    file = str(write_secret(tmp_path / "s", b"short"))

    with pytest.raises(SecretError, match=r"additional_config\.subtext\.subject_secret_file: .*not 5"):
        subject_reader(settings(subjects="proved", subject_secret_file=file))
