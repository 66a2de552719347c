"""Whose data a sampled request is: what its gateway says, as a subject key.

Read once for each sampled request, and never in a step. Bad values are counted, never errors.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple

from subtext_sidecar.contract import subject
from subtext_sidecar.contract.counters import PluginCounter
from subtext_sidecar.contract.subject import SubjectSecret

Subjects = Literal["off", "asserted", "proved"]
"""Who may name a data subject: nobody, whoever writes the request, or who proves that he has the secret."""

_NAMED: Final = PluginCounter.REQUESTS_OF_SUBJECT
_MISSING: Final = PluginCounter.SUBJECT_MISSING
_IGNORED: Final = PluginCounter.IGNORED_SUBJECT
_NOT_HONOURED: Final = PluginCounter.SUBJECT_NOT_HONOURED


class Said(NamedTuple):
    """Whose data a request is, and what to count about it."""

    key: str | None  # None: nobody was named, or not so that it counts
    counter: PluginCounter | None


NOBODY: Final = Said(None, None)


def nobody_named(extra_args: Mapping[str, Any] | None) -> Said:
    """Return that the request names nobody, where no subjects are kept."""
    return Said(None, _NOT_HONOURED) if extra_args and subject.ARGUMENT in extra_args else NOBODY


class SubjectReader:
    """Reads whom a request names, where subjects are kept."""

    def __init__(
        self,
        secret: SubjectSecret,
        *,
        is_proof_needed: bool,
        unix_time: Callable[[], float] = time.time,
    ) -> None:
        """``secret`` is the tenant's. Without need for a proof, one counts as well."""
        self._secret = secret
        self._is_proof_needed = is_proof_needed
        self._unix_time = unix_time

    def read(self, extra_args: Mapping[str, Any] | None) -> Said:
        """Return whom the request's arguments name; no id of a person is kept."""
        said = extra_args.get(subject.ARGUMENT) if extra_args else None
        if said is None:
            return Said(None, _MISSING)
        key = self._key_of(said) if isinstance(said, str) else None
        return Said(None, _IGNORED) if key is None else Said(key, _NAMED)

    def _key_of(self, said: str) -> str | None:
        # A proof that does not hold is no subject id either: he would get a second key by it.
        if self._is_proof_needed or subject.looks_proved(said):
            return subject.read_proof(self._secret, said, self._unix_time())
        try:
            return subject.subject_key(self._secret, said)
        except ValueError:
            return None
