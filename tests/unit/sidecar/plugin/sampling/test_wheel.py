from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from subtext_sidecar.plugin.sampling.wheel import Wheel


@dataclass(eq=False)
class Item:
    wanted: int
    due: int = 0


def test_what_is_due_later_than_the_step_can_reach_needs_no_look() -> None:
    wheel: Wheel[Item] = Wheel()
    item = Item(3)
    wheel.put(item, 3)

    assert wheel.turn(2) == []
    assert wheel.turn(1) == []
    assert wheel.turn(1) == [item]
    assert wheel.turn(1000) == []


def test_a_removed_item_is_not_due() -> None:
    wheel: Wheel[Item] = Wheel()
    kept, removed = Item(0), Item(0)
    wheel.put(kept, 0)
    wheel.put(removed, 0)

    wheel.remove(removed)
    assert wheel.turn(1) == [kept]
    wheel.put(kept, 1)
    wheel.remove(kept)

    assert wheel.turn(10) == []


@given(dues=st.lists(st.integers(0, 60), max_size=30), steps=st.lists(st.integers(1, 9), max_size=30))
def test_every_item_comes_out_once_in_the_first_step_that_reaches_it(
    dues: list[int], steps: list[int]
) -> None:
    wheel: Wheel[Item] = Wheel()
    for due in dues:
        wheel.put(Item(due), due)

    now, came = 0, []
    for tokens in steps:
        due_now = wheel.turn(tokens)
        assert all(now <= item.wanted < now + tokens for item in due_now)
        came += due_now
        now += tokens
        assert wheel.now == now

    assert sorted(item.wanted for item in came) == sorted(due for due in dues if due < now)
