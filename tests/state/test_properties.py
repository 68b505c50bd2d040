"""For any operations in any order, memory and SQLite behave like a plain dict."""

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

keys = st.sampled_from(["kind:a", "kind:b", "kind:c"])
values = st.binary(max_size=20)
ttls = st.none() | st.integers(min_value=1, max_value=20).map(float)
operations: st.SearchStrategy[Operation] = st.one_of(
    st.builds(Get, keys), st.builds(Take, keys), st.builds(Put, keys, values, ttls), st.builds(Add, keys, values, ttls)
)


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
        self.sqlite = self.opened()

    def opened(self) -> SqliteStore:
        return SqliteStore(Path(self.folder.name) / "state.db", max_entries=100, clock=lambda: self.model.now)

    async def ask(self, runs: Sequence[Sequence[Operation]]) -> None:
        expected = [[self.model.run(operation) for operation in run] for run in runs]
        assert [await self.memory.run(*run) for run in runs] == expected
        assert await asyncio.gather(*(self.sqlite.run(*run) for run in runs)) == expected

    @rule(runs=st.lists(st.lists(operations, max_size=5), min_size=1, max_size=4))
    def run(self, runs: list[list[Operation]]) -> None:
        self.loop.run(self.ask(runs))

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
        self.sqlite = self.opened()

    def teardown(self) -> None:
        self.loop.run(self.sqlite.close())
        self.loop.close()
        self.folder.cleanup()


TestStores = Stores.TestCase
TestStores.settings = settings(max_examples=40, stateful_step_count=25, deadline=None, derandomize=True, database=None)
