import re
from pathlib import Path

import pytest

from subtext_sidecar.plugin.secret import SecretError, key_of, read_keys
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
