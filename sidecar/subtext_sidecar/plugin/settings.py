"""The plugin's configuration: the value of the ``subtext`` key of vLLM's ``--additional-config``."""

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from subtext_sidecar.plugin.sampling import Policy

FaultPoint = Literal["load_model", "execute_model", "sample_tokens"]

_MAX_IPC_PATH_BYTES: Final = 107  # sun_path of a Unix socket


class SettingsError(ValueError):
    """The configuration cannot be used; the message names the field and the fix."""


class CaptureSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to capture, how much of it, and where to hand it over."""

    layer: Annotated[int, Meta(ge=0)]  # K: the output of block K
    socket: Annotated[str, Meta(pattern="^ipc://.")]  # the sidecar binds it, the plugin connects
    model: str = ""  # name on the records; empty: the served model name
    request_rate: Annotated[float, Meta(ge=0.0, le=1.0)] = 1.0
    decode_stride: Annotated[int, Meta(ge=1, le=1_000_000)] = 8  # tokens from one window to the next
    window: Annotated[int, Meta(ge=1, le=1024)] = 2  # adjacent decode positions in one window
    prompt_window: Annotated[int, Meta(ge=0, le=1024)] = 2  # last positions of the prompt
    skip_first: Annotated[int, Meta(ge=0)] = 10  # positions never taken: their norms dwarf the others
    max_rows_per_request: Annotated[int, Meta(ge=1, le=1_000_000)] = 64
    seed: Annotated[int, Meta(ge=0)] = 0
    queue_rows: Annotated[int, Meta(ge=1, le=1_000_000)] = 4096  # rows waiting for the sender thread
    metrics_port: Annotated[int, Meta(ge=0, le=65_535)] = 0  # 127.0.0.1; 0: none
    fault: FaultPoint | None = None  # for tests: raise inside that hook, at its first real use

    def policy(self) -> Policy:
        """Return the part that decides which rows are taken."""
        return Policy(
            request_rate=self.request_rate,
            decode_stride=self.decode_stride,
            window=self.window,
            prompt_window=self.prompt_window,
            skip_first=self.skip_first,
            max_rows_per_request=self.max_rows_per_request,
            seed=self.seed,
        )


def parse_settings(value: Any) -> CaptureSettings:
    """Return the settings, or raise SettingsError that names the field."""
    try:
        settings = msgspec.convert(value, CaptureSettings)
    except msgspec.ValidationError as error:
        raise SettingsError(f"additional_config.subtext: {error}") from error
    if settings.window > settings.decode_stride:
        raise SettingsError(
            f"additional_config.subtext.window is {settings.window}: "
            f"it must be at most decode_stride ({settings.decode_stride})"
        )
    if settings.prompt_window > settings.max_rows_per_request:
        raise SettingsError(
            f"additional_config.subtext.prompt_window is {settings.prompt_window}: "
            f"it must be at most max_rows_per_request ({settings.max_rows_per_request})"
        )
    path = settings.socket.removeprefix("ipc://")
    if len(path.encode()) > _MAX_IPC_PATH_BYTES:
        raise SettingsError(
            f"additional_config.subtext.socket: the path is longer than {_MAX_IPC_PATH_BYTES} bytes, "
            "the limit of Unix sockets; choose a shorter one"
        )
    return settings
