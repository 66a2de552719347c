"""The plugin's configuration: the value of the ``subtext`` key of vLLM's ``--additional-config``."""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from subtext_sidecar.contract.tenant import DEFAULT_TENANT, NAMES, is_tenant_name
from subtext_sidecar.local.policy import CapturePolicy, PolicyError, check_capture
from subtext_sidecar.local.policy_channel import SUFFIX
from subtext_sidecar.plugin.sampling.subject import Subjects

FaultPoint = Literal["load_model", "execute_model", "sample_tokens", "sender"]
Split = Literal["none", "prefill", "decode", "both"]

MAX_IPC_PATH_BYTES: Final = 107  # sun_path of a Unix socket
_WHERE: Final = "additional_config.subtext"
SECRET_FILE: Final = f"{_WHERE}.secret_file"
SUBJECT_SECRET_FILE: Final = f"{_WHERE}.subject_secret_file"
SPLIT: Final = f"{_WHERE}.split"
TENANT: Final = f"{_WHERE}.tenant"


class SettingsError(ValueError):
    """The configuration cannot be used; the message names the field and the fix."""


class CaptureSettings(CapturePolicy, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to capture and where to hand it over; the policy's own fields are the start policy."""

    layer: Annotated[int, Meta(ge=0)]  # K: the output of block K
    socket: Annotated[str, Meta(pattern="^ipc://.")]  # the sidecar binds it, the plugin connects
    secret_file: Annotated[str, Meta(min_length=1)]  # keys the draw; see secret.read_key
    model: str = ""  # name on the records; empty: the served model name
    tenant: str = DEFAULT_TENANT  # whose traffic this engine serves
    subjects: Subjects = "off"  # who may name the data subject of a request, see plugin.sampling.subject
    subject_secret_file: Annotated[str, Meta(min_length=1)] | None = (
        None  # makes their keys; not the draw's
    )
    queue_rows: Annotated[int, Meta(ge=1, le=1_000_000)] = 4096  # rows waiting for the sender thread
    # Which halves of a prefill/decode split this engine serves; null: what its kv_role says by itself.
    split: Split | None = None
    # How many engines share rows_per_second; null: vLLM's data_parallel_size.
    engines: Annotated[int, Meta(ge=1, le=100_000)] | None = None
    metrics_port: Annotated[int, Meta(ge=0, le=65_535)] = 0  # 127.0.0.1; 0: none
    fault: FaultPoint | None = None  # for tests: raise inside that hook
    fault_uses: tuple[int, int] | None = None  # for tests: at which of its uses, from, to before; null: all

    def policy(self) -> CapturePolicy:
        """Return the start policy: what decides about rows until the sidecar says otherwise."""
        return CapturePolicy(**{name: getattr(self, name) for name in CapturePolicy.__struct_fields__})


def parse_settings(value: Any) -> CaptureSettings:
    """Return the settings, or raise SettingsError that names the field."""
    if isinstance(value, dict) and "secret_file" not in value:
        raise SettingsError(
            f"{SECRET_FILE} is missing: name a file with the secret of this deployment, so that no client "
            "can tell which requests are sampled; make it with `(umask 077; openssl rand -hex 32 > FILE)`"
        )
    try:
        settings = msgspec.convert(value, CaptureSettings)
        check_capture(settings, _WHERE)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{_WHERE}: {error}") from error
    except PolicyError as error:
        raise SettingsError(str(error)) from error
    if not is_tenant_name(settings.tenant):
        raise SettingsError(
            f"{TENANT} is {settings.tenant[:80]!r}: give {NAMES}; left out, it is {DEFAULT_TENANT!r}"
        )
    if settings.subjects != "off" and settings.subject_secret_file is None:
        raise SettingsError(
            f"{SUBJECT_SECRET_FILE} is missing, and {_WHERE}.subjects is {settings.subjects!r}: name a "
            "file with the secret that subject keys are made with, which must stay the same as long as "
            "anything that is stored; make it with `(umask 077; openssl rand -hex 32 > FILE)`"
        )
    path = settings.socket.removeprefix("ipc://")
    most = MAX_IPC_PATH_BYTES - len(SUFFIX)
    if len(path.encode()) > most:
        raise SettingsError(
            f"{_WHERE}.socket: the path is longer than {most} bytes, the limit of Unix sockets "
            f"less the {SUFFIX!r} of the one beside it; choose a shorter one"
        )
    return settings
