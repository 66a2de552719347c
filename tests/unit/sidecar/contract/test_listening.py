"""Where a process may answer HTTP, and that its errors name what to set."""

from pathlib import Path

import pytest

from subtext_sidecar.contract.listening import (
    ListeningError,
    TlsFiles,
    check_address,
    is_loopback,
    tls_files,
)

FILES = TlsFiles(certificate=Path("/c"), key=Path("/k"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_the_loopback_interface_needs_nothing(host: str) -> None:
    assert is_loopback(host)
    check_address(host, None, None)


@pytest.mark.parametrize(
    "host",
    ["0.0.0.0", "::", "10.0.0.1", "fd00::1", "a.example.org", "127.0.0.1.nip.io"],  # noqa: S104  # refused
)
def test_any_other_address_needs_tls_or_a_reason(host: str) -> None:
    check_address(host, FILES, None)
    check_address(host, None, "behind-proxy")
    check_address(host, None, "private-network")
    with pytest.raises(ListeningError) as refused:
        check_address(host, None, None)

    for fix in ("SUBTEXT_TLS_CERT_FILE", "SUBTEXT_PLAIN_HTTP=behind-proxy", "SUBTEXT_HTTP_HOST=127.0.0.1"):
        assert fix in str(refused.value)


def test_one_tls_file_alone_is_refused() -> None:
    assert tls_files(None, None) is None
    for one in ((Path("/c"), None), (None, Path("/k"))):
        with pytest.raises(ListeningError, match="go together"):
            tls_files(*one)


def test_files_that_do_not_work_are_named(tmp_path: Path) -> None:
    with pytest.raises(ListeningError, match="SUBTEXT_TLS_CERT_FILE is /c"):
        FILES.context()
    broken = tmp_path / "broken.pem"
    broken.write_text("nothing of a certificate")
    with pytest.raises(ListeningError, match=r"broken\.pem"):
        TlsFiles(certificate=broken, key=broken).context()
