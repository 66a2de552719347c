import threading
from concurrent.futures import ThreadPoolExecutor

from service.store.remembered import Remembered


def test_a_value_is_found_once_in_its_time_and_again_after_it() -> None:
    now, found = [100.0], iter(range(10))
    value = Remembered(lambda: next(found), 1.0, lambda: now[0])

    assert [value.get(), value.get()] == [0, 0]
    now[0] += 0.9
    assert value.get() == 0
    now[0] += 0.1
    assert value.get() == 1


def test_who_asks_during_a_look_waits_for_it_and_starts_no_other() -> None:
    may_end, looks = threading.Event(), []

    def look() -> str:
        looks.append(1)
        may_end.wait(10)
        return "found"

    value = Remembered(look, 60.0)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(value.get) for _ in range(8)]
        may_end.set()
        assert {one.result(10) for one in asked} == {"found"}

    assert len(looks) == 1
