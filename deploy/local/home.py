"""Where the demo keeps its state, and the lock that lets one demo use it at a time."""

import contextlib
import fcntl
import hashlib
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from service.evidence.note import generate

LOG_NAME = "subtext.demo"
# A unix socket's path has 107 usable bytes; the state directory may be deeper than that.
_LONGEST_SOCKET_PATH = 100


class HomeInUseError(RuntimeError):
    """Another demo runs on this state directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Home:
    """The paths below the state directory. ``run_dir`` lives as long as one demo."""

    root: Path
    run_dir: Path

    @property
    def models_dir(self) -> Path:
        """Converted models."""
        return self.root / "models"

    @property
    def decoders_dir(self) -> Path:
        """Assembled decoders."""
        return self.root / "decoders"

    @property
    def logs_dir(self) -> Path:
        """One log a process, of the newest run."""
        return self.root / "logs"

    @property
    def postgres_dir(self) -> Path:
        """Data of the embedded PostgreSQL."""
        return self.root / "postgres"

    @property
    def valkey_dir(self) -> Path:
        """Working directory of the embedded Valkey."""
        return self.root / "valkey"

    @property
    def cache_dir(self) -> Path:
        """Compile cache of vLLM: minutes at the first start, seconds later."""
        return self.root / "vllm-cache"

    @property
    def api_key_file(self) -> Path:
        """The demo's REST key, mode 0600."""
        return self.root / "api_key"

    @property
    def auditor_key_file(self) -> Path:
        """The demo's REST key of an auditor, who reads the access log and no text, mode 0600."""
        return self.root / "auditor_key"

    @property
    def console_key_file(self) -> Path:
        """The demo's REST key for a visitor of the console, mode 0600."""
        return self.root / "console_key"

    @property
    def evidence_dir(self) -> Path:
        """Key and checkpoints of the evidence log, mode 0700: it outlives a run, as the store does."""
        return self.root / "evidence"

    @property
    def log_key_file(self) -> Path:
        """The key that signs the evidence log, mode 0600."""
        return self.evidence_dir / "log_key"

    @property
    def log_public_key_file(self) -> Path:
        """Its public half, by which anybody verifies."""
        return self.evidence_dir / "log_key.pub"

    @property
    def checkpoints_dir(self) -> Path:
        """The evidence log's signed checkpoints."""
        return self.evidence_dir / "checkpoints"

    @property
    def draw_secret_file(self) -> Path:
        """The secret that keys the plugin's draw, mode 0600; a new one at every start."""
        return self.run_dir / "draw_secret"

    @property
    def socket(self) -> str:
        """ZeroMQ address between plugin and sidecar."""
        return f"ipc://{self.run_dir / 'capture.sock'}"


@contextlib.contextmanager
def open_home(root: Path) -> Iterator[Home]:
    """Create the state directory, lock it and yield its paths.

    Raises HomeInUseError when another demo holds the lock.
    """
    root = root.resolve()
    root.mkdir(parents=True, exist_ok=True)
    with (root / "demo.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HomeInUseError(
                f"another demo is running on {root}; stop it, or set SUBTEXT_HOME to another directory"
            ) from error
        home = Home(root=root, run_dir=run_dir_of(root))
        for directory in (
            home.models_dir,
            home.decoders_dir,
            home.logs_dir,
            home.valkey_dir,
            home.cache_dir,
        ):
            directory.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(home.run_dir, ignore_errors=True)  # what a killed demo left
        home.run_dir.mkdir(mode=0o700)
        make_draw_secret(home.draw_secret_file)
        make_log_key(home)
        try:
            yield home
        finally:
            shutil.rmtree(home.run_dir)


def make_draw_secret(path: Path) -> None:
    """Write a new secret, readable by this user alone; raises FileExistsError when there is one."""
    _write_secret(path, secrets.token_hex(32))


def make_log_key(home: Home) -> None:
    """Make the evidence log's folder and key unless they are there: a log is signed by one key."""
    home.evidence_dir.mkdir(mode=0o700, exist_ok=True)
    home.checkpoints_dir.mkdir(exist_ok=True)
    if not home.log_key_file.exists():
        signer = generate(LOG_NAME)
        # The public half first: a demo that is killed between the two makes both anew.
        home.log_public_key_file.write_text(signer.verifier.encode() + "\n")
        _write_secret(home.log_key_file, signer.encode())


def _write_secret(path: Path, secret: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secret + "\n")


def run_dir_of(root: Path) -> Path:
    """Return where sockets live: the same path at every start.

    The capture socket's path is part of the plugin's configuration, which vLLM hashes into its
    compile cache: a path that changed would mean minutes of compiling at every start.
    """
    inside = root / "run"
    if len(os.fsencode(inside / "capture.sock")) <= _LONGEST_SOCKET_PATH:
        return inside
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"subtext-{os.getuid()}-{digest}"
