"""An authority of timestamps (RFC 3161): OpenSSL's, behind the standard library's HTTP server."""

import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_CONFIG = """
[tsa]
serial = {folder}/serial
signer_digest = sha256
default_policy = 1.2.3.4.1
digests = sha256, sha512
ess_cert_id_chain = no
"""
_SIGNER = """
basicConstraints = CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = critical, timeStamping
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
"""


@dataclass(frozen=True, slots=True)
class OpenSslAuthority:
    """A root, and a certificate below it that signs timestamps."""

    folder: Path

    @property
    def roots(self) -> Path:
        """The root's certificate, PEM."""
        return self.folder / "root.pem"

    def answer(self, request: bytes) -> bytes:
        """Return the timestamp, of now, that a TimeStampReq in DER asks for."""
        asked = self.folder / f"{threading.get_ident()}.tsq"
        asked.write_bytes(request)
        signer = ["-inkey", "signer.key", "-signer", "signer.pem", "-config", "tsa.cnf", "-section", "tsa"]
        return _openssl(self.folder, "ts", "-reply", "-queryfile", asked.name, *signer)

    def check(self, note: Path, response: Path) -> None:
        """Let OpenSSL verify what was kept, by these two files and the root alone; it raises if not."""
        kept = ["-data", str(note), "-in", str(response), "-CAfile", str(self.roots)]
        _openssl(self.folder, "ts", "-verify", *kept)


def make_authority(folder: Path) -> OpenSslAuthority:
    """Make keys and certificates in a new folder."""
    folder.mkdir()
    (folder / "tsa.cnf").write_text(_CONFIG.format(folder=folder))
    (folder / "signer.ext").write_text(_SIGNER)
    (folder / "serial").write_text("01\n")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    root = ["-x509", *key, "-days", "2", "-subj", "/CN=root.test"]
    _openssl(folder, "req", *root, "-keyout", "root.key", "-out", "root.pem")
    _openssl(folder, "req", *key, "-subj", "/CN=tsa.test", "-keyout", "signer.key", "-out", "signer.csr")
    below = ["-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-days", "2"]
    signed = ["-in", "signer.csr", "-extfile", "signer.ext", "-out", "signer.pem"]
    _openssl(folder, "x509", "-req", *below, *signed)
    return OpenSslAuthority(folder)


@contextmanager
def serve(authority: OpenSslAuthority) -> Iterator[str]:
    """Serve an authority on loopback; yield its address. `/busy` answers 503, `/endless` without end."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(503 if self.path == "/busy" else 200)
            self.send_header("Content-Type", "application/timestamp-reply")
            self.end_headers()
            self.wfile.write(b"x" * 100_000 if self.path == "/endless" else authority.answer(request))

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def _openssl(folder: Path, *arguments: str) -> bytes:
    return subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True).stdout
