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
"""An odd number: of an even one, in step, each would meet the same replica every time."""
CUT_CHATS = 30


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
    """Replicas that no test stops."""
    with cluster(tmp_path_factory.mktemp("cluster"), demo) as running:
        yield running


async def together(chats: list[Chat], client: AsyncOpenAI, turns: int) -> None:
    async with asyncio.TaskGroup() as group:
        for chat in chats:
            group.create_task(chat.turns(client, turns))


async def test_any_replica_goes_on_with_any_conversation(shared: Cluster, log: DemoLog) -> None:
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
    asked = [paths for paths in files if any(path.endswith("/state.db") for path in paths)]
    assert len(asked) > 1, "one worker did it all"


async def test_a_response_is_gone_on_from_on_any_replica(shared: Cluster, log: DemoLog) -> None:
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


async def test_a_conversation_object_is_gone_on_with_on_any_replica(shared: Cluster, log: DemoLog) -> None:
    async def chain(here: AsyncOpenAI, there: AsyncOpenAI, marker: str) -> None:
        conversation = await there.conversations.create()
        said = []
        for turn in range(3):
            question = f"{marker} question {turn}"
            response = await here.responses.create(model=APP, input=question, conversation=conversation.id)
            said += [question, response.output_text]
            here, there = there, here
        items = await here.conversations.items.list(conversation.id, order="asc")
        assert [item.content[0].text for item in items.data if item.type == "message"] == said  # type: ignore[union-attr]

    markers = [Chat(number).marker for number in range(10)]
    one, other = shared.replicas
    async with client_of(one.url) as here, client_of(other.url) as there, asyncio.TaskGroup() as group:
        for marker in markers:
            group.create_task(chain(here, there, marker))
    check_chains(log, markers)


def check_chains(log: DemoLog, markers: list[str]) -> None:
    """Each was one conversation, and its model was shown nothing but its own questions and answers."""
    for marker in markers:
        runs = runs_of(log, marker)
        assert [run.question for run in runs] == [f"{marker} question {turn}" for turn in range(3)]
        assert len({run.conversation_id for run in runs}) == 1
        assert [len(run.history) for run in runs] == [0, 2, 4]
        assert all(marker in text for run in runs for _, text in run.history)


class CutChat(Chat):
    """One whose second turn is under way when a replica dies."""

    cut = False
    replica = ""

    @property
    def slow_question(self) -> str:
        return f"{self.question} SLOW:1x1500 SAY<<{self.marker} one two three four five>>"

    async def turns_around_a_death(self, client: AsyncOpenAI, everybody: asyncio.Barrier) -> None:
        await self.turn(client)
        await self.slow_turn(client, everybody)
        await self.turns(client, 4 - len(self.messages) // 2)

    async def slow_turn(self, client: AsyncOpenAI, everybody: asyncio.Barrier) -> None:
        """Waits after its first words for all others to be as far."""
        asked = [*self.messages, {"role": "user", "content": self.slow_question}]
        raw = await client.chat.completions.with_raw_response.create(model=APP, messages=asked, stream=True)
        self.replica = raw.headers["x-replica"]
        text = ""
        try:
            async for chunk in raw.parse():
                first = not text
                text += chunk.choices[0].delta.content or ""
                if first and text:
                    await everybody.wait()
        except APIConnectionError:
            self.cut = True
        else:
            self.messages = [*asked, {"role": "assistant", "content": text}]


async def test_what_a_dying_replica_cuts_goes_on_in_new_conversations(
    demo: DemoServer, log: DemoLog, tmp_path: Path
) -> None:
    chats = [CutChat(number) for number in range(CUT_CHATS)]
    with cluster(tmp_path, demo) as running:
        everybody = asyncio.Barrier(CUT_CHATS + 1)
        async with client_of(running.url) as client, asyncio.TaskGroup() as group:
            for chat in chats:
                group.create_task(chat.turns_around_a_death(client, everybody))
            await everybody.wait()
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
    """What was cut is asked again in a new conversation, which is told what was answered before, and goes on there."""
    first, cut, again, *others = runs_of(log, chat.marker)
    assert cut.question.startswith(f"{chat.marker} question 2 SLOW")
    assert cut.conversation_id == first.conversation_id != again.conversation_id
    assert not again.history
    for _, text in chat.said[:3]:
        assert text in again.question
    assert [run.question for run in others] == [f"{chat.marker} question {turn}" for turn in (3, 4)]
    assert {run.conversation_id for run in others} == {again.conversation_id}
    assert [text for _, text in others[1].history] == [again.question, *(text for _, text in chat.said[3:6])]
