"""Several processes serve the turns of one conversation: replicas over a Valkey, and workers over an SQLite file."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import APIConnectionError, AsyncOpenAI

from openai_dify_proxy_demo import DemoLog, DemoServer
from tests.components.replicas import APP, Chat, Cluster, client_of, cluster, crossed, missed, runs_of, serving

CHATS = 61
"""Odd: with an even number, chats in lockstep would reach the same replica each time."""
CUT_CHATS = 16


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoServer]:
    with DemoServer() as running:
        yield running


@pytest.fixture
def log(demo: DemoServer) -> DemoLog:
    demo.log.clear()
    return demo.log


@pytest.fixture(scope="module")
def shared(demo: DemoServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Start replicas that no test stops."""
    with cluster(tmp_path_factory.mktemp("cluster"), demo) as running:
        yield running


async def together(chats: list[Chat], client: AsyncOpenAI, turns: int) -> None:
    async with asyncio.TaskGroup() as group:
        for chat in chats:
            group.create_task(chat.turns(client, turns))


async def test_any_replica_continues_any_conversation(shared: Cluster, log: DemoLog) -> None:
    chats = [Chat(number) for number in range(CHATS)]
    async with client_of(shared.url) as client:
        await together(chats, client, 5)
    assert not missed(log, chats)
    assert not crossed(log)
    assert len({run.conversation_id for run in log.runs}) == CHATS
    moved = [chat for chat in chats if set(chat.replicas) == {replica.address for replica in shared.replicas}]
    assert len(moved) > CHATS / 2


async def test_workers_share_an_sqlite_file(demo: DemoServer, log: DemoLog, tmp_path: Path) -> None:
    chats = [Chat(number) for number in range(CHATS // 2)]
    with serving(tmp_path, demo, 4) as replica:
        async with client_of(replica.url) as client:
            await together(chats, client, 3)
        files = [[file.path for file in worker.open_files()] for worker in replica.workers]
    assert not missed(log, chats)
    assert not crossed(log)
    users = [paths for paths in files if any(path.endswith("/state.db") for path in paths)]
    assert len(users) > 1, "a single worker served all chats"


async def test_any_replica_continues_from_a_response(shared: Cluster, log: DemoLog) -> None:
    async def chain(here: AsyncOpenAI, there: AsyncOpenAI, marker: str) -> None:
        previous = None
        for turn in range(3):
            response = await here.responses.create(
                model=APP, input=f"{marker} question {turn}", previous_response_id=previous
            )
            previous = response.id
            again = await there.responses.retrieve(response.id)
            assert again.output_text == response.output_text
            here, there = there, here

    markers = [Chat(number).marker for number in range(10)]
    one, other = shared.replicas
    async with client_of(one.url) as here, client_of(other.url) as there, asyncio.TaskGroup() as group:
        for marker in markers:
            group.create_task(chain(here, there, marker))
    check_chains(log, markers)


async def test_any_replica_continues_a_conversation_object(shared: Cluster, log: DemoLog) -> None:
    async def chain(here: AsyncOpenAI, there: AsyncOpenAI, marker: str) -> None:
        conversation = await there.conversations.create()
        texts = []
        for turn in range(3):
            question = f"{marker} question {turn}"
            response = await here.responses.create(model=APP, input=question, conversation=conversation.id)
            texts += [question, response.output_text]
            here, there = there, here
        items = await here.conversations.items.list(conversation.id, order="asc")
        assert [item.content[0].text for item in items.data if item.type == "message"] == texts  # type: ignore[union-attr]

    markers = [Chat(number).marker for number in range(10)]
    one, other = shared.replicas
    async with client_of(one.url) as here, client_of(other.url) as there, asyncio.TaskGroup() as group:
        for marker in markers:
            group.create_task(chain(here, there, marker))
    check_chains(log, markers)


def check_chains(log: DemoLog, markers: list[str]) -> None:
    """Check that each chain is one conversation whose model saw only the chain's own questions and answers."""
    for marker in markers:
        runs = runs_of(log, marker)
        assert [run.question for run in runs] == [f"{marker} question {turn}" for turn in range(3)]
        assert len({run.conversation_id for run in runs}) == 1
        assert [len(run.history) for run in runs] == [0, 2, 4]
        assert all(marker in text for run in runs for _, text in run.history)


class CutChat(Chat):
    """A chat whose second turn is running when a replica dies."""

    cut = False
    replica = ""

    @property
    def slow_question(self) -> str:
        return f"{self.question} SLOW:1x3000 SAY<<{self.marker} one two three four five>>"

    async def turns_around_a_death(self, client: AsyncOpenAI, barrier: asyncio.Barrier) -> None:
        await self.turn(client)
        await self.slow_turn(client, barrier)
        await self.turns(client, 4 - len(self.messages) // 2)

    async def slow_turn(self, client: AsyncOpenAI, barrier: asyncio.Barrier) -> None:
        """Run a slow turn; after its first text, wait until all other chats have reached the same point."""
        messages = [*self.messages, {"role": "user", "content": self.slow_question}]
        raw = await client.chat.completions.with_raw_response.create(model=APP, messages=messages, stream=True)
        self.replica = raw.headers["x-replica"]
        text = ""
        try:
            async for chunk in raw.parse():
                first = not text
                text += chunk.choices[0].delta.content or ""
                if first and text:
                    await barrier.wait()
        except APIConnectionError:
            self.cut = True
        else:
            self.messages = [*messages, {"role": "assistant", "content": text}]


async def test_turns_cut_by_a_dying_replica_continue_in_new_conversations(
    demo: DemoServer, log: DemoLog, tmp_path: Path
) -> None:
    chats = [CutChat(number) for number in range(CUT_CHATS)]
    with cluster(tmp_path, demo) as running:
        barrier = asyncio.Barrier(CUT_CHATS + 1)
        async with client_of(running.url) as client, asyncio.TaskGroup() as group:
            for chat in chats:
                group.create_task(chat.turns_around_a_death(client, barrier))
            await barrier.wait()
            running.replicas[0].kill()
    dead = running.replicas[0].address
    assert {chat.replica for chat in chats} == {replica.address for replica in running.replicas}
    assert all(chat.cut == (chat.replica == dead) for chat in chats)
    for chat in chats:
        assert len(chat.messages) == 8
        if chat.cut:
            check_forked(log, chat)
    assert not crossed(log)
    assert {chat.marker for chat in missed(log, chats)} == {chat.marker for chat in chats if chat.cut}


def check_forked(log: DemoLog, chat: CutChat) -> None:
    """Check that the cut question is repeated in a new conversation that includes the history and then continues."""
    first, cut, again, *others = runs_of(log, chat.marker)
    assert cut.question.startswith(f"{chat.marker} question 2 SLOW")
    assert cut.conversation_id == first.conversation_id != again.conversation_id
    assert not again.history
    for _, text in chat.texts[:3]:
        assert text in again.question
    assert [run.question for run in others] == [f"{chat.marker} question {turn}" for turn in (3, 4)]
    assert {run.conversation_id for run in others} == {again.conversation_id}
    assert [text for _, text in others[1].history] == [again.question, *(text for _, text in chat.texts[3:6])]
