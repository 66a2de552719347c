"""Which connections a pool hands out, and that they are warm by then."""

from contextlib import ExitStack

from sqlalchemy import Engine, text

from service.store.engine import create_engine
from service.watch.pool_warmer import PoolWarmer


def backends(engine: Engine, count: int) -> list[int]:
    """Return the processes of so many connections at once, in the order in which they are handed out."""
    with ExitStack() as held:
        connections = [held.enter_context(engine.connect()) for _ in range(count)]
        return [one.execute(text("SELECT pg_backend_pid()")).scalar_one() for one in connections]


def test_the_connection_that_was_used_last_is_used_again(engine: Engine) -> None:
    first, *_ = backends(engine, 3)  # which is given back last

    assert [backends(engine, 1) for _ in range(3)] == [[first]] * 3


def test_connections_are_warmed_once_each_and_again_when_they_are_opened_anew(reader_url: str) -> None:
    engine = create_engine(reader_url, pool_size=6)
    warmer = PoolWarmer(engine)

    assert [warmer.warm(), warmer.warm()] == [2, 0]
    backends(engine, 4)
    assert [warmer.warm(), warmer.warm()] == [1, 0]  # no more than half of the pool is held
    engine.dispose()
    assert [warmer.warm(), warmer.warm()] == [2, 0]

    engine.dispose()


def test_nothing_is_warmed_while_half_of_the_pool_is_in_use(reader_url: str) -> None:
    engine = create_engine(reader_url, pool_size=4)
    warmer = PoolWarmer(engine)

    with engine.connect(), engine.connect():
        assert warmer.warm() == 0
    assert warmer.warm() == 2

    engine.dispose()


def test_a_database_that_is_away_fails_nothing_but_the_warming() -> None:
    engine = create_engine("postgresql://nobody@127.0.0.1:1/none", pool_size=4)

    assert PoolWarmer(engine).warm() == 0

    engine.dispose()
