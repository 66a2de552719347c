"""A store at fault is not taken for a tenant at fault."""

from typing import Any

import pytest

from service.store.engine import UnusableDatabaseError
from service.store.write.decoders import NewDecoder
from workers.consumer.targets import Targets

DECODER = NewDecoder(
    model="m",
    d_model=8,
    name="n",
    digest="ab",
    layer=1,
    fve_baseline=0.0,
    shuffled_fve_p95=0.0,
    calibration_n=0,
    card={},
)


def test_a_database_that_can_never_be_used_is_told_as_it_is() -> None:
    def unusable() -> Any:
        raise UnusableDatabaseError("the encoding is SQL_ASCII")

    sessions: Any = unusable
    targets = Targets(sessions, DECODER, [], source="worker-1")

    with pytest.raises(UnusableDatabaseError):
        targets.of("acme")
