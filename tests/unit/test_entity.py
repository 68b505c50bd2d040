"""The base of structs with an identity."""

from __future__ import annotations

from openai_dify_proxy.entity import Entity


class Held(Entity):
    key: str
    count: int = 0

    def fail(self) -> None:
        raise NotImplementedError


def test_an_entity_equals_only_itself() -> None:
    one, other = Held("app-secret"), Held("app-secret")
    assert one != other
    assert {one: 1, other: 2}[one] == 1
    one.count = 5
    assert one == one  # noqa: PLR0124 - its fields do not count


def test_the_repr_shows_no_field() -> None:
    assert "secret" not in repr(Held("app-secret"))
    assert "secret" not in repr(Held("app-secret").fail)
