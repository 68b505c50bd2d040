"""The order of waiting turns."""

from __future__ import annotations

import pytest

from openai_dify_proxy.turns.admission.fair_queue import FairQueue, Line


def queue_of(*names: str) -> FairQueue[str]:
    """Return a queue with items named ``caller/end user/number``.

    A leading ``-`` marks background items; an ``!`` for each step of priority ends a caller's name.
    """
    queue: FairQueue[str] = FairQueue()
    for name in names:
        push(queue, name)
    return queue


def push(queue: FairQueue[str], name: str, *, first: bool = False) -> None:
    caller, user, _ = name.lstrip("-").split("/")
    priority = caller.count("!") - caller.count("?")
    queue.push(name, Line(caller, user or None, name.startswith("-"), priority), first=first)


def emptied(queue: FairQueue[str]) -> list[str]:
    return [queue.pop() for _ in range(len(queue))]


ORDERS = {
    "one end user: in order": (["a/x/1", "a/x/2", "a/x/3"], ["a/x/1", "a/x/2", "a/x/3"]),
    "callers in turn": (["a/x/1", "a/x/2", "a/x/3", "b/x/1", "b/x/2"], ["a/x/1", "b/x/1", "a/x/2", "b/x/2", "a/x/3"]),
    "end users of a caller in turn": (
        ["a/x/1", "a/x/2", "a/y/1", "a//1", "b/z/1", "b/z/2"],
        ["a/x/1", "b/z/1", "a/y/1", "b/z/2", "a//1", "a/x/2"],
    ),
    "the same name of end users of two callers": (["a/x/1", "a/x/2", "b/x/1"], ["a/x/1", "b/x/1", "a/x/2"]),
    "interactive first": (["-a/x/1", "-a/x/2", "b/x/1", "b/x/2"], ["b/x/1", "b/x/2", "-a/x/1", "-a/x/2"]),
    "one in four in the background": (
        ["-a/x/1", "-a/x/2", "b/x/1", "b/x/2", "b/x/3", "b/x/4", "b/x/5"],
        ["b/x/1", "b/x/2", "b/x/3", "-a/x/1", "b/x/4", "b/x/5", "-a/x/2"],
    ),
    "higher priority first": (
        ["a/x/1", "b!/x/1", "c?/x/1", "d!/x/1"],
        ["b!/x/1", "d!/x/1", "a/x/1", "c?/x/1"],
    ),
    "interactive before background of any priority": (["-a!/x/1", "b?/x/1"], ["b?/x/1", "-a!/x/1"]),
    "one in four of a lower priority": (
        ["a/x/1", "a/x/2", "b!/x/1", "b!/x/2", "b!/x/3", "b!/x/4"],
        ["b!/x/1", "b!/x/2", "b!/x/3", "a/x/1", "b!/x/4", "a/x/2"],
    ),
    "none of three priorities starves": (
        ["c?/x/1", "a/x/1", "a/x/2", *(f"b!/x/{number}" for number in range(9))],
        [
            *(f"b!/x/{number}" for number in range(3)),
            "a/x/1",
            "c?/x/1",
            *(f"b!/x/{number}" for number in range(3, 6)),
            "a/x/2",
            *(f"b!/x/{number}" for number in range(6, 9)),
        ],
    ),
    "only background": (["-a/x/1", "-b/x/1"], ["-a/x/1", "-b/x/1"]),
}


@pytest.mark.parametrize(("pushed", "popped"), ORDERS.values(), ids=ORDERS)
def test_order(pushed: list[str], popped: list[str]) -> None:
    queue = queue_of(*pushed)
    assert {name: queue.position(name) for name in pushed} == {name: number for number, name in enumerate(popped, 1)}
    assert list(queue) == pushed
    assert emptied(queue) == popped
    assert not queue


def test_one_of_another_caller_waits_for_one_turn_at_most() -> None:
    """Twenty clients of one caller wait when the one of another comes, after any number of served turns."""
    for served in range(10):
        queue = queue_of(*(f"a/user {number}/1" for number in range(30)))
        for _ in range(served):
            queue.pop()
        push(queue, "b/x/1")
        assert queue.position("b/x/1") <= 2


def test_positions_after_pops_and_removals() -> None:
    queue = queue_of("a/x/1", "a/x/2", "b/y/1", "-c/z/1")
    assert queue.pop() == "a/x/1"
    queue.remove("b/y/1")
    queue.remove("b/y/1")  # twice has no effect
    assert queue.position("a/x/2") == 1
    assert queue.position("-c/z/1") == 2
    assert emptied(queue) == ["a/x/2", "-c/z/1"]


def test_first_of_its_end_user() -> None:
    queue = queue_of("a/x/1", "b/y/1", "a/x/2")
    push(queue, "a/x/0", first=True)
    assert emptied(queue) == ["a/x/0", "b/y/1", "a/x/1", "a/x/2"]


def test_empty() -> None:
    with pytest.raises(IndexError):
        queue_of().pop()


@pytest.mark.parametrize(
    ("waiting", "caller", "place"),
    [
        ({}, "a", True),
        ({"a": 3}, "a", True),
        ({"a": 4}, "a", False),
        ({"a": 4}, "b", True),
        ({"a": 4, "b": 1}, "b", True),
        ({"a": 4, "b": 2}, "b", False),  # half of the places
        ({"a": 4, "b": 2}, "c", True),
        ({"a": 4, "b": 2, "c": 1}, "c", True),
        ({"a": 2, "b": 1, "c": 1}, "d", True),
        ({"a": 4, "b": 2, "c": 2}, "d", False),  # twice the places
    ],
)
def test_places_in_a_queue_of_four(waiting: dict[str, int], caller: str, place: bool) -> None:
    kinds = ("", "-")  # interactive and background items count alike
    names = [f"{kinds[n % 2]}{name}/x/{n}" for name, count in waiting.items() for n in range(count)]
    queue = queue_of(*names)
    assert queue.has_place(caller, 4) is place


def test_removed_items_leave_their_places() -> None:
    queue = queue_of("a/x/1", "a/x/2", "b/x/1", "b/x/2")
    queue.remove("a/x/1")
    assert queue.has_place("b", 4)
    push(queue, "b/x/3")
    assert not queue.has_place("b", 4)
    assert queue.has_place("a", 4)
    assert [queue.pop(), queue.pop()] == ["a/x/2", "b/x/1"]
    push(queue, "c/x/1")
    push(queue, "c/x/2")
    assert not queue.has_place("b", 4)  # two of four, and two callers
    assert queue.has_place("a", 4)
