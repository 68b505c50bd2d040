"""For any operations in any order, memory and SQLite behave like a plain dict.

So does SQLite in a process that has the file for itself, at times, and shares it with another store at other times.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from openai_dify_proxy.state import Add, Get, Operation, Put, Take
from openai_dify_proxy.state.memory import MemoryStore
from openai_dify_proxy.state.sqlite import SqliteStore
from tests.limits import PATIENCE

keys = st.sampled_from(["kind:a", "kind:b", "kind:c"])
values = st.binary(max_size=20)
ttls = st.none() | st.integers(min_value=1, max_value=20).map(float)
operations: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Get, keys),
    st.builds(Take, keys),
    st.builds(Put, keys, values, ttls, deferred=st.booleans()),
    st.builds(Add, keys, values, ttls, deferred=st.booleans()),
)
many = st.lists(operations, max_size=5)


async def until_alone(store: SqliteStore) -> None:
    await store.run(Get("kind:present"))
    while store.run_now(Get("kind:absent")) is None:  # noqa: ASYNC110 - the thread reads the file meanwhile
        await asyncio.sleep(0.001)


class Model:
    """A model of the documented operations, with a dict."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._values: dict[str, bytes] = {}
        self._ends: dict[str, float] = {}

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        for key in [key for key, end in self._ends.items() if end <= self.now]:
            del self._values[key], self._ends[key]

    def run(self, operation: Operation) -> bytes | None:
        before = self._values.get(operation.key)
        if isinstance(operation, Put | Add):
            if isinstance(operation, Put) or before is None:
                self._values[operation.key] = operation.value
                self._ends.pop(operation.key, None)
                if operation.ttl is not None:
                    self._ends[operation.key] = self.now + operation.ttl
        elif isinstance(operation, Take):
            self._values.pop(operation.key, None)
            self._ends.pop(operation.key, None)
        return before


class Stores(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.loop = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.memory = MemoryStore(max_entries=100, clock=lambda: self.model.now)
        self.sqlite = self.opened("state.db")
        self.exclusive = self.opened("exclusive.db", exclusive=True)
        self.visitor: SqliteStore | None = None

    def opened(self, name: str, *, exclusive: bool = False) -> SqliteStore:
        path = Path(self.folder.name) / name
        return SqliteStore(path, max_entries=100, timeout=PATIENCE, clock=lambda: self.model.now, exclusive=exclusive)

    async def ask(self, runs: Sequence[Sequence[Operation]], exclusive: SqliteStore) -> None:
        expected = [[self.model.run(operation) for operation in run] for run in runs]
        assert [await self.memory.run(*run) for run in runs] == expected
        assert await asyncio.gather(*(self.sqlite.run(*run) for run in runs)) == expected
        for run, results in zip(runs, expected, strict=True):  # those from memory would overtake others
            assert await exclusive.run(*run) == results

    @rule(runs=st.lists(many, min_size=1, max_size=4))
    def run(self, runs: list[list[Operation]]) -> None:
        self.loop.run(self.ask(runs, self.exclusive))

    @rule(runs=st.lists(many, min_size=1, max_size=4))
    def run_from_memory(self, runs: list[list[Operation]]) -> None:
        """Do the same with a store that has the file for itself, and knows its keys."""
        if self.visitor is None:
            self.loop.run(until_alone(self.exclusive))
            self.loop.run(self.ask(runs, self.exclusive))

    @rule(run=many)
    def visit(self, run: list[Operation]) -> None:
        """Let another store use the file from now on, if none does."""
        if self.visitor is None:
            self.visitor = self.opened("exclusive.db")
        self.loop.run(self.ask([run], self.visitor))

    @rule()
    def leave(self) -> None:
        """Close the other store."""
        if self.visitor is not None:
            self.loop.run(self.visitor.close())
            self.visitor = None

    @rule(seconds=st.integers(min_value=1, max_value=10))
    def pass_time(self, seconds: int) -> None:
        self.model.pass_time(seconds)

    @rule()
    def tidy(self) -> None:
        """Let enough time pass for SQLite to remove expired entries in the next step."""
        self.model.pass_time(3600)

    @rule()
    def restart(self) -> None:
        self.loop.run(self.sqlite.close())
        self.sqlite = self.opened("state.db")

    @rule()
    def restart_exclusive(self) -> None:
        self.loop.run(self.exclusive.close())
        self.exclusive = self.opened("exclusive.db", exclusive=True)

    def teardown(self) -> None:
        self.leave()
        self.loop.run(self.exclusive.close())
        self.loop.run(self.sqlite.close())
        self.loop.close()
        self.folder.cleanup()


TestStores = Stores.TestCase
TestStores.settings = settings(max_examples=40, stateful_step_count=25, deadline=None, derandomize=True, database=None)
