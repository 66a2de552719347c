"""The benchmark's command line refuses what it cannot run, before anything starts."""

import pytest

from bench.arms import AGAIN, CAPTURED, VANILLA
from bench.capture import main
from bench.servers import MemoryShortageError, check_memory

GIB = 1 << 30


@pytest.mark.parametrize("argv", [["--arms", "idel"], ["--rounds", "0"], ["--seconds", "0"]])
def test_options_that_make_no_sense_are_refused(argv: list[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(argv)


def test_too_little_memory_is_told_before_any_server_starts() -> None:
    check_memory([VANILLA, AGAIN, CAPTURED], 12 * GIB)
    with pytest.raises(MemoryShortageError, match=r"3 servers at once .* 10\.0 GiB are free"):
        check_memory([VANILLA, AGAIN, CAPTURED], 10 * GIB)
